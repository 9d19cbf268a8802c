package centre_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// How many records a second one centre takes in on SQLite, with chain and
// signature checked, a durable commit and a signed receipt for each batch?
func BenchmarkIngest(b *testing.B) {
	for _, size := range []int{1, 32, 128} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			c, _, _ := newCentre(b)
			t := admitted(b, c, "t-1")
			n := 0
			for b.Loop() {
				b.StopTimer()
				batch := t.batch(b, t.append(b, checkins(size)...))
				b.StartTimer()
				_, err := c.Ingest(b.Context(), "t-1", batch)
				require.NoError(b, err)
				n += size
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

package reader_test

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

// soak is set by `make soak`: such tests run for minutes, or measure what a busy
// machine spoils.
var soak = flag.Bool("soak", false, "run the soak tests in full")

// TestSoakInsertions presents cards of every kind, good and bad, and wants
// goroutines, descriptors and memory flat. In full it is 10,000 insertions; the
// short form keeps it alive in between.
func TestSoakInsertions(t *testing.T) {
	insertions := 500
	if *soak {
		insertions = 10_000
	}
	psam := newPSAM(t, simulator.NewPSAM())
	present := func(n int) {
		h := simulator.InventHolder(n)
		h.Spec = []string{"1.00", "2.00", "3.00"}[n%3]
		c := simulator.NewCard(h)
		c.Contactless = n%2 == 0
		if n%4 == 0 {
			simulator.NewPSAM().Issue(c)
		}
		if n%50 == 0 {
			for _, bad := range simulator.BadCards(h) {
				_, _ = reader.NewCard(bad).Read(t.Context(), reader.SocialSecurityCard())
			}
		}
		card := reader.NewCard(c)
		card.PSAM, card.ATR = psam, c.ATR()
		cred, err := card.Read(t.Context(), reader.SocialSecurityCard())
		require.NoError(t, err)
		require.Equal(t, n%4 == 0, cred.Level == attendance.LevelAuthenticated)
	}
	for n := range insertions / 5 { // what grows once may
		present(n)
	}
	before := usage(t)
	for n := range insertions {
		present(n)
	}
	after := usage(t)
	t.Logf("before %+v, after %+v", before, after)
	assert.LessOrEqual(t, after.goroutines, before.goroutines)
	assert.LessOrEqual(t, after.descriptors, before.descriptors)
	if *soak {
		assert.LessOrEqual(t, after.heap, before.heap+1<<20)
		assert.LessOrEqual(t, after.resident, before.resident+8<<20)
	}
}

// used is what a process holds, in pieces and bytes.
type used struct{ goroutines, descriptors, heap, resident int }

func usage(t *testing.T) used {
	t.Helper()
	debug.FreeOSMemory()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	status, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(status))[1])
	require.NoError(t, err)
	return used{runtime.NumGoroutine(), len(files), int(mem.HeapAlloc), pages * os.Getpagesize()}
}

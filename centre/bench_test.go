package centre_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/queue/chain"
)

// How many records a second one centre takes in on SQLite from one terminal,
// with chain and signature checked, a durable commit and a signed receipt for
// each batch?
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

// How many from fifty terminals at once, each with one batch of 32 on its way,
// and how long does each wait for its receipt? On PostgreSQL the control is a
// bare COPY of the same rows into the same table, all in one transaction, on
// the same server right after. b.N counts batches: give -benchtime 3000x.
func BenchmarkFiftyTerminals(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { fiftyTerminals(b, func(*centre.Config) {}) })
	b.Run("postgres", func(b *testing.B) {
		cfg, records, rate := fiftyTerminals(b, onPostgres(b))
		b.ReportMetric(rate/copyRate(b, cfg, records), "of-COPY")
	})
}

const (
	benchTerminals = 50
	benchBatch     = 32
)

func fiftyTerminals(b *testing.B, on func(*centre.Config)) (cfg centre.Config, records int, rate float64) {
	c, cfg, _ := newCentre(b, on)
	batches := make([][][]byte, benchTerminals)
	var boxes []*box
	for i := range batches {
		boxes = append(boxes, admitted(b, c, chain.TerminalID(fmt.Sprintf("t-%d", i))))
	}
	for n := range b.N {
		t := boxes[n%benchTerminals]
		batches[n%benchTerminals] = append(batches[n%benchTerminals], t.batch(b, t.append(b, checkins(benchBatch)...)))
	}
	took := make([][]time.Duration, benchTerminals)
	var terminals sync.WaitGroup
	b.ResetTimer()
	for i, t := range boxes {
		terminals.Go(func() {
			for _, batch := range batches[i] {
				began := time.Now()
				if _, err := c.Ingest(context.Background(), t.id, batch); !assert.NoError(b, err) {
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	terminals.Wait()
	b.StopTimer()
	records = b.N * benchBatch
	require.Equal(b, records, count(b, cfg, "records"))
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	rate = float64(records) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "records/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	return cfg, records, rate
}

// copyRate copies the stored rows into a table like theirs, and gives rows a
// second.
func copyRate(b *testing.B, cfg centre.Config, records int) float64 {
	db := database(b, cfg)
	_, err := db.Exec("CREATE TABLE copied (LIKE records INCLUDING ALL)")
	require.NoError(b, err)
	columns := []string{"terminal", "log", "seq", "hash", "type", "line", "received", "wall", "trainee", "class", "session", "decision"}
	conn, err := db.Conn(b.Context())
	require.NoError(b, err)
	defer conn.Close()
	var rate float64
	require.NoError(b, conn.Raw(func(raw any) error {
		pg := raw.(*stdlib.Conn).Conn()
		rows, err := pg.Query(b.Context(), "SELECT terminal, log, seq, hash, type, line, received, wall, trainee, class, session, decision FROM records ORDER BY id")
		if err != nil {
			return err
		}
		var values [][]any
		for rows.Next() {
			v, err := rows.Values()
			if err != nil {
				return err
			}
			values = append(values, v)
		}
		began := time.Now()
		n, err := pg.CopyFrom(b.Context(), pgx.Identifier{"copied"}, columns, pgx.CopyFromRows(values))
		rate = float64(n) / time.Since(began).Seconds()
		if err == nil && int(n) != records {
			err = fmt.Errorf("%d rows copied of %d", n, records)
		}
		return err
	}))
	return rate
}

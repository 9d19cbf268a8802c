package mqtt_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// BenchmarkDrain asks how fast a day offline goes up once the network is back:
// 10,000 records over loopback TLS, each batch after the receipt of the last,
// receipts on disk.
func BenchmarkDrain(b *testing.B) {
	const records = 10_000
	a := newAuthority(b)
	var spent time.Duration
	drained := 0
	for b.Loop() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		c := serve(b, listener, a.serverTLS(b, a.issue(b, chain.RoleCentre, "centre", nil)), &centre{})
		s := newSite(b, a, func(cfg *mqtt.Config) { cfg.Addresses = []string{listener.Addr().String()} })
		stopLedger := queuetest.Start(b, s.ledger)
		var writers sync.WaitGroup
		for range 100 {
			writers.Go(func() {
				for n := range records / 100 {
					if _, err := s.ledger.Append(context.Background(), queuetest.Record(n)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		writers.Wait()

		began := time.Now()
		stop := s.run()
		for s.ledger.Status().Unsent > 0 {
			changed := s.ledger.Changed()
			if s.ledger.Status().Unsent > 0 {
				<-changed
			}
		}
		spent += time.Since(began)
		drained += records
		stop()
		stopLedger()
		c.stop()
	}
	b.ReportMetric(float64(drained)/spent.Seconds(), "records/s")
}

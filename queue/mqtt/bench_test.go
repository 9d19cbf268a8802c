package mqtt_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
	"rollcall/simulator"
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

// BenchmarkDrainWAN asks what a backlog loses on a long way: records a second
// with one batch in flight, over TLS and a delaying relay, as a part of bare
// batches: as many bytes of the same size sent and answered over the same relay,
// one after the other.
func BenchmarkDrainWAN(b *testing.B) {
	for _, rtt := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond} {
		b.Run("rtt="+rtt.String(), func(b *testing.B) { benchmarkWAN(b, rtt) })
	}
}

func benchmarkWAN(b *testing.B, rtt time.Duration) {
	const batches = 40
	a := newAuthority(b)
	var spent, bare time.Duration
	rounds := 0
	for b.Loop() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		c := serve(b, listener, a.serverTLS(b, a.issue(b, chain.RoleCentre, "centre", nil)), &centre{})
		relayed, unlink := link(b, listener.Addr().String(), func(l *simulator.Link) { l.Delay, l.Exact = rtt/2, true })
		s := newSite(b, a, func(cfg *mqtt.Config) { cfg.Addresses = []string{relayed} })
		stopLedger := queuetest.Start(b, s.ledger)
		s.add(batches*chain.MaxBatchRecords - 1) // and line 1
		first, _, err := s.ledger.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(b, err)

		online := make(chan struct{})
		s.onReport = sync.OnceFunc(func() { close(online) })
		stop := s.run()
		<-online // the handshakes are not the question
		began := time.Now()
		for s.ledger.Status().Unsent > 0 {
			changed := s.ledger.Changed()
			if s.ledger.Status().Unsent > 0 {
				<-changed
			}
		}
		spent += time.Since(began)
		sent, _ := c.seen()
		rounds += len(sent)
		stop()
		stopLedger()
		c.stop()
		unlink()
		bare += bareBatches(b, rtt, len(first), len(sent))
	}
	b.ReportMetric(float64(bare)/float64(spent), "of-bare")
	b.ReportMetric(float64(rounds)*rtt.Seconds()/spent.Seconds(), "of-batch/RTT")
}

// bareBatches sends n times size bytes, each after the answer to the last.
func bareBatches(b *testing.B, rtt time.Duration, size, n int) time.Duration {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer listener.Close()
	var server sync.WaitGroup
	defer server.Wait()
	server.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		batch := make([]byte, size)
		for {
			if _, err := io.ReadFull(conn, batch); err != nil {
				return
			}
			if _, err := conn.Write(batch[:300]); err != nil {
				return
			}
		}
	})
	relayed, unlink := link(b, listener.Addr().String(), func(l *simulator.Link) { l.Delay, l.Exact = rtt/2, true })
	defer unlink()
	conn, err := net.Dial("tcp", relayed)
	require.NoError(b, err)
	defer conn.Close()
	batch := make([]byte, size)
	began := time.Now()
	for range n {
		_, err := conn.Write(batch)
		require.NoError(b, err)
		_, err = io.ReadFull(conn, batch[:300])
		require.NoError(b, err)
	}
	return time.Since(began)
}

// link puts a network in between.
func link(t testing.TB, target string, change func(*simulator.Link)) (address string, unlink func()) {
	t.Helper()
	l, err := simulator.NewLink(target)
	require.NoError(t, err)
	change(l)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return l.Addr(), func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

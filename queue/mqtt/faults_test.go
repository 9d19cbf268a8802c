package mqtt_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// A broker that accepts and never answers again is left within the keep-alive
// and half of it, idle or with a batch under way; nothing is stuck.
func TestF11AcceptsThenNeverAnswers(t *testing.T) {
	for name, records := range map[string]int{"idle": 0, "with a batch under way": 3} {
		t.Run(name, func(t *testing.T) {
			c := &centre{}
			virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
				swallowing := &p.way
				defer s.run()()
				s.emptied()
				began := time.Now()
				swallowing.Swallow()
				s.add(records)
				for s.said()[len(s.said())-1] == "online" {
					time.Sleep(time.Second)
					require.Less(t, time.Since(began), 5*time.Minute)
				}
				assert.LessOrEqual(t, time.Since(began), 90*time.Second)
				assert.Equal(t, records, s.ledger.Status().Unsent)
				swallowing.Mend()
				s.emptied()
				c.truth(s.ledger)
			})
		})
	}
}

// 2 s each way with jitter, 16 kbit/s: batches shrink to what the line carries,
// and the line is used well.
func TestF15SlowLine(t *testing.T) {
	t.Parallel()
	c := &centre{}
	sizes := []int{}
	c.script = func(_ int, b chain.Batch) reply {
		sizes = append(sizes, len(chain.FormBatch(b.Lines, b.Head)))
		return reply{}
	}
	virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
		p.way.Delay, p.way.Jitter, p.way.Rate = 2*time.Second, 500*time.Millisecond, 2000
		s.add(500) // a day
		began := time.Now()
		defer s.run()()
		s.emptied()
		c.truth(s.ledger)
		bytes := 0
		for _, n := range sizes {
			bytes += n
		}
		took := time.Since(began)
		t.Logf("500 records, %d bytes in batches of %v: %s, bare %s", bytes, sizes, took.Round(time.Second), time.Duration(bytes)*time.Second/2000)
		assert.Less(t, sizes[len(sizes)/2], sizes[0]/2, "batches adapt")
		assert.Less(t, took, 4*time.Duration(bytes)*time.Second/2000, "and use the line")
	})
}

// A message larger than any that the centre sends is cut and refused; receipts
// and records go on beside it.
func TestF19HugeDownlinks(t *testing.T) {
	huge := bytes.Repeat([]byte("x"), 9<<20)
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		require.NoError(t, c.server.Publish(prefix+"down/package/c-1", huge, true, 1))
		defer s.run()()
		s.add(10)
		s.emptied()
		require.NoError(t, c.server.Publish(prefix+"down/receipt", huge, false, 1))
		synctest.Wait()
		s.add(10)
		s.emptied()
		c.truth(s.ledger)
		assert.Equal(t, []string{"online"}, s.said(), "the connection stands")
		require.Len(t, s.packages, 1)
		assert.Less(t, len(s.packages[0]), 8<<20, "cut")
	})
}

// What comes down is handed to parsers that refuse; no bytes on any topic end
// the uplink or let a record go.
func FuzzDownlink(f *testing.F) {
	a := newAuthority(f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f, err)
	c := serve(f, l, a.serverTLS(f, a.issue(f, chain.RoleCentre, "centre", nil)), &centre{script: func(int, chain.Batch) reply { return reply{forget: true} }})
	f.Cleanup(c.stop)
	s := newSite(f, a, func(cfg *mqtt.Config) { cfg.Addresses = []string{l.Addr().String()} })
	queuetest.Start(f, s.ledger)
	online := make(chan struct{})
	s.onReport = sync.OnceFunc(func() { close(online) })
	f.Cleanup(s.run())
	<-online // before it nothing would come down
	f.Add("receipt", queuetest.Receipt(f, queuetest.StrangerKey, s.ledger.Status().Log, 1, chain.Hash{}))
	f.Add("package/c-1", []byte("{}"))
	f.Add("command", []byte("a.b.c"))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		if strings.ContainsAny(topic, "+#\x00") || len(topic) > 1000 {
			return
		}
		_ = c.server.Publish(prefix+"down/"+topic, payload, false, 1)
		require.Zero(t, s.ledger.Status().Receipted)
	})
}

// The parsers of the library that reads packets get whatever a server sends
// after the handshake.
func FuzzServerBytes(f *testing.F) {
	f.Add([]byte{0x20, 0x02, 0x00, 0x05}) // CONNACK: not authorised
	f.Add([]byte{0x20, 0x02, 0x00, 0x00, 0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x20, 0x02, 0x00, 0x00, 0x32, 0x01, 0x00})
	a := newAuthority(f)
	conf := a.serverTLS(f, a.issue(f, chain.RoleCentre, "centre", nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f, err)
	said := make(chan []byte, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := tls.Server(conn, conf)
			if _, err := c.Read(make([]byte, 1024)); err == nil {
				_, _ = c.Write(<-said)
			}
			_ = c.Close()
		}
	}()
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, bytes []byte) {
		s := newSite(t, a, func(cfg *mqtt.Config) { cfg.Addresses = []string{l.Addr().String()} })
		defer s.ledger.Close()
		troubled := make(chan struct{}, 1)
		s.onReport = func() {
			select {
			case troubled <- struct{}{}:
			default:
			}
		}
		said <- bytes
		stop := s.run()
		<-troubled
		stop()
		assert.Equal(t, 1, s.ledger.Status().Unsent)
	})
}

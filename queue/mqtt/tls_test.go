package mqtt_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// onDisk is the certificate as another program may replace it.
type onDisk struct {
	mu   sync.Mutex
	text string
	err  error
}

func (d *onDisk) read() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text, d.err
}

func (d *onDisk) set(text string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text, d.err = text, err
}

// The terminal's certificate ends while it runs: told 14 days ahead, records
// are stored and sent on, after the end they wait, and a new certificate on
// disk mends it without a restart.
func TestF18CertificateEnds(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	server := a.issue(t, chain.RoleCentre, "centre", nil)
	begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of virtual time
	end := begin.Add(14*24*time.Hour + 3*time.Hour)
	_, key := a.admit(t)
	issue := func(end time.Time) string {
		return chain.EncodeCertificate(a.renew(t, key, end).Raw)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &centre{}
		var way atomic.Pointer[pipes] // a centre that starts again has another
		way.Store(newPipes())
		disk := &onDisk{text: issue(end)}
		s := newSite(t, a, func(cfg *mqtt.Config) {
			cfg.Key, cfg.Admission.Uplink, cfg.Certificate = key, disk.text, disk.read
		})
		s.uplink.SetDial(func(ctx context.Context, network, address string) (net.Conn, error) {
			return way.Load().dial(ctx, network, address)
		})
		conf := a.serverTLS(t, server)
		conf.Time = time.Now
		serve(t, way.Load(), conf, c)
		stop, stopLedger := s.run(), queuetest.Start(t, s.ledger)

		s.add(10)
		s.emptied()
		time.Sleep(2 * time.Hour)
		assert.Equal(t, []string{"online"}, s.said(), "not told too early")
		time.Sleep(3 * time.Hour)
		assert.Equal(t, []string{"online", "online expiring"}, s.said())
		assert.Equal(t, []string{"expiring"}, c.certificateAlerts()[:1])
		disk.set("", errors.New("half written"))
		time.Sleep(2 * time.Hour)
		assert.Len(t, s.said(), 2, "a file that cannot be read changes nothing")

		c.stop() // offline from here
		for time.Now().Before(end) {
			s.add(1)
			time.Sleep(12 * time.Hour)
		}
		way.Store(newPipes())
		serve(t, way.Load(), conf, c)
		defer c.stop()
		time.Sleep(time.Hour)
		waiting := s.ledger.Status().Unsent
		assert.Greater(t, waiting, 25, "records are stored and wait")
		assert.Contains(t, s.said()[len(s.said())-1], "expired", "and it says why")

		disk.set(issue(end.Add(365*24*time.Hour)), nil)
		s.emptied()
		c.truth(s.ledger)
		assert.Equal(t, "online", s.said()[len(s.said())-1])
		stop()
		stopLedger()
	})
}

// A new certificate on disk is used while the connection is up.
func TestCertificateIsTakenFromDiskWhileConnected(t *testing.T) {
	a := newAuthority(t)
	server := a.issue(t, chain.RoleCentre, "centre", nil)
	admission, key := a.admit(t)
	renewed := a.renew(t, key, validTo.Add(-time.Hour))
	synctest.Test(t, func(t *testing.T) {
		p, c := newPipes(), &centre{}
		disk := &onDisk{text: admission.Uplink}
		s := newSite(t, a, func(cfg *mqtt.Config) {
			cfg.Key, cfg.Admission, cfg.Certificate = key, admission, disk.read
		})
		s.uplink.SetDial(p.dial)
		var shown []*x509.Certificate
		conf := a.serverTLS(t, server)
		conf.VerifyPeerCertificate = func(_ [][]byte, chains [][]*x509.Certificate) error {
			shown = append(shown, chains[0][0])
			return nil
		}
		serve(t, p, conf, c)
		defer c.stop()
		stop, stopLedger := s.run(), queuetest.Start(t, s.ledger)
		s.emptied()
		disk.set(chain.EncodeCertificate(renewed.Raw), nil)
		time.Sleep(2 * time.Hour)
		s.add(3)
		s.emptied()
		require.Len(t, shown, 2)
		assert.True(t, shown[1].Equal(renewed))
		assert.Equal(t, []string{"online"}, s.said(), "nobody is troubled with it")
		stop()
		stopLedger()
	})
}

// Each address has its own trouble, and the one that works is kept.
func TestAddressesAreTriedInTurnAndKept(t *testing.T) {
	c := &centre{}
	three := func(cfg *mqtt.Config) {
		cfg.ServerName, cfg.Addresses = "centre.test", []string{"a.test:1", "b.test:1", "c.test:1"}
	}
	virtual(t, three, c, func(t *testing.T, s *site, p *pipes) {
		var asked []string
		s.uplink.SetDial(func(ctx context.Context, network, address string) (net.Conn, error) {
			asked = append(asked, address)
			switch address {
			case "a.test:1":
				return nil, &net.DNSError{Err: "no such host", Name: "a.test"}
			case "b.test:1":
				here, there := net.Pipe()
				go func() { // a pipe has no room: who only writes is never heard
					_, _ = there.Read(make([]byte, 1<<16))
					_, _ = there.Write([]byte("220 mail.test ready\r\n"))
					there.Close()
				}()
				return here, nil
			}
			return p.dial(ctx, network, address)
		})
		defer s.run()()
		s.add(5)
		s.emptied()
		assert.Equal(t, []string{"no_route", "no_route unknown_server", "online no_route unknown_server"}, s.said())
		c.cutAll()
		synctest.Wait()
		s.add(5)
		s.emptied()
		assert.Equal(t, []string{"a.test:1", "b.test:1", "c.test:1", "c.test:1"}, asked, "the address that worked is kept")
	})
}

// A broker that takes records for a centre that is away is left for the next
// address.
func TestAddressWithoutReceiptsIsLeft(t *testing.T) {
	var deaf string
	c := &centre{script: func(int, chain.Batch) reply { return reply{forget: deaf == "a.test:1"} }}
	two := func(cfg *mqtt.Config) {
		cfg.ServerName, cfg.Addresses = "centre.test", []string{"a.test:1", "b.test:1"}
	}
	virtual(t, two, c, func(t *testing.T, s *site, p *pipes) {
		s.uplink.SetDial(func(ctx context.Context, network, address string) (net.Conn, error) {
			deaf = address
			return p.dial(ctx, network, address)
		})
		s.add(10)
		began := time.Now()
		defer s.run()()
		s.emptied()
		assert.Equal(t, (30+60+120)*time.Second, time.Since(began), "three batches")
		c.truth(s.ledger)
		assert.Equal(t, "online no_receipt", s.said()[len(s.said())-1])
	})
}

// Terminals that start together do not call together.
func TestFirstConnectionIsSpread(t *testing.T) {
	virtual(t, func(cfg *mqtt.Config) { cfg.StartSpread = time.Minute }, &centre{}, func(t *testing.T, s *site, _ *pipes) {
		var asked time.Duration
		s.uplink.SetJitter(func(d time.Duration) time.Duration {
			asked = d
			return d / 2
		})
		began := time.Now()
		defer s.run()()
		s.emptied()
		assert.Equal(t, time.Minute, asked)
		assert.Equal(t, 30*time.Second, time.Since(began))
	})
}

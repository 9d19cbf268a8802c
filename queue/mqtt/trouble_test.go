package mqtt_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
)

// Each way a broker can be wrong has its own name, over real TLS and TCP, and
// no record is lost to any (rows T17 and F17).
func TestT17F17WrongServersAreRefusedByName(t *testing.T) {
	ours, theirs, public := newAuthority(t), newAuthority(t), newAuthority(t)
	good := ours.issue(t, chain.RoleCentre, "centre", nil)
	for _, tc := range []struct {
		name string
		conf func() *tls.Config
		dial error // of the way to the address
		want mqtt.Code
	}{
		{name: "unknown authority", want: mqtt.UnknownServer, conf: func() *tls.Config {
			return theirs.serverTLS(t, theirs.issue(t, chain.RoleCentre, "centre", nil))
		}},
		{name: "a terminal's certificate", want: mqtt.UnknownServer, conf: func() *tls.Config {
			return ours.serverTLS(t, ours.issue(t, chain.RoleUplink, "t-other", nil))
		}},
		{name: "another name", want: mqtt.WrongName, conf: func() *tls.Config {
			return ours.serverTLS(t, ours.issue(t, chain.RoleCentre, "centre", func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses = []string{"elsewhere.test"}, nil
			}))
		}},
		{name: "expired", want: mqtt.NotValidNow, conf: func() *tls.Config {
			return ours.serverTLS(t, ours.issue(t, chain.RoleCentre, "centre", func(c *x509.Certificate) {
				c.NotAfter = validFrom.Add(time.Hour)
			}))
		}},
		{name: "a public authority's, for the right name", want: mqtt.UnknownServer, conf: func() *tls.Config {
			return public.serverTLS(t, public.issue(t, chain.RoleCentre, "centre", func(c *x509.Certificate) {
				c.Subject = pkix.Name{CommonName: "centre.test"}
			}))
		}},
		{name: "not yet valid", want: mqtt.NotValidNow, conf: func() *tls.Config {
			return ours.serverTLS(t, ours.issue(t, chain.RoleCentre, "centre", func(c *x509.Certificate) {
				c.NotBefore = validTo.Add(-time.Hour)
			}))
		}},
		{name: "TLS 1.1", want: mqtt.OldTLS, conf: func() *tls.Config {
			conf := ours.serverTLS(t, good)
			conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return conf
		}},
		{name: "TLS 1.2", want: mqtt.OldTLS, conf: func() *tls.Config {
			conf := ours.serverTLS(t, good)
			conf.MaxVersion = tls.VersionTLS12
			return conf
		}},
		{name: "client certificate refused", want: mqtt.Refused, conf: func() *tls.Config {
			conf := ours.serverTLS(t, good)
			conf.ClientCAs = x509.NewCertPool()
			return conf
		}},
		{name: "not TLS", want: mqtt.UnknownServer, conf: func() *tls.Config { return nil }},
		{name: "no such name", want: mqtt.NoRoute, dial: &net.DNSError{Err: "no such host", Name: "centre.test"}},
		{name: "no route", want: mqtt.NoRoute, dial: &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}},
		{name: "nobody listens", want: mqtt.NoRoute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer listener.Close()
			if tc.conf != nil {
				go answer(listener, tc.conf())
			} else {
				require.NoError(t, listener.Close())
			}
			address := listener.Addr().String()

			troubles := make(chan error, 16)
			s := newSite(t, ours, func(cfg *mqtt.Config) {
				cfg.Addresses = []string{address}
				cfg.Report = func(_ bool, err error) { troubles <- err }
			})
			defer s.ledger.Close()
			if tc.dial != nil {
				s.uplink.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, tc.dial })
			}
			stop := s.run()
			err = <-troubles
			stop()

			trouble, ok := errors.AsType[*mqtt.Trouble](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.want, trouble.Code, "%v", err)
			assert.Contains(t, err.Error(), address)
			assert.Equal(t, 1, s.ledger.Status().Unsent)
		})
	}
}

// answer shakes hands as a server would and reads until the client gives up;
// without a configuration it is a server of another kind.
func answer(l net.Listener, conf *tls.Config) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if conf == nil {
			_, _ = conn.Write([]byte("220 mail.test ready\r\n"))
		} else if c := tls.Server(conn, conf); c.HandshakeContext(context.Background()) == nil {
			_, _ = c.Read(make([]byte, 1))
		}
		_ = conn.Close()
	}
}

func TestEveryTroubleHasSentences(t *testing.T) {
	for _, code := range mqtt.Codes {
		zh, en := (&mqtt.Trouble{Code: code, Address: "centre.test:8883"}).Sentence()
		for _, s := range []string{zh, en} {
			assert.Equal(t, 1, strings.Count(s, "centre.test:8883"), "%s: %s", code, s)
			assert.NotContains(t, s, "%!", code)
		}
		assert.Equal(t, en+" (cause)", fmt.Sprint(&mqtt.Trouble{Code: code, Address: "centre.test:8883", Err: errors.New("cause")}))
	}
}

package centre_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue/chain"
)

// keyOf reads a key of a centre.
func keyOf(t *testing.T, cfg centre.Config, name string) crypto.Signer {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cfg.Dir, "keys", name))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return key.(crypto.Signer)
}

// certify gives a certificate by a centre's authority, good but for change.
func certify(t *testing.T, cfg centre.Config, pub crypto.PublicKey, change func(*x509.Certificate)) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cfg.Dir, "keys", "ca.crt"))
	require.NoError(t, err)
	ca, err := chain.ParseCertificate(string(text))
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		Subject:     pkix.Name{CommonName: "rollcall.centre", OrganizationalUnit: []string{string(chain.RoleCentre)}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, pub, keyOf(t, cfg, "ca.key"))
	require.NoError(t, err)
	return chain.EncodeCertificate(der)
}

func TestRenewedCertificateIsTakenWithoutARestart(t *testing.T) {
	t.Parallel()
	c, cfg, log := newCentre(t, loopback, readable)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	desk := newDesk(t, c, b)
	own := filepath.Join(cfg.Dir, "keys", "tls.crt")
	serial := func(address string) string {
		conn, err := tls.Dial("tcp", address, b.tls(t))
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	both := func() string { // terminals and readers see the same one
		got := serial(address)
		assert.Equal(t, got, serial(desk.reading.Address()))
		return got
	}
	before := connect(t, address, b)
	first := both()
	assert.Equal(t, first, both())

	_, err := centre.Renew(cfg, time.Now())
	require.NoError(t, err)
	renewed := both()
	assert.NotEqual(t, first, renewed)
	assert.Contains(t, log.String(), "server certificate renewed")
	before.publish(1, topic(b, "up/records"), b.batch(t, b.append(t, openRecord())))
	next[*packets.PubackPacket](before) // who is connected stays connected

	good, err := os.ReadFile(own)
	require.NoError(t, err)
	key := keyOf(t, cfg, "tls.key").Public()
	_, otherCfg, _ := newCentre(t)
	for _, tt := range []struct{ name, text, says string }{
		{"half written", string(good[:len(good)/2]), "failed to find"},
		{"empty", "", "failed to find"},
		{"for another key", certify(t, cfg, newBox(t, "t-2").uplink.Public(), nil), "does not match"},
		{"of another centre", certify(t, otherCfg, key, nil), "unknown authority"},
		{"ended", certify(t, cfg, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired"},
		{"a terminal's", certify(t, cfg, key, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "t-1", OrganizationalUnit: []string{string(chain.RoleUplink)}}
		}), "it is a certificate for"},
		{"without a name that terminals dial", certify(t, cfg, key, func(c *x509.Certificate) { c.IPAddresses = nil }), "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := len(log.String())
			require.NoError(t, os.WriteFile(own, []byte(tt.text), 0o600))
			for range 3 {
				assert.Equal(t, renewed, both())
			}
			told := log.String()[said:]
			assert.Equal(t, 1, strings.Count(told, "the one before stays in use"), told)
			assert.Contains(t, told, tt.says)
		})
	}
	t.Run("removed", func(t *testing.T) {
		require.NoError(t, os.Remove(own))
		assert.Equal(t, renewed, both())
	})
	t.Run("control: a good one after all these", func(t *testing.T) {
		require.NoError(t, os.WriteFile(own, []byte(certify(t, cfg, key, nil)), 0o600))
		assert.NotEqual(t, renewed, both())
	})
}

// A renewed certificate is for the names that the configuration has then.
func TestRenewTakesTheNamesConfigured(t *testing.T) {
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	as := b.tls(t)
	as.ServerName = "centre.example"
	_, err := tls.Dial("tcp", address, as)
	require.ErrorContains(t, err, "centre.example", "the control: it has not that name yet")
	cfg.Names = []string{"localhost", "127.0.0.1", "::1", "centre.example"}
	until, err := centre.Renew(cfg, time.Now())
	require.NoError(t, err)
	assert.Greater(t, time.Until(until), 9*365*24*time.Hour)
	dial(t, address, as)

	cfg.Dir = t.TempDir()
	_, err = centre.Renew(cfg, time.Now())
	assert.ErrorContains(t, err, "rollcall-centre init")
}

// Towards a broker the certificate is the client's: the next connection has
// the renewed one.
func TestRenewedCertificateTowardsTheBroker(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, log := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	mosquitto.Start()
	subscribe(t, c)
	connected := func(n int) {
		require.Eventually(t, func() bool { return strings.Count(log.String(), "broker connected") >= n }, patience, 10*time.Millisecond)
	}
	connected(1)
	_, err := centre.Renew(cfg, time.Now())
	require.NoError(t, err)
	assert.NotContains(t, log.String(), "server certificate renewed")
	mosquitto.Kill()
	mosquitto.Start()
	connected(2)
	assert.Contains(t, log.String(), "server certificate renewed")
}

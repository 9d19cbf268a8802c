package centre_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/queue/chain"
)

// readerRequest is what a system asks for a certificate with.
func readerRequest(t testing.TB, key crypto.Signer, unit ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{OrganizationalUnit: unit}}, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// certified gives a reader's TLS certificate.
func certified(t testing.TB, c *centre.Centre, name string, key crypto.Signer) tls.Certificate {
	t.Helper()
	text, err := c.CertifyReader(t.Context(), name, readerRequest(t, key, "reader"))
	require.NoError(t, err)
	return pair(t, text, key)
}

func pair(t testing.TB, certificatePEM string, key crypto.Signer) tls.Certificate {
	t.Helper()
	cert, err := chain.ParseCertificate(certificatePEM)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// with gives the desk of somebody who shows a certificate, and has no token.
func (d *desk) with(cert tls.Certificate) *desk {
	transport := d.client.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &cert, nil // whatever authorities the centre asks for
	}
	d.t.Cleanup(transport.CloseIdleConnections)
	other := *d
	other.client, other.token = &http.Client{Transport: transport, Timeout: patience}, ""
	return &other
}

func TestReadersByCertificate(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, log := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		d := newDesk(t, c, b)
		payroll, unknown := newKey(t), newKey(t)
		own := certified(t, c, "payroll", payroll)
		_, otherCfg, _ := newCentre(t)
		asReader := func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "reader.payroll", OrganizationalUnit: []string{"reader"}}
		}
		uplink := pair(t, b.admission.Uplink, b.uplink)
		for _, tt := range []struct {
			name   string
			cert   *tls.Certificate
			token  string
			status int // 0: refused before a word
			says   string
		}{
			{"certificate only", &own, "", 200, "reader=payroll"},
			{"token only", nil, d.token, 200, "reader=statistics"},
			{"certificate and another's token", &own, d.token, 200, "reader=payroll"},
			{"neither", nil, "", 401, "send the token"},
			{"a terminal's uplink certificate", &uplink, "", 401, "not for reading"},
			{"a terminal's uplink certificate and a token", &uplink, d.token, 401, "not for reading"},
			{"the centre's own certificate", at(pair(t, certify(t, cfg, unknown.Public(), nil), unknown)), "", 401, "not for reading"},
			{"of this authority, for a key that nobody was added with", at(pair(t, certify(t, cfg, unknown.Public(), asReader), unknown)), "", 401, "no reader has"},
			{"of another authority", at(pair(t, certify(t, otherCfg, payroll.Public(), asReader), payroll)), "", 0, ""},
			{"ended", at(pair(t, certify(t, cfg, payroll.Public(), func(c *x509.Certificate) {
				asReader(c)
				c.NotAfter = time.Now().Add(-time.Minute)
			}), payroll)), "", 0, ""},
			{"a terminal's ledger certificate", at(pair(t, b.admission.Ledger, b.ledger)), "", 0, ""},
		} {
			t.Run(tt.name, func(t *testing.T) {
				as := *d
				as.t, as.token = t, ""
				if tt.cert != nil {
					as = *as.with(*tt.cert)
				} else { // a connection of its own
					as.client = &http.Client{Transport: d.client.Transport.(*http.Transport).Clone(), Timeout: patience}
					t.Cleanup(as.client.CloseIdleConnections)
				}
				as.token = tt.token
				said := len(log.String())
				if tt.status == 0 {
					req, err := http.NewRequest("GET", "https://"+d.reading.Address()+"/v1/alarms", nil)
					require.NoError(t, err)
					_, err = as.client.Do(req)
					require.ErrorContains(t, err, "tls: ")
					assert.NotContains(t, log.String()[said:], "msg=read ")
					return
				}
				status, body := as.do("GET", "/v1/alarms", nil)
				assert.Equal(t, tt.status, status, body)
				if tt.status == 200 {
					assert.Contains(t, log.String()[said:], "msg=read "+tt.says+` route="GET /v1/alarms"`)
					return
				}
				assert.Contains(t, body, tt.says)
				assert.Contains(t, log.String()[said:], "reader refused")
			})
		}

		reader, again := d.with(own), d.with(certified(t, c, "payroll", payroll))
		for _, as := range []*desk{reader, again} { // renewed: the one before is good until its end
			status, body := as.do("GET", "/v1/alarms", nil)
			require.Equal(t, 200, status, body)
		}
		require.NoError(t, c.RemoveReader(t.Context(), "payroll"))
		for _, as := range []*desk{reader, again} { // on the connection that is open
			status, body := as.do("GET", "/v1/alarms", nil)
			assert.Equal(t, 401, status)
			assert.Contains(t, body, "or any more")
		}
		certified(t, c, "payroll", unknown) // the name is given again, to another key
		status, _ := reader.do("GET", "/v1/alarms", nil)
		assert.Equal(t, 401, status, "and the old certificate with the old key opens nothing")
		status, _ = d.do("GET", "/v1/alarms", nil)
		assert.Equal(t, 200, status, "others go on")
	})
}

func at[T any](v T) *T { return &v }

// A certificate that ends while its connection stays open lets nobody in from
// then on.
func TestReadersCertificateEndsOnAnOpenConnection(t *testing.T) {
	_, cfg, _ := newCentre(t, readable)
	var later atomic.Int64
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	d := newDesk(t, c, admitted(t, c, "t-1"))
	as := d.with(certified(t, c, "payroll", newKey(t)))
	status, _ := as.do("GET", "/v1/alarms", nil)
	require.Equal(t, 200, status)
	later.Store(int64(3 * 365 * 24 * time.Hour))
	status, body := as.do("GET", "/v1/alarms", nil)
	assert.Equal(t, 401, status)
	assert.Contains(t, body, "has ended")
}

func TestReaderRequestsThatAreRefused(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		key := newKey(t)
		_, err := c.AddReader(t.Context(), "statistics")
		require.NoError(t, err)
		certified(t, c, "payroll", key)
		rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		_, edKey, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		damaged := []byte(strings.Replace(string(readerRequest(t, newKey(t))), "MI", "MJ", 1))
		for name, tt := range map[string]struct {
			as      string
			request []byte
			says    string
		}{
			"no name":                         {"", readerRequest(t, newKey(t)), "letters, digits or hyphens"},
			"a name for a topic":              {"a/b", readerRequest(t, newKey(t)), "letters, digits or hyphens"},
			"no request":                      {"x", nil, "not one PEM"},
			"a damaged request":               {"x", damaged, "request"},
			"a huge one":                      {"x", make([]byte, 1<<20), "at most"},
			"a terminal's":                    {"x", []byte(signingRequest(t, "t-1", chain.RoleUplink, b.uplink)), `for "uplink"`},
			"a key of another kind":           {"x", readerRequest(t, rsaKey, "reader"), "must be Ed25519"},
			"a name that has another key":     {"payroll", readerRequest(t, newKey(t)), "remove it first"},
			"a name that has a token":         {"statistics", readerRequest(t, newKey(t)), "remove it first"},
			"a key that another is known for": {"x", readerRequest(t, key), "remove it first"},
		} {
			_, err := c.CertifyReader(t.Context(), tt.as, tt.request)
			assert.ErrorIs(t, err, centre.ErrReader, name)
			assert.ErrorContains(t, err, tt.says, name)
		}
		certified(t, c, "archive", edKey)
		readers, err := c.Readers(t.Context())
		require.NoError(t, err)
		var names []string
		for _, r := range readers {
			names = append(names, r.Name)
			assert.Equal(t, r.Name == "statistics", r.Until.IsZero())
		}
		assert.Equal(t, []string{"archive", "payroll", "statistics"}, names)
	})
}

// What lets a reader read lets nobody be a terminal: not on the listener, and
// not at a broker that takes the certificate's name for the user.
func TestT16AReadersCertificateIsNoTerminals(t *testing.T) {
	t.Parallel()
	c, cfg, log := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	as := b.tls(t)
	own := certified(t, c, "t-1", b.uplink) // the terminal's name and its key
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	require.NoError(t, err)
	assert.False(t, chain.TerminalID(leaf.Subject.CommonName).Valid(), leaf.Subject.CommonName)
	named := pair(t, certify(t, cfg, b.uplink.Public(), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "t-1", OrganizationalUnit: []string{string(chain.RoleReader)}}
	}), b.uplink)
	for name, cert := range map[string]tls.Certificate{"as given": own, "with a terminal's name": named} {
		as.Certificates = []tls.Certificate{cert}
		assert.NotEqual(t, byte(packets.Accepted), dial(t, address, as).hello("t-1", ""), name)
	}
	assert.Equal(t, 2, strings.Count(log.String(), `is for \"reader\", not for \"uplink\"`), log)
	assert.Equal(t, byte(packets.Accepted), dial(t, address, b.tls(t)).hello("t-1", ""), "the control: its uplink certificate")
}

// FuzzCertifyReader: whatever is brought as a request is refused in words or
// gives a certificate for reading only.
func FuzzCertifyReader(f *testing.F) {
	c, _, _ := newCentre(f)
	f.Add(readerRequest(f, newKey(f), "reader"))
	f.Add([]byte(signingRequest(f, "t-1", chain.RoleUplink, newKey(f))))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, request []byte) {
		text, err := c.CertifyReader(t.Context(), "fuzz", request)
		if err != nil {
			require.ErrorIs(t, err, centre.ErrReader)
			return
		}
		cert, err := chain.ParseCertificate(text)
		require.NoError(t, err)
		require.Equal(t, chain.RoleReader, chain.RoleOf(cert))
		require.NoError(t, c.RemoveReader(t.Context(), "fuzz"))
	})
}

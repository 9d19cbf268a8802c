package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// Certificates are valid in the virtual time of testing/synctest, which begins
// in 2000, and for long after.
var (
	validFrom = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	validTo   = time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC)
)

// authority is a centre's certificate authority.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newAuthority(t testing.TB) authority {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: validFrom, NotAfter: validTo, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{key, sign(t, template, template, key, key)}
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// issue makes a certificate; change may spoil it.
func (a authority) issue(t testing.TB, role chain.Role, name string, change func(*x509.Certificate)) tls.Certificate {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: name, OrganizationalUnit: []string{string(role)}},
		NotBefore:    validFrom, NotAfter: validTo,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"centre.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	return tls.Certificate{Certificate: [][]byte{sign(t, template, a.cert, key, a.key).Raw}, PrivateKey: key}
}

// admit makes the admission of the test terminal.
func (a authority) admit(t testing.TB) (chain.Admission, *ecdsa.PrivateKey) {
	uplink := a.issue(t, chain.RoleUplink, string(queuetest.Terminal), nil)
	receipts, err := chain.EncodePublicKey(queuetest.CentreKey.Public())
	require.NoError(t, err)
	return chain.Admission{
		V: 1, Tenant: "test", Terminal: queuetest.Terminal,
		CA:         chain.EncodeCertificate(a.cert.Raw),
		Uplink:     chain.EncodeCertificate(uplink.Certificate[0]),
		ReceiptKey: receipts, PackageKey: receipts,
	}, uplink.PrivateKey.(*ecdsa.PrivateKey)
}

// renew makes another uplink certificate of the test terminal's.
func (a authority) renew(t testing.TB, key *ecdsa.PrivateKey, end time.Time) *x509.Certificate {
	return sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(3),
		Subject:      pkix.Name{CommonName: string(queuetest.Terminal), OrganizationalUnit: []string{string(chain.RoleUplink)}},
		NotBefore:    validFrom, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, key, a.key)
}

// serverTLS is the centre's side.
func (a authority) serverTLS(t testing.TB, cert tls.Certificate) *tls.Config {
	t.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              clients,
		SessionTicketsDisabled: true, // written when nobody reads yet, which a pipe without a buffer cannot do
	}
}

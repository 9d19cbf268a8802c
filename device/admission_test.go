package device

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// authority is a centre's certificate authority, as small as it can be.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "centre"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{key, cert}
}

func (a authority) certify(t *testing.T, pub crypto.PublicKey, terminal string, role chain.Role) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: terminal, OrganizationalUnit: []string{string(role)}},
		NotBefore:    time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}, a.cert, pub, a.key)
	require.NoError(t, err)
	return chain.EncodeCertificate(der)
}

func (a authority) admit(t *testing.T, keys *Keys) chain.Admission {
	t.Helper()
	req, err := keys.Request("t-1")
	require.NoError(t, err)
	lookup, err := chain.SealLookupKey(req.Sealing, "t-1", "", bytes.Repeat([]byte{7}, chain.LookupKeySize))
	require.NoError(t, err)
	pinned, err := chain.EncodePublicKey(a.key.Public())
	require.NoError(t, err)
	return chain.Admission{
		V: 1, Tenant: "demo", Terminal: "t-1", CA: chain.EncodeCertificate(a.cert.Raw),
		Ledger:     a.certify(t, keys.Ledger().Public(), "t-1", chain.RoleLedger),
		Uplink:     a.certify(t, keys.Uplink().Public(), "t-1", chain.RoleUplink),
		ReceiptKey: pinned, PackageKey: pinned, LookupKey: lookup,
	}
}

func TestAdmissionIsKept(t *testing.T) {
	dir, keys := newKeys(t)
	_, err := LoadAdmission(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "has not admitted this terminal yet")

	want := newAuthority(t).admit(t, keys)
	require.NoError(t, SaveAdmission(dir, want))
	got, err := LoadAdmission(dir)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	_, err = OpenKeys(dir)
	assert.NoError(t, err, "an admission beside them does not disturb the keys")
}

func TestAdmissionIsRefused(t *testing.T) {
	dir, keys := newKeys(t)
	_, others := newKeys(t)
	ca, stranger := newAuthority(t), newAuthority(t)
	for name, test := range map[string]struct {
		spoil func(a *chain.Admission)
		want  string
	}{
		"later version":        {func(a *chain.Admission) { a.V = 2 }, "version 2"},
		"tenant with a slash":  {func(a *chain.Admission) { a.Tenant = "a/b" }, "letters, digits and hyphens"},
		"authority missing":    {func(a *chain.Admission) { a.CA = "" }, "centre's authority"},
		"another authority":    {func(a *chain.Admission) { a.CA = chain.EncodeCertificate(stranger.cert.Raw) }, "not signed by the centre's authority"},
		"roles exchanged":      {func(a *chain.Admission) { a.Ledger, a.Uplink = a.Uplink, a.Ledger }, "it is the uplink certificate"},
		"another terminal":     {func(a *chain.Admission) { a.Terminal = "t-2" }, `certificate of "t-1"`},
		"another box's ledger": {func(a *chain.Admission) { a.Ledger = ca.certify(t, others.Ledger().Public(), "t-1", chain.RoleLedger) }, "send the centre a new request"},
		"another box's uplink": {func(a *chain.Admission) { a.Uplink = ca.certify(t, others.Uplink().Public(), "t-1", chain.RoleUplink) }, "send the centre a new request"},
		"lookup key damaged":   {func(a *chain.Admission) { a.LookupKey = []byte("short") }, "lookup key"},
		"receipt key missing":  {func(a *chain.Admission) { a.ReceiptKey = "" }, "receipt key"},
	} {
		t.Run(name, func(t *testing.T) {
			a := ca.admit(t, keys)
			test.spoil(&a)
			err := SaveAdmission(dir, a)
			require.ErrorIs(t, err, ErrAdmission)
			assert.ErrorContains(t, err, test.want)
			assert.NoFileExists(t, filepath.Join(dir, admissionFile))
		})
	}
}

func TestDamagedAdmissionIsRefusedWhenLoaded(t *testing.T) {
	dir, keys := newKeys(t)
	require.NoError(t, SaveAdmission(dir, newAuthority(t).admit(t, keys)))
	path := filepath.Join(dir, admissionFile)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text[:len(text)/2], 0o644))
	_, err = LoadAdmission(dir)
	require.ErrorIs(t, err, ErrAdmission)
	assert.ErrorContains(t, err, path)
}

func FuzzAdmission(f *testing.F) {
	f.Add([]byte(`{"v":1,"tenant":"demo","terminal":"t-1","ca":"","ledger":"","uplink":"","receipt_key":"","package_key":"","lookup_key":"AA=="}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"v":1}{}`))
	keys, err := CreateKeys(filepath.Join(f.TempDir(), "keys"))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parseAdmission(text)
		if err != nil {
			assert.ErrorIs(t, err, ErrAdmission)
			return
		}
		assert.ErrorIs(t, keys.check(a), ErrAdmission, "nobody can form an admission for these keys without them")
	})
}

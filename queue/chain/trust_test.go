package chain_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

func TestAdmissionTrust(t *testing.T) {
	h := newHouse(t)
	pub, err := chain.EncodePublicKey(receiptKey.Public())
	require.NoError(t, err)
	a := chain.Admission{CA: chain.EncodeCertificate(h.trust.CA.Raw), ReceiptKey: pub, PackageKey: pub}
	got, err := a.Trust()
	require.NoError(t, err)
	assert.Equal(t, h.trust, got)

	for name, spoil := range map[string]func(*chain.Admission){
		"no authority":              func(a *chain.Admission) { a.CA = "" },
		"a key as the authority":    func(a *chain.Admission) { a.CA = a.ReceiptKey },
		"two authorities":           func(a *chain.Admission) { a.CA += a.CA },
		"no receipt key":            func(a *chain.Admission) { a.ReceiptKey = "" },
		"a certificate as a key":    func(a *chain.Admission) { a.ReceiptKey = a.CA },
		"a package key of nonsense": func(a *chain.Admission) { a.PackageKey = "nonsense" },
	} {
		spoiled := a
		spoil(&spoiled)
		_, err := spoiled.Trust()
		assert.ErrorIs(t, err, chain.ErrMalformed, name)
	}
}

func TestLedgerKey(t *testing.T) {
	h := newHouse(t)
	strange := certificate(t, nil, strangerKey, "", "authority", strangerKey)
	got, err := h.trust.LedgerKey(h.cert, "t-1")
	require.NoError(t, err)
	assert.Equal(t, terminalKey.Public(), got)
	for name, tc := range map[string]struct {
		cert     *x509.Certificate
		terminal chain.TerminalID
	}{
		"another terminal's":   {h.other, "t-1"},
		"for another use":      {certificate(t, h.trust.CA, caKey, chain.RoleUplink, "t-1", terminalKey), "t-1"},
		"by another authority": {certificate(t, strange, strangerKey, chain.RoleLedger, "t-1", terminalKey), "t-1"},
		"by itself":            {certificate(t, nil, terminalKey, chain.RoleLedger, "t-1", terminalKey), "t-1"},
		"by another terminal":  {certificate(t, h.other, otherKey, chain.RoleLedger, "t-1", terminalKey), "t-1"},
		"the authority's own":  {h.trust.CA, "authority"},
	} {
		_, err := h.trust.LedgerKey(tc.cert, tc.terminal)
		assert.ErrorIs(t, err, chain.ErrUntrusted, name)
	}
}

func TestLookupKey(t *testing.T) {
	secret := make([]byte, 32)
	class, err := chain.DeriveLookupKey(secret, "t-1", "c-1")
	require.NoError(t, err)
	assert.Len(t, class, chain.LookupKeySize)
	for _, other := range []struct {
		terminal chain.TerminalID
		class    string
	}{{"t-1", ""}, {"t-1", "c-2"}, {"t-2", "c-1"}} {
		k, err := chain.DeriveLookupKey(secret, other.terminal, other.class)
		require.NoError(t, err)
		assert.NotEqual(t, class, k, "each class at each terminal has its own")
	}

	sealing, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	sealed, err := chain.SealLookupKey(sealing.PublicKey().Bytes(), "t-1", "c-1", class)
	require.NoError(t, err)
	opened, err := chain.OpenLookupKey(sealing, "t-1", "c-1", sealed)
	require.NoError(t, err)
	assert.Equal(t, class, opened)

	stranger, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, open := range map[string]func() ([]byte, error){
		"another terminal": func() ([]byte, error) { return chain.OpenLookupKey(sealing, "t-2", "c-1", sealed) },
		"another class":    func() ([]byte, error) { return chain.OpenLookupKey(sealing, "t-1", "c-2", sealed) },
		"another key":      func() ([]byte, error) { return chain.OpenLookupKey(stranger, "t-1", "c-1", sealed) },
		"cut":              func() ([]byte, error) { return chain.OpenLookupKey(sealing, "t-1", "c-1", sealed[:40]) },
		"nothing":          func() ([]byte, error) { return chain.OpenLookupKey(sealing, "t-1", "c-1", nil) },
	} {
		_, err := open()
		assert.ErrorIs(t, err, chain.ErrMalformed, name)
	}
	_, err = chain.SealLookupKey([]byte("short"), "t-1", "c-1", class)
	assert.ErrorIs(t, err, chain.ErrMalformed)
}

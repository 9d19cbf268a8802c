package device

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// The next key lies beside the one in force until it is settled, and outlives a
// reopening then.
func TestLedgerKeyFollows(t *testing.T) {
	dir, keys := newKeys(t)
	a := newAuthority(t).admit(t, keys)
	require.NoError(t, SaveAdmission(dir, a))
	next := filepath.Join(dir, ledgerFile+nextSuffix)
	first := keys.Ledger().Public()
	for n := range 3 {
		forgotten, err := keys.Prepare("t-1")
		require.NoError(t, err)
		handover, err := keys.Prepare("t-1")
		require.NoError(t, err)
		info, err := os.Stat(next)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		_, err = keys.Settle(forgotten)
		require.ErrorIs(t, err, ErrLedgerKey, "what was thrown away is not taken")

		opened, err := OpenKeys(dir)
		require.NoError(t, err)
		assert.Len(t, opened.Handovers(), n, "not in force yet")
		key, err := opened.Settle(handover)
		require.NoError(t, err)
		assert.Equal(t, opened.Ledger(), key)
		assert.NoFileExists(t, next)
		again, err := opened.Settle(handover)
		require.NoError(t, err, "settled once more, as after a crash")
		assert.Equal(t, key, again)
		keys, err = OpenKeys(dir)
		require.NoError(t, err)
		assert.Equal(t, key.Public(), keys.Ledger().Public())
		assert.Len(t, keys.Handovers(), n+1)
	}
	ring, err := chain.NewRing("t-1", first, keys.Handovers()...)
	require.NoError(t, err)
	assert.Equal(t, keys.Ledger().Public(), ring.Key())
	_, err = LoadAdmission(dir)
	require.NoError(t, err, "the certificate is still of the first key")
	req, err := keys.Request("t-1")
	require.NoError(t, err)
	assert.Equal(t, keys.Handovers(), req.Handovers)
}

// A prepared key that the ledger does not hand over to is thrown away.
func TestLedgerKeyIsForgotten(t *testing.T) {
	dir, keys := newKeys(t)
	_, err := keys.Prepare("t-1")
	require.NoError(t, err)
	before := keys.Ledger()
	key, err := keys.Settle("")
	require.NoError(t, err)
	assert.Equal(t, before, key)
	assert.NoFileExists(t, filepath.Join(dir, ledgerFile+nextSuffix))
	_, err = keys.Settle("")
	require.NoError(t, err)
	_, err = keys.Settle("another")
	assert.ErrorIs(t, err, ErrLedgerKey)
}

// Handovers that do not lead from the certificate's key to the file's are no
// terminal's.
func TestLedgerKeyOfAnotherAdmission(t *testing.T) {
	dir, keys := newKeys(t)
	a := newAuthority(t).admit(t, keys)
	handover, err := keys.Prepare("t-1")
	require.NoError(t, err)
	_, err = keys.Settle(handover)
	require.NoError(t, err)
	a.Ledger = newAuthority(t).certify(t, keys.Ledger().Public(), "t-1", chain.RoleLedger)
	assert.ErrorIs(t, SaveAdmission(dir, a), ErrAdmission)
}

func FuzzLedgerKey(f *testing.F) {
	tpm, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f, err)
	for _, handovers := range [][]string{nil, {"e30.e30.AA"}, {"a.b.c", "d.e.f"}} {
		text, err := ledgerKey{tpm, handovers}.encode()
		require.NoError(f, err)
		f.Add(text)
		f.Add(append(text, "more"...))
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLedgerKey(text)
		if err != nil {
			return
		}
		again, err := l.encode()
		require.NoError(t, err)
		read, err := parseLedgerKey(again)
		require.NoError(t, err)
		assert.Equal(t, l.handovers, read.handovers)
		assert.Equal(t, chain.KeyID(l.private.Public()), chain.KeyID(read.private.Public()))
	})
}

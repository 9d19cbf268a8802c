package chain_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// vectors is testdata/vectors.json, as somebody else would read it.
type vectors struct {
	TerminalSeed string `json:"terminal_seed"`
	CentreSeed   string `json:"centre_seed"`
	CA           string `json:"ca"`
	Certificate  string `json:"certificate"`
	ReceiptKey   string `json:"receipt_key"`
	Records      []struct {
		Line   string `json:"line"`
		SHA256 string `json:"sha256"`
		Hash   string `json:"hash"`
		Code   string `json:"code"`
	} `json:"records"`
	NextSeed string `json:"next_seed"`
	Handover string `json:"handover"`
	KeyHead  string `json:"key_head"`
	Head     string `json:"head"`
	Receipt  string `json:"receipt"`
	Verdict  string `json:"verdict"`
	Lookup   struct {
		Secret   string           `json:"centre_secret"`
		Terminal chain.TerminalID `json:"terminal"`
		Class    string           `json:"class"`
		Key      string           `json:"key"`
		Kind     string           `json:"kind"`
		Value    string           `json:"value"`
		Hash     string           `json:"hash"`
		Sealing  string           `json:"sealing_private"`
		Sealed   string           `json:"sealed"`
	} `json:"lookup"`
}

func readVectors(t *testing.T) (v vectors) {
	text, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	require.NotEmpty(t, v.Records)
	return v
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestVectorLines(t *testing.T) {
	prev := base64.RawURLEncoding.EncodeToString(make([]byte, sha256.Size))
	for i, r := range readVectors(t).Records {
		e, err := chain.ParseLine([]byte(r.Line))
		require.NoError(t, err)
		assert.EqualValues(t, i+1, e.Seq)
		assert.Equal(t, prev, e.Prev.String())
		sum := sha256.Sum256([]byte(r.Line))
		assert.Equal(t, r.SHA256, hex.EncodeToString(sum[:]))
		assert.Equal(t, r.Hash, base64.RawURLEncoding.EncodeToString(sum[:]))
		assert.Equal(t, r.Hash, chain.HashLine([]byte(r.Line)).String())
		assert.Equal(t, r.Code, chain.HashLine([]byte(r.Line)).Short())
		prev = r.Hash
	}
}

func TestVectorSignatures(t *testing.T) {
	v := readVectors(t)
	for _, tc := range []struct {
		name, jws, seed string
		purpose         chain.Purpose
		seq             int
	}{
		{"head of the key record", v.KeyHead, v.TerminalSeed, chain.PurposeHead, len(v.Records) - 1},
		{"head", v.Head, v.NextSeed, chain.PurposeHead, len(v.Records)},
		{"receipt", v.Receipt, v.CentreSeed, chain.PurposeReceipt, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pub := ed25519.NewKeyFromSeed(unhex(t, tc.seed)).Public()
			ours, err := chain.Open(pub, tc.purpose, []byte(tc.jws))
			require.NoError(t, err)
			parsed, err := jose.ParseSignedCompact(tc.jws, stock)
			require.NoError(t, err)
			theirs, err := parsed.Verify(pub)
			require.NoError(t, err)
			assert.Equal(t, theirs, ours)
			var payload struct {
				Seq  int    `json:"seq"`
				Hash string `json:"hash"`
			}
			require.NoError(t, json.Unmarshal(theirs, &payload))
			assert.Equal(t, tc.seq, payload.Seq)
			assert.Equal(t, v.Records[tc.seq-1].Hash, payload.Hash)
		})
	}
}

func TestVectorHandover(t *testing.T) {
	v := readVectors(t)
	parsed, err := jose.ParseSignedCompact(v.Handover, stock)
	require.NoError(t, err)
	payload, err := parsed.Verify(ed25519.NewKeyFromSeed(unhex(t, v.TerminalSeed)).Public())
	require.NoError(t, err)
	var h struct {
		Terminal string `json:"terminal"`
		Key      []byte `json:"key"`
	}
	require.NoError(t, json.Unmarshal(payload, &h))
	assert.Equal(t, "t-7Q2M", h.Terminal)
	next, err := x509.ParsePKIXPublicKey(h.Key)
	require.NoError(t, err)
	assert.Equal(t, ed25519.NewKeyFromSeed(unhex(t, v.NextSeed)).Public(), next)
}

func TestVectorExport(t *testing.T) {
	v := readVectors(t)
	admission := chain.Admission{CA: v.CA, ReceiptKey: v.ReceiptKey, PackageKey: v.ReceiptKey}
	trust, err := admission.Trust()
	require.NoError(t, err)
	text, err := os.ReadFile("testdata/export.txt")
	require.NoError(t, err)
	epochs, err := verify(&trust, bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")))
	require.NoError(t, err)
	require.Len(t, epochs, 1)
	assert.Equal(t, v.Verdict, epochs[0].String())
}

func TestVectorLookup(t *testing.T) {
	l := readVectors(t).Lookup
	key, err := chain.DeriveLookupKey(unhex(t, l.Secret), l.Terminal, l.Class)
	require.NoError(t, err)
	assert.Equal(t, l.Key, hex.EncodeToString(key))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(l.Kind + "\x00" + l.Value))
	assert.Equal(t, l.Hash, hex.EncodeToString(mac.Sum(nil)))

	private, err := ecdh.X25519().NewPrivateKey(unhex(t, l.Sealing))
	require.NoError(t, err)
	opened, err := chain.OpenLookupKey(private, l.Terminal, l.Class, unhex(t, l.Sealed))
	require.NoError(t, err)
	assert.Equal(t, key, opened)
}

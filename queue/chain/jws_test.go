package chain_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

var stock = []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}

// A stock JOSE library reads what we sign, and we read what it signs.
func TestStockLibraryAgrees(t *testing.T) {
	ours := jws(t, terminalKey, chain.PurposeHead, map[string]int{"n": 1})
	parsed, err := jose.ParseSignedCompact(string(ours), stock)
	require.NoError(t, err)
	payload, err := parsed.Verify(terminalKey.Public())
	require.NoError(t, err)
	assert.Equal(t, `{"n":1}`, string(payload))
	assert.Equal(t, chain.KeyID(terminalKey.Public()), parsed.Signatures[0].Header.KeyID)
	_, err = parsed.Verify(strangerKey.Public())
	assert.Error(t, err)

	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: receiptKey}, (&jose.SignerOptions{}).WithType("rollcall-receipt"))
	require.NoError(t, err)
	signed, err := signer.Sign([]byte(`{"log":"t-1/aaaa","seq":1,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","at":"2026-11-21T08:30:00.000Z"}`))
	require.NoError(t, err)
	theirs, err := signed.CompactSerialize()
	require.NoError(t, err)
	r, err := chain.OpenReceipt(receiptKey.Public(), []byte(theirs))
	require.NoError(t, err)
	assert.Equal(t, chain.Seq(1), r.Seq)
}

// A key in a TPM signs with ES256. The algorithm is the key's, whatever the
// header says.
func TestES256(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ours := jws(t, key, chain.PurposeHead, map[string]int{"n": 1})
	parsed, err := jose.ParseSignedCompact(string(ours), stock)
	require.NoError(t, err)
	payload, err := parsed.Verify(key.Public())
	require.NoError(t, err)
	assert.Equal(t, `{"n":1}`, string(payload))

	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("rollcall-head"))
	require.NoError(t, err)
	signed, err := signer.Sign([]byte(`{"n":2}`))
	require.NoError(t, err)
	theirs, err := signed.CompactSerialize()
	require.NoError(t, err)
	payload, err = chain.Open(key.Public(), chain.PurposeHead, []byte(theirs))
	require.NoError(t, err)
	assert.Equal(t, `{"n":2}`, string(payload))

	b64 := base64.RawURLEncoding
	parts := strings.Split(string(ours), ".")
	sig, err := b64.DecodeString(parts[2])
	require.NoError(t, err)
	for name, spoilt := range map[string]string{
		"header of another algorithm": b64.EncodeToString([]byte(`{"alg":"EdDSA","typ":"rollcall-head"}`)) + "." + parts[1] + "." + parts[2],
		"another payload":             parts[0] + "." + b64.EncodeToString([]byte(`{"n":3}`)) + "." + parts[2],
		"signature of zeros":          parts[0] + "." + parts[1] + "." + b64.EncodeToString(make([]byte, len(sig))),
		"signature cut":               parts[0] + "." + parts[1] + "." + b64.EncodeToString(sig[:63]),
		"signature grown":             parts[0] + "." + parts[1] + "." + b64.EncodeToString(append(sig, 0)),
		"an Ed25519 key's":            string(jws(t, terminalKey, chain.PurposeHead, map[string]int{"n": 1})),
	} {
		_, err := chain.Open(key.Public(), chain.PurposeHead, []byte(spoilt))
		assert.ErrorIs(t, err, chain.ErrSignature, name)
	}
	_, err = chain.Open(terminalKey.Public(), chain.PurposeHead, ours)
	assert.ErrorIs(t, err, chain.ErrSignature)
}

// raw signs any header and payload.
func raw(k ed25519.PrivateKey, header, payload string) []byte {
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return []byte(input + "." + b64(ed25519.Sign(k, []byte(input))))
}

func TestOpenRefuses(t *testing.T) {
	const head = `{"alg":"EdDSA","kid":"","typ":"rollcall-head"}`
	good := raw(terminalKey, head, `{}`)
	_, err := chain.Open(terminalKey.Public(), chain.PurposeHead, good)
	require.NoError(t, err)
	dot := bytes.LastIndexByte(good, '.')

	for _, tc := range []struct {
		name string
		jws  []byte
		want error
	}{
		{"another key's", raw(strangerKey, head, `{}`), chain.ErrSignature},
		{"another purpose", raw(terminalKey, `{"alg":"EdDSA","kid":"","typ":"rollcall-receipt"}`, `{}`), chain.ErrSignature},
		{"no purpose", raw(terminalKey, `{"alg":"EdDSA"}`, `{}`), chain.ErrSignature},
		{"algorithm none", raw(terminalKey, `{"alg":"none","typ":"rollcall-head"}`, `{}`), chain.ErrSignature},
		{"algorithm HS256", raw(terminalKey, `{"alg":"HS256","typ":"rollcall-head"}`, `{}`), chain.ErrSignature},
		{"algorithm of another key type", raw(terminalKey, `{"alg":"ES256","typ":"rollcall-head"}`, `{}`), chain.ErrSignature},
		{"critical extension", raw(terminalKey, `{"alg":"EdDSA","typ":"rollcall-head","crit":["b64"],"b64":false}`, `{}`), chain.ErrMalformed},
		{"empty list of critical extensions", raw(terminalKey, `{"alg":"EdDSA","typ":"rollcall-head","crit":[]}`, `{}`), chain.ErrMalformed},
		{"signature cut", good[:dot+5], chain.ErrSignature},
		{"no signature", good[:dot+1], chain.ErrSignature},
		{"two parts", good[:dot], chain.ErrMalformed},
		{"four parts", append(bytes.Clone(good), ".AA"...), chain.ErrMalformed},
		{"a line end in the signature", append(append(bytes.Clone(good[:dot+5]), '\r'), good[dot+5:]...), chain.ErrMalformed},
		{"padding", append(bytes.Clone(good), '='), chain.ErrMalformed},
		{"a space before", append([]byte(" "), good...), chain.ErrMalformed},
		{"nothing", nil, chain.ErrMalformed},
		{"dots", []byte(".."), chain.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := chain.Open(terminalKey.Public(), chain.PurposeHead, tc.jws)
			assert.ErrorIs(t, err, tc.want)
		})
	}
}

func TestHeadAndReceiptPayloads(t *testing.T) {
	const fields = `"log":"t-1/aaaa","seq":1,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","at":"2026-11-21T08:30:00.000Z"`
	const header = `{"alg":"EdDSA","typ":"rollcall-receipt"}`
	_, err := chain.OpenReceipt(receiptKey.Public(), raw(receiptKey, header, `{`+fields+`,"more":1}`))
	assert.NoError(t, err, "a later version may say more")
	for name, payload := range map[string]string{
		"not JSON":           `{`,
		"a name twice":       `{` + fields + `,"seq":2}`,
		"a name in capitals": `{` + fields + `,"Seq":2}`,
		"seq as text":        strings.Replace(`{`+fields+`}`, `1,`, `"1",`, 1),
		"time in no form":    strings.Replace(`{`+fields+`}`, `T08`, ` 08`, 1),
	} {
		_, err := chain.OpenReceipt(receiptKey.Public(), raw(receiptKey, header, payload))
		assert.ErrorIs(t, err, chain.ErrMalformed, name)
	}
}

func TestSignRefusesKeysItCannotName(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, err = chain.Sign(key, chain.PurposeHead, 1)
	assert.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = chain.Open(key.Public(), chain.PurposeHead, jws(t, terminalKey, chain.PurposeHead, 1))
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}

// What we open, a stock library opens to the same payload.
func FuzzOpen(f *testing.F) {
	f.Add(jws(f, terminalKey, chain.PurposeHead, map[string]int{"n": 1}))
	f.Add(raw(terminalKey, `{"alg":"EdDSA","typ":"rollcall-head","crit":["x"]}`, `{}`))
	f.Add([]byte("a.b.c"))
	f.Fuzz(func(t *testing.T, text []byte) {
		payload, err := chain.Open(terminalKey.Public(), chain.PurposeHead, text)
		if err != nil {
			return
		}
		parsed, err := jose.ParseSignedCompact(string(text), stock)
		require.NoError(t, err)
		theirs, err := parsed.Verify(terminalKey.Public())
		require.NoError(t, err)
		assert.Equal(t, payload, theirs)
	})
}

// The fuzzer cannot sign, so headers are fuzzed apart, and signed.
func FuzzSignedHeader(f *testing.F) {
	f.Add(`{"alg":"EdDSA","kid":"","typ":"rollcall-head"}`, `{}`)
	f.Add(`{"alg":"EdDSA","ALG":"none","typ":"rollcall-head"}`, `{}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		text := raw(terminalKey, header, payload)
		got, err := chain.Open(terminalKey.Public(), chain.PurposeHead, text)
		if err != nil {
			return
		}
		assert.Equal(t, payload, string(got))
		assert.True(t, json.Valid([]byte(header)))
	})
}

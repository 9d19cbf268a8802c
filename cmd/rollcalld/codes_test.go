package main

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

func TestCodeOpenerKnowsTheCentresCodesOnly(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	_, stranger, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	good := attendance.ClassCode{V: 1, Terminal: "t-1", Trainee: "T01", Class: "c-1", Session: "s-1", Issued: 1000, Expires: 1300, Nonce: "AAAAAAAAAAA1"}
	sign := func(key ed25519.PrivateKey, purpose chain.Purpose, payload any) string {
		text, err := chain.Sign(key, purpose, payload)
		require.NoError(t, err)
		return text
	}
	elsewhere := good
	elsewhere.Terminal = "t-2"
	text := sign(key, chain.PurposeCode, good)
	other := "A"
	if strings.HasPrefix(text[len(text)-10:], other) {
		other = "B"
	}
	open := codeOpener(chain.Trust{Package: pub}, "t-1")

	code, err := open(text)
	require.NoError(t, err)
	assert.Equal(t, good, code)
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"another system's code":      {"86013245012345678901", attendance.ErrNotClassCode},
		"an address":                 {"https://example.invalid/a.b?c=d", attendance.ErrNotClassCode},
		"two dots and nothing else":  {"..", attendance.ErrNotClassCode},
		"another key":                {sign(stranger, chain.PurposeCode, good), chain.ErrSignature},
		"a signature for packages":   {sign(key, chain.PurposePackage, good), chain.ErrSignature},
		"one character changed":      {text[:len(text)-10] + other + text[len(text)-9:], chain.ErrSignature},
		"for another terminal":       {sign(key, chain.PurposeCode, elsewhere), attendance.ErrClassCode},
		"signed and not understood":  {sign(key, chain.PurposeCode, map[string]any{"v": 2}), attendance.ErrClassCode},
		"signed and of another kind": {sign(key, chain.PurposeCode, []int{1}), attendance.ErrClassCode},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(tc.text)
			assert.ErrorIs(t, err, tc.want)
			if tc.want != attendance.ErrNotClassCode {
				assert.NotErrorIs(t, err, attendance.ErrNotClassCode, "what claims to be ours and is not is no stranger's code")
			}
		})
	}
}

func FuzzCodeOpener(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	text, err := chain.Sign(key, chain.PurposeCode, attendance.ClassCode{V: 1, Terminal: "t-1"})
	require.NoError(f, err)
	f.Add(text)
	f.Add("a.b.c")
	pub, _, err := ed25519.GenerateKey(nil)
	require.NoError(f, err)
	open := codeOpener(chain.Trust{Package: pub}, "t-1")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := open(text)
		require.Error(t, err, "another key's code")
	})
}

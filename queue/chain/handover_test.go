package chain_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// Handovers lead from one key to the next, also to one of another algorithm,
// and only in their order and for their terminal.
func TestFollow(t *testing.T) {
	tpm, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	first, err := chain.SignHandover(terminalKey, "t-1", otherKey.Public())
	require.NoError(t, err)
	second, err := chain.SignHandover(otherKey, "t-1", tpm.Public())
	require.NoError(t, err)
	for _, tc := range []struct {
		name      string
		terminal  chain.TerminalID
		handovers []string
		want      any // a key, or the error
	}{
		{"none", "t-1", nil, terminalKey.Public()},
		{"one", "t-1", []string{first}, otherKey.Public()},
		{"two", "t-1", []string{first, second}, tpm.Public()},
		{"one left out", "t-1", []string{second}, chain.ErrSignature},
		{"another order", "t-1", []string{second, first}, chain.ErrSignature},
		{"one twice", "t-1", []string{first, first}, chain.ErrSignature},
		{"another terminal's", "t-2", []string{first}, chain.ErrSignature},
		{"another purpose", "t-1", []string{string(jws(t, terminalKey, chain.PurposeHead, 1))}, chain.ErrSignature},
		{"no key", "t-1", []string{string(jws(t, terminalKey, chain.PurposeKey, chain.Handover{Terminal: "t-1", Key: []byte{1}}))}, chain.ErrMalformed},
		{"rubbish", "t-1", []string{"a.b.c"}, chain.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := chain.Follow(terminalKey.Public(), tc.terminal, tc.handovers...)
			if want, fails := tc.want.(error); fails {
				assert.ErrorIs(t, err, want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

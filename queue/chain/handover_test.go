package chain_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// Handovers lead from one key to the next, also to one of another algorithm,
// and only in their order and for their terminal.
func TestRing(t *testing.T) {
	tpm, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	both := handovers(t, terminalKey, otherKey, tpm)
	first, second := both[0], both[1]
	fork := handovers(t, terminalKey, strangerKey)[0]
	back := handovers(t, terminalKey, otherKey, terminalKey)
	for _, tc := range []struct {
		name      string
		terminal  chain.TerminalID
		handovers []string
		want      any // a key, or the error
	}{
		{"none", "t-1", nil, terminalKey.Public()},
		{"one", "t-1", []string{first}, otherKey.Public()},
		{"two", "t-1", []string{first, second}, tpm.Public()},
		{"known ones again", "t-1", []string{first, second, first, second}, tpm.Public()},
		{"one left out", "t-1", []string{second}, chain.ErrUnknownKey},
		{"another order", "t-1", []string{second, first}, chain.ErrUnknownKey},
		{"two by one key", "t-1", []string{first, fork}, chain.ErrSignature},
		{"back to a retired key", "t-1", back, chain.ErrSignature},
		{"another terminal's", "t-2", []string{first}, chain.ErrSignature},
		{"another purpose", "t-1", []string{string(jws(t, terminalKey, chain.PurposeHead, 1))}, chain.ErrSignature},
		{"no key", "t-1", []string{string(jws(t, terminalKey, chain.PurposeKey, chain.Handover{Terminal: "t-1", Key: []byte{1}}))}, chain.ErrMalformed},
		{"too long", "t-1", []string{first + strings.Repeat("A", chain.MaxHandover)}, chain.ErrMalformed},
		{"rubbish", "t-1", []string{"a.b.c"}, chain.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ring, err := chain.NewRing(tc.terminal, terminalKey.Public(), tc.handovers...)
			if want, fails := tc.want.(error); fails {
				assert.ErrorIs(t, err, want)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, ring.Key())
			again, err := chain.NewRing(tc.terminal, terminalKey.Public(), ring.Handovers()...)
			require.NoError(t, err)
			assert.Equal(t, ring, again)
		})
	}
}

// A ring that was cloned grows by itself.
func TestRingClone(t *testing.T) {
	ring := ringOf(t)
	clone := ring.Clone()
	require.NoError(t, clone.Follow(handovers(t, terminalKey, otherKey)...))
	assert.Equal(t, 0, ring.Last())
	assert.Equal(t, 1, clone.Last())
}

package chain_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
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

// FuzzFollow gives a ring any handover, one by the key in force with any payload,
// and any record that could tell of keys: what the ring takes is handed over by
// the key before, and leads back to no other.
func FuzzFollow(f *testing.F) {
	both := handovers(f, terminalKey, nextKey, tpmKey)
	f.Add(both[0], `{"terminal":"t-1"}`, "key", `{"old":"`+chain.KeyID(terminalKey.Public())+`","new":"`+chain.KeyID(nextKey.Public())+`","handover":"`+both[0]+`"}`)
	f.Add(both[1], `{"terminal":"t-1","key":"AA=="}`, "open", `{"key":"`+chain.KeyID(nextKey.Public())+`","handovers":["`+both[0]+`"]}`)
	f.Add("a.b.c", `{`, "open", `{"key":1}`)
	f.Fuzz(func(t *testing.T, any, payload, typ, body string) {
		ring := ringOf(t)
		_ = ring.Follow(any)
		if json.Valid([]byte(payload)) {
			_ = ring.Follow(string(jws(t, terminalKey, chain.PurposeKey, json.RawMessage(payload))))
		}
		b := chain.Batch{
			Entries: []chain.Entry{{V: 1, Log: logA, Seq: 1, Type: typ, Body: []byte(body)}}, Lines: [][]byte{[]byte(body)},
			Handovers: []string{any}, Head: []byte(any),
		}
		_, _, _ = b.Check(ring, 0)
		again, err := chain.NewRing("t-1", terminalKey.Public(), ring.Handovers()...)
		require.NoError(t, err)
		assert.Equal(t, ring, again)
		ids := map[string]bool{}
		for place := range ring.Last() + 1 {
			assert.False(t, ids[ring.ID(place)], "a key stands in the ring twice")
			ids[ring.ID(place)] = true
		}
	})
}

package chain_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// The keys that t-1 goes through: the last is of the kind that a TPM has.
var (
	nextKey = key(6)
	tpmKey  = func() *ecdsa.PrivateKey {
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 7))
		if err != nil {
			panic(err)
		}
		return k
	}()
)

// change adds a key record by the key in force, and goes on with the next.
func (l *ledger) change(next crypto.Signer) {
	handover := handovers(l.h.t, l.key, next)[0]
	l.record("key", keyBody(l.h.t, l.key, next, handover))
	l.key = next
}

func keyBody(t testing.TB, old, next crypto.Signer, handover string) string {
	body, err := json.Marshal(map[string]string{"old": chain.KeyID(old.Public()), "new": chain.KeyID(next.Public()), "handover": handover})
	require.NoError(t, err)
	return string(body)
}

// changed is eight records and two changes of the key: 1-3 and the key record 4
// are signed by the certificate's key, 5-6 and 7 by the next, 8 by a TPM's.
func (h house) changed() *ledger {
	l := h.ledger(terminalKey, logA, 3)
	l.change(nextKey)
	l.add(`{"n":5}`)
	l.add(`{"n":6}`)
	l.change(tpmKey)
	l.add(`{"n":8}`)
	return l
}

// whole is every record with its head.
func (l *ledger) whole(more ...[]byte) [][]byte {
	file := append([][]byte{chain.CertificateLine(l.h.cert)}, more...)
	for i := range l.lines {
		file = append(file, l.lines[i], l.heads[i])
	}
	return file
}

// A ledger whose key was changed verifies, whole and in parts, with the
// handovers that lead to its keys.
func TestChangedKey(t *testing.T) {
	h := newHouse(t)
	l := h.changed()
	var known [][]byte
	for _, jws := range handovers(t, terminalKey, nextKey, tpmKey) {
		known = append(known, []byte(jws))
	}
	cut := func(seq int) []byte {
		return jws(t, tpmKey, chain.PurposeCut, chain.Head{Log: logA, Seq: chain.Seq(seq), Hash: l.hash(seq), Wall: chain.NewWall(morning)})
	}
	after := func(seq int) [][]byte {
		return slices.Concat(known, [][]byte{cut(seq)}, l.whole()[1+2*seq:], [][]byte{l.receipt(receiptKey, 8)})
	}
	certificate := [][]byte{chain.CertificateLine(h.cert)}
	for _, tc := range []struct {
		name string
		file [][]byte
		want string
	}{
		{"every head", l.whole(), "verified 1-8; own word 1-8"},
		{"handovers too", l.whole(known...), "verified 1-8; own word 1-8"},
		{"the last head alone", append(slices.Concat(certificate, l.lines), l.heads[7]), "verified 1-8; own word 1-8"},
		{"heads at the end", slices.Concat(certificate, l.lines, l.heads), "verified 1-8; own word 1-8"},
		{"a later key for an earlier record", slices.Insert(l.whole(known...), 8, l.head(tpmKey, 2)), "verified 1-8; own word 1-8"},
		{"the first key record let go", slices.Concat(certificate, after(5)), "let go 1-5; verified 6-8; sealed to 8 at 2026-11-21T09:30:00.000+08:00 (centre)"},
		{"every key record let go", slices.Concat(certificate, after(7)), "let go 1-7; verified 8; sealed to 8 at 2026-11-21T09:30:00.000+08:00 (centre)"},
		{"the certificate twice", slices.Concat(certificate, known, l.whole(known...)), "verified 1-8; own word 1-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			epochs, err := verify(&h.trust, tc.file)
			require.NoError(t, err)
			assert.Equal(t, tc.want, epochs[0].String())
		})
	}
}

// Whoever signs with a key that is not in force is found, and so is a change that
// the key in force did not sign.
func TestWrongChangeIsFound(t *testing.T) {
	h := newHouse(t)
	from := func(n int, add func(l *ledger)) [][]byte { // n honest records, and what somebody adds
		l := h.changed()
		l.lines, l.heads = l.lines[:n], l.heads[:n]
		l.key = map[int]crypto.Signer{3: terminalKey, 6: nextKey}[n]
		add(l)
		return l.whole()
	}
	record := func(old, next crypto.Signer, handover string) func(*ledger) {
		return func(l *ledger) { l.record("key", keyBody(t, old, next, handover)) }
	}
	by := func(keys ...crypto.Signer) string { return handovers(t, keys...)[0] }
	other, err := chain.SignHandover(nextKey, "t-2", tpmKey.Public())
	require.NoError(t, err)
	open := func(key crypto.Signer, jws ...string) [][]byte {
		body, err := json.Marshal(map[string]any{"key": chain.KeyID(key.Public()), "handovers": jws})
		require.NoError(t, err)
		l := &ledger{h: h, key: key, log: logA}
		l.record("open", string(body))
		l.add(`{}`)
		return l.whole()
	}
	l := h.changed()
	for _, tc := range []struct {
		name string
		file [][]byte
		seq  chain.Seq
		what string
	}{
		{"a later record by the retired key", from(6, func(l *ledger) { l.key = terminalKey; l.add(`{}`) }), 7, "retired key"},
		{"a key record by the next key", from(6, func(l *ledger) { l.key = tpmKey; record(nextKey, tpmKey, by(nextKey, strangerKey))(l) }), 7, "does not lead"},
		{"a key record of the retired key", from(6, record(terminalKey, tpmKey, by(terminalKey, tpmKey))), 7, "another key than the one in force"},
		{"a handover by the retired key", from(6, record(nextKey, tpmKey, by(terminalKey, tpmKey))), 7, "its handover is by another key"},
		{"a handover by a stranger", from(6, record(nextKey, tpmKey, by(strangerKey, tpmKey))), 7, "its handover is by another key"},
		{"another terminal's handover", from(6, record(nextKey, tpmKey, other)), 7, `it is of terminal "t-2"`},
		{"back to the first key", from(6, record(nextKey, terminalKey, by(nextKey, terminalKey))), 7, "back to a key before it"},
		{"no handover", from(6, record(nextKey, tpmKey, "")), 7, "its handover is by another key"},
		{"a change that is kept out", from(6, func(l *ledger) { l.key = tpmKey; l.add(`{}`) }), 7, "no handover leads to"},
		{"a key record that is taken out", slices.Delete(l.whole(), 13, 15), 7, "is missing"},
		{"a new epoch by a key that is not handed over", open(nextKey), 1, "do not lead to the key"},
		{"a new epoch by another key than its handovers say", open(nextKey, by(terminalKey, tpmKey)), 1, "do not lead to the key"},
		{"a new epoch with handovers in another order", open(tpmKey, by(nextKey, tpmKey), by(terminalKey, nextKey)), 1, "no handover leads to"},
		{"a handover taken out before the lines", slices.Insert(l.whole(), 1, []byte(by(nextKey, tpmKey))), 0, "no handover leads to"},
		{"a handover before the certificate", slices.Insert(l.whole(), 0, []byte(by(terminalKey, nextKey))), 0, "before the certificate"},
		{"another handover than the key record's", slices.Insert(l.whole(), 1, []byte(by(terminalKey, otherKey))), 4, "another key than the handover known"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verify(&h.trust, tc.file)
			problem, ok := errors.AsType[*chain.Problem](err)
			require.True(t, ok, "not found: %v", err)
			assert.Equal(t, tc.seq, problem.Seq, "%v", err)
			assert.Contains(t, err.Error(), tc.what)
		})
	}
}

// Where a gap took the key record, the handovers before the lines say what signs
// behind it, and only keys that they lead to may.
func TestKeyRecordInAGap(t *testing.T) {
	h := newHouse(t)
	l := h.changed()
	l.record("gap", `{"from":4,"to":5,"reason":"damaged"}`)
	file := slices.Delete(l.whole(), 7, 11)
	_, err := verify(&h.trust, file)
	assert.ErrorContains(t, err, "is missing", "the control: nothing says what signs record 6")
	file = slices.Insert(file, 1, []byte(handovers(t, terminalKey, nextKey)[0]))
	epochs, err := verify(&h.trust, file)
	require.NoError(t, err)
	assert.Equal(t, "verified 1-3; own word 1-3; gap 4-5; verified 6-9; own word 6-9", epochs[0].String())
}

// A batch says which keys sign it: in its records, or before its head.
func TestBatchOfAChangedKey(t *testing.T) {
	h := newHouse(t)
	l := h.changed()
	all := handovers(t, terminalKey, nextKey, tpmKey)
	batch := func(first, last int, key crypto.Signer, handovers ...string) []byte {
		return chain.FormBatch(l.lines[first-1:last], l.head(key, last), handovers...)
	}
	for _, tc := range []struct {
		name    string
		payload []byte
		knows   []crypto.Signer // besides the certificate's key
		place   int
		turns   []chain.Turn
		by      int
		err     error
	}{
		{"up to the key record", batch(3, 4, terminalKey), nil, 0, []chain.Turn{{Seq: 4, Place: 1}}, 0, nil},
		{"past it", batch(3, 5, nextKey), nil, 0, []chain.Turn{{Seq: 4, Place: 1}}, 1, nil},
		{"past both", batch(1, 8, tpmKey), nil, 0, []chain.Turn{{Seq: 4, Place: 1}, {Seq: 7, Place: 2}}, 2, nil},
		{"sent again", batch(3, 5, nextKey), []crypto.Signer{nextKey, tpmKey}, 0, []chain.Turn{{Seq: 4, Place: 1}}, 1, nil},
		{"behind it", batch(5, 6, nextKey), []crypto.Signer{nextKey}, 1, nil, 1, nil},
		{"behind one that the centre has not", batch(5, 6, nextKey), nil, 0, nil, 0, chain.ErrUnknownKey},
		{"behind it, with the handover", batch(5, 6, nextKey, all[0]), nil, 0, nil, 1, nil},
		{"before it, signed anew since", batch(1, 3, tpmKey, all...), nil, 0, nil, 2, nil},
		{"behind it, by the retired key", batch(5, 6, terminalKey), []crypto.Signer{nextKey}, 1, nil, 0, chain.ErrRetired},
		{"past it, by the retired key", batch(3, 5, terminalKey), nil, 0, nil, 0, chain.ErrRetired},
		{"a handover that leads nowhere", batch(5, 6, nextKey, all[1]), nil, 0, nil, 0, chain.ErrUnknownKey},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := chain.ParseBatch(tc.payload)
			require.NoError(t, err)
			turns, by, err := b.Check(ringOf(t, tc.knows...), tc.place)
			require.ErrorIs(t, err, tc.err)
			if tc.err == nil {
				assert.Equal(t, tc.turns, turns)
				assert.Equal(t, tc.by, by)
			}
		})
	}
	first := &ledger{h: h, key: tpmKey, log: logA}
	body, err := json.Marshal(map[string]any{"key": chain.KeyID(tpmKey.Public()), "handovers": all})
	require.NoError(t, err)
	first.record("open", string(body))
	b, err := chain.ParseBatch(chain.FormBatch(first.lines, first.heads[0]))
	require.NoError(t, err)
	turns, by, err := b.Check(ringOf(t), 0)
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint([]chain.Turn{{Seq: 0, Place: 2}}), fmt.Sprint(turns))
	assert.Equal(t, 2, by)
}

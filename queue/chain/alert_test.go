package chain_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

func alert() chain.Alert {
	at := chain.NewWall(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	return chain.Alert{V: 1, Log: "t-test/e1", Seq: 7, Kind: chain.AlertLedger, Code: "warn", Count: 1, Since: at, At: at}
}

func TestOpenAlert(t *testing.T) {
	sign := func(t *testing.T, a any) []byte {
		jws, err := chain.Sign(queuetest.TerminalKey, chain.PurposeAlert, a)
		require.NoError(t, err)
		return []byte(jws)
	}
	got, by, err := chain.OpenAlert(queuetest.Ring(), sign(t, alert()))
	require.NoError(t, err)
	assert.Equal(t, alert(), got)
	assert.Zero(t, by)

	changed := func(change func(*chain.Alert)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			a := alert()
			change(&a)
			return sign(t, a)
		}
	}
	for _, tc := range []struct {
		name  string
		jws   func(t *testing.T) []byte
		says  string
		wraps error
	}{
		{"of a later version", changed(func(a *chain.Alert) { a.V = 2 }), "version 2, this program knows 1", chain.ErrMalformed},
		{"without a version", changed(func(a *chain.Alert) { a.V = 0 }), "version 0", chain.ErrMalformed},
		{"of no terminal", changed(func(a *chain.Alert) { a.Log = "x" }), "", chain.ErrMalformed},
		{"of no kind", changed(func(a *chain.Alert) { a.Kind = "" }), "", chain.ErrMalformed},
		{"with a kind that is a sentence", changed(func(a *chain.Alert) { a.Kind = "it burns" }), "", chain.ErrMalformed},
		{"with a code that is markup", changed(func(a *chain.Alert) { a.Code = "<b>" }), "", chain.ErrMalformed},
		{"too large", changed(func(a *chain.Alert) { a.Code = strings.Repeat("x", chain.MaxAlert) }), "at most", chain.ErrMalformed},
		{"not an object", func(t *testing.T) []byte { return sign(t, 7) }, "", chain.ErrMalformed},
		{"empty", func(*testing.T) []byte { return nil }, "", chain.ErrMalformed},
		{"signed by another", func(t *testing.T) []byte {
			jws, err := chain.Sign(queuetest.StrangerKey, chain.PurposeAlert, alert())
			require.NoError(t, err)
			return []byte(jws)
		}, "", chain.ErrSignature},
		{"signed for another purpose", func(t *testing.T) []byte {
			jws, err := chain.Sign(queuetest.TerminalKey, chain.PurposeHead, alert())
			require.NoError(t, err)
			return []byte(jws)
		}, "", chain.ErrSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := chain.OpenAlert(queuetest.Ring(), tc.jws(t))
			require.ErrorIs(t, err, tc.wraps)
			assert.ErrorContains(t, err, tc.says)
		})
	}
}

// An alert by a key that the reader does not know yet brings the handovers that
// lead to it; without them it counts for nothing.
func TestAlertByTheNextKey(t *testing.T) {
	var handovers []string
	key := queuetest.TerminalKey
	for n := range 40 {
		next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(100 + n)}, ed25519.SeedSize))
		h, err := chain.SignHandover(key, "t-test", next.Public())
		require.NoError(t, err)
		handovers, key = append(handovers, h), next
		jws, err := chain.Sign(key, chain.PurposeAlert, alert())
		require.NoError(t, err)
		_, _, err = chain.OpenAlert(queuetest.Ring(), []byte(jws))
		require.ErrorIs(t, err, chain.ErrUnknownKey)

		ring, err := chain.NewRing("t-test", queuetest.TerminalKey.Public(), handovers[:n]...)
		require.NoError(t, err)
		text := chain.FormAlert(jws, handovers...)
		require.LessOrEqual(t, len(text), chain.MaxAlert)
		_, by, err := chain.OpenAlert(ring, text)
		require.NoError(t, err, "the reader knows all but the last")
		assert.Equal(t, n+1, by)
	}
}

func FuzzOpenAlert(f *testing.F) {
	jws, err := chain.Sign(queuetest.TerminalKey, chain.PurposeAlert, alert())
	require.NoError(f, err)
	f.Add([]byte(jws))
	f.Add([]byte("e30.e30."))
	handover, err := chain.SignHandover(queuetest.TerminalKey, "t-test", queuetest.StrangerKey.Public())
	require.NoError(f, err)
	f.Add(chain.FormAlert(jws, handover))
	f.Fuzz(func(t *testing.T, text []byte) {
		if a, _, err := chain.OpenAlert(queuetest.Ring(), text); err == nil {
			assert.Equal(t, 1, a.V)
			assert.True(t, a.Log.Terminal().Valid())
		}
	})
}

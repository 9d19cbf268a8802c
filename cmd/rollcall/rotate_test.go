package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/device"
	"rollcall/queue"
)

// A ledger whose key was changed is verified, shown and exported like any other;
// its terminal's certificate is still of the first key.
func TestLedgerOfAChangedKey(t *testing.T) {
	b := newBooks(t)
	cfg, err := ledgerConfig(b.state)
	require.NoError(t, err)
	l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	stop := runLedger(t, l)
	require.NoError(t, l.Rotate(t.Context()))
	require.NoError(t, l.Rotate(t.Context()))
	stop()
	keys, err := device.OpenKeys(filepath.Join(b.state, "keys"))
	require.NoError(t, err)
	require.Len(t, keys.Handovers(), 2)

	verified := said(t, "ledger", "verify", b.state)
	assert.Regexp(t, `verified 1-8; sealed to 4 at \S+ \(centre\); own word 5-8`, verified)
	text := []byte(said(t, "ledger", "export", b.state))
	lines := bytes.Split(text, []byte("\n"))
	assert.Equal(t, keys.Handovers(), []string{string(lines[1]), string(lines[2])}, "behind the certificate")
	same, err := b.verify(t, text, "-trust", b.trust)
	require.NoError(t, err)
	assert.Equal(t, verified, same)
	assert.Contains(t, said(t, "ledger", "show", b.state), " hands over to ")
	assert.Equal(t, 9, strings.Count(said(t, "ledger", "export", "-csv", b.state), "\n"), "a table of eight records")

	_, err = b.verify(t, bytes.Replace(text, append(lines[1], '\n'), nil, 1), "-trust", b.trust)
	require.ErrorIs(t, err, errFound)
	assert.ErrorContains(t, err, "no handover leads to")
}

package centre_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// The owner of a box can take its disk away or put an older copy back. The
// terminal's real ledger then goes on as best it can, and the centre raises an
// alarm.
func TestTamperedDiskRaisesAnAlarm(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		tamper func(t *testing.T, state, older string)
		alarm  string
	}{
		{"not tampered with", func(*testing.T, string, string) {}, ""},
		{"store deleted", func(t *testing.T, state, _ string) { empty(t, state, "ledger.last") }, "epoch_break"},
		{"everything deleted", func(t *testing.T, state, _ string) { empty(t, state, "") }, "epoch_break"},
		{"old disk restored", func(t *testing.T, state, older string) {
			empty(t, state, "")
			require.NoError(t, os.CopyFS(state, os.DirFS(older)))
		}, "log_fork"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range rounds(2, 5) {
				c, cfg, _ := newCentre(t)
				b := admitted(t, c, "t-1")
				state, older := t.TempDir(), t.TempDir()
				sent := r.IntN(4)
				fillAndSend(t, c, b, state, 1+r.IntN(5), sent > 0)
				require.NoError(t, os.CopyFS(older, os.DirFS(state)))
				fillAndSend(t, c, b, state, 1+r.IntN(5), true)
				tc.tamper(t, state, older)
				fillAndSend(t, c, b, state, 1+r.IntN(5), true)
				if tc.alarm == "" {
					assert.Zero(t, count(t, cfg, "alarms"))
					continue
				}
				assert.Equal(t, 1, count(t, cfg, "alarms WHERE kind = $1", tc.alarm))
			}
		})
	}
}

// fillAndSend runs the terminal: n records, and then the uplink once.
func fillAndSend(t *testing.T, c *centre.Centre, b *box, state string, n int, send bool) {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	up := int64(0)
	ledger, err := queue.Open(queue.Config{
		Dir: state, Terminal: b.id, Key: b.ledger, ReceiptKey: trust.Receipt, Software: "test",
		Stamp: func() chain.Stamp {
			up++
			return chain.Stamp{Wall: chain.NewWall(today), Boot: "b", UpMS: up, Clock: chain.ClockSynced}
		},
	}, discard())
	require.NoError(t, err)
	defer func() { assert.NoError(t, ledger.Close()) }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- ledger.Run(ctx) }()
	for range n {
		up += rand.Int64N(1_000_000) // two lives of one box are never the same
		_, err := ledger.Append(ctx, attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{Part: "reader", Code: "removed", Tapped: "t", Reader: "r"}))
		require.NoError(t, err)
	}
	for send {
		payload, _, err := ledger.Batch(ledger.Status().Receipted, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(t, err)
		if payload == nil {
			break
		}
		receipt, err := c.Ingest(ctx, b.id, payload)
		if err != nil {
			require.ErrorIs(t, err, centre.ErrRefused)
			break
		}
		if _, err := ledger.Receipt(receipt); err != nil {
			break // of a record that an older copy does not hold
		}
	}
	cancel()
	require.NoError(t, <-ended)
}

// empty removes all that is in a directory but one file.
func empty(t *testing.T, dir, but string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != but {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// books is a terminal's state directory with six records, the first four of
// which the centre has received.
type books struct {
	state string // the terminal's
	trust string // its admission
	text  []byte // its export
}

func newBooks(t *testing.T) books {
	dir := t.TempDir()
	cfg := centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre"), Listen: "127.0.0.1:0"}
	require.NoError(t, centre.Init(cfg, time.Now()))
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(t, err)
	defer c.Close()

	b := books{state: filepath.Join(dir, "terminal")}
	b.trust = filepath.Join(b.state, "keys", "admission.json")
	request := said(t, "terminal", "request", "-state", b.state, "-id", "t-1")
	admission, err := c.Admit(t.Context(), []byte(request))
	require.NoError(t, err)
	answer := filepath.Join(dir, "admission.json")
	text, err := json.Marshal(admission)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(answer, text, 0o600))
	assert.Contains(t, said(t, "terminal", "admit", "-state", b.state, answer), "t-1 is admitted by demo")

	b.fill(t, c, admission)
	b.text = []byte(said(t, "ledger", "export", b.state))
	return b
}

// fill stores three records, sends them, and stores two more.
func (b books) fill(t *testing.T, c *centre.Centre, admission chain.Admission) {
	keys, err := device.OpenKeys(filepath.Join(b.state, "keys"))
	require.NoError(t, err)
	trust, err := admission.Trust()
	require.NoError(t, err)
	clock, err := device.SystemClock(time.UTC)
	require.NoError(t, err)
	ledger, err := queue.Open(queue.Config{
		Dir: b.state, Terminal: "t-1", Key: keys.Ledger(), ReceiptKey: trust.Receipt, Stamp: clock.Stamp, Software: "test",
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, stop := t.Context(), runLedger(t, ledger)
	store := func(n int) {
		for range n {
			_, err := ledger.Append(ctx, attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{Part: "reader", Code: "removed", Tapped: "t", Reader: "r"}))
			require.NoError(t, err)
		}
	}
	store(3)
	payload, _, err := ledger.Batch(0, 128, 64<<10)
	require.NoError(t, err)
	receipt, err := c.Ingest(ctx, "t-1", payload)
	require.NoError(t, err)
	_, err = ledger.Receipt(receipt)
	require.NoError(t, err)
	store(2)
	stop()
}

// runLedger runs a ledger until stop, which closes it.
func runLedger(t *testing.T, l *queue.Ledger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, l.Close())
	}
}

// said runs the tool and gives what it printed.
func said(t *testing.T, args ...string) string {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), args, &out), args)
	return out.String()
}

func (b books) verify(t *testing.T, text []byte, args ...string) (string, error) {
	file := filepath.Join(t.TempDir(), "export")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	var out bytes.Buffer
	err := run(t.Context(), append(append([]string{"ledger", "verify"}, args...), file), &out)
	return out.String(), err
}

func TestVerifySaysWhatIsSealedAndWhatIsOwnWord(t *testing.T) {
	b := newBooks(t)
	text, err := b.verify(t, b.text, "-trust", b.trust)
	require.NoError(t, err)
	assert.Regexp(t, `verified 1-6; sealed to 4 at \S+ \(centre\); own word 5-6`, text)

	assert.Equal(t, text, said(t, "ledger", "verify", b.state), "the state directory says the same as its export")

	text, err = b.verify(t, b.text)
	require.NoError(t, err)
	assert.Contains(t, text, "own word 1-6; key taken from the file itself")
	assert.Contains(t, text, "-trust")
}

func TestVerifyNamesTheFirstRecordThatIsWrong(t *testing.T) {
	b := newBooks(t)
	lines := strings.Split(strings.TrimSpace(string(b.text)), "\n")
	record := func(seq int) int {
		for i, line := range lines {
			if strings.Contains(line, fmt.Sprintf(`"seq":%d,`, seq)) {
				return i
			}
		}
		t.Fatal("no such record")
		return 0
	}
	for _, tc := range []struct {
		name   string
		change func(lines []string) []string
		want   string
	}{
		{"a word changed", func(l []string) []string {
			l[record(3)] = strings.Replace(l[record(3)], "removed", "blocked", 1)
			return l
		}, "record 4"},
		{"a record taken out", func(l []string) []string { return append(l[:record(3)], l[record(3)+1:]...) }, "record 3 of"},
		{"two records exchanged", func(l []string) []string {
			l[record(2)], l[record(3)] = l[record(3)], l[record(2)]
			return l
		}, "record 2 of"},
		{"a record twice", func(l []string) []string {
			return append(l[:record(2)+1], append([]string{l[record(2)]}, l[record(2)+1:]...)...)
		}, "record 2 of"},
		{"the tail cut below the receipt", func(l []string) []string {
			return append(append([]string(nil), l[:record(3)]...), l[len(l)-1])
		}, "no head covers 1-2"},
		{"nothing", func([]string) []string { return nil }, "no record"},
		{"noise", func([]string) []string { return []string{strings.Repeat("x", 100_000)} }, "this is no ledger"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Join(tc.change(append([]string(nil), lines...)), "\n")
			_, err := b.verify(t, []byte(text), "-trust", b.trust)
			require.ErrorIs(t, err, errFound)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestWrongCallsSayWhatToDo(t *testing.T) {
	empty := t.TempDir()
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"no such command", []string{"legder"}, "rollcall help"},
		{"half a command", []string{"ledger"}, "ledger export, ledger salvage, ledger show, ledger verify?"},
		{"no file", []string{"ledger", "verify"}, "0 arguments given"},
		{"missing file", []string{"ledger", "verify", filepath.Join(empty, "x")}, "no such file"},
		{"trust is no admission", []string{"ledger", "verify", "-trust", os.Args[0], os.Args[0]}, "not an admission"},
		{"no daemon", []string{"status", "-state", empty}, "start rollcalld"},
		{"no id", []string{"terminal", "request", "-state", empty}, "-id"},
		{"bad id", []string{"terminal", "request", "-state", empty, "-id", "a/b"}, "letters, digits and hyphens"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), tc.args, &bytes.Buffer{})
			require.Error(t, err)
			assert.NotErrorIs(t, err, errFound, "a wrong call is no finding")
			assert.ErrorContains(t, err, tc.want)
		})
	}
	assert.ErrorIs(t, run(t.Context(), []string{"status", "-state", empty}, &bytes.Buffer{}), control.ErrNotRunning)
}

func TestKeysAreMadeOnce(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	first := said(t, "terminal", "request", "-state", state, "-id", "t-1")
	again := said(t, "terminal", "request", "-state", state, "-id", "t-1")
	var a, b chain.Request
	require.NoError(t, json.Unmarshal([]byte(first), &a))
	require.NoError(t, json.Unmarshal([]byte(again), &b))
	assert.Equal(t, a.Sealing, b.Sealing)
}

//go:build cgo

package pcsc_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// daemon is the one pcscd of this test process; the PC/SC library allows no
// second.
var daemon *simulator.Pcscd

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pcsc")
		if err == nil {
			defer os.RemoveAll(dir)
			daemon, err = simulator.NewPcscd(dir, "Desk", "Door")
		}
		if err == nil {
			err = daemon.Start()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer daemon.Stop()
		os.Setenv("PCSCLITE_CSOCK_NAME", daemon.Address())
		return m.Run()
	}())
}

// report is one call of pcsc.Report.
type report struct {
	reader string
	err    error
}

// run is a driver at work.
type run struct {
	t       *testing.T
	taps    chan attendance.Tap
	reports chan report
}

// start runs a driver until the test ends, and fails the test if it does not
// end then.
func start(t *testing.T, cfg pcsc.Config) *run {
	t.Helper()
	r := &run{t: t, taps: make(chan attendance.Tap, 16), reports: make(chan report, 256)}
	d, err := pcsc.New(cfg, time.Now, slog.New(slog.DiscardHandler), func(reader string, err error) {
		r.reports <- report{reader, err}
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, r.taps) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(patience):
			t.Error("the driver did not end")
		}
	})
	return r
}

// patience is how long a test waits for what must come; only a failing test
// needs it.
const patience = 30 * time.Second

func (r *run) tap() attendance.Tap {
	r.t.Helper()
	select {
	case tap := <-r.taps:
		return tap
	case <-time.After(patience):
		require.FailNow(r.t, "no tap came")
		return attendance.Tap{}
	}
}

// expect wants the next taps to be of these kinds, all from one slot, and gives
// the last.
func (r *run) expect(slot *simulator.Slot, kinds ...attendance.TapKind) (tap attendance.Tap) {
	r.t.Helper()
	for _, kind := range kinds {
		tap = r.tap()
		require.Equal(r.t, kind.String(), tap.Kind.String(), "fault %q", tap.Fault)
		require.Equal(r.t, slot.Name, tap.Reader)
	}
	return tap
}

// insert puts a card in for the rest of the test.
func (r *run) insert(slot *simulator.Slot, card *simulator.Card) (remove func()) {
	r.t.Helper()
	remove, err := slot.Insert(card)
	require.NoError(r.t, err)
	r.t.Cleanup(remove)
	return remove
}

func TestCardIsReadAndRemoved(t *testing.T) {
	r := start(t, pcsc.Config{})
	desk := daemon.Slot(0, 0)
	holder := simulator.InventHolder(1)
	card := simulator.NewCard(holder)

	remove := r.insert(desk, card)
	seen := r.expect(desk, attendance.CardSeen)
	read := r.expect(desk, attendance.CardRead)
	assert.False(t, read.At.Before(seen.At))
	assert.Equal(t, attendance.KindSSC, read.Credential.Kind)
	assert.Equal(t, attendance.LevelFile, read.Credential.Level)
	assert.True(t, read.Credential.Ident.Reveal() == holder.Ident, "card identification code differs")
	assert.True(t, read.Credential.PersonNo.Reveal() == holder.PersonNo, "person number differs")
	assert.True(t, read.Credential.Name.Reveal() == holder.Name, "name differs")
	select {
	case <-card.Read():
	default:
		t.Error("the card does not know that it was read to the end")
	}
	remove()
	r.expect(desk, attendance.CardGone)
}

//go:build cgo

package pcsc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// daemon is the one pcscd of this test process; the PC/SC library allows no
// second.
var daemon *simulator.Pcscd

func TestMain(m *testing.M) {
	if role := os.Getenv(otherProgram); role != "" {
		os.Exit(beOtherProgram(role, os.Getenv(otherReader)))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pcsc")
		if err == nil {
			defer os.RemoveAll(dir)
			daemon, err = simulator.NewPcscd(dir, "Desk", "Door", "Third", "Fourth")
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

// run is a driver at work.
type run struct {
	t       *testing.T
	taps    chan attendance.Tap
	reports chan report
	in      map[string]bool // readers whose card has not gone, by the taps taken
	stop    func()          // ends the driver and fails the test if it does not end
}

// start runs a driver until the test ends, and leaves the readers empty for the
// next one.
func start(t *testing.T, cfg pcsc.Config) *run {
	t.Helper()
	r := &run{t: t, taps: make(chan attendance.Tap, 16), reports: make(chan report, 256), in: map[string]bool{}}
	d, err := pcsc.New(cfg, time.Now, slog.New(slog.DiscardHandler), func(reader string, err error) {
		r.reports <- report{reader, err}
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, r.taps) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(patience):
			t.Error("the driver did not end")
		}
	})
	t.Cleanup(func() {
		for len(r.in) > 0 && !t.Failed() {
			r.tap()
		}
		r.stop()
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
		r.in[tap.Reader] = true
		if tap.Kind == attendance.CardGone {
			delete(r.in, tap.Reader)
		}
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

// slots gives the four slots of the daemon's readers.
func slots() []*simulator.Slot {
	return []*simulator.Slot{daemon.Slot(0, 0), daemon.Slot(0, 1), daemon.Slot(1, 0), daemon.Slot(1, 1)}
}

// Each case has a reader of its own and all go on at once.
func TestFaultyCardsSayWhy(t *testing.T) {
	cases := []struct {
		name   string
		faults simulator.CardFaults
		fault  attendance.CardFault
	}{
		{"memory failure", simulator.CardFaults{Memory: true}, attendance.FaultUnreadable},
		{"noise", simulator.CardFaults{Garbage: true}, attendance.FaultUnreadable},
		{"another card", simulator.CardFaults{Foreign: true}, attendance.FaultUnsupported},
		{"no answer to reset", simulator.CardFaults{Mute: true}, attendance.FaultMute},
		{"pulled at the first command", simulator.CardFaults{PullAt: 1}, attendance.FaultRemoved},
		{"pulled at the second command", simulator.CardFaults{PullAt: 2}, attendance.FaultRemoved},
		{"pulled at the fifth command", simulator.CardFaults{PullAt: 5}, attendance.FaultRemoved},
		{"pulled at the last command", simulator.CardFaults{PullAt: 7}, attendance.FaultRemoved},
	}
	r := start(t, pcsc.Config{})
	free := slots()
	for len(cases) > 0 {
		n := min(len(cases), len(free))
		bySlot := map[string]int{}
		removes := make([]func(), n)
		for i, c := range cases[:n] {
			card := simulator.NewCard(simulator.InventHolder(i))
			card.Faults = c.faults
			removes[i] = r.insert(free[i], card)
			bySlot[free[i].Name] = i
		}
		steps := make([][]string, n)
		for gone := 0; gone < n; {
			tap := r.tap()
			i := bySlot[tap.Reader]
			steps[i] = append(steps[i], tap.Kind.String())
			switch tap.Kind {
			case attendance.CardFailed:
				assert.Equal(t, cases[i].fault, tap.Fault, cases[i].name)
				removes[i]()
			case attendance.CardGone:
				gone++
			}
		}
		for i, c := range cases[:n] {
			assert.Equal(t, []string{"seen", "failed", "gone"}, steps[i], c.name)
		}
		cases = cases[n:]
	}
}

func TestCardThatWithholdsIsPartial(t *testing.T) {
	r := start(t, pcsc.Config{})
	desk := daemon.Slot(0, 0)
	card := simulator.NewCard(simulator.InventHolder(2))
	card.Faults = simulator.CardFaults{RefuseHolder: true, Without: []string{"card_no"}}

	// The card lies there before the driver sees the reader, or after: both are
	// an insertion.
	r.insert(desk, card)
	cred := r.expect(desk, attendance.CardSeen, attendance.CardRead).Credential
	assert.True(t, cred.Partial())
	assert.True(t, cred.CardNo.IsZero())
	assert.False(t, cred.Ident.IsZero())
	<-card.Read()
}

func TestSwappedCardIsAnotherCard(t *testing.T) {
	r := start(t, pcsc.Config{})
	desk := daemon.Slot(0, 0)
	first, second := simulator.InventHolder(3), simulator.InventHolder(4)

	remove := r.insert(desk, simulator.NewCard(first))
	cred := r.expect(desk, attendance.CardSeen, attendance.CardRead).Credential
	assert.True(t, cred.Ident.Reveal() == first.Ident, "not the first card")

	remove()
	r.insert(desk, simulator.NewCard(second))
	cred = r.expect(desk, attendance.CardGone, attendance.CardSeen, attendance.CardRead).Credential
	assert.True(t, cred.Ident.Reveal() == second.Ident, "not the second card")
}

// awaitReport wants a report on a reader, passing over those on others.
func (r *run) awaitReport(reader string, want error) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-r.reports:
			if got.reader == reader && errors.Is(got.err, want) {
				return
			}
		case <-deadline:
			require.FailNow(r.t, "no such report", "reader %q: %v", reader, want)
		}
	}
}

func TestHungCardTakesOnlyItsReaderDown(t *testing.T) {
	r := start(t, pcsc.Config{CommandLimit: 300 * time.Millisecond})
	desk, door := daemon.Slot(0, 0), daemon.Slot(1, 0)
	hung := simulator.NewCard(simulator.InventHolder(5))
	hung.Faults.HangAt = 3

	removeHung := r.insert(desk, hung)
	failed := r.expect(desk, attendance.CardSeen, attendance.CardFailed)
	assert.Equal(t, attendance.FaultTimeout, failed.Fault)
	r.awaitReport(desk.Name, reader.ErrReaderHung)

	removeGood := r.insert(door, simulator.NewCard(simulator.InventHolder(6)))
	r.expect(door, attendance.CardSeen, attendance.CardRead)
	removeGood()
	r.expect(door, attendance.CardGone)

	removeHung()
	r.expect(desk, attendance.CardGone)
	r.awaitReport(desk.Name, nil)
	r.insert(desk, simulator.NewCard(simulator.InventHolder(7)))
	r.expect(desk, attendance.CardSeen, attendance.CardRead)
}

// A card that takes its time, but answers each command within the limit, must
// not take the whole reading beyond its own.
func TestSlowCardRunsIntoTheLimitOfTheReading(t *testing.T) {
	r := start(t, pcsc.Config{ReadLimit: 200 * time.Millisecond})
	desk := daemon.Slot(0, 0)
	card := simulator.NewCard(simulator.InventHolder(8))
	card.Faults.Delay = func([]byte) time.Duration { return 60 * time.Millisecond }

	r.insert(desk, card)
	failed := r.expect(desk, attendance.CardSeen, attendance.CardFailed)
	assert.Equal(t, attendance.FaultTimeout, failed.Fault)
}

func TestServiceKilledAndBack(t *testing.T) {
	r := start(t, pcsc.Config{})
	desk := daemon.Slot(0, 0)
	r.insert(desk, simulator.NewCard(simulator.InventHolder(9)))
	r.expect(desk, attendance.CardSeen, attendance.CardRead)
	r.awaitReport(desk.Name, nil)

	require.NoError(t, daemon.Kill())
	r.expect(desk, attendance.CardGone)
	r.awaitReport(desk.Name, reader.ErrServiceDown)
	r.awaitReport("", reader.ErrServiceDown)

	require.NoError(t, daemon.Start())
	r.awaitReport("", nil)
	r.insert(desk, simulator.NewCard(simulator.InventHolder(10)))
	r.expect(desk, attendance.CardSeen, attendance.CardRead)
}

func TestServiceMissingAtStart(t *testing.T) {
	require.NoError(t, daemon.Stop())
	t.Cleanup(func() { require.NoError(t, daemon.Start()) })
	r := start(t, pcsc.Config{})
	r.awaitReport("", reader.ErrServiceDown)

	require.NoError(t, daemon.Start())
	r.awaitReport("", nil)
	desk := daemon.Slot(0, 0)
	r.insert(desk, simulator.NewCard(simulator.InventHolder(11)))
	r.expect(desk, attendance.CardSeen, attendance.CardRead)
}

// Run must end although nobody takes the tap that it holds.
func TestTapNobodyTakesHoldsNothingUp(t *testing.T) {
	blocked := start(t, pcsc.Config{})
	desk := daemon.Slot(0, 0)
	for range cap(blocked.taps) - 1 {
		blocked.taps <- attendance.Tap{}
	}
	card := simulator.NewCard(simulator.InventHolder(12))
	remove, err := desk.Insert(card)
	require.NoError(t, err)
	<-card.Read() // CardSeen took the last place, and CardRead finds none
	blocked.stop()

	// The card is still there for the next driver.
	r := start(t, pcsc.Config{})
	r.expect(desk, attendance.CardSeen, attendance.CardRead)
	remove()
	r.expect(desk, attendance.CardGone)
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]pcsc.Config{
		"command_limit": {CommandLimit: -1},
		"read_limit":    {ReadLimit: -1},
		"max_hung":      {MaxHung: -1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pcsc.New(cfg, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
			assert.ErrorContains(t, err, name)
		})
	}
}

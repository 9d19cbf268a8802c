//go:build cgo

package pcsc_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/ebfe/scard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// The environment of a second process of this test binary, which plays another
// program that uses the same pcscd.
const (
	otherProgram = "ROLLCALL_TEST_OTHER_PROGRAM"
	otherReader  = "ROLLCALL_TEST_OTHER_READER"
)

// beOtherProgram does to a card what the role says, prints a line when it has,
// and holds on until its input ends.
func beOtherProgram(role, name string) int {
	err := func() error {
		pcsc, err := scard.EstablishContext()
		if err != nil {
			return err
		}
		mode := scard.ShareShared
		if role == "exclusive" {
			mode = scard.ShareExclusive
		}
		card, err := pcsc.Connect(name, mode, scard.ProtocolAny)
		if err != nil {
			return err
		}
		switch role {
		case "transaction":
			err = card.BeginTransaction()
		case "reset":
			err = card.Reconnect(scard.ShareShared, scard.ProtocolAny, scard.ResetCard)
		}
		return err
	}()
	fmt.Println("done", err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// other starts another program and returns when it did what its role is; end
// ends it.
func other(t *testing.T, role string, slot *simulator.Slot) (end func()) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), otherProgram+"="+role, otherReader+"="+slot.Name)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "done <nil>\n", line)
	return end
}

// await waits until PC/SC says that a slot holds a card, or none. vpcd that loses
// one card and takes the next between two polls shows PC/SC no change at all.
func await(t *testing.T, slot *simulator.Slot, present bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		slots, err := pcsc.Slots(pcsc.Config{})
		for _, s := range slots {
			if err == nil && s.Name == slot.Name {
				return s.Present == present
			}
		}
		return false
	}, patience, 10*time.Millisecond)
}

// Exclusive use is told at once. A transaction holds Connect inside pcscd for as
// long as it lasts, which looks like any call that hangs.
func TestReaderThatAnotherProgramKeeps(t *testing.T) {
	for i, c := range []struct {
		role   string
		fault  attendance.CardFault
		report error
	}{
		{"exclusive", attendance.FaultUnreadable, reader.ErrReaderBusy},
		{"transaction", attendance.FaultTimeout, reader.ErrReaderHung},
	} {
		t.Run(c.role, func(t *testing.T) {
			slot := daemon.Slot(i, 0)
			card := simulator.NewCard(simulator.InventHolder(60 + i))
			remove, err := slot.Insert(card)
			require.NoError(t, err)
			t.Cleanup(remove)
			await(t, slot, true)
			end := other(t, c.role, slot)
			r := start(t, pcsc.Config{CommandLimit: 500 * time.Millisecond})
			failed := r.expect(slot, attendance.CardSeen, attendance.CardFailed)
			assert.Equal(t, c.fault, failed.Fault)
			r.awaitReport(slot.Name, c.report)

			end()
			remove()
			r.expect(slot, attendance.CardGone)
			r.awaitReport(slot.Name, nil)
			await(t, slot, false)
			r.insert(slot, simulator.NewCard(simulator.InventHolder(70+i)))
			r.expect(slot, attendance.CardSeen, attendance.CardRead)
		})
	}
}

func TestCardThatAnotherProgramResets(t *testing.T) {
	r := start(t, pcsc.Config{})
	slot := daemon.Slot(0, 0)
	card := simulator.NewCard(simulator.InventHolder(80))
	card.Faults.Delay = func([]byte) time.Duration { return 250 * time.Millisecond }
	r.insert(slot, card)
	r.expect(slot, attendance.CardSeen)
	other(t, "reset", slot)
	before := card.Commands()
	cred := r.expect(slot, attendance.CardRead).Credential
	assert.False(t, cred.Partial())
	assert.Greater(t, card.Commands(), before)
}

// A pcscd that is stopped, as by a debugger or a system that swaps.
func TestFrozenServiceOnRealParts(t *testing.T) {
	r := start(t, pcsc.Config{CommandLimit: 300 * time.Millisecond})
	slot := daemon.Slot(1, 0)
	require.NoError(t, daemon.Freeze())
	t.Cleanup(func() { _ = daemon.Thaw() })
	r.awaitReport("", reader.ErrServiceDown)
	require.NoError(t, daemon.Thaw())
	r.awaitReport("", nil)
	remove := r.insert(slot, simulator.NewCard(simulator.InventHolder(81)))
	r.expect(slot, attendance.CardSeen, attendance.CardRead)

	require.NoError(t, daemon.Freeze())
	r.stop() // Run ends all the same
	clear(r.in)
	require.NoError(t, daemon.Thaw())
	again := start(t, pcsc.Config{})
	again.expect(slot, attendance.CardSeen, attendance.CardRead)
	remove()
	again.expect(slot, attendance.CardGone)
}

// T25, F5 through a real pcscd, which looks every 400 ms: one card, pushed in
// and pulled out as fast as it sees. It gives one tap, and one more if it was
// pulled out of its reading.
func TestT25F5FlappingCardOnRealParts(t *testing.T) {
	r := start(t, pcsc.Config{CoolDown: time.Hour})
	slot := daemon.Slot(2, 0)
	card := simulator.NewCard(simulator.InventHolder(82))
	for range 20 {
		remove, err := slot.Insert(card)
		require.NoError(t, err)
		await(t, slot, true)
		remove()
	}
	await(t, slot, false)
	seen := 0
	for len(r.taps) > 0 {
		if r.tap().Kind == attendance.CardSeen {
			seen++
		}
	}
	assert.GreaterOrEqual(t, seen, 1)
	assert.LessOrEqual(t, seen, 2)
}

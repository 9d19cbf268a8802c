package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue/chain"
)

// nextKeyFile lies beside the ledger's key while it is changed.
func nextKeyFile(state string) string { return filepath.Join(state, "keys", "ledger.pem-next") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// dieInRotation has a wired daemon kill itself, as by kill -9, once a change of
// the ledger's key has come to a step: the next key is prepared, its record is
// in the ledger, it has taken the place of the first.
func dieInRotation(d *daemon, point string) {
	carryOut := d.commands.carryOut
	d.commands.carryOut = func(ctx context.Context, order attendance.Command) error {
		end, next := d.ledger.End(), nextKeyFile(d.cfg.State)
		recorded := func() bool { _, err := d.ledger.Line(end.Log, end.Seq+1); return err == nil }
		came := map[string]func() bool{ // a busy machine may pass over a step: then the one after it
			"rotate prepared":  func() bool { return exists(next) || recorded() },
			"rotate at random": func() bool { return exists(next) || recorded() },
			"rotate recorded":  recorded,
			"rotate taken":     func() bool { return recorded() && !exists(next) },
		}[point]
		go func() {
			for !came() {
			}
			if point == "rotate at random" {
				until := time.Now().Add(rand.N(5 * time.Millisecond))
				for time.Now().Before(until) { // a timer would be late
				}
			}
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		}()
		return carryOut(ctx, order)
	}
}

// keyRecords counts the changes of the key in the terminal's own ledger, which
// verifies with what the export brings.
func (s *station) keyRecords() (n int) {
	s.Helper()
	var text bytes.Buffer
	require.NoError(s, control.NewClient(s.state).Export(context.Background(), &text))
	v := chain.NewVerifier(&s.trust, nil)
	for line := range bytes.Lines(text.Bytes()) {
		require.NoError(s, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
	}
	_, err := v.Report()
	require.NoError(s, err)
	return bytes.Count(text.Bytes(), []byte(`"type":"key"`))
}

// settled starts the daemon, waits for the answer and until the centre has every
// record, and holds the key file to the ledger.
func (s *station) settled() (command centre.Command, changes int) {
	s.Helper()
	p, said := program(s.T, s.file, "yes")
	ready(s.T, s.state)
	command = s.answered()
	require.Eventually(s, func() bool {
		received := map[string]bool{}
		err := s.centre.Records(context.Background(), s.id, true, func(r centre.Row) error {
			received[fmt.Sprint(r.Seq, " ", r.Type, " ", r.Hash)] = true
			return nil
		})
		return err == nil && !slices.ContainsFunc(s.held(), func(line string) bool { return !received[line] })
	}, 30*time.Second, 20*time.Millisecond, "the centre has not every record")
	changes = s.keyRecords()
	require.NoError(s, p.Process.Signal(syscall.SIGTERM))
	require.NoError(s, p.Wait(), "%s", said)
	keys, err := device.OpenKeys(filepath.Join(s.state, "keys"))
	require.NoError(s, err)
	assert.Len(s, keys.Handovers(), changes)
	assert.False(s, exists(nextKeyFile(s.state)))
	alarms, err := s.centre.Alarms(context.Background(), false, 0, 100)
	require.NoError(s, err)
	assert.Empty(s, alarms)
	return command, changes
}

// A command of the centre changes the key of a running terminal, which goes on
// recording; the centre follows, twice.
func TestRotateKeyByCommand(t *testing.T) {
	v := newTown(t)
	s := v.station("t-1")
	v.serve()
	s.order(attendance.CommandRotateKey)
	command, changes := s.settled()
	assert.Equal(t, string(attendance.CommandDone), command.State)
	assert.Equal(t, 1, changes)
	s.order(attendance.CommandRotateKey)
	command, changes = s.settled()
	assert.Equal(t, string(attendance.CommandDone), command.State)
	assert.Equal(t, 2, changes)
	s.order(attendance.CommandCorrect)
	command, _ = s.settled()
	assert.Equal(t, string(attendance.CommandDone), command.State)
}

// TestRotateKeyKilled kills a real daemon at each step of a change of the key,
// and at random moments of it. The next start ends or forgets the change, the
// centre has every record, and the key can be changed again.
func TestRotateKeyKilled(t *testing.T) {
	points := []string{"begun", "rotate prepared", "rotate recorded", "rotate taken", "carried out", "before admin", "rotate at random", "rotate at random", "rotate at random"}
	v := newTown(t)
	stations := make([]*station, len(points))
	for i := range points {
		stations[i] = v.station(chain.TerminalID("t-" + string(rune('a'+i))))
		stations[i].order(attendance.CommandRotateKey)
	}
	v.serve()
	outcomes := make([]string, len(points))
	t.Run("points", func(t *testing.T) {
		for i, point := range points {
			t.Run(point, func(t *testing.T) {
				t.Parallel()
				s := stations[i].in(t)
				s.killed(point)
				left := "no key is prepared"
				if exists(nextKeyFile(s.state)) {
					left = "the next key is prepared"
				}
				command, changes := s.settled()
				switch point {
				case "begun":
					assert.Zero(t, changes)
				case "rotate recorded", "rotate taken", "carried out", "before admin":
					assert.Equal(t, 1, changes)
				}
				outcomes[i] = left + ", then " + command.State + " with " + strings.Repeat("a change", changes)
				s.order(attendance.CommandRotateKey)
				command, again := s.settled()
				assert.Equal(t, string(attendance.CommandDone), command.State)
				assert.Equal(t, changes+1, again)
			})
		}
	})
	for i, point := range points {
		t.Logf("%-16s %s", point, outcomes[i])
	}
}

// TestT10OldDiskWithTheOldKey puts disk and keys back as they were before a
// change. What that box makes is refused with an alarm, and nothing of the
// ledger that the centre has is changed.
func TestT10OldDiskWithTheOldKey(t *testing.T) {
	v := newTown(t)
	s := v.station("t-1")
	older := filepath.Join(t.TempDir(), "state")
	require.NoError(t, exec.Command("cp", "-a", s.state, older).Run())
	v.serve()
	s.order(attendance.CommandRotateKey)
	_, changes := s.settled()
	require.Equal(t, 1, changes)
	before := s.stored()

	require.NoError(t, os.RemoveAll(s.state))
	require.NoError(t, os.Rename(older, s.state))
	s.order(attendance.CommandCorrect) // so that it has something to say
	p, said := program(t, s.file, "yes")
	require.Eventually(t, func() bool {
		alarms, err := s.centre.Alarms(context.Background(), false, 0, 100)
		return err == nil && slices.ContainsFunc(alarms, func(a centre.Alarm) bool {
			return a.Kind == centre.AlarmFork || a.Kind == centre.AlarmKey // other bytes, or a second change of the same key
		})
	}, 30*time.Second, 20*time.Millisecond, "%s", said)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Wait())
	assert.Equal(t, before, s.stored())
}

// stored is what the centre has of the terminal.
func (s *station) stored() (lines []string) {
	s.Helper()
	require.NoError(s, s.centre.Records(context.Background(), s.id, true, func(r centre.Row) error {
		lines = append(lines, fmt.Sprint(r.Log, " ", r.Seq, " ", r.Hash))
		return nil
	}))
	return lines
}

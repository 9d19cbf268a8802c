package main

import (
	"bytes"
	"database/sql"
	"fmt"
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

	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/simulator"
)

// connected lets the room's terminal reach a centre.
func (r *scanRoom) connected(t *testing.T) *town {
	t.Helper()
	v := townIn(t, filepath.Dir(r.state))
	v.serve()
	text, err := os.ReadFile(r.file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.file, bytes.Replace(text, []byte(`"127.0.0.1:1"`), fmt.Appendf(nil, "%q", v.cfg.Listen), 1), 0o600))
	return v
}

// copied is a second box with everything that is on the first one's disk, and a
// scanner of its own.
func (r *scanRoom) copied(t *testing.T) *scanRoom {
	t.Helper()
	other := &scanRoom{file: r.file + ".copy", state: r.state + ".copy", scanner: &simulator.GM65{End: "\r"}, codes: 1000}
	out, err := exec.Command("cp", "-a", r.state, other.state).CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(r.file)
	require.NoError(t, err)
	path := filepath.Join(filepath.Dir(r.state), "scanner")
	line, err := simulator.PlugSerial(path+".copy", 115200, other.scanner)
	require.NoError(t, err)
	t.Cleanup(line.Unplug)
	changed := strings.NewReplacer(fmt.Sprintf("%q", r.state), fmt.Sprintf("%q", other.state), fmt.Sprintf("%q", path), fmt.Sprintf("%q", path+".copy")).Replace(string(text))
	require.NoError(t, os.WriteFile(other.file, []byte(changed), 0o600))
	return other
}

// runs starts the daemon as a process; stop ends it in peace.
func (r *scanRoom) runs(t *testing.T) (stop func()) {
	t.Helper()
	p, said := program(t, r.file, "yes")
	r.panel(t, said)
	return func() {
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		require.NoError(t, p.Wait(), "%s", said)
	}
}

// scans shows so many codes and waits for their records.
func (r *scanRoom) scans(t *testing.T, n int) {
	t.Helper()
	recorded := func() int {
		var text bytes.Buffer
		require.NoError(t, control.NewClient(r.state).Export(t.Context(), &text))
		return bytes.Count(text.Bytes(), []byte(`"type":"pending"`))
	}
	for range n {
		before := recorded()
		r.show()
		require.Eventually(t, func() bool { return recorded() > before }, 20*time.Second, 10*time.Millisecond)
	}
}

// lines are the ledger's, of a terminal that is stopped.
func (r *scanRoom) lines(t *testing.T) (lines [][]byte) {
	t.Helper()
	store, err := queue.OpenReadOnly(r.state)
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.Each(func(e chain.Entry) error {
		line, err := e.Line()
		lines = append(lines, line)
		return err
	}))
	return lines
}

// TestT11TwoDaemonsWithOneIdentity copies a terminal's disk into a second box,
// and both go on: the centre says so within a minute, and every record of both
// is there to the byte: in the ledger that it keeps, or in quarantine. The
// control: one box that is stopped and started again raises nothing.
func TestT11TwoDaemonsWithOneIdentity(t *testing.T) {
	one := newScanRoom(t)
	v := one.connected(t)
	for range 2 {
		stop := one.runs(t)
		one.scans(t, 1)
		stop()
	}
	alarms, err := v.centre.Alarms(t.Context(), true, 0, 10)
	require.NoError(t, err)
	require.Empty(t, alarms)

	two := one.copied(t)
	began := time.Now()
	stopOne, stopTwo := one.runs(t), two.runs(t)
	one.scans(t, 2)
	two.scans(t, 2)
	require.Eventually(t, func() bool {
		alarms, err := v.centre.Alarms(t.Context(), false, 0, 100)
		return err == nil && slices.ContainsFunc(alarms, func(a centre.Alarm) bool { return a.Kind == centre.AlarmIdentity })
	}, time.Minute-time.Since(began), 20*time.Millisecond)
	t.Logf("identity_conflict after %s", time.Since(began).Round(100*time.Millisecond))

	db, err := sql.Open("sqlite", "file:"+filepath.Join(v.cfg.Dir, "centre.db")+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer db.Close()
	there := func(line []byte) bool {
		var n int
		require.NoError(t, db.QueryRow("SELECT (SELECT count(*) FROM records WHERE line = $1) + (SELECT count(*) FROM quarantine WHERE instr(payload, $1) > 0)", line).Scan(&n))
		return n > 0
	}
	exported := func(r *scanRoom) (all bool) {
		var text bytes.Buffer
		require.NoError(t, control.NewClient(r.state).Export(t.Context(), &text))
		all = true
		for line := range bytes.Lines(text.Bytes()) {
			if bytes.HasPrefix(line, []byte(`{"v":`)) {
				all = all && there(bytes.TrimSuffix(line, []byte("\n")))
			}
		}
		return all
	}
	require.Eventually(t, func() bool { return exported(one) && exported(two) }, 90*time.Second, 100*time.Millisecond)
	stopOne()
	stopTwo()
	a, b := one.lines(t), two.lines(t)
	assert.Equal(t, 4, pendings(a))
	assert.Equal(t, 4, pendings(b))
	assert.NotEqual(t, a[len(a)-1], b[len(b)-1], "two ledgers of one name")
	assert.False(t, there([]byte(`"type":"checkin"`)), "the control: what was not sent is not there")
}

func pendings(lines [][]byte) (n int) {
	for _, line := range lines {
		if bytes.Contains(line, []byte(`"type":"pending"`)) {
			n++
		}
	}
	return n
}

package queue_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// A test process that finds the first variable appends to the ledger in the
// directory it names until it is killed; with the second it acknowledges
// before the disk has the record.
const (
	childDir   = "ROLLCALL_TEST_APPEND"
	childEarly = "ROLLCALL_TEST_APPEND_EARLY"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, appendForEver(dir, os.Getenv(childEarly) != ""))
		os.Exit(1)
	}
	if dir := os.Getenv(childFill); dir != "" {
		if err := fillForPowerCut(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// appendForEver writes "seq code" for each record that was acknowledged.
func appendForEver(dir string, early bool) error {
	l, err := openLedger(queuetest.Config(dir))
	if err != nil {
		return err
	}
	if early {
		acknowledgeEarly(l)
	}
	go func() { err = l.Run(context.Background()) }()
	ended := make(chan error)
	for writer := range 4 {
		go func() {
			for n := 0; ; n++ {
				s, err := l.Append(context.Background(), queuetest.Record(n*4+writer))
				if err != nil {
					ended <- err
					return
				}
				fmt.Printf("%d %s\n", s.Seq, s.Code)
			}
		}()
	}
	return <-ended
}

// acknowledgeEarly is the fault that the harness must find: commits are
// answered first and written after.
func acknowledgeEarly(l *queue.Ledger) {
	commits := make(chan func() error, 16)
	go func() {
		for write := range commits {
			if err := write(); err != nil {
				panic(err)
			}
		}
	}()
	l.SetDisk(func(write func() error) error {
		commits <- write
		return nil
	})
}

// killed runs a child on dir, kills it (SIGKILL) after it acknowledged so many
// records, and gives all that it acknowledged.
func killed(t *testing.T, dir string, after int, env ...string) []attendance.Stored {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	var stored []attendance.Stored
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var s attendance.Stored
		if _, err := fmt.Sscanf(lines.Text(), "%d %s", &s.Seq, &s.Code); err != nil || len(s.Code) != 9 {
			break // the line it was writing
		}
		if stored = append(stored, s); len(stored) == after {
			require.NoError(t, child.Process.Kill())
		}
	}
	_ = child.Wait() // killed
	require.GreaterOrEqual(t, len(stored), after, "the child ended by itself")
	return stored
}

// lost counts acknowledged records that a ledger does not hold.
func lost(t *testing.T, l *queue.Ledger, stored []attendance.Stored) (n int) {
	t.Helper()
	last := l.Status().Last
	for _, s := range stored {
		if chain.Seq(s.Seq) > last || queuetest.HashOf(t, l, chain.Seq(s.Seq)).Short() != s.Code {
			n++
		}
	}
	return n
}

var rounds = flag.Int("rounds", 20, "times that TestKilledWhileAppending kills")

// No record that was acknowledged is lost when the process is killed, and the
// chain verifies after each time.
func TestKilledWhileAppending(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []attendance.Stored
	for round := range *rounds {
		acknowledged = append(acknowledged, killed(t, dir, 1+round*7%40)...)
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err)
		require.Zero(t, lost(t, l, acknowledged), "round %d", round)
		verify(t, l.Store)
		require.NoError(t, l.Close())
	}
	t.Logf("%d acknowledged records, %d kills, none lost", len(acknowledged), *rounds)
}

// The harness finds a ledger that answers before the disk.
func TestKilledWhileAppendingControl(t *testing.T) {
	missing := 0
	for round := range *rounds {
		dir := t.TempDir()
		stored := killed(t, dir, 1+round*7%40, childEarly+"=1")
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err)
		missing += lost(t, l, stored)
		require.NoError(t, l.Close())
	}
	t.Logf("control: %d acknowledged records lost in %d kills", missing, *rounds)
	assert.Positive(t, missing, "the harness would not notice a lost record")
}

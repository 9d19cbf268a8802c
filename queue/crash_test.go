package queue_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

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
	childAgain = "ROLLCALL_TEST_APPEND_AGAIN" // a write that failed is tried once more
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, appendForEver(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(childFill); dir != "" {
		if err := fillForPowerCut(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(childOpen); dir != "" {
		if err := openAndTell(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// appendForEver writes "seq code" for each record that was acknowledged.
func appendForEver(dir string) error {
	l, err := openLedger(queuetest.Config(dir))
	if err != nil {
		return err
	}
	if os.Getenv(childEarly) != "" {
		acknowledgeEarly(l)
	}
	if os.Getenv(childAgain) != "" {
		tryAgain(l)
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

// tryAgain is the fault that F22 is about: a sync that failed is done again, and
// says yes, although what it was for is gone.
func tryAgain(l *queue.Ledger) {
	l.SetDisk(func(write func() error) error {
		if write() == nil {
			return nil
		}
		return write()
	})
}

// killed runs a child on dir, kills it (SIGKILL) after it acknowledged so many
// records, and gives all that it acknowledged. With 0 it is killed some time
// after it was started: before, while or after it opens the ledger.
func killed(t *testing.T, dir string, after int, env ...string) []attendance.Stored {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	if after == 0 {
		wait := time.AfterFunc(rand.N(30*time.Millisecond), func() { _ = child.Process.Kill() })
		defer wait.Stop()
	}
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

var rounds = flag.Int("rounds", 12, "times that TestF23KilledWhileAppending kills")

// No record that was acknowledged is lost when the process is killed, and the
// chain verifies after each time.
func TestF23KilledWhileAppending(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []attendance.Stored
	atStart := 0
	for round := range *rounds {
		after := round * 7 % 41
		if round%4 == 3 {
			after = 0
		}
		stored := killed(t, dir, after)
		if len(stored) == 0 {
			atStart++
		}
		acknowledged = append(acknowledged, stored...)
		l, err := openLedger(queuetest.Config(dir))
		require.NoError(t, err)
		require.Zero(t, lost(t, l, stored), "round %d", round)
		verify(t, l.Store)
		require.Zero(t, l.Status().SetAside, "a kill was taken for damage")
		require.NoError(t, l.Close())
	}
	l, err := openLedger(queuetest.Config(dir))
	require.NoError(t, err)
	defer l.Close()
	require.Zero(t, lost(t, l, acknowledged))
	t.Logf("%d acknowledged records, %d kills (%d while it started), none lost", len(acknowledged), *rounds, atStart)
}

// The harness finds a ledger that answers before the disk.
func TestF23KilledWhileAppendingControl(t *testing.T) {
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

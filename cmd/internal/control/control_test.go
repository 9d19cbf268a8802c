package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// terminal is a daemon that answers as it is told.
type terminal struct{ broken error }

func (d terminal) Status() Status { return Status{Terminal: "t-1", Ledger: LedgerStatus{Last: 7}} }

func (d terminal) Enrol(_ context.Context, r EnrolRequest, progress func(EnrolStep)) (EnrolAnswer, error) {
	if r.Consent == "" {
		return EnrolAnswer{}, errors.New("no consent")
	}
	progress(EnrolStep{Step: "officer"})
	progress(EnrolStep{Step: "look", Frame: 1, Frames: 5, Pose: attendance.PoseFront, Advice: attendance.AdviceCloser})
	if r.Consent == "late" {
		return EnrolAnswer{}, errors.New("no card")
	}
	return EnrolAnswer{Seq: 8, Code: "AB", Quality: 0.9}, nil
}

func (d terminal) Erase(_ context.Context, r EraseRequest) (EraseAnswer, error) {
	if r.Reason != attendance.WithdrawConsent {
		return EraseAnswer{}, errors.New("no reason")
	}
	return EraseAnswer{Withdraw: 9, Erase: 10, Code: "CD"}, nil
}

func (d terminal) Export(w io.Writer) error {
	if _, err := io.WriteString(w, "line 1\n"); err != nil {
		return err
	}
	return d.broken
}

// open serves a daemon in a state directory.
func open(t *testing.T, d Daemon) *Client {
	state := t.TempDir()
	listener, err := Listen(state)
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(state, "control.sock"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "for the service's own user alone")
	server := &http.Server{Handler: Handler(d)}
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return NewClient(state)
}

func TestClientHearsTheDaemon(t *testing.T) {
	c := open(t, terminal{})
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, uint64(7), status.Ledger.Last)

	var steps []EnrolStep
	step := func(s EnrolStep) { steps = append(steps, s) }
	answer, err := c.Enrol(t.Context(), EnrolRequest{Trainee: "T1", Consent: "k"}, step)
	require.NoError(t, err)
	assert.Equal(t, EnrolAnswer{Seq: 8, Code: "AB", Quality: 0.9}, answer)
	assert.Equal(t, []EnrolStep{{Step: "officer"}, {Step: "look", Frame: 1, Frames: 5, Pose: attendance.PoseFront, Advice: attendance.AdviceCloser}}, steps)

	_, err = c.Enrol(t.Context(), EnrolRequest{}, step)
	assert.EqualError(t, err, "no consent", "a refusal comes as the daemon said it")
	_, err = c.Enrol(t.Context(), EnrolRequest{Consent: "late"}, step)
	assert.EqualError(t, err, "no card", "so does one after the first step")

	erased, err := c.Erase(t.Context(), EraseRequest{Trainee: "T1", Reason: attendance.WithdrawConsent})
	require.NoError(t, err)
	assert.Equal(t, EraseAnswer{Withdraw: 9, Erase: 10, Code: "CD"}, erased)

	var out bytes.Buffer
	require.NoError(t, c.Export(t.Context(), &out))
	assert.Equal(t, "line 1\n", out.String())
}

func TestExportThatBreaksOffIsAnError(t *testing.T) {
	c := open(t, terminal{broken: errors.New("record 2 cannot be read")})
	var out bytes.Buffer
	assert.EqualError(t, c.Export(t.Context(), &out), "record 2 cannot be read")
}

func TestNobodyThere(t *testing.T) {
	state := t.TempDir()
	_, err := NewClient(state).Status(t.Context())
	assert.ErrorIs(t, err, ErrNotRunning, "no socket")

	listener, err := Listen(state)
	require.NoError(t, err)
	listener.Close()
	require.NoError(t, os.WriteFile(filepath.Join(state, "control.sock"), nil, 0o600))
	_, err = NewClient(state).Status(t.Context())
	assert.ErrorIs(t, err, ErrNotRunning, "left by a daemon that was killed")
	again, err := Listen(state)
	require.NoError(t, err, "the next daemon takes the place")
	again.Close()
}

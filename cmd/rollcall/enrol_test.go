package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
)

// desk answers the tool as a daemon would, as it is told.
type desk struct {
	steps  []control.EnrolStep
	err    error
	asked  control.EnrolRequest
	erased control.EraseRequest
}

func (d *desk) Status() control.Status   { return control.Status{Panel: "http://127.0.0.1:8080"} }
func (d *desk) Export(w io.Writer) error { return nil }
func (d *desk) Enrol(_ context.Context, r control.EnrolRequest, progress func(control.EnrolStep)) (control.EnrolAnswer, error) {
	d.asked = r
	for _, s := range d.steps {
		progress(s)
	}
	return control.EnrolAnswer{Trainee: "T1", Officer: "O1", Seq: 41, Code: "3F9C-21AB", Quality: 0.97, Likeness: 0.88, Poses: []attendance.Pose{"front", "front", "front"}}, d.err
}
func (d *desk) Erase(_ context.Context, r control.EraseRequest) (control.EraseAnswer, error) {
	d.erased = r
	return control.EraseAnswer{Withdraw: 42, Erase: 43, Code: "AB"}, d.err
}

// at serves a desk on a state directory.
func at(t *testing.T, d *desk) (state string) {
	state = t.TempDir()
	listener, err := control.Listen(state)
	require.NoError(t, err)
	server := &http.Server{Handler: control.Handler(d)}
	ended := make(chan error)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return state
}

func TestEnrolTellsEveryStep(t *testing.T) {
	d := &desk{steps: []control.EnrolStep{
		{Step: "trainee"},
		{Step: "trainee", Fault: attendance.EnrolNotTrainee},
		{Step: "officer", Trainee: "T1"},
		{Step: "officer", Trainee: "T1", Fault: attendance.EnrolNotOfficer},
		{Step: "consent", Trainee: "T1", Officer: "O1"},
		{Step: "look", Frame: 2, Frames: 5, Pose: attendance.PoseLeft, Advice: attendance.AdviceLeft},
		{Step: "compare"},
	}}
	said := said(t, "enrol", "-state", at(t, d), "-consent", "K-1", "-resembles", "T7")
	assert.Equal(t, control.EnrolRequest{Consent: "K-1", Resembles: "T7"}, d.asked)
	assert.Equal(t, `the screen is at http://127.0.0.1:8080
insert the trainee's card
that card is of nobody on the roster: insert the trainee's card
trainee T1; insert the officer's card
that card is not of an officer of the trainee's class: trainee T1; insert the officer's card
officer O1; the consent is on record, the camera opens
picture 2 of 5: turn the head a little to the left (turn_left)
compared with everybody enrolled here
enrolled T1 by officer O1: record 41, code 3F9C-21AB, 3 pictures, quality 0.97, self-likeness 0.88, nearest other none
not every pose was seen; that is good enough if the face is recognised at the next check-in
`, said)
}

func TestEnrolSaysWhyNot(t *testing.T) {
	state := at(t, &desk{err: errors.New("no consent: enrolment needs the id of the trainee's consent on file")})
	err := run(t.Context(), []string{"enrol", "-state", state}, &bytes.Buffer{})
	assert.EqualError(t, err, "enrol: no consent: enrolment needs the id of the trainee's consent on file")
	assert.Equal(t, 2, exitStatus(err))
}

func TestWithdrawAndErase(t *testing.T) {
	d := &desk{}
	state := at(t, d)
	assert.Contains(t, said(t, "enrol", "withdraw", "-state", state, "-trainee", "T1"), "T1: out of use by record 42, erased by record 43, code AB\nThe consent has ended.")
	assert.Equal(t, control.EraseRequest{Trainee: "T1", Reason: attendance.WithdrawConsent}, d.erased)
	assert.NotContains(t, said(t, "enrol", "erase", "-state", state, "-trainee", "T1"), "consent")
	assert.Equal(t, control.EraseRequest{Trainee: "T1", Reason: attendance.WithdrawOperator}, d.erased)
	err := run(t.Context(), []string{"enrol", "withdraw", "-state", state}, &bytes.Buffer{})
	assert.ErrorContains(t, err, "-trainee: give the trainee's id")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
)

// enrolLimit is how long a person may stand before the camera to be enrolled.
const enrolLimit = 15 * time.Second

// Enrol implements control.Daemon. The template is sealed and on disk before
// the record names it, and used only after.
func (d *daemon) Enrol(ctx context.Context, r control.EnrolRequest) (control.EnrolAnswer, error) {
	if err := d.mayEnrol(r); err != nil {
		return control.EnrolAnswer{}, err
	}
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	ctx, cancel := context.WithTimeout(ctx, enrolLimit)
	defer cancel()
	capture, err := d.faces.Capture(ctx, r.Frames)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	pending, err := d.gallery.Prepare(r.Trainee, capture.Template)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	stored, err := d.terminal.Append(ctx, attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{
		Trainee: r.Trainee, Consent: r.Consent, Officer: r.Officer, Model: capture.Template.Model,
		Salt: pending.Salt, Hash: pending.Hash, Frames: capture.Frames, Quality: capture.Quality,
	}))
	if err != nil {
		return control.EnrolAnswer{}, errors.Join(err, pending.Discard())
	}
	if err := pending.Commit(); err != nil {
		return control.EnrolAnswer{}, err
	}
	return control.EnrolAnswer{Seq: stored.Seq, Code: stored.Code, Quality: capture.Quality}, nil
}

func (d *daemon) mayEnrol(r control.EnrolRequest) error {
	roster := d.packages.roster.Load()
	if _, ok := roster.Trainee(r.Trainee); !ok {
		return fmt.Errorf("no trainee %q in any class of this terminal: the centre's class package must name them first", r.Trainee)
	}
	if _, ok := roster.Officer(r.Officer); !ok {
		return fmt.Errorf("no officer %q in any class of this terminal: only an officer named by the centre may enrol", r.Officer)
	}
	if r.Consent == "" {
		return errors.New("no consent: enrolment needs the id of the trainee's consent on file")
	}
	if r.Frames < 1 || r.Frames > 20 {
		return fmt.Errorf("%d frames: take 1 to 20, three to five are usual", r.Frames)
	}
	return nil
}

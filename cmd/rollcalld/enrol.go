package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/vision"
)

const (
	// cardLimit is how long a card is waited for, captureLimit how long a person
	// may stand before the camera to be enrolled.
	cardLimit    = 30 * time.Second
	captureLimit = 40 * time.Second
)

// enrolment is one that is going on. Reader and screen are lent to it.
type enrolment struct {
	*daemon
	loan     *attendance.Loan
	request  control.EnrolRequest
	progress func(control.EnrolStep)

	trainee     attendance.Trainee
	card        *attendance.CardEvidence // nil if the officer named the trainee
	officer     attendance.Officer
	officerCard attendance.CardEvidence
}

// refusal is why an enrolment did not come about, for the screen and for the
// officer's program.
type refusal struct {
	fault attendance.EnrolFault
	text  string
}

func (r *refusal) Error() string { return r.text }

// Enrol implements control.Daemon:
//
//  1. the trainee's card, unless the officer named the trainee
//  2. the card of an officer of the trainee's class
//  3. the consent record; only then the camera
//  4. frames of one face, of which one template is made
//  5. the template is compared with everybody else's here
//  6. the template is sealed and on disk before the enrol record names it, and
//     used only after
//
// It needs no network.
func (d *daemon) Enrol(ctx context.Context, r control.EnrolRequest, progress func(control.EnrolStep)) (control.EnrolAnswer, error) {
	if err := d.mayEnrol(ctx, r); err != nil {
		return control.EnrolAnswer{}, err
	}
	loan, err := d.terminal.Borrow(ctx)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	defer loan.Return()
	e := &enrolment{daemon: d, loan: loan, request: r, progress: progress}
	answer, err := e.run(ctx)
	if err != nil {
		loan.Show(attendance.Screen{State: attendance.ScreenNotEnrolled, Name: e.trainee.Display, Reason: string(faultOf(ctx, err))})
		return control.EnrolAnswer{}, err
	}
	loan.Show(attendance.Screen{State: attendance.ScreenEnrolled, Name: e.trainee.Display, Code: answer.Code})
	return answer, nil
}

// mayEnrol refuses what nobody need come to the terminal for.
func (d *daemon) mayEnrol(ctx context.Context, r control.EnrolRequest) error {
	if r.Consent == "" {
		return errors.New("no consent: enrolment needs the id of the trainee's consent on file; who declines checks in with the card, and a person confirms")
	}
	if r.Trainee == "" {
		return nil
	}
	if _, ok := d.packages.roster.Load().Trainee(r.Trainee); !ok {
		return fmt.Errorf("no trainee %q in any class of this terminal: the centre's class package must name them first", r.Trainee)
	}
	return d.consentStands(ctx, r.Trainee, r.Consent)
}

func (d *daemon) consentStands(ctx context.Context, trainee attendance.TraineeID, id string) error {
	var seq uint64
	var ended bool
	err := d.terminal.Consult(ctx, func(b *attendance.Book) { seq, ended = b.ConsentEnded(trainee, id) })
	if err == nil && ended {
		err = fmt.Errorf("consent %q was withdrawn (record %d): a new one must be signed, under a new id", id, seq)
	}
	return err
}

func (e *enrolment) run(ctx context.Context) (control.EnrolAnswer, error) {
	if err := e.identify(ctx); err != nil {
		return control.EnrolAnswer{}, err
	}
	if err := e.vouch(ctx); err != nil {
		return control.EnrolAnswer{}, err
	}
	if err := e.consent(ctx); err != nil {
		return control.EnrolAnswer{}, err
	}
	capture, err := e.capture(ctx)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	defer capture.Template.Wipe()
	body, err := e.compare(ctx, capture)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	return e.keep(context.WithoutCancel(ctx), capture, body)
}

// identify finds the trainee by card, or takes the one the officer named.
func (e *enrolment) identify(ctx context.Context) error {
	roster := e.packages.roster.Load()
	if e.request.Trainee != "" {
		e.trainee, _ = roster.Trainee(e.request.Trainee)
		return nil
	}
	tap, err := e.present(ctx, "trainee", attendance.ScreenEnrolTrainee, func(t attendance.Tap) attendance.EnrolFault {
		place, ok := roster.Find(t.Credential, t.At)
		if !ok {
			return attendance.EnrolNotTrainee
		}
		e.trainee = place.Trainee
		return ""
	})
	if err != nil {
		return err
	}
	e.card = new(tap.Evidence())
	return e.consentStands(ctx, e.trainee.ID, e.request.Consent)
}

// vouch waits for the officer's card.
func (e *enrolment) vouch(ctx context.Context) error {
	roster := e.packages.roster.Load()
	tap, err := e.present(ctx, "officer", attendance.ScreenEnrolOfficer, func(t attendance.Tap) attendance.EnrolFault {
		officer, ok := roster.FindOfficer(t.Credential, e.trainee.ID)
		if !ok {
			return attendance.EnrolNotOfficer
		}
		e.officer = officer
		return ""
	})
	e.officerCard = tap.Evidence()
	return err
}

// present asks for a card until one is taken, for a while. A code is no card.
func (e *enrolment) present(ctx context.Context, step string, state attendance.ScreenState, take func(attendance.Tap) attendance.EnrolFault) (attendance.Tap, error) {
	late := &refusal{attendance.EnrolNoCard, fmt.Sprintf("no card of the %s came within %s: start again", step, cardLimit)}
	ctx, cancel := context.WithTimeoutCause(ctx, cardLimit, late)
	defer cancel()
	var fault attendance.EnrolFault
	for {
		e.loan.Show(attendance.Screen{State: state, Name: e.trainee.Display, Reason: string(fault)})
		e.progress(control.EnrolStep{Step: step, Trainee: e.trainee.ID, Fault: fault})
		tap, err := e.nextCard(ctx)
		if err != nil {
			return attendance.Tap{}, err
		}
		switch {
		case tap.Kind == attendance.CardFailed || tap.Credential.Kind == attendance.KindQR:
			fault = attendance.EnrolCardUnread
		default:
			if fault = take(tap); fault == "" {
				return tap, nil
			}
		}
	}
}

// nextCard gives the end of the next reading.
func (e *enrolment) nextCard(ctx context.Context) (attendance.Tap, error) {
	for {
		select {
		case tap := <-e.loan.Cards:
			if tap.Kind == attendance.CardRead || tap.Kind == attendance.CardFailed {
				return tap, nil
			}
		case <-ctx.Done():
			return attendance.Tap{}, context.Cause(ctx)
		}
	}
}

// consent records the consent that the enrolment rests on, unless it is on
// record already.
func (e *enrolment) consent(ctx context.Context) error {
	var standing string
	if err := e.terminal.Consult(ctx, func(b *attendance.Book) { standing, _ = b.Consent(e.trainee.ID) }); err != nil {
		return err
	}
	if standing != e.request.Consent {
		_, err := e.terminal.Append(ctx, attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{
			Trainee: e.trainee.ID, Consent: e.request.Consent, Scope: attendance.ScopeFace, Officer: e.officer.ID, Card: e.card,
		}))
		if err != nil {
			return fmt.Errorf("recording the consent: %w", err)
		}
	}
	e.progress(control.EnrolStep{Step: "consent", Trainee: e.trainee.ID, Officer: e.officer.ID})
	return nil
}

// capture takes the frames, and shows and tells what the person should do.
func (e *enrolment) capture(ctx context.Context) (capture vision.Capture, err error) {
	ctx, cancel := context.WithTimeout(ctx, captureLimit)
	defer cancel()
	steps := make(chan vision.CaptureStep, 64)
	e.loan.Show(attendance.Screen{State: attendance.ScreenEnrolLook, Name: e.trainee.Display})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(steps)
		capture, err = e.faces.Capture(ctx, func(s vision.CaptureStep) {
			select {
			case steps <- s:
			default: // the next one says more
			}
		})
	})
	for s := range steps {
		e.loan.Show(attendance.Screen{State: attendance.ScreenEnrolLook, Name: e.trainee.Display, Try: s.Frame, Tries: s.Frames, Advice: s.Advice})
		e.progress(control.EnrolStep{Step: "look", Trainee: e.trainee.ID, Frame: s.Frame, Frames: s.Frames, Pose: s.Pose, Advice: s.Advice})
	}
	group.Wait()
	return capture, err
}

// compare looks for another trainee with this face. One that is too much alike
// is refused, unless the officer has named it: they are two people, on record.
func (e *enrolment) compare(ctx context.Context, capture vision.Capture) (attendance.EnrolBody, error) {
	body := attendance.EnrolBody{
		Trainee: e.trainee.ID, Consent: e.request.Consent, Officer: e.officer.ID, OfficerCard: &e.officerCard, Model: capture.Template.Model,
		Frames: len(capture.Poses), Poses: capture.Poses, Quality: capture.Quality, Likeness: capture.Likeness,
	}
	e.progress(control.EnrolStep{Step: "compare", Trainee: e.trainee.ID})
	var enrolments map[attendance.TraineeID]attendance.Enrolment
	if err := e.terminal.Consult(ctx, func(b *attendance.Book) { enrolments = b.Enrolments() }); err != nil {
		return body, err
	}
	nearest, found, alike := e.faces.Duplicate(e.trainee.ID, capture.Template, enrolments)
	if found {
		body.Duplicate = nearest.Score
	}
	if alike && nearest.Trainee != e.request.Resembles {
		return body, &refusal{attendance.EnrolDuplicate, fmt.Sprintf(
			"the face is like that of trainee %s (%.2f): one of the two is enrolled under a wrong name, or they are two people; if you have seen that they are two, enrol again with -resembles %s",
			nearest.Trainee, nearest.Score, nearest.Trainee)}
	}
	if alike {
		body.Resembles = nearest.Trainee
	}
	return body, nil
}

// keep makes template and record durable, each at its time, unless the consent
// was withdrawn while the camera looked.
func (e *enrolment) keep(ctx context.Context, capture vision.Capture, body attendance.EnrolBody) (control.EnrolAnswer, error) {
	e.enrolling.Lock()
	defer e.enrolling.Unlock()
	if err := e.consentStands(ctx, e.trainee.ID, e.request.Consent); err != nil {
		return control.EnrolAnswer{}, err
	}
	pending, err := e.gallery.Prepare(e.trainee.ID, capture.Template)
	if err != nil {
		return control.EnrolAnswer{}, err
	}
	body.Salt, body.Hash, body.Key = pending.Salt, pending.Hash, pending.Key
	stored, err := e.terminal.Append(ctx, attendance.NewRecord(attendance.TypeEnrol, body))
	if err != nil {
		return control.EnrolAnswer{}, errors.Join(fmt.Errorf("recording the enrolment: %w", err), pending.Discard())
	}
	if err := pending.Commit(); err != nil {
		return control.EnrolAnswer{}, err
	}
	e.log.Info("trainee enrolled", "seq", stored.Seq, "frames", body.Frames)
	return control.EnrolAnswer{
		Trainee: body.Trainee, Officer: body.Officer, Seq: stored.Seq, Code: stored.Code,
		Quality: body.Quality, Likeness: body.Likeness, Duplicate: body.Duplicate, Poses: body.Poses,
	}, nil
}

// faultOf words an error for the screen.
func faultOf(ctx context.Context, err error) attendance.EnrolFault {
	refused, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
		return refused.fault
	case ctx.Err() != nil:
		return attendance.EnrolStopped
	case errors.Is(err, vision.ErrNoFace), errors.Is(err, vision.ErrBusy):
		return attendance.EnrolNoFace
	}
	return attendance.EnrolNotStored
}

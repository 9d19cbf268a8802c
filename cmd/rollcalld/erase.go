package main

import (
	"context"
	"errors"
	"fmt"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
)

// errNothingToErase says that this terminal has neither a template nor a
// consent of the trainee: what was ordered holds already.
var errNothingToErase = errors.New("nothing to erase: the trainee has no enrolment and no consent at this terminal")

// erase ends a trainee's enrolment for good:
//
//  1. a withdraw record says so, and why; from then on no template of the
//     trainee is used. With [attendance.WithdrawConsent] the consent ends too.
//  2. The subject key is destroyed and the sealed file deleted.
//  3. An erase record says that this is done.
//
// All is on disk when it returns, network or not. A crash between two steps is
// made good by finishErasures at the next start. If an error is returned after
// step 1, the template is out of use all the same and the next start goes on.
// It gives [errNothingToErase] if there is nothing of the trainee. It may be
// called from several goroutines, also while somebody is being enrolled.
func (d *daemon) erase(ctx context.Context, trainee attendance.TraineeID, reason attendance.WithdrawReason) (control.EraseAnswer, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	body, err := d.withdrawal(ctx, trainee, reason)
	if err != nil {
		return control.EraseAnswer{}, err
	}
	stored, err := d.terminal.Append(ctx, attendance.NewRecord(attendance.TypeWithdraw, body))
	if err != nil {
		return control.EraseAnswer{}, fmt.Errorf("recording the withdrawal: %w", err)
	}
	unerased, err := d.unerasedOf(context.WithoutCancel(ctx), trainee)
	if err != nil {
		return control.EraseAnswer{}, err
	}
	erased, err := d.finishErasure(context.WithoutCancel(ctx), unerased)
	if err != nil {
		return control.EraseAnswer{}, err
	}
	d.log.Info("template erased", "reason", string(reason), "withdraw", stored.Seq, "erase", erased.Seq)
	return control.EraseAnswer{Withdraw: stored.Seq, Erase: erased.Seq, Code: erased.Code}, nil
}

// withdrawal forms the withdraw record of what there is of a trainee.
func (d *daemon) withdrawal(ctx context.Context, trainee attendance.TraineeID, reason attendance.WithdrawReason) (attendance.WithdrawBody, error) {
	body := attendance.WithdrawBody{Trainee: trainee, Reason: reason}
	switch reason {
	case attendance.WithdrawConsent, attendance.WithdrawCentre, attendance.WithdrawOperator:
	default:
		return body, fmt.Errorf("erasing: reason %q: must be consent, centre or operator", reason)
	}
	found := false
	err := d.terminal.Consult(ctx, func(b *attendance.Book) {
		enrolment, enrolled := b.Enrolment(trainee)
		consent, given := b.Consent(trainee)
		body.Enrol, body.Consent = enrolment.Seq, enrolment.Consent
		if given {
			body.Consent = consent
		}
		found = enrolled || given && reason == attendance.WithdrawConsent
	})
	if err == nil && !found {
		err = errNothingToErase
	}
	return body, err
}

// unerasedOf gives the withdrawal that the book now waits to see erased.
func (d *daemon) unerasedOf(ctx context.Context, trainee attendance.TraineeID) (found attendance.Withdrawn, err error) {
	err = d.terminal.Consult(ctx, func(b *attendance.Book) {
		for _, w := range b.Unerased() {
			if w.Trainee == trainee {
				found = w
			}
		}
	})
	return found, err
}

// finishErasure does steps 2 and 3. A template that the trainee was given since
// stays: taking it into use has destroyed the one before.
func (d *daemon) finishErasure(ctx context.Context, w attendance.Withdrawn) (attendance.Stored, error) {
	renewed := false
	if err := d.terminal.Consult(ctx, func(b *attendance.Book) { _, renewed = b.Enrolment(w.Trainee) }); err != nil {
		return attendance.Stored{}, err
	}
	if !renewed {
		if err := d.gallery.Erase(w.Trainee); err != nil {
			return attendance.Stored{}, err
		}
	}
	stored, err := d.terminal.Append(ctx, attendance.NewRecord(attendance.TypeErase, attendance.EraseBody{
		Trainee: w.Trainee, Withdraw: w.Seq, Key: w.Enrolment.Key,
	}))
	if err != nil {
		return attendance.Stored{}, fmt.Errorf("recording the erasure: %w", err)
	}
	return stored, nil
}

// finishErasures ends what a crash interrupted, and then waits for the end.
// What cannot be finished (the disk is full) stays out of use and is tried
// again at the next start.
func (d *daemon) finishErasures(ctx context.Context) error {
	for _, w := range d.unerased {
		if err := d.finishLate(ctx, w); err != nil && ctx.Err() == nil {
			d.log.Error("erasure not finished", "withdraw", w.Seq, "err", err)
		}
	}
	<-ctx.Done()
	return nil
}

func (d *daemon) finishLate(ctx context.Context, w attendance.Withdrawn) error {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	_, err := d.finishErasure(ctx, w)
	return err
}

// Erase implements control.Daemon.
func (d *daemon) Erase(ctx context.Context, r control.EraseRequest) (control.EraseAnswer, error) {
	return d.erase(ctx, r.Trainee, r.Reason)
}

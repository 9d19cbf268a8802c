package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
)

// enrol has the daemon enrol the person before the camera.
func enrol(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("enrol", flag.ContinueOnError)
	state := stateFlag(flags)
	r := control.EnrolRequest{}
	flags.StringVar((*string)(&r.Trainee), "trainee", "", "the trainee's id")
	flags.StringVar(&r.Consent, "consent", "", "id of the consent on file")
	flags.StringVar(&r.Officer, "officer", "", "id of the officer who supervises")
	flags.IntVar(&r.Frames, "frames", 3, "how many good frames to take")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	answer, err := control.NewClient(*state).Enrol(ctx, r)
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	fmt.Fprintf(stdout, "enrolled %s: record %d, code %s, quality %.2f\n", r.Trainee, answer.Seq, answer.Code, answer.Quality)
	return nil
}

// enrolWithdraw ends a trainee's consent and erases the template.
func enrolWithdraw(ctx context.Context, args []string, stdout io.Writer) error {
	return end(ctx, "enrol withdraw", args, stdout, attendance.WithdrawConsent)
}

// enrolErase erases the template; the consent stands.
func enrolErase(ctx context.Context, args []string, stdout io.Writer) error {
	return end(ctx, "enrol erase", args, stdout, attendance.WithdrawOperator)
}

func end(ctx context.Context, name string, args []string, stdout io.Writer, reason attendance.WithdrawReason) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	state := stateFlag(flags)
	r := control.EraseRequest{Reason: reason}
	flags.StringVar((*string)(&r.Trainee), "trainee", "", "the trainee's id")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	if r.Trainee == "" {
		return fmt.Errorf("%s: -trainee: give the trainee's id, as in the class file", name)
	}
	answer, err := control.NewClient(*state).Erase(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(stdout, "%s: out of use by record %d, erased by record %d, code %s\n", r.Trainee, answer.Withdraw, answer.Erase, answer.Code)
	if reason == attendance.WithdrawConsent {
		fmt.Fprintln(stdout, "The consent has ended. The trainee checks in with the card, and a person confirms.")
	}
	return nil
}

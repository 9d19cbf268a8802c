package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
)

// enrol has the daemon enrol the person before the camera, and says what is
// being waited for. The screen says the same to who stands before it.
func enrol(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("enrol", flag.ContinueOnError)
	state := stateFlag(flags)
	r := control.EnrolRequest{}
	flags.StringVar((*string)(&r.Trainee), "trainee", "", "the trainee's id; without it the trainee presents a card")
	flags.StringVar(&r.Consent, "consent", "", "id of the consent on file")
	flags.StringVar((*string)(&r.Resembles), "resembles", "", "a trainee who looks alike and is somebody else, as the officer has seen")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	client := control.NewClient(*state)
	if s, err := client.Status(ctx); err == nil {
		fmt.Fprintf(stdout, "the screen is at %s\n", s.Panel)
	}
	answer, err := client.Enrol(ctx, r, func(s control.EnrolStep) { fmt.Fprintln(stdout, enrolStep(s)) })
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	fmt.Fprintf(stdout, "enrolled %s by officer %s: record %d, code %s, %d pictures, quality %.2f, self-likeness %.2f, nearest other %s\n",
		answer.Trainee, answer.Officer, answer.Seq, answer.Code, len(answer.Poses), answer.Quality, answer.Likeness, orNone(answer.Duplicate))
	if len(answer.Poses) < 5 {
		fmt.Fprintln(stdout, "not every pose was seen; that is good enough if the face is recognised at the next check-in")
	}
	return nil
}

func orNone(score float64) string {
	if score == 0 {
		return "none"
	}
	return fmt.Sprintf("%.2f", score)
}

// enrolFaults says what is wrong with the card presented last.
var enrolFaults = map[attendance.EnrolFault]string{
	attendance.EnrolCardUnread: "it could not be read, again please: ",
	attendance.EnrolNotTrainee: "that card is of nobody on the roster: ",
	attendance.EnrolNotOfficer: "that card is not of an officer of the trainee's class: ",
}

// poseWords says what to ask for, where the advice does not.
var poseWords = map[attendance.Pose]string{
	attendance.PoseFront: "look into the camera",
	attendance.PoseLeft:  "turn the head a little to the left",
	attendance.PoseRight: "turn the head a little to the right",
}

func enrolStep(s control.EnrolStep) string {
	switch s.Step {
	case "trainee":
		return enrolFaults[s.Fault] + "insert the trainee's card"
	case "officer":
		return enrolFaults[s.Fault] + fmt.Sprintf("trainee %s; insert the officer's card", s.Trainee)
	case "consent":
		return fmt.Sprintf("officer %s; the consent is on record, the camera opens", s.Officer)
	case "look":
		text := fmt.Sprintf("picture %d of %d: %s", s.Frame, s.Frames, poseWords[s.Pose])
		if s.Advice != attendance.AdviceNone {
			text += " (" + string(s.Advice) + ")"
		}
		return text
	case "compare":
		return "compared with everybody enrolled here"
	}
	return s.Step
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

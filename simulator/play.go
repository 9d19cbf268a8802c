package simulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"rollcall/attendance"
)

// Round is one playing of a scenario: its sessions have their own ids.
type Round struct {
	Number   int
	Scenario *Scenario
	Began    time.Time
	Taps     []TapSeen
}

// TapSeen is what a tap looked like from the room.
type TapSeen struct {
	Step     Step
	Inserted time.Time
	Broken   time.Time // when the worker was killed, if it was
	Answer   Sight     // zero if the screen never answered
	Err      error
}

// Next is the round after this one: new sessions that begin now.
func (r *Round) Next() *Round {
	return &Round{Number: r.Number + 1, Scenario: r.Scenario, Began: time.Now()}
}

// session names the session of a class in this round.
func (r *Round) session(class string) attendance.SessionID {
	return attendance.SessionID(fmt.Sprintf("s-%s-%d", class, r.Number))
}

// answerLimit is how long a person waits for the screen: the fifteen seconds
// of the face check, and some for a slow machine.
const answerLimit = 40 * time.Second

// nextPerson is how long it takes until the next card is in the reader; the
// reader polls for a card that left every 400 ms.
const nextPerson = 600 * time.Millisecond

// Play plays the steps of a round one after another.
func (s *Stage) Play(ctx context.Context, r *Round) error {
	for _, step := range r.Scenario.Steps {
		if err := s.breakSomething(ctx, step); err != nil {
			return err
		}
		if step.Who == "" {
			fmt.Fprintf(s.Out, "        -- %s --\n", step.Says)
			continue
		}
		tap := s.tap(ctx, r, step)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Taps = append(r.Taps, tap)
		fmt.Fprintf(s.Out, "%s  %-4s %-48s %s\n", tap.Inserted.Format("15:04:05"), step.Who, step.Says, tap)
		if err := wait(ctx, nextPerson); err != nil {
			return err
		}
	}
	return nil
}

func (t TapSeen) String() string {
	if t.Err != nil {
		return t.Err.Error()
	}
	return fmt.Sprintf("%s %s (%.1f s)", t.Answer.Screen.State, t.Answer.Screen.Code, t.Answer.At.Sub(t.Inserted).Seconds())
}

// breakSomething does what a step breaks or mends before its tap.
func (s *Stage) breakSomething(ctx context.Context, step Step) error {
	switch step.Fault {
	case FaultLinkCut:
		s.link.Cut()
		return s.awaitStatus(ctx, "the offline badge", 20*time.Second, func(t terminalStatus) bool { return t.part("uplink") != "ok" })
	case FaultLinkMended:
		s.link.Mend()
		return s.Receipted(ctx)
	case FaultCentreKilled:
		s.centre.Kill()
		return s.StartCentre(ctx)
	}
	return nil
}

// tap lets a person insert their card, look at the camera, wait for the answer
// and take the card out.
func (s *Stage) tap(ctx context.Context, r *Round, step Step) TapSeen {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	seen := TapSeen{Step: step}
	if step.Fault != FaultWorkerKilled { // who comes only once the worker is dead
		s.stand(r, step)
	}
	defer s.camera.Empty()
	mark := s.Viewer.Mark()
	seen.Inserted = time.Now()
	remove, err := s.slot.Insert(s.card(r, step))
	if err != nil {
		seen.Err = err
		return seen
	}
	defer remove()
	if step.Fault == FaultWorkerKilled {
		if seen.Err = s.killWorker(ctx, mark); seen.Err != nil {
			return seen
		}
		seen.Broken = time.Now()
		s.stand(r, step)
	}
	seen.Answer, seen.Err = s.Viewer.Await(ctx, mark, answered)
	if step.Fault == FaultDaemonKilled {
		s.daemon.Kill()
		remove() // a card that is in the reader when a daemon starts is a tap
		seen.Err = errors.Join(seen.Err, wait(ctx, nextPerson), s.StartTerminal(ctx))
	}
	return seen
}

// stand puts before the camera whom the step names.
func (s *Stage) stand(r *Round, step Step) {
	face := step.Face
	if face == "" {
		person, _ := r.Scenario.person(step.Who)
		face = person.Face
	}
	if person, ok := s.people[face]; ok {
		s.camera.Show(person, AtCheckIn)
		return
	}
	s.camera.Empty()
}

func (s *Stage) card(r *Round, step Step) *Card {
	card := NewCard(r.Scenario.holder(step.Who))
	switch step.Card {
	case CardPulled:
		card.Faults.PullAt = 4
	case CardUnreadable:
		card.Faults.Memory = true
	case CardIdentOnly:
		card.Faults.RefuseHolder = true
		card.Faults.Without = []string{"card_no"}
	}
	return card
}

// killWorker kills the camera worker once the face check has begun.
func (s *Stage) killWorker(ctx context.Context, mark int) error {
	if _, err := s.Viewer.Await(ctx, mark, func(s attendance.Screen) bool { return s.State == attendance.ScreenLook }); err != nil {
		return err
	}
	status, err := s.status(ctx)
	if err != nil || status.Worker.PID == 0 {
		return errors.Join(errors.New("no worker to kill"), err)
	}
	worker, err := os.FindProcess(status.Worker.PID)
	if err != nil {
		return err
	}
	return worker.Signal(syscall.SIGKILL)
}

// wait waits, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package attendance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// diary notes in one order what the terminal asked of its parts.
type diary struct {
	mu      sync.Mutex
	entries []string
	looks   chan Look
	appends atomic.Int32
	fail    error
	slow    time.Duration
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, s)
}

func (d *diary) Append(_ context.Context, r Record) (Stored, error) {
	if d.slow > 0 {
		<-time.After(d.slow)
	}
	if d.fail != nil {
		return Stored{}, d.fail
	}
	d.note("on disk " + string(r.Type))
	return Stored{Seq: uint64(100 + d.appends.Add(1)), Code: "3F9C-21AB"}, nil
}

func (d *diary) Show(s Screen) { d.note("screen " + string(s.State)) }
func (d *diary) Open()         { d.note("camera opens") }
func (d *diary) Close()        { d.note("camera closes") }
func (d *diary) Accept(TraineeID) {
	d.note("face accepted")
}
func (d *diary) Identify(_ context.Context, candidates map[TraineeID]Enrolment) <-chan Look {
	d.note(fmt.Sprintf("search among %d", len(candidates)))
	d.looks = make(chan Look, 1)
	return d.looks
}
func (d *diary) Seat(seats map[TraineeID]Seat) {
	d.note(fmt.Sprintf("%d seated", len(seats)))
}
func (d *diary) Verify(ctx context.Context, id TraineeID, _ Enrolment) <-chan Look {
	d.note("verify " + string(id))
	d.looks = make(chan Look, 1)
	return d.looks
}

// runTerminal runs a terminal in virtual time and hands its taps and diary to
// the story.
func runTerminal(t *testing.T, d *diary, story func(taps chan<- Tap)) {
	playTerminal(t, d, func(taps chan<- Tap, _ *Terminal) { story(taps) })
}

func playTerminal(t *testing.T, d *diary, story func(taps chan<- Tap, terminal *Terminal)) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		taps := make(chan Tap, 8)
		book := testBook(t)
		for _, r := range testRoster(t).Due(book, at("09:01:00")) { // the session was opened already
			require.NoError(t, book.Observe(1, r.Type, r.Body))
		}
		terminal := NewTerminal(TerminalConfig{
			Ledger: d, Faces: d, Panel: d, Taps: taps,
			Roster: func() *Roster { return testRoster(t) },
			Book:   book,
			Code:   testCode,
			Now:    func() time.Time { return at("09:01:00").Add(time.Since(began)) },
			Log:    slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- terminal.Run(ctx) }()
		synctest.Wait()
		story(taps, terminal)
		synctest.Wait()
		cancel()
		require.NoError(t, <-ended)
	})
}

func seen(reader string) Tap { return Tap{Kind: CardSeen, Reader: reader, At: at("09:01:00")} }
func read(reader string, args ...string) Tap {
	return Tap{Kind: CardRead, Reader: reader, At: at("09:01:00"), Credential: testCredential(args...)}
}

func pass() Look { return Look{Match: &Match{Score: 0.7, Frames: 1, Model: "87aa", Liveness: -1}} }

func TestGreenComesAfterTheDisk(t *testing.T) {
	d := &diary{slow: 40 * time.Millisecond}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- seen("a")
		taps <- read("a", "T01")
		synctest.Wait()
		d.looks <- pass()
		<-time.After(time.Second)
	})
	assert.Equal(t, []string{
		"2 seated", "screen idle",
		"screen reading", "camera opens",
		"screen look", "verify T01",
		"face accepted", "camera closes", "on disk checkin", "screen recorded",
		"camera closes", "0 seated",
	}, d.entries)
}

func TestNothingIsPromisedWhenTheDiskRefuses(t *testing.T) {
	d := &diary{fail: errors.New("no space")}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- seen("a")
		taps <- read("a", "stranger")
	})
	assert.Contains(t, d.entries, "screen paused")
	assert.NotContains(t, d.entries, "screen unknown")
}

func TestAnswerYieldsToTheNextCardAndElseToIdle(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- seen("a")
		taps <- read("a", "stranger")
		<-time.After(time.Second)
		taps <- seen("a")
		taps <- Tap{Kind: CardFailed, Reader: "a", At: at("09:01:01"), Fault: FaultRemoved}
		<-time.After(5 * time.Second)
	})
	assert.Equal(t, []string{
		"2 seated", "screen idle",
		"screen reading", "camera opens", "camera closes", "on disk unknown", "screen unknown",
		"screen reading", "camera opens", "camera closes", "screen card_fault", "on disk fault", "screen card_fault",
		"screen idle",
		"camera closes", "0 seated",
	}, d.entries)
}

func TestAnotherReadersCardWaitsForTheVisitInHand(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- seen("a")
		taps <- read("a", "T01")
		synctest.Wait()
		taps <- seen("b")
		taps <- read("b", "stranger")
		taps <- Tap{Kind: CardGone, Reader: "b"}
		synctest.Wait()
		assert.NotContains(t, d.entries, "on disk unknown")
		d.looks <- pass()
		synctest.Wait()
	})
	assert.EqualValues(t, 2, d.appends.Load())
	assert.Equal(t, []string{"on disk checkin", "screen recorded", "screen reading", "camera opens", "camera closes", "on disk unknown", "screen unknown", "camera closes", "0 seated"},
		d.entries[len(d.entries)-9:])
}

func TestDeadlineEndsALookThatSeesNobody(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- seen("a")
		taps <- read("a", "T01")
		<-time.After(14 * time.Second)
		synctest.Wait()
		assert.Zero(t, d.appends.Load())
		<-time.After(2 * time.Second)
	})
	assert.EqualValues(t, 1, d.appends.Load())
	assert.NotContains(t, d.entries, "screen recorded")
	assert.Contains(t, d.entries, "screen noted")
}

func TestOnlyTheRunningSessionIsSeated(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(chan<- Tap) {
		<-time.After(3 * time.Hour) // 12:01: the session ended at 11:30
		synctest.Wait()
		assert.Equal(t, []string{"2 seated", "0 seated"}, d.seatings())
		<-time.After(3 * time.Hour) // both classes meet from 14:00, check-in opens at 13:30
	})
	assert.Equal(t, []string{"2 seated", "0 seated", "2 seated", "0 seated"}, d.seatings())
}

// seatings are the entries about who may be looked at.
func (d *diary) seatings() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries {
		if strings.HasSuffix(e, " seated") {
			out = append(out, e)
		}
	}
	return out
}

func TestATouchStartsASearch(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(taps chan<- Tap) {
		touch := Tap{Kind: Touched, At: at("09:01:00")}
		taps <- touch
		synctest.Wait()
		taps <- touch // dropped: somebody is served
		synctest.Wait()
		d.looks <- Look{Match: &Match{Trainee: "T01", Score: 0.7, Margin: 0.5, Frames: 3, Model: "87aa", Liveness: -1}}
		synctest.Wait()
	})
	assert.Equal(t, []string{
		"2 seated", "screen idle",
		"screen look", "camera opens", "search among 2",
		"face accepted", "camera closes", "on disk checkin", "screen recorded",
		"camera closes", "0 seated",
	}, d.entries)
}

func TestACardTakesThePlaceOfASearch(t *testing.T) {
	d := &diary{}
	runTerminal(t, d, func(taps chan<- Tap) {
		taps <- Tap{Kind: Touched, At: at("09:01:00")} // and walks away
		synctest.Wait()
		searched := d.looks
		taps <- seen("a")
		taps <- read("a", "T02")
		synctest.Wait()
		searched <- Look{Match: &Match{Trainee: "T01", Score: 0.7, Margin: 0.5, Frames: 3, Model: "87aa", Liveness: -1}} // too late
		d.looks <- pass()
		<-time.After(20 * time.Second) // past the search's deadline
	})
	assert.Equal(t, []string{
		"2 seated", "screen idle",
		"screen look", "camera opens", "search among 2",
		"screen reading", "camera opens", "screen look", "verify T02",
		"face accepted", "camera closes", "on disk checkin", "screen recorded", "screen idle", "screen idle",
		"camera closes", "0 seated",
	}, d.entries)
	assert.EqualValues(t, 1, d.appends.Load(), "the search left no record")
}

func TestATouchOutsideItsTimeDoesNothing(t *testing.T) {
	d := &diary{}
	playTerminal(t, d, func(taps chan<- Tap, terminal *Terminal) {
		loan, err := terminal.Borrow(context.Background()) // the test's own context is not of the bubble
		require.NoError(t, err)
		taps <- Tap{Kind: Touched, At: at("09:01:00")} // an enrolment has the screen
		synctest.Wait()
		assert.Empty(t, loan.Cards)
		loan.Return()
		<-time.After(3 * time.Hour) // no session is open
		taps <- Tap{Kind: Touched, At: at("12:01:00")}
		synctest.Wait()
	})
	assert.NotContains(t, d.entries, "camera opens")
	assert.NotContains(t, d.entries, "screen look")
}

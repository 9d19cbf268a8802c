package attendance

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"
)

// Ledger keeps records. Append returns nil only when the record is on disk; it
// does not retry inside. If it fails, or ctx ends first, the record may still
// have been kept: the next start shows.
type Ledger interface {
	Append(ctx context.Context, r Record) (Stored, error)
}

// Faces answers "is that this person?" from a camera. No method blocks on the
// camera.
type Faces interface {
	// Seat says whose faces may be checked from now on. What is in memory of
	// anybody else is wiped.
	Seat(seats map[TraineeID]Seat)
	// Open lets the camera open; nothing it sees is looked at.
	Open()
	// Verify gives looks until ctx ends and then closes the channel; it is closed
	// early if the enrolled template cannot be used. The newest look wins over
	// one that nobody took.
	Verify(ctx context.Context, trainee TraineeID, enrolment Enrolment) <-chan Look
	// Identify is Verify where nobody was named: each match is of the candidate
	// most like the face. The channel is closed early if no candidate's template
	// can be used.
	Identify(ctx context.Context, candidates map[TraineeID]Enrolment) <-chan Look
	// Accept says that the look in hand was taken for this trainee: later faces of
	// the session are compared with this one.
	Accept(trainee TraineeID)
	// Close ends the look in hand and lets the camera close.
	Close()
}

// Panel shows screens. Show does not block.
type Panel interface {
	Show(s Screen)
}

// TerminalConfig is what a terminal's loop is made of. All fields are needed.
type TerminalConfig struct {
	Ledger Ledger
	Faces  Faces
	Panel  Panel
	Taps   <-chan Tap
	Roster func() *Roster // the newest snapshot
	Book   *Book          // owned by Run from then on
	Code   CodeOpener
	Now    func() time.Time
	Log    *slog.Logger
}

// holds is how long an answer stays on the screen if nobody comes.
var holds = map[ScreenState]time.Duration{
	ScreenRecorded:    1500 * time.Millisecond,
	ScreenLate:        2 * time.Second,
	ScreenAlready:     2 * time.Second,
	ScreenCardFault:   4 * time.Second,
	ScreenUnknown:     6 * time.Second,
	ScreenNoted:       6 * time.Second,
	ScreenEnrolled:    4 * time.Second,
	ScreenNotEnrolled: 6 * time.Second,
	ScreenPaused:      6 * time.Second,
}

// idleRefresh is how often the idle screen is looked at anew, for the session
// that opens while nobody taps.
const idleRefresh = 10 * time.Second

// ErrEnded says that the terminal's loop has ended.
var ErrEnded = errors.New("the terminal is stopping")

// maxWaiting bounds the card events that wait for the visit in hand.
const maxWaiting = 16

// Terminal is the loop of one box: the path of one tap, from top to bottom.
//
//  1. A reader says that a card is there: the screen answers at once, the
//     camera starts to open. Or, where the rules allow it, the screen was
//     touched: then the face alone says who it is, and 3 is a search.
//  2. The card is read: the roster names the trainee.
//  3. The camera looks: is this that person?
//  4. Decide.
//  5. The decision is encoded once, and
//  6. stored. Only then does the screen say recorded.
//
// What leaves the box afterwards is the uplink's matter.
type Terminal struct {
	TerminalConfig
	requests chan request
	loans    chan *Loan
	ended    chan struct{} // closed when Run returns

	// Owned by Run.
	visit   *Visit
	looks   <-chan Look
	endLook context.CancelFunc
	wake    *time.Timer
	waiting []Tap // of other cards, while a visit is in hand
	loan    *Loan // nil unless reader and screen are lent
	seats   map[TraineeID]Seat
	times   stageTimes
}

// request asks Run to do something between two events.
type request struct {
	do   func()
	done chan struct{} // closed after it
}

type appendAnswer struct {
	stored Stored
	err    error
}

// NewTerminal makes a terminal; Run starts it.
func NewTerminal(c TerminalConfig) *Terminal {
	return &Terminal{TerminalConfig: c, requests: make(chan request), loans: make(chan *Loan), ended: make(chan struct{}), endLook: func() {}}
}

// Append stores a record from outside a visit, an enrolment or a package, so
// that the book has seen it when Append returns. It needs Run; any goroutine
// may call it.
func (t *Terminal) Append(ctx context.Context, r Record) (Stored, error) {
	var a appendAnswer
	if err := t.between(ctx, func() { a = t.append(ctx, r) }); err != nil {
		return Stored{}, err
	}
	return a.stored, a.err
}

// Consult lets ask read the book between two events. It needs Run; any
// goroutine may call it. ask must be quick and keep nothing of the book.
func (t *Terminal) Consult(ctx context.Context, ask func(*Book)) error {
	return t.between(ctx, func() { ask(t.Book) })
}

func (t *Terminal) between(ctx context.Context, do func()) error {
	r := request{do, make(chan struct{})}
	select {
	case t.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.ended:
		return ErrEnded
	}
	<-r.done
	return nil
}

// Run serves taps until ctx ends. A record that is being stored then is
// finished; a visit before that point is dropped, since no screen has promised
// anything.
func (t *Terminal) Run(ctx context.Context) error {
	t.wake = time.NewTimer(0)
	defer t.wake.Stop()
	defer t.Faces.Seat(nil)
	defer t.Faces.Close()
	defer close(t.ended)
	for {
		select {
		case <-ctx.Done():
			t.endLook()
			return nil
		case tap := <-t.Taps:
			t.tap(ctx, tap)
		case look, open := <-t.looks:
			if !open {
				t.looks = nil
				t.act(ctx, t.visit.Unusable())
				continue
			}
			t.times.look(look.At)
			t.act(ctx, t.visit.Look(look, t.Now()))
		case <-t.wake.C:
			t.tick(ctx)
		case loan := <-t.lending():
			t.loan = loan
		case request := <-t.requests:
			request.do()
			close(request.done)
		}
	}
}

// tap hands a card's event to the visit it belongs to. Another card waits for
// the visit in hand, unless that is a search, which ends unrecorded: whoever
// touched the screen and walked away holds up nobody with a card.
func (t *Terminal) tap(ctx context.Context, tap Tap) {
	tap.At = tap.At.In(t.Now().Location())
	switch {
	case tap.Kind == Touched:
		t.touch(ctx, tap)
	case t.loan != nil:
		t.loan.tap(tap)
	case t.visit != nil && tap.Kind != CardSeen && tap.Reader == t.visit.Reader() && !t.hasWaiting(tap.Reader):
		t.times.tap(tap, t.Now())
		t.act(ctx, t.visit.Tap(tap, t.Now()))
	case t.visit != nil && !(tap.Kind == CardSeen && t.visit.yields()):
		t.wait(tap)
	case tap.Kind == CardSeen:
		t.endLook() // of a search; the camera stays open
		t.looks = nil
		t.times = stageTimes{seen: tap.At}
		var actions []Action
		t.visit, actions = NewVisit(t.Roster(), t.Book, t.Code, tap)
		t.act(ctx, actions)
		t.seat()
	}
}

// touch begins an identification. A touch while somebody is served is dropped:
// whoever touched sees that.
func (t *Terminal) touch(ctx context.Context, touched Tap) {
	if t.loan != nil || t.visit != nil {
		return
	}
	t.seat()
	visit, actions := NewIdentification(t.Roster(), t.Book, touched, t.Now())
	if visit == nil {
		return
	}
	t.times = stageTimes{seen: touched.At}
	t.visit = visit
	t.act(ctx, actions)
}

// wait keeps another card's event. When too many wait, the newest card is
// counted as lost and its holder, who has seen no screen, presents it again.
func (t *Terminal) wait(tap Tap) {
	if tap.Kind == CardGone {
		return
	}
	if len(t.waiting) == maxWaiting {
		t.Log.Warn("card event dropped while busy", "reader", tap.Reader)
		return
	}
	t.waiting = append(t.waiting, tap)
}

func (t *Terminal) hasWaiting(reader string) bool {
	for _, tap := range t.waiting {
		if tap.Reader == reader {
			return true
		}
	}
	return false
}

func (t *Terminal) tick(ctx context.Context) {
	if t.visit != nil {
		t.act(ctx, t.visit.Tick(t.Now()))
		return
	}
	t.keepTimetable(ctx)
	t.seat()
	if t.loan == nil {
		t.Panel.Show(t.Roster().Idle(t.Now()))
	}
	t.wake.Reset(idleRefresh)
}

// seat tells the camera's side whose faces may be checked: at every tap, and
// while nobody taps, so that a session's templates are gone soon after its end.
func (t *Terminal) seat() {
	seats := t.Roster().Seats(t.Book, t.Now())
	if !maps.Equal(seats, t.seats) {
		t.seats = seats
		t.Faces.Seat(seats)
	}
}

// act does what the visit asks, in order.
func (t *Terminal) act(ctx context.Context, actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case ShowScreen:
			t.Panel.Show(a.Screen)
		case OpenCamera:
			t.Faces.Open()
		case VerifyFace:
			t.look(ctx, func(ctx context.Context) <-chan Look { return t.Faces.Verify(ctx, a.Trainee, a.Enrolment) })
		case IdentifyFace:
			t.look(ctx, func(ctx context.Context) <-chan Look { return t.Faces.Identify(ctx, a.Candidates) })
		case AcceptFace:
			t.Faces.Accept(a.Trainee)
		case CloseCamera:
			t.endLook()
			t.looks = nil
			t.Faces.Close()
		case WakeAt:
			t.wake.Reset(max(0, a.At.Sub(t.Now())))
		case StoreRecord:
			t.store(ctx, a.Record)
		}
	}
}

// look begins the looks of the visit in hand.
func (t *Terminal) look(ctx context.Context, begin func(context.Context) <-chan Look) {
	look, end := context.WithCancel(ctx)
	t.endLook = end
	t.times.verify = t.Now()
	t.looks = begin(look)
}

// store appends the record and shows what may be shown after it. The append
// outlives ctx: a record in hand is finished.
func (t *Terminal) store(ctx context.Context, r Record) {
	t.times.decided = t.Now()
	a := t.append(ctx, r)
	t.times.stored = t.Now()
	answer := t.visit.Stored(a.stored, a.err)
	t.act(ctx, answer)
	t.logVisit(a.stored, r, a.err)
	t.leave(ctx, answer)
}

func (t *Terminal) append(ctx context.Context, r Record) appendAnswer {
	stored, err := t.Ledger.Append(context.WithoutCancel(ctx), r)
	if err != nil {
		return appendAnswer{err: err}
	}
	if err := t.Book.Observe(stored.Seq, r.Type, r.Body); err != nil {
		t.Log.Error("own record does not hold", "seq", stored.Seq, "err", err) // the centre will find it too
	}
	return appendAnswer{stored: stored}
}

// leave ends the visit: the next card that waits, or the idle screen once the
// answer has stood long enough.
func (t *Terminal) leave(ctx context.Context, answer []Action) {
	t.visit = nil
	for _, a := range answer {
		if show, ok := a.(ShowScreen); ok {
			t.wake.Reset(holds[show.Screen.State])
		}
	}
	next := t.waiting
	t.waiting = nil
	for _, tap := range next {
		t.tap(ctx, tap)
	}
}

// logVisit writes where the time of a tap went. It names no person; seq leads to
// the record.
func (t *Terminal) logVisit(stored Stored, r Record, err error) {
	if err != nil {
		t.Log.Error("record not stored", "type", r.Type, "err", err)
		return
	}
	t.Log.Info("tap answered", "type", r.Type, "seq", stored.Seq, "stages", t.times)
}

package attendance

import "context"

// Loan is the reader and the screen of a terminal in the hands of somebody
// else than the loop: an enrolment. Check-ins wait meanwhile, so it is short.
// It belongs to one goroutine.
type Loan struct {
	// Cards gives what happens at the readers. Events that nobody takes are lost.
	Cards <-chan Tap

	terminal *Terminal
	cards    chan Tap
	shown    ScreenState
}

// Borrow waits until nobody is checking in, and takes reader and screen. It
// needs Run; any goroutine may call it. Return gives them back.
func (t *Terminal) Borrow(ctx context.Context) (*Loan, error) {
	cards := make(chan Tap, maxWaiting)
	l := &Loan{Cards: cards, terminal: t, cards: cards}
	select {
	case t.loans <- l:
		return l, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.ended:
		return nil, ErrEnded
	}
}

// lending is nil while there is nothing to lend.
func (t *Terminal) lending() <-chan *Loan {
	if t.visit != nil || t.loan != nil {
		return nil
	}
	return t.loans
}

// tap hands an event on, or drops it if nobody takes them.
func (l *Loan) tap(tap Tap) {
	select {
	case l.cards <- tap:
	default:
		l.terminal.Log.Warn("card event dropped while lent", "reader", tap.Reader)
	}
}

// Show puts a screen before whoever is being served.
func (l *Loan) Show(s Screen) {
	l.shown = s.State
	l.terminal.Panel.Show(s)
}

// Return gives reader and screen back. The last screen stands for its time.
func (l *Loan) Return() {
	_ = l.terminal.between(context.Background(), func() { // an error says that the loop has ended
		l.terminal.loan = nil
		l.terminal.wake.Reset(holds[l.shown])
	})
}

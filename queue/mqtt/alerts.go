package mqtt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rollcall/queue/chain"
)

const (
	// alertAgain is how often an alert that still holds is sent again: the
	// broker may have lost it, and the centre sees that it holds.
	alertAgain = time.Hour
	// alertRate is how often one kind may be sent while only its count grows.
	alertRate = time.Minute
)

// alerts is what the terminal has to say about itself, one of each kind. Any
// goroutine may raise and settle.
type alerts struct {
	changed chan struct{} // holds one

	mu   sync.Mutex // guards held
	held map[chain.AlertKind]chain.Alert
}

func newAlerts() *alerts {
	return &alerts{changed: make(chan struct{}, 1), held: map[chain.AlertKind]chain.Alert{}}
}

// raise counts one more of a kind; another code begins it anew.
func (l *alerts) raise(a chain.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, ok := l.held[a.Kind]; ok && before.Code == a.Code {
		before.Count++
		a = before
	}
	l.held[a.Kind] = a
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *alerts) settle(kind chain.AlertKind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, kind)
}

// sent is an alert that one connection has sent.
type sent struct {
	alert chain.Alert
	at    time.Time
}

// due gives an alert that should be sent now. One of an event, sent and not
// raised again for alertAgain, is over.
func (l *alerts) due(told map[chain.AlertKind]sent, now time.Time) (chain.Alert, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, kind := range chain.AlertKinds {
		a, ok := l.held[kind]
		if !ok {
			continue
		}
		before, was := told[kind]
		since := now.Sub(before.at)
		switch {
		case !was || a.Since != before.alert.Since || a.Code != before.alert.Code:
			return a, true
		case a.Count > before.alert.Count && since >= alertRate:
			return a, true
		case since < alertAgain:
		case kind == chain.AlertForgedDown || kind == chain.AlertWrongReceipt:
			delete(l.held, kind)
		default:
			return a, true
		}
	}
	return chain.Alert{}, false
}

// Raise tells the centre of something wrong with this terminal, before any
// record that waits; code, a plain name, says which of its kind. What is
// raised again is counted. It holds until [Uplink.Settle] or the end of the
// process; an event (a forged message, a wrong receipt) is over when it was
// told. It never blocks, and may be called from several goroutines.
func (u *Uplink) Raise(kind chain.AlertKind, code string) {
	log, last, _ := u.ledger.Marks()
	u.alerts.raise(chain.Alert{V: 1, Log: log, Seq: last, Kind: kind, Code: code, Count: 1, Since: chain.NewWall(u.cfg.Now())})
}

// Settle ends an alert: it is sent no more.
func (u *Uplink) Settle(kind chain.AlertKind) { u.alerts.settle(kind) }

// alertsFirst sends the alerts that are due. A broker that answers none is of no
// more use for records either.
func (c *connection) alertsFirst(ctx context.Context) error {
	for {
		a, ok := c.alerts.due(c.told, time.Now())
		if !ok {
			return nil
		}
		a.At = chain.NewWall(c.cfg.Now())
		text, err := c.cfg.SignAlert(a)
		if err != nil {
			return fmt.Errorf("%w: signing an alert: %w", errLedger, err)
		}
		if err := c.await(ctx, c.client.Publish(c.prefix+topicAlert, atLeastOnce, false, text)); err != nil {
			return err
		}
		c.told[a.Kind] = sent{a, time.Now()}
		c.log.Info("alert sent", "kind", string(a.Kind), "code", a.Code, "count", a.Count)
	}
}

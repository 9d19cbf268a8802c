package centre

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"rollcall/queue/chain"
)

// alarmTerminal begins the kinds of alarm that a terminal raises itself; the
// kind of its alert follows.
const alarmTerminal = "terminal_"

// Alert takes in a terminal's alert (see [chain.Alert]) that came from a
// terminal whose certificate has been checked, and raises an alarm for it. One
// that stands open already is raised once, and one that comes again, because it
// still holds or because somebody replays it, raises none after it was closed:
// the terminal must have raised it anew, or counted one more. It returns an
// error that wraps [ErrRefused] if sending it again will not help.
func (c *Centre) Alert(ctx context.Context, id chain.TerminalID, jws []byte) error {
	a, err := c.openAlert(ctx, id, jws)
	if err != nil {
		return fmt.Errorf("taking in an alert of %s: %w", id, err)
	}
	detail, err := json.Marshal(map[string]any{"code": a.Code, "count": a.Count, "since": a.Since})
	if err != nil {
		return fmt.Errorf("taking in an alert of %s: %w", id, err)
	}
	err = c.raiseAlone(ctx, id, alarm{
		kind: alarmTerminal + AlarmKind(a.Kind), log: a.Log, seq: a.Seq, detail: string(detail),
		occurrence: fmt.Sprintf("%s %d %d", a.Code, a.Count, millis(a.Since.Time)),
	})
	if err != nil {
		return fmt.Errorf("taking in an alert of %s: %w", id, err)
	}
	c.log.InfoContext(ctx, "alert taken in", "terminal", string(id), "kind", string(a.Kind), "code", a.Code, "count", a.Count)
	return nil
}

func (c *Centre) openAlert(ctx context.Context, id chain.TerminalID, jws []byte) (chain.Alert, error) {
	known, err := findTerminal(ctx, c.db, id)
	if errors.Is(err, ErrUnknownTerminal) {
		return chain.Alert{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return chain.Alert{}, err
	}
	keys, err := c.ledgerKeys(ctx, c.db, known)
	if err != nil {
		return chain.Alert{}, err
	}
	a, by, err := chain.OpenAlert(keys.ring, jws)
	switch {
	case err != nil:
	case a.Log.Terminal() != id:
		err = fmt.Errorf("it is of terminal %s", a.Log.Terminal())
	default:
		err = keys.retired(by)
	}
	if errors.Is(err, chain.ErrRetired) {
		err = errors.Join(err, c.raiseAlone(ctx, id, alarm{
			kind: AlarmKey, log: a.Log, seq: a.Seq, detail: err.Error() + retiredAdvice, occurrence: fmt.Sprintf("%x", sha256.Sum256(jws)),
		}))
	}
	if err != nil {
		return a, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return a, nil
}

// raiseAlone raises an alarm that comes with no record.
func (c *Centre) raiseAlone(ctx context.Context, id chain.TerminalID, a alarm) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	fresh, err := raise(ctx, tx, id, a, c.now())
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if fresh {
		c.logAlarm(ctx, id, a)
	}
	return nil
}

// runs tells two boxes with one identity from one that connects again. Each
// process of a terminal names itself by a random word in its state; one that
// comes back after another was here is alive beside it. Guarded by mu.
type runs struct {
	mu   sync.Mutex
	seen map[chain.TerminalID][2]string // the one before, and the last
}

// comes notes a run and reports whether it was here before the last one.
func (r *runs) comes(id chain.TerminalID, run string) (conflict bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen[id]
	if run == "" || run == seen[1] {
		return false
	}
	if r.seen == nil {
		r.seen = map[chain.TerminalID][2]string{}
	}
	r.seen[id] = [2]string{seen[1], run}
	return run == seen[0]
}

// maxRun bounds the name of a run.
const maxRun = 64

// state takes a terminal's state. The last will carries the run of the
// connection that ended, so only a run that is there counts.
func (c *Centre) state(ctx context.Context, id chain.TerminalID, payload []byte) error {
	var s struct {
		State string      `json:"state"`
		Run   string      `json:"run"`
		Log   chain.LogID `json:"log"`
		Seq   chain.Seq   `json:"seq"`
	}
	if len(payload) > maxState || json.Unmarshal(payload, &s) != nil || len(s.Run) > maxRun {
		return fmt.Errorf("%w: it is no state of a terminal", ErrRefused)
	}
	if s.State != "online" || !c.runs.comes(id, s.Run) {
		return nil
	}
	log := s.Log
	if log.Terminal() != id {
		log = ""
	}
	return c.raiseAlone(ctx, id, alarm{kind: AlarmIdentity, log: log,
		detail: "two boxes take this terminal's connection from each other: find the copy, take it off the network, and admit the box that is right again under another id"})
}

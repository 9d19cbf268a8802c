package centre

import (
	"context"
	"sync"
)

// maxGroup is how many batches one transaction may take in.
const maxGroup = 64

// arrivals are batches that wait for the store. Those that arrive while a
// transaction runs go together into the next one: nobody waits for a timer,
// and a commit serves as many as there are. Whose batch stands first does the
// work for its group, so that no goroutine outlives its caller.
type arrivals struct {
	mu      sync.Mutex
	waiting []*intake // guarded by mu
	busy    bool      // guarded by mu: somebody is at work; then only may others wait
}

// arrive has a batch stored, and returns when that was done or failed.
func (c *Centre) arrive(ctx context.Context, in *intake) {
	if !c.arriving.enter(in) && !<-in.turn {
		return
	}
	group := c.arriving.take()
	defer c.arriving.pass()
	c.storeGroup(ctx, group)
	for _, other := range group[1:] {
		other.turn <- false
	}
}

// enter waits in line. It reports whether nobody is at work.
func (a *arrivals) enter(in *intake) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, in)
	first := !a.busy
	a.busy = true
	return first
}

// take gives the batches at the head of the line, one of each terminal: the
// second of one terminal is judged by what became of the first.
func (a *arrivals) take() (group []*intake) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen, rest := map[string]bool{}, []*intake(nil)
	for _, in := range a.waiting {
		if len(group) == maxGroup || seen[string(in.terminal)] {
			rest = append(rest, in)
			continue
		}
		seen[string(in.terminal)] = true
		group = append(group, in)
	}
	a.waiting = rest
	return group
}

// pass gives the work to who is next in line.
func (a *arrivals) pass() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy = len(a.waiting) > 0; a.busy {
		a.waiting[0].turn <- true
	}
}

// storeGroup stores batches in one transaction. If that fails, it tries each
// alone: one that the database cannot hold must not keep the others out.
func (c *Centre) storeGroup(ctx context.Context, group []*intake) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ingestTime)
	defer cancel()
	err := c.storeTogether(ctx, group)
	for _, in := range group {
		if in.failed = err; err != nil && len(group) > 1 {
			in.failed = c.storeTogether(ctx, []*intake{in})
		}
	}
}

func (c *Centre) storeTogether(ctx context.Context, group []*intake) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	s := storing{centre: c, tx: tx, now: c.now()}
	if err := s.run(ctx, group); err != nil {
		return err
	}
	return tx.Commit()
}

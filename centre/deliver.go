package centre

import (
	"context"
	"fmt"
	"time"

	"rollcall/queue/chain"
)

// deliverEvery is how often the packages table is looked at: other processes
// write into it.
const deliverEvery = time.Second

// deliver hands every class package that is in force to retain, and the command
// that each terminal has to answer next, and from then on each new one within a
// second, until ctx ends. It begins with all of them each time it is called: a
// broker may have lost what it retained. A command that is over is taken back
// with an empty payload.
func (c *Centre) deliver(ctx context.Context, retain func(topic string, payload []byte) error) error {
	tick := time.NewTicker(deliverEvery)
	defer tick.Stop()
	var last int64
	failing := false
	commands := map[chain.TerminalID]string{} // as retained
	for {
		waiting, err := c.packagesAfter(ctx, last)
		if err != nil && !failing && ctx.Err() == nil {
			c.log.ErrorContext(ctx, "class packages cannot be read", "err", err)
		}
		failing = err != nil
		for _, p := range waiting {
			if err := retain(topicPrefix(c.cfg.Tenant, p.terminal)+topicPackage+p.class, p.jws); err != nil {
				return fmt.Errorf("publishing the class package %d of %s: %w", p.serial, p.terminal, err)
			}
			last = p.id
			c.log.InfoContext(ctx, "package published", "terminal", string(p.terminal), "class", p.class, "serial", p.serial)
		}
		if err := c.deliverCommands(ctx, commands, retain); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// deliverCommands brings what is retained in line with what is to be answered.
func (c *Centre) deliverCommands(ctx context.Context, retained map[chain.TerminalID]string, retain func(topic string, payload []byte) error) error {
	pending, err := c.pendingCommands(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.log.ErrorContext(ctx, "commands cannot be read", "err", err)
		}
		return nil // the next look may be luckier
	}
	for id := range retained {
		if _, waits := pending[id]; !waits {
			pending[id] = ""
		}
	}
	for id, jws := range pending {
		if retained[id] == jws {
			continue
		}
		if err := retain(topicPrefix(c.cfg.Tenant, id)+topicCommand, []byte(jws)); err != nil {
			return fmt.Errorf("sending a command to %s: %w", id, err)
		}
		if retained[id] = jws; jws == "" {
			delete(retained, id)
		}
	}
	return nil
}

type storedPackage struct {
	id       int64
	terminal chain.TerminalID
	class    string
	serial   uint64
	jws      []byte
}

// packagesAfter gives the newest package of each class and terminal that has
// not expired, of those stored after a row.
func (c *Centre) packagesAfter(ctx context.Context, last int64) ([]storedPackage, error) {
	rows, err := c.db.QueryContext(ctx, `SELECT id, terminal, class, serial, jws FROM packages p
		WHERE id > $1 AND expires > $2 AND NOT EXISTS
			(SELECT 1 FROM packages n WHERE n.terminal = p.terminal AND n.class = p.class AND n.serial > p.serial)
		ORDER BY id`, last, millis(c.now()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []storedPackage
	for rows.Next() {
		var p storedPackage
		if err := rows.Scan(&p.id, &p.terminal, &p.class, &p.serial, &p.jws); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

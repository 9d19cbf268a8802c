package centre

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"rollcall/queue/chain"
)

// terminal is what the centre knows of a terminal.
type terminal struct {
	ID        chain.TerminalID
	Ledger    string // PEM
	UplinkKey []byte
	Sealing   []byte
	revoked   bool

	handedOver bool // its ledger's key was changed
}

var (
	// ErrUnknownTerminal says that a terminal was never admitted here.
	ErrUnknownTerminal = errors.New("terminal is not admitted")
	// ErrRevoked says that a person shut a terminal out. It wraps
	// ErrUnknownTerminal: it counts as one that was never admitted.
	ErrRevoked = fmt.Errorf("%w any more: it was revoked", ErrUnknownTerminal)
)

// findTerminal gives a terminal that is admitted and not revoked.
func findTerminal(ctx context.Context, q querier, id chain.TerminalID) (terminal, error) {
	t, err := recallTerminal(ctx, q, id)
	if err == nil && t.revoked {
		err = fmt.Errorf("%q: %w", string(id), ErrRevoked)
	}
	return t, err
}

// recallTerminal gives a terminal that was admitted at some time.
func recallTerminal(ctx context.Context, q querier, id chain.TerminalID) (terminal, error) {
	t := terminal{ID: id}
	err := q.QueryRowContext(ctx, `SELECT ledger, uplink_key, sealing, EXISTS (SELECT 1 FROM revocations r WHERE r.terminal = t.id),
			EXISTS (SELECT 1 FROM handovers h WHERE h.terminal = t.id)
		FROM terminals t WHERE id = $1`, string(id)).
		Scan(&t.Ledger, &t.UplinkKey, &t.Sealing, &t.revoked, &t.handedOver)
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("%q: %w", string(id), ErrUnknownTerminal)
	}
	return t, err
}

// Revoke shuts a terminal out for good: from the next batch or connection on it
// is refused, by every process on the database. What it sent before stays and
// can be read. There is no way back but a new terminal id.
func (c *Centre) Revoke(ctx context.Context, id chain.TerminalID, who, reason string) error {
	who, reason = strings.TrimSpace(who), strings.TrimSpace(reason)
	if err := signedWord(who, reason); err != nil {
		return fmt.Errorf("%s stays admitted: %w", id, err)
	}
	if _, err := findTerminal(ctx, c.db, id); err != nil {
		return fmt.Errorf("revoking %s: %w", id, err)
	}
	_, err := c.db.ExecContext(ctx, "INSERT INTO revocations (terminal, who, reason, revoked) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		string(id), who, reason, millis(c.now()))
	if err != nil {
		return fmt.Errorf("revoking %s: %w", id, err)
	}
	c.log.WarnContext(ctx, "terminal revoked", "terminal", string(id))
	return nil
}

// shutOutEvery is how long a terminal that is revoked may stay connected.
const shutOutEvery = 2 * time.Second

// shutOut ends the connections of terminals that were revoked, by whichever
// process, until ctx ends.
func (c *Centre) shutOut(ctx context.Context, server *mqtt.Server) {
	tick := time.NewTicker(shutOutEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		revoked, err := c.revoked(ctx)
		if err != nil {
			continue // whatever is wrong, the next batch tells it
		}
		for _, id := range revoked {
			if cl, connected := server.Clients.Get(id); connected && !cl.Closed() {
				cl.Stop(ErrRevoked)
			}
		}
	}
}

func (c *Centre) revoked(ctx context.Context) (ids []string, err error) {
	rows, err := c.db.QueryContext(ctx, "SELECT terminal FROM revocations")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

package centre

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// DefaultCommandLife is how long a command may be carried out.
const DefaultCommandLife = 7 * 24 * time.Hour

// ErrOrder is wrapped by every refusal to make a command.
var ErrOrder = errors.New("no command made")

// States of a command that the terminal has not answered; else its state is
// the terminal's result.
const (
	CommandWaiting = "waiting" // sent or to be sent, until the terminal answers
	CommandExpired = "expired" // the terminal never answered, and may not carry it out any more
)

// Command is a command and what became of it.
type Command struct {
	Terminal string                   `json:"terminal"`
	Serial   uint64                   `json:"serial"`
	Kind     attendance.CommandKind   `json:"kind"`
	Issued   time.Time                `json:"issued"`
	Expires  time.Time                `json:"expires"`
	State    string                   `json:"state"`
	Reason   attendance.CommandReason `json:"reason,omitempty"`
	Log      string                   `json:"log,omitempty"` // of the answer
	Seq      uint64                   `json:"seq,omitempty"`
}

// Order signs a command for a terminal and stores it with the terminal's next
// serial. A centre that serves sends it, one after the other, until the
// terminal has answered or it expired. Of order only the kind and what goes
// with it count; the hash of a record to correct is filled in. life 0 is a
// week. Errors wrap [ErrOrder] where the order is at fault.
func (c *Centre) Order(ctx context.Context, id chain.TerminalID, order attendance.Command, life time.Duration) (Command, error) {
	if life == 0 {
		life = DefaultCommandLife
	}
	if life < 0 {
		return Command{}, fmt.Errorf("%w: it would expire before it was issued", ErrOrder)
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return Command{}, fmt.Errorf("ordering of %s: %w", id, err)
	}
	defer tx.Rollback()
	made, err := c.order(ctx, tx, id, order, life)
	if err != nil {
		return Command{}, fmt.Errorf("ordering of %s: %w", id, err)
	}
	if err := tx.Commit(); err != nil {
		return Command{}, fmt.Errorf("ordering of %s: %w", id, err)
	}
	c.log.InfoContext(ctx, "command made", "terminal", string(id), "serial", made.Serial, "kind", string(made.Kind))
	return made, nil
}

func (c *Centre) order(ctx context.Context, tx *sql.Tx, id chain.TerminalID, order attendance.Command, life time.Duration) (Command, error) {
	if err := c.db.inOrder(ctx, tx); err != nil { // of serials
		return Command{}, err
	}
	if _, err := findTerminal(ctx, tx, id); err != nil {
		return Command{}, err
	}
	now := c.now().In(c.zone).Truncate(time.Second)
	order.V, order.Tenant, order.Terminal, order.Issued, order.Expires = 1, c.cfg.Tenant, string(id), now, now.Add(life)
	var err error
	if order.Serial, err = c.nextSerial(ctx, tx, "commands", id); err != nil {
		return Command{}, err
	}
	if order.Correct != nil {
		correct, err := correctable(ctx, tx, id, *order.Correct)
		if err != nil {
			return Command{}, err
		}
		order.Correct = &correct
	}
	payload, err := json.Marshal(order)
	if err != nil {
		return Command{}, err
	}
	if _, err := attendance.ParseCommand(payload); err != nil {
		return Command{}, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	jws, err := chain.Sign(c.keys.pack, chain.PurposeCommand, json.RawMessage(payload))
	if err != nil {
		return Command{}, err
	}
	if len(jws) > attendance.MaxCommand {
		return Command{}, fmt.Errorf("%w: %d bytes, a terminal takes %d", ErrOrder, len(jws), attendance.MaxCommand)
	}
	sum := sha256.Sum256([]byte(jws))
	_, err = tx.ExecContext(ctx, "INSERT INTO commands (terminal, serial, kind, issued, expires, sha256, jws) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		string(id), int64(order.Serial), string(order.Kind), millis(order.Issued), millis(order.Expires), hex.EncodeToString(sum[:]), []byte(jws))
	return Command{
		Terminal: string(id), Serial: order.Serial, Kind: order.Kind, Issued: order.Issued, Expires: order.Expires, State: CommandWaiting,
	}, err
}

// nextSerial gives a terminal's next command or package its serial: above all
// that this database knows, and not below the time in milliseconds. A centre that was
// put back from an older copy has forgotten its last serials, and terminals have
// not.
func (c *Centre) nextSerial(ctx context.Context, tx *sql.Tx, table string, id chain.TerminalID) (serial uint64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT coalesce(max(serial), 0) + 1 FROM "+table+" WHERE terminal = $1", string(id)).Scan(&serial)
	return max(serial, uint64(max(0, millis(c.now())))), err
}

// correctable fills in the hash of the record, which must be a check-in of
// this terminal's that the centre has.
func correctable(ctx context.Context, tx *sql.Tx, id chain.TerminalID, order attendance.Correct) (attendance.Correct, error) {
	var hash []byte
	err := tx.QueryRowContext(ctx, "SELECT hash FROM records WHERE log = $1 AND seq = $2 AND terminal = $3 AND type = $4",
		order.Log, int64(order.Seq), string(id), string(attendance.TypeCheckin)).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return order, fmt.Errorf("%w: record %d of %s is no check-in of this terminal that the centre has", ErrOrder, order.Seq, order.Log)
	}
	if err == nil {
		order.Hash = chain.Hash(hash).String()
	}
	return order, err
}

// Commands gives the commands of a terminal, or of all, newest first.
func (c *Centre) Commands(ctx context.Context, id chain.TerminalID) ([]Command, error) {
	rows, err := c.db.QueryContext(ctx, `SELECT c.terminal, c.serial, c.kind, c.issued, c.expires, a.result, a.reason, a.log, a.seq
		FROM commands c LEFT JOIN answers a ON a.terminal = c.terminal AND a.serial = c.serial
		WHERE $1 = '' OR c.terminal = $1 ORDER BY c.id DESC`, string(id))
	if err != nil {
		return nil, fmt.Errorf("reading commands: %w", err)
	}
	defer rows.Close()
	out := []Command{}
	for rows.Next() {
		var cmd Command
		var issued, expires int64
		var result, reason, log sql.NullString
		var seq sql.NullInt64
		if err := rows.Scan(&cmd.Terminal, &cmd.Serial, &cmd.Kind, &issued, &expires, &result, &reason, &log, &seq); err != nil {
			return nil, fmt.Errorf("reading commands: %w", err)
		}
		cmd.Issued, cmd.Expires = time.UnixMilli(issued).In(c.zone), time.UnixMilli(expires).In(c.zone)
		cmd.Reason, cmd.Log, cmd.Seq = attendance.CommandReason(reason.String), log.String, uint64(seq.Int64)
		switch {
		case result.Valid:
			cmd.State = result.String
		case cmd.Expires.After(c.now()):
			cmd.State = CommandWaiting
		default:
			cmd.State = CommandExpired
		}
		out = append(out, cmd)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading commands: %w", err)
	}
	return out, nil
}

// pendingCommands gives the command that each terminal has to answer next.
func (c *Centre) pendingCommands(ctx context.Context) (map[chain.TerminalID]string, error) {
	rows, err := c.db.QueryContext(ctx, `SELECT c.terminal, c.jws FROM commands c
		WHERE c.expires > $1 AND NOT EXISTS (SELECT 1 FROM answers a WHERE a.terminal = c.terminal AND a.serial = c.serial)
		ORDER BY c.id DESC`, millis(c.now()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[chain.TerminalID]string{}
	for rows.Next() {
		var id, jws string
		if err := rows.Scan(&id, &jws); err != nil {
			return nil, err
		}
		out[chain.TerminalID(id)] = jws // the oldest comes last
	}
	return out, rows.Err()
}

// noteAnswers takes the answers to commands out of the new records. One to
// something that was no command of this centre's is an alarm: somebody sends
// commands to this terminal.
func (s *storing) noteAnswers(ctx context.Context, group []*intake) error {
	for _, in := range group {
		for _, e := range in.fresh {
			if e.Type != string(attendance.TypeAdmin) {
				continue
			}
			body, err := attendance.ReadBody[attendance.AdminBody](e.Body)
			if err != nil || !storable(string(body.Result)) || !storable(string(body.Reason)) {
				continue // a body alarm
			}
			if err := s.noteAnswer(ctx, in, e, body); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *storing) noteAnswer(ctx context.Context, in *intake, e chain.Entry, body attendance.AdminBody) error {
	sum, err := hex.DecodeString(body.SHA256) // whatever the terminal wrote there
	if err != nil {
		sum = nil
	}
	var known bool
	err = s.tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM commands WHERE terminal = $1 AND serial = $2 AND sha256 = $3)",
		string(in.terminal), int64(body.Serial), hex.EncodeToString(sum)).Scan(&known)
	if err != nil {
		return err
	}
	if !known {
		detail := fmt.Sprintf("it answers a command that this centre never gave (%s %s, and %d more): somebody sends commands to this terminal", body.Result, body.Reason, body.More)
		return s.raise(ctx, in, alarm{kind: AlarmCommand, log: e.Log, seq: e.Seq, detail: detail})
	}
	_, err = s.tx.ExecContext(ctx, `INSERT INTO answers (terminal, serial, result, reason, log, seq, told) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT DO NOTHING`, string(in.terminal), int64(body.Serial), string(body.Result), string(body.Reason), string(e.Log), int64(e.Seq), millis(s.now))
	return err
}

package centre

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"rollcall/queue/chain"
)

// AlarmKind says what a person has to look into.
type AlarmKind string

const (
	AlarmEpochBreak  AlarmKind = "epoch_break"       // a known terminal began a new log: a tail may be lost
	AlarmFork        AlarmKind = "log_fork"          // other bytes for a record that is stored: an older disk, or a changed record
	AlarmIdentity    AlarmKind = "identity_conflict" // two boxes go on with one identity
	AlarmRefused     AlarmKind = "batch_refused"     // a batch that is no batch, or not signed by its terminal
	AlarmKey         AlarmKind = "key_retired"       // signed by a ledger key that was handed over: an old disk, or a copy of the key
	AlarmGap         AlarmKind = "gap"               // records before the batch never came: the terminal or this centre lost them
	AlarmNoEnrolment AlarmKind = "face_unfounded"    // a face match that names no live enrolment of that trainee
	AlarmReceipt     AlarmKind = "receipt_unknown"   // a record that names a receipt which this centre never gave
	AlarmCommand     AlarmKind = "command_unknown"   // a terminal was sent a command that this centre never gave
	AlarmBody        AlarmKind = "body"              // a record whose body cannot be read, or that no verifier takes
)

// alarm is one to be raised. seq is 0 where no record can be named.
type alarm struct {
	kind   AlarmKind
	log    chain.LogID
	seq    chain.Seq
	detail string
	// occurrence tells this time that it happened from others: what comes again,
	// sent twice or replayed, has it again. Empty where nothing can come again.
	occurrence string
}

// sum is short for what happened.
func (a alarm) sum() []byte {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s\n%s\n%d\n%s", a.kind, a.log, a.seq, a.occurrence)))
	return sum[:]
}

const (
	// maxOpen bounds what one terminal can fill of the alarms: those of a kind
	// that nobody has closed. All that it raises itself counts as one kind.
	maxOpen = 1000
	// maxOccurrences bounds what is remembered of one alarm. What happened after
	// that may raise another, once, if it comes again when this one is closed.
	maxOccurrences = 1000
)

// raise writes an alarm down, unless one of the same kind for the same record
// is open already, or this occurrence raised one before, closed or not. It
// reports whether it is new.
func raise(ctx context.Context, tx *sql.Tx, id chain.TerminalID, a alarm, now time.Time) (bool, error) {
	if a.occurrence != "" {
		var seen bool
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM occurrences WHERE terminal = $1 AND sha256 = $2)", string(id), a.sum()).Scan(&seen)
		if err != nil || seen {
			return false, err
		}
	}
	if full, err := tooManyOpen(ctx, tx, id, a.kind); err != nil || full {
		return false, err
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO alarms (kind, terminal, log, seq, detail, raised, round)
		VALUES ($1, $2, $3, $4, $5, $6, (SELECT count(*) FROM alarms a JOIN closings c ON c.alarm = a.id
			WHERE a.kind = $1 AND a.terminal = $2 AND a.log = $3 AND a.seq = $4))
		ON CONFLICT DO NOTHING`,
		string(a.kind), string(id), string(a.log), int64(a.seq), a.detail, millis(now))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	if err != nil || a.occurrence == "" {
		return n > 0, err
	}
	return n > 0, remember(ctx, tx, id, a)
}

// remember notes what raised the alarm that is open.
func remember(ctx context.Context, tx *sql.Tx, id chain.TerminalID, a alarm) error {
	var open int64
	err := tx.QueryRowContext(ctx, "SELECT id FROM alarms WHERE kind = $1 AND terminal = $2 AND log = $3 AND seq = $4 ORDER BY round DESC LIMIT 1",
		string(a.kind), string(id), string(a.log), int64(a.seq)).Scan(&open)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO occurrences (alarm, terminal, sha256)
		SELECT $1, $2, $3 WHERE (SELECT count(*) FROM occurrences WHERE alarm = $1) < $4 ON CONFLICT DO NOTHING`,
		open, string(id), a.sum(), maxOccurrences)
	return err
}

// tooManyOpen reports whether nobody has closed so many alarms of a kind that
// one more would tell nothing.
func tooManyOpen(ctx context.Context, tx *sql.Tx, id chain.TerminalID, kind AlarmKind) (bool, error) {
	like := string(kind)
	if strings.HasPrefix(like, alarmTerminal) {
		like = alarmTerminal + "%"
	}
	var open int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM alarms a LEFT JOIN closings c ON c.alarm = a.id
		WHERE a.terminal = $1 AND a.kind LIKE $2 AND c.alarm IS NULL`, string(id), like).Scan(&open)
	return open >= maxOpen, err
}

func (c *Centre) logAlarm(ctx context.Context, id chain.TerminalID, a alarm) {
	c.log.WarnContext(ctx, "alarm raised", slog.String("kind", string(a.kind)), slog.String("terminal", string(id)),
		slog.String("log", string(a.log)), slog.Uint64("seq", uint64(a.seq)), slog.String("detail", a.detail))
}

// Alarm is a stored alarm. It stays when it is closed.
type Alarm struct {
	ID       int64     `json:"id"`
	Kind     AlarmKind `json:"kind"`
	Terminal string    `json:"terminal"`
	Log      string    `json:"log,omitempty"`
	Seq      uint64    `json:"seq,omitempty"`
	Detail   string    `json:"detail"`
	Raised   time.Time `json:"raised"`
	Closed   *Closing  `json:"closed,omitempty"`
}

// Closing is a person's word for why an alarm needs no more looking into.
type Closing struct {
	Who    string    `json:"who"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Alarms gives alarms in the order they were raised, at most limit after the
// one with the id after: the open ones, or all.
func (c *Centre) Alarms(ctx context.Context, all bool, after int64, limit int) ([]Alarm, error) {
	rows, err := c.db.QueryContext(ctx, `SELECT a.id, a.kind, a.terminal, a.log, a.seq, a.detail, a.raised, c.who, c.reason, c.closed
		FROM alarms a LEFT JOIN closings c ON c.alarm = a.id
		WHERE a.id > $1 AND ($2 = 1 OR c.alarm IS NULL) ORDER BY a.id LIMIT $3`, after, flag(all), limit)
	if err != nil {
		return nil, fmt.Errorf("reading alarms: %w", err)
	}
	defer rows.Close()
	out := []Alarm{}
	for rows.Next() {
		var a Alarm
		var raised int64
		var who, reason sql.NullString
		var closed sql.NullInt64
		if err := rows.Scan(&a.ID, &a.Kind, &a.Terminal, &a.Log, &a.Seq, &a.Detail, &raised, &who, &reason, &closed); err != nil {
			return nil, fmt.Errorf("reading alarms: %w", err)
		}
		a.Raised = c.at(raised)
		if closed.Valid {
			a.Closed = &Closing{who.String, reason.String, c.at(closed.Int64)}
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// ErrAlarm is wrapped by every refusal to close an alarm.
var ErrAlarm = errors.New("alarm not closed")

// maxReason bounds what a person writes, in bytes.
const maxReason = 1000

// CloseAlarm notes that a person looked into an alarm, who and why it is
// settled. Nothing of it can be changed later. What was stored stays, and what
// was refused stays refused. What raised it raises it no more, however often it
// is sent again; if it happens anew, a new alarm is raised. It
// returns [ErrAlarm] if there is no such alarm, it is closed already, or
// nobody says why.
func (c *Centre) CloseAlarm(ctx context.Context, id int64, who, reason string) error {
	who, reason = strings.TrimSpace(who), strings.TrimSpace(reason)
	if err := signedWord(who, reason); err != nil {
		return fmt.Errorf("%w: %w", ErrAlarm, err)
	}
	var there int
	if err := c.db.QueryRowContext(ctx, "SELECT count(*) FROM alarms WHERE id = $1", id).Scan(&there); err != nil {
		return fmt.Errorf("closing alarm %d: %w", id, err)
	}
	if there == 0 {
		return fmt.Errorf("%w: there is no alarm %d; rollcall-centre alarms lists them", ErrAlarm, id)
	}
	res, err := c.db.ExecContext(ctx, "INSERT INTO closings (alarm, who, reason, closed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		id, who, reason, millis(c.now()))
	if err != nil {
		return fmt.Errorf("closing alarm %d: %w", id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%w: alarm %d was closed before, and that stands", ErrAlarm, id), err)
	}
	c.log.InfoContext(ctx, "alarm closed", "alarm", id)
	return nil
}

// signedWord checks what a person says for good.
func signedWord(who, reason string) error {
	for _, said := range []struct{ what, text string }{{"who you are", who}, {"why", reason}} {
		if said.text == "" || len(said.text) > maxReason || !storable(said.text) {
			return fmt.Errorf("say %s, in at most %d bytes of text: an auditor will read it", said.what, maxReason)
		}
	}
	return nil
}

// storable reports whether every database takes a text: PostgreSQL has no NUL
// in one.
func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

func (c *Centre) at(ms int64) time.Time { return time.UnixMilli(ms).In(c.zone) }

// flag is a truth value that both databases compare alike.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

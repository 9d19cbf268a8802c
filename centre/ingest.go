package centre

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ErrRefused is wrapped by every refusal of a batch. The batch was dealt with
// (set aside, or known to be useless): sending it again will not help.
var ErrRefused = errors.New("batch refused")

// The kinds of alarm. An alarm is a row that a person looks at.
const (
	alarmEpochBreak  = "epoch_break"    // a known terminal began a new log: a tail may be lost
	alarmFork        = "log_fork"       // other bytes for a record that is stored
	alarmRefused     = "batch_refused"  // a batch that is no batch, or not signed by its terminal
	alarmGap         = "gap"            // records before the batch never came, or this centre lost them
	alarmNoEnrolment = "face_unfounded" // a face match that names no enrolment of that trainee
	alarmBody        = "body"           // a record whose body cannot be read
)

// maxQuarantine bounds what one terminal can fill of the quarantine, in
// batches. What comes after is counted in the log only.
const maxQuarantine = 200

// Ingest takes in one batch (see [chain.FormBatch]) that came from a terminal
// whose certificate has been checked. When it returns a receipt and no error,
// everything up to the receipt is on disk.
//
// A batch that was not expected (sent again, or ahead of what is stored) gives
// the current receipt. So does a batch that is refused, if there is a receipt
// of that log or terminal, together with an error that wraps [ErrRefused]. Any
// other error says that the store did not take it: no acknowledgement may be
// sent, the terminal will send it again.
//
// In one transaction, which holds the database's only write lock:
//
//  1. the terminal's certificate and the log's watermark are read;
//  2. the batch must be of this terminal, and its head signed by its key;
//  3. what is stored already must be the same bytes;
//  4. what is new must continue the chain at the watermark, and is inserted;
//  5. the watermark moves, and the receipt for it is signed and stored.
func (c *Centre) Ingest(ctx context.Context, id chain.TerminalID, payload []byte) ([]byte, error) {
	in := intake{centre: c, terminal: id, payload: payload}
	in.batch, in.malformed = chain.ParseBatch(payload)
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("storing a batch of %s: %w", id, err)
	}
	defer tx.Rollback()
	in.tx = tx
	receipt, err := in.take(ctx)
	refused := errors.Is(err, ErrRefused)
	if err != nil && !refused {
		return nil, fmt.Errorf("storing a batch of %s: %w", id, err)
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("storing a batch of %s: %w", id, err)
	}
	for _, a := range in.alarms {
		c.log.WarnContext(ctx, "alarm raised", "kind", a.kind, "terminal", string(id), "log", string(a.log), "seq", uint64(a.seq), "detail", a.detail)
	}
	if in.stored > 0 {
		c.log.InfoContext(ctx, "batch stored", "terminal", string(id), "log", string(in.batch.Log()),
			"first", uint64(in.batch.Last())-uint64(in.stored)+1, "last", uint64(in.batch.Last()))
	}
	return receipt, err
}

// intake is the taking in of one batch: one transaction.
type intake struct {
	centre    *Centre
	terminal  chain.TerminalID
	payload   []byte
	batch     chain.Batch
	malformed error // why payload is no batch
	tx        *sql.Tx

	mark   watermark
	alarms []alarm
	stored int
}

// watermark is up to where a log is stored. The zero watermark stands before
// line 1.
type watermark struct {
	seq  chain.Seq
	hash chain.Hash
}

type alarm struct {
	kind   string
	log    chain.LogID
	seq    chain.Seq
	detail string
}

func (in *intake) take(ctx context.Context) ([]byte, error) {
	known, err := findTerminal(ctx, in.tx, in.terminal)
	if errors.Is(err, ErrUnknownTerminal) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return nil, err
	}
	if in.malformed != nil {
		return in.refuse(ctx, alarm{kind: alarmRefused, detail: in.malformed.Error()})
	}
	if why := in.forged(known); why != nil {
		return in.refuse(ctx, alarm{kind: alarmRefused, log: in.batch.Log(), seq: in.batch.First(), detail: why.Error()})
	}
	if err := in.readWatermark(ctx); err != nil {
		return nil, err
	}
	if in.batch.First() > in.mark.seq+1 {
		return in.ahead(ctx)
	}
	fork, err := in.fork(ctx)
	if err != nil {
		return nil, err
	}
	if fork > 0 {
		return in.refuse(ctx, alarm{kind: alarmFork, log: in.batch.Log(), seq: fork,
			detail: "the terminal sent other bytes than are stored: two boxes with one identity, an older image, or a changed record"})
	}
	if in.batch.Last() <= in.mark.seq {
		return in.currentReceipt(ctx)
	}
	return in.store(ctx)
}

// forged reports why a batch is not this terminal's own word.
func (in *intake) forged(known terminal) error {
	if in.batch.Log().Terminal() != in.terminal {
		return fmt.Errorf("it is of terminal %s", in.batch.Log().Terminal())
	}
	cert, err := chain.ParseCertificate(known.Ledger)
	if err != nil {
		return err
	}
	key, err := in.centre.keys.trust().LedgerKey(cert, in.terminal)
	if err != nil {
		return err
	}
	_, err = in.batch.Check(key)
	return err
}

func (in *intake) readWatermark(ctx context.Context) error {
	var hash []byte
	err := in.tx.QueryRowContext(ctx, "SELECT seq, hash FROM watermarks WHERE log = ?", string(in.batch.Log())).Scan(&in.mark.seq, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	in.mark.hash = chain.Hash(hash)
	return err
}

// ahead answers a batch that leaves out records: the receipt tells the
// terminal where to go on.
func (in *intake) ahead(ctx context.Context) ([]byte, error) {
	detail := fmt.Sprintf("the terminal sent %d, stored is up to %d", in.batch.First(), in.mark.seq)
	if err := in.raise(ctx, alarm{kind: alarmGap, log: in.batch.Log(), seq: in.mark.seq + 1, detail: detail}); err != nil {
		return nil, err
	}
	return in.currentReceipt(ctx)
}

// fork gives the first record that is stored with other bytes, or that does
// not continue what is stored; 0 if there is none.
func (in *intake) fork(ctx context.Context) (chain.Seq, error) {
	for i, e := range in.batch.Entries {
		if e.Seq == in.mark.seq+1 {
			if e.Prev != in.mark.hash {
				return e.Seq, nil
			}
			return 0, nil // ParseBatch has checked that the rest follows
		}
		var hash []byte
		err := in.tx.QueryRowContext(ctx, "SELECT hash FROM records WHERE log = ? AND seq = ?", string(e.Log), uint64(e.Seq)).Scan(&hash)
		if err != nil {
			return 0, err
		}
		if chain.Hash(hash) != chain.HashLine(in.batch.Lines[i]) {
			return e.Seq, nil
		}
	}
	return 0, nil
}

// store inserts what is new and moves the watermark.
func (in *intake) store(ctx context.Context) ([]byte, error) {
	if in.mark.seq == 0 {
		if err := in.beginLog(ctx); err != nil {
			return nil, err
		}
	}
	insert, err := in.tx.PrepareContext(ctx, `INSERT INTO records
		(terminal, log, seq, hash, type, line, received, trainee, class, session, decision, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	received := millis(in.centre.now())
	for i, e := range in.batch.Entries {
		if e.Seq <= in.mark.seq {
			continue
		}
		s, err := summarise(e)
		if err != nil {
			err = in.raise(ctx, alarm{kind: alarmBody, log: e.Log, seq: e.Seq, detail: "the body is not that of a record of type " + e.Type})
		}
		if err != nil {
			return nil, err
		}
		hash := chain.HashLine(in.batch.Lines[i])
		if _, err := insert.ExecContext(ctx, string(in.terminal), string(e.Log), uint64(e.Seq), hash[:], e.Type, in.batch.Lines[i], received,
			s.trainee, s.class, s.session, s.decision, s.reason); err != nil {
			return nil, err
		}
		in.stored++
	}
	if err := in.audit(ctx); err != nil {
		return nil, err
	}
	return in.seal(ctx)
}

// beginLog takes in a log that was not seen before. If the terminal has
// another, the end of that one may be lost or hidden.
func (in *intake) beginLog(ctx context.Context) error {
	var before struct {
		Log chain.LogID `json:"log"`
		Seq chain.Seq   `json:"seq"`
	}
	err := in.tx.QueryRowContext(ctx, "SELECT log, seq FROM watermarks WHERE terminal = ? ORDER BY started DESC, rowid DESC LIMIT 1", string(in.terminal)).
		Scan(&before.Log, &before.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	first := in.batch.Entries[0]
	open, err := attendance.ReadBody[attendance.OpenBody](first.Body)
	if err != nil || first.Type != string(attendance.TypeOpen) {
		open = attendance.OpenBody{Reason: "the log does not begin with an open record"}
	}
	detail, err := json.Marshal(map[string]any{"stored": before, "claimed": open.Last, "reason": open.Reason})
	if err != nil {
		return err
	}
	return in.raise(ctx, alarm{kind: alarmEpochBreak, log: first.Log, seq: first.Seq, detail: string(detail)})
}

// seal moves the watermark and signs for it.
func (in *intake) seal(ctx context.Context) ([]byte, error) {
	log, last, hash := in.batch.Log(), in.batch.Last(), in.batch.LastHash()
	now := in.centre.now()
	_, err := in.tx.ExecContext(ctx, `INSERT INTO watermarks (log, terminal, seq, hash, started) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (log) DO UPDATE SET seq = excluded.seq, hash = excluded.hash`,
		string(log), string(in.terminal), uint64(last), hash[:], millis(now))
	if err != nil {
		return nil, err
	}
	receipt, err := in.sign(watermark{last, hash})
	if err != nil {
		return nil, err
	}
	_, err = in.tx.ExecContext(ctx, "INSERT INTO receipts (terminal, log, seq, head, receipt) VALUES (?, ?, ?, ?, ?)",
		string(in.terminal), string(log), uint64(last), in.batch.Head, receipt)
	return receipt, err
}

func (in *intake) sign(mark watermark) ([]byte, error) {
	receipt, err := chain.Sign(in.centre.keys.receipt, chain.PurposeReceipt, chain.Receipt{
		Log: in.batch.Log(), Seq: mark.seq, Hash: mark.hash, At: chain.NewWall(in.centre.now().In(in.centre.zone)),
	})
	return []byte(receipt), err
}

// currentReceipt is the last receipt of the batch's log. A log of which nothing
// is stored gets one for record 0, the place before its first line.
func (in *intake) currentReceipt(ctx context.Context) ([]byte, error) {
	if in.mark.seq == 0 {
		return in.sign(in.mark)
	}
	var receipt []byte
	err := in.tx.QueryRowContext(ctx, "SELECT receipt FROM receipts WHERE log = ? AND seq = ?", string(in.batch.Log()), uint64(in.mark.seq)).Scan(&receipt)
	return receipt, err
}

// refuse sets the batch aside and raises an alarm, once for the same bytes.
func (in *intake) refuse(ctx context.Context, a alarm) ([]byte, error) {
	refused := fmt.Errorf("%w: %s", ErrRefused, a.detail)
	if err := in.quarantine(ctx, a); err != nil {
		return nil, err
	}
	var receipt []byte
	err := in.tx.QueryRowContext(ctx, `SELECT receipt FROM receipts WHERE terminal = ? ORDER BY log = ? DESC, id DESC LIMIT 1`,
		string(in.terminal), string(a.log)).Scan(&receipt)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	return receipt, refused
}

func (in *intake) quarantine(ctx context.Context, a alarm) error {
	sum := sha256.Sum256(in.payload)
	kept := append([]byte{}, in.payload[:min(len(in.payload), chain.MaxBatchBytes)]...) // never nil
	res, err := in.tx.ExecContext(ctx, `INSERT INTO quarantine (terminal, sha256, payload, reason, received)
		SELECT ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM quarantine WHERE terminal = ?) < ?
		ON CONFLICT DO NOTHING`,
		string(in.terminal), sum[:], kept, a.detail, millis(in.centre.now()), string(in.terminal), maxQuarantine)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return in.raise(ctx, a)
}

// raise writes an alarm down, once for the same kind and record.
func (in *intake) raise(ctx context.Context, a alarm) error {
	res, err := in.tx.ExecContext(ctx, "INSERT INTO alarms (kind, terminal, log, seq, detail, raised) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		a.kind, string(in.terminal), string(a.log), uint64(a.seq), a.detail, millis(in.centre.now()))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	in.alarms = append(in.alarms, a)
	return nil
}

// audit looks at what the new records claim. What it finds is an alarm: the
// records are the terminal's signed word and are stored as they are.
func (in *intake) audit(ctx context.Context) error {
	for _, e := range in.batch.Entries {
		if e.Seq <= in.mark.seq || e.Type != string(attendance.TypeCheckin) {
			continue
		}
		body, err := attendance.ReadBody[attendance.CheckinBody](e.Body)
		if err != nil || body.Face == nil || body.Face.Level == attendance.FaceNone {
			continue
		}
		founded, err := in.enrolled(ctx, e, body)
		if err != nil {
			return err
		}
		if founded {
			continue
		}
		detail := fmt.Sprintf("it relies on enrolment %d, which is not a live enrolment of this trainee before it in this ledger", body.Face.Enrol)
		if err := in.raise(ctx, alarm{kind: alarmNoEnrolment, log: e.Log, seq: e.Seq, detail: detail}); err != nil {
			return err
		}
	}
	return nil
}

// enrolled reports whether a check-in's face match names the live enrolment of
// the same trainee with the same model: the last word on the trainee's template
// before the check-in, in the same ledger.
func (in *intake) enrolled(ctx context.Context, e chain.Entry, body attendance.CheckinBody) (bool, error) {
	if body.Face.Enrol == 0 || body.Face.Enrol >= uint64(e.Seq) {
		return false, nil
	}
	var line []byte
	err := in.tx.QueryRowContext(ctx, "SELECT line FROM records WHERE log = ? AND trainee = ? AND seq < ? AND type IN (?, ?, ?) ORDER BY seq DESC LIMIT 1",
		string(e.Log), string(body.Trainee), uint64(e.Seq),
		string(attendance.TypeEnrol), string(attendance.TypeWithdraw), string(attendance.TypeErase)).Scan(&line)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	entry, err := chain.ParseLine(line)
	if err != nil {
		return false, err
	}
	if attendance.RecordType(entry.Type) != attendance.TypeEnrol || uint64(entry.Seq) != body.Face.Enrol {
		return false, nil
	}
	enrol, err := attendance.ReadBody[attendance.EnrolBody](entry.Body)
	return err == nil && enrol.Trainee == body.Trainee && enrol.Model == body.Face.Model, nil
}

// summary is what reports ask of a record. Empty columns are NULL.
type summary struct {
	trainee, class, session, decision, reason sql.NullString
}

// summarise takes the columns for reports out of a body. It returns an error
// for a body that does not fit its type; types that are not known have no
// columns.
func summarise(e chain.Entry) (summary, error) {
	switch attendance.RecordType(e.Type) {
	case attendance.TypeCheckin:
		b, err := attendance.ReadBody[attendance.CheckinBody](e.Body)
		return summary{text(b.Trainee), text(b.Class), text(b.Session), text(b.Decision), text(b.Reason)}, err
	case attendance.TypeEnrol:
		b, err := attendance.ReadBody[attendance.EnrolBody](e.Body)
		return summary{trainee: text(b.Trainee)}, err
	case attendance.TypeConsent:
		b, err := attendance.ReadBody[attendance.ConsentBody](e.Body)
		return summary{trainee: text(b.Trainee)}, err
	case attendance.TypeWithdraw:
		b, err := attendance.ReadBody[attendance.WithdrawBody](e.Body)
		return summary{trainee: text(b.Trainee), reason: text(b.Reason)}, err
	case attendance.TypeErase:
		b, err := attendance.ReadBody[attendance.EraseBody](e.Body)
		return summary{trainee: text(b.Trainee)}, err
	case attendance.TypeFault:
		b, err := attendance.ReadBody[attendance.FaultBody](e.Body)
		return summary{reason: text(b.Code)}, err
	case attendance.TypeUnknown:
		_, err := attendance.ReadBody[attendance.UnknownBody](e.Body)
		return summary{}, err
	case attendance.TypePending:
		_, err := attendance.ReadBody[attendance.PendingBody](e.Body)
		return summary{}, err
	case attendance.TypePackage:
		b, err := attendance.ReadBody[attendance.PackageBody](e.Body)
		return summary{class: text(b.Class)}, err
	}
	return summary{}, nil
}

func text[S ~string](s S) sql.NullString { return sql.NullString{String: string(s), Valid: s != ""} }

// mayAcknowledge logs why a batch was not stored, and says whether it may be
// acknowledged all the same: it may, unless the store is at fault.
func (c *Centre) mayAcknowledge(ctx context.Context, id chain.TerminalID, err error) bool {
	level := slog.LevelWarn
	if !errors.Is(err, ErrRefused) {
		level = slog.LevelError
	}
	c.log.Log(ctx, level, "batch not stored", "terminal", string(id), "err", err)
	return errors.Is(err, ErrRefused)
}

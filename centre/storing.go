package centre

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// storing is one transaction that takes in a group of batches, one of each
// terminal.
type storing struct {
	centre *Centre
	tx     *sql.Tx
	now    time.Time
	marks  map[chain.LogID]watermark
}

func (s *storing) run(ctx context.Context, group []*intake) error {
	if err := s.lockWatermarks(ctx, group); err != nil {
		return err
	}
	var bringing []*intake
	for _, in := range group {
		in.outcome = outcome{}
		brings, err := s.judge(ctx, in)
		if err != nil {
			return err
		}
		if brings {
			bringing = append(bringing, in)
		}
	}
	if len(bringing) == 0 {
		return nil
	}
	if err := s.audit(ctx, bringing); err != nil {
		return err
	}
	return s.insert(ctx, bringing)
}

// lockWatermarks reads where the logs of a group stand; until the transaction
// ends they stand there. A log that begins gets a watermark before its line 1,
// so that there is a row to lock.
func (s *storing) lockWatermarks(ctx context.Context, group []*intake) error {
	s.marks = map[chain.LogID]watermark{}
	var logs, terminals []string
	for _, in := range group {
		if in.bad == nil || in.strange {
			logs = append(logs, string(in.batch.Log()))
			if in.batch.First() == 1 && !in.strange {
				terminals = append(terminals, string(in.batch.Log()))
			}
		}
	}
	if err := s.beginWatermarks(ctx, terminals); err != nil {
		return err
	}
	rows, err := s.tx.QueryContext(ctx, `SELECT w.log, w.seq, w.hash, coalesce((SELECT max(a.seq) FROM alarms a LEFT JOIN closings c ON c.alarm = a.id
			WHERE a.kind = $1 AND a.terminal = w.terminal AND a.log = w.log AND c.alarm IS NULL), 0)
		FROM watermarks w WHERE `+s.centre.db.among("w.log", 2)+" ORDER BY w.log"+s.centre.db.forUpdate,
		string(AlarmFork), s.centre.db.list(logs))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var log chain.LogID
		var mark watermark
		var hash []byte
		if err := rows.Scan(&log, &mark.seq, &hash, &mark.forked); err != nil {
			return err
		}
		mark.hash = chain.Hash(hash)
		s.marks[log] = mark
	}
	return rows.Err()
}

func (s *storing) beginWatermarks(ctx context.Context, logs []string) error {
	if len(logs) == 0 {
		return nil
	}
	slices.Sort(logs) // two processes that begin the same logs must not wait for each other
	n := len(logs)
	terminals, before := make([]string, n), make([][]byte, n)
	for i, log := range logs {
		terminals[i], before[i] = string(chain.LogID(log).Terminal()), make([]byte, sha256.Size)
	}
	return s.centre.db.insert(ctx, s.tx, rows{"watermarks", []column{
		{"log", "text", logs}, {"terminal", "text", terminals}, {"seq", "bigint", make([]int64, n)}, {"hash", "bytea", before},
		{"started", "bigint", slices.Repeat([]int64{millis(s.now)}, n)},
	}, "ON CONFLICT (log) DO NOTHING"})
}

// judge answers a batch, and reports whether it brings records to store.
func (s *storing) judge(ctx context.Context, in *intake) (brings bool, err error) {
	if in.bad != nil && !in.strange {
		return false, s.refuse(ctx, in, *in.bad)
	}
	in.mark = s.marks[in.batch.Log()]
	switch {
	case in.strange && in.batch.First() > in.mark.seq+1:
		return false, s.ahead(ctx, in) // the record that tells of its key may come first
	case in.strange:
		return false, s.refuse(ctx, in, *in.bad)
	}
	if err := s.noteGaps(ctx, in); err != nil {
		return false, err
	}
	if in.batch.First() > in.mark.seq+1 {
		lost, err := s.saidLost(ctx, in.batch.Log(), in.mark.seq+1, in.batch.First()-1)
		if err != nil {
			return false, err
		}
		if !lost {
			return false, s.ahead(ctx, in)
		}
	}
	fork, err := s.fork(ctx, in)
	switch {
	case err != nil:
		return false, err
	case fork != nil:
		return false, s.refuse(ctx, in, *fork)
	case in.batch.Last() <= in.mark.seq:
		in.receipt, err = s.currentReceipt(ctx, in)
		return false, err
	}
	if err := in.keys.retired(in.by); err != nil {
		return false, s.refuse(ctx, in, *in.distrust(err))
	}
	return true, s.begin(ctx, in)
}

// ahead answers a batch that leaves out records which the terminal did not say
// it lost: the receipt tells it where to go on. A batch that says what is lost
// is answered with where its log stands: what is behind the gap comes next.
func (s *storing) ahead(ctx context.Context, in *intake) (err error) {
	if in.gapIn != "" {
		err := s.tx.QueryRowContext(ctx, "SELECT receipt FROM receipts WHERE log = $1 ORDER BY seq DESC LIMIT 1", string(in.gapIn)).Scan(&in.receipt)
		if errors.Is(err, sql.ErrNoRows) { // nothing of that log is here
			in.receipt, err = s.currentReceipt(ctx, in)
		}
		return err
	}
	detail := fmt.Sprintf("the terminal sent %d, stored is up to %d", in.batch.First(), in.mark.seq)
	if err := s.raise(ctx, in, alarm{kind: AlarmGap, log: in.batch.Log(), seq: in.mark.seq + 1, detail: detail, occurrence: in.tip()}); err != nil {
		return err
	}
	in.receipt, err = s.currentReceipt(ctx, in)
	return err
}

// noteGaps notes what gap records name, whether or not their batch can be
// stored now: a terminal sends the one with the gap record first, and then
// what stands after the gap.
func (s *storing) noteGaps(ctx context.Context, in *intake) error {
	for _, e := range in.batch.Entries {
		if e.Type != string(attendance.TypeGap) {
			continue
		}
		gap, err := attendance.ReadBody[attendance.GapBody](e.Body)
		if err != nil {
			continue // a body alarm if it is stored
		}
		log := e.Log
		if gap.Log != "" {
			log = chain.LogID(gap.Log)
		}
		first, last := chain.Seq(gap.From), chain.Seq(gap.To)
		if log.Terminal() != in.terminal || first == 0 || first > last || last > math.MaxInt64 || log == e.Log && last >= e.Seq {
			continue
		}
		in.gapIn = log
		if err := s.noteGap(ctx, in, log, first, last); err != nil {
			return err
		}
	}
	return nil
}

func (s *storing) noteGap(ctx context.Context, in *intake, log chain.LogID, first, last chain.Seq) error {
	var have chain.Seq
	err := s.tx.QueryRowContext(ctx, "SELECT seq FROM watermarks WHERE log = $1", string(log)).Scan(&have)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if last <= have {
		return nil // lost there after it was stored here, or noted before
	}
	res, err := s.tx.ExecContext(ctx, "INSERT INTO gaps (terminal, log, first, last, told) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		string(in.terminal), string(log), int64(first), int64(last), millis(s.now))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	detail := fmt.Sprintf("the terminal says that it lost records %d to %d before this centre had them all", first, last)
	return s.raise(ctx, in, alarm{kind: AlarmGap, log: log, seq: max(first, have+1), detail: detail})
}

// saidLost reports whether gap records name every record from first to last.
func (s *storing) saidLost(ctx context.Context, log chain.LogID, first, last chain.Seq) (bool, error) {
	rows, err := s.tx.QueryContext(ctx, "SELECT first, last FROM gaps WHERE log = $1 ORDER BY first", string(log))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var from, to chain.Seq
		if err := rows.Scan(&from, &to); err != nil {
			return false, err
		}
		if from <= first && first <= to {
			first = to + 1
		}
	}
	return first > last, rows.Err()
}

// fork gives the alarm for the first record that is stored with other bytes,
// or that does not continue what is stored; nil if there is none.
func (s *storing) fork(ctx context.Context, in *intake) (*alarm, error) {
	first := in.batch.Entries[0]
	if first.Seq == in.mark.seq+1 && first.Prev != in.mark.hash {
		return forkAt(in, first.Seq, in.mark.seq, in.mark.hash, first.Prev), nil
	}
	if first.Seq > in.mark.seq {
		return nil, nil // ParseBatch has checked that the rest follows
	}
	stored, err := s.hashes(ctx, in.batch.Log(), first.Seq, min(in.batch.Last(), in.mark.seq))
	if err != nil {
		return nil, err
	}
	for i, e := range in.batch.Entries {
		if e.Seq > in.mark.seq {
			break // it follows on a line that was compared
		}
		hash, there := stored[e.Seq]
		if !there {
			return &alarm{kind: AlarmFork, log: e.Log, seq: e.Seq, detail: fmt.Sprintf("the terminal sent record %d, which it said was lost", e.Seq)}, nil
		}
		if sent := chain.HashLine(in.batch.Lines[i]); sent != hash {
			return forkAt(in, e.Seq, e.Seq, hash, sent), nil
		}
	}
	return nil, nil
}

func forkAt(in *intake, seq, differs chain.Seq, stored, sent chain.Hash) *alarm {
	return &alarm{kind: AlarmFork, log: in.batch.Log(), seq: seq,
		detail: fmt.Sprintf("record %d is stored with the hash %s and the terminal goes on from %s: an older disk was put back, two boxes have one identity, or a record was changed", differs, stored, sent)}
}

// hashes gives the hashes of the stored records from first to last.
func (s *storing) hashes(ctx context.Context, log chain.LogID, first, last chain.Seq) (map[chain.Seq]chain.Hash, error) {
	rows, err := s.tx.QueryContext(ctx, "SELECT seq, hash FROM records WHERE log = $1 AND seq BETWEEN $2 AND $3", string(log), int64(first), int64(last))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[chain.Seq]chain.Hash{}
	for rows.Next() {
		var seq chain.Seq
		var hash []byte
		if err := rows.Scan(&seq, &hash); err != nil {
			return nil, err
		}
		out[seq] = chain.Hash(hash)
	}
	return out, rows.Err()
}

// begin looks at what it means that this log goes on, or begins.
func (s *storing) begin(ctx context.Context, in *intake) error {
	for _, e := range in.batch.Entries {
		if e.Seq > in.mark.seq {
			in.fresh = append(in.fresh, e)
		}
	}
	if in.mark.forked > 0 {
		return s.wentOn(ctx, in)
	}
	if in.mark.seq == 0 {
		return s.beginLog(ctx, in)
	}
	return nil
}

// wentOn raises the alarm for a log that goes on while a fork of it is open:
// once for each time that the other branch came.
func (s *storing) wentOn(ctx context.Context, in *intake) error {
	var fork, came int64
	err := s.tx.QueryRowContext(ctx, `SELECT coalesce(max(a.id), 0), count(o.alarm)
		FROM alarms a LEFT JOIN closings c ON c.alarm = a.id LEFT JOIN occurrences o ON o.alarm = a.id
		WHERE a.kind = $1 AND a.terminal = $2 AND a.log = $3 AND c.alarm IS NULL`,
		string(AlarmFork), string(in.terminal), string(in.batch.Log())).Scan(&fork, &came)
	if err != nil {
		return err
	}
	return s.raise(ctx, in, alarm{
		kind: AlarmIdentity, log: in.batch.Log(), seq: in.mark.forked, occurrence: fmt.Sprintf("fork %d, %d", fork, came),
		detail: fmt.Sprintf("this log went on after other bytes came for its record %d: two boxes are at work with one identity", in.mark.forked),
	})
}

// beginLog takes in a log that was not seen before. If the terminal has
// another, the end of that one may be lost or hidden.
func (s *storing) beginLog(ctx context.Context, in *intake) error {
	var before struct {
		Log chain.LogID `json:"log"`
		Seq chain.Seq   `json:"seq"`
	}
	err := s.tx.QueryRowContext(ctx, `SELECT log, seq FROM watermarks w WHERE terminal = $1 AND seq > 0
		ORDER BY started DESC, (SELECT id FROM records r WHERE r.log = w.log AND r.seq = w.seq) DESC LIMIT 1`, string(in.terminal)).
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
	return s.raise(ctx, in, alarm{kind: AlarmEpochBreak, log: first.Log, seq: first.Seq, detail: string(detail)})
}

// currentReceipt is the last receipt of the batch's log. A log of which nothing
// is stored gets one for record 0, the place before its first line.
func (s *storing) currentReceipt(ctx context.Context, in *intake) ([]byte, error) {
	if in.mark.seq == 0 {
		return s.sign(in.batch.Log(), 0, chain.Hash{})
	}
	var receipt []byte
	err := s.tx.QueryRowContext(ctx, "SELECT receipt FROM receipts WHERE log = $1 AND seq = $2", string(in.batch.Log()), int64(in.mark.seq)).Scan(&receipt)
	return receipt, err
}

func (s *storing) sign(log chain.LogID, seq chain.Seq, hash chain.Hash) ([]byte, error) {
	receipt, err := chain.Sign(s.centre.keys.receipt, chain.PurposeReceipt, chain.Receipt{
		Log: log, Seq: seq, Hash: hash, At: chain.NewWall(s.now.In(s.centre.zone)),
	})
	return []byte(receipt), err
}

// refuse sets the batch aside and raises an alarm, once for the same bytes.
func (s *storing) refuse(ctx context.Context, in *intake, a alarm) error {
	in.refused = fmt.Errorf("%w: %s", ErrRefused, a.detail)
	a.occurrence = in.tip()
	if err := s.quarantine(ctx, in, a); err != nil {
		return err
	}
	err := s.tx.QueryRowContext(ctx, "SELECT receipt FROM receipts WHERE terminal = $1 ORDER BY log = $2 DESC, id DESC LIMIT 1",
		string(in.terminal), string(a.log)).Scan(&in.receipt)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

func (s *storing) quarantine(ctx context.Context, in *intake, a alarm) error {
	sum := sha256.Sum256(in.payload)
	var here bool
	err := s.tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM quarantine WHERE terminal = $1 AND sha256 = $2)", string(in.terminal), sum[:]).Scan(&here)
	if err != nil || here {
		return err
	}
	kept := append([]byte{}, in.payload[:min(len(in.payload), chain.MaxBatchBytes)]...) // never nil
	_, err = s.tx.ExecContext(ctx, `INSERT INTO quarantine (terminal, sha256, payload, reason, received)
		SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM quarantine WHERE terminal = $1) < $6
		ON CONFLICT DO NOTHING`,
		string(in.terminal), sum[:], kept, a.detail, millis(s.now), maxQuarantine)
	if err != nil {
		return err
	}
	return s.raise(ctx, in, a)
}

// tip tells a batch from others: by its last record if it is the terminal's own
// word, however the batch was cut, else by its bytes.
func (in *intake) tip() string {
	if in.bad == nil {
		return in.batch.LastHash().String()
	}
	return fmt.Sprintf("%x", sha256.Sum256(in.payload))
}

// raise writes an alarm down; it is logged after the commit.
func (s *storing) raise(ctx context.Context, in *intake, a alarm) error {
	fresh, err := raise(ctx, s.tx, in.terminal, a, s.now)
	if fresh {
		in.alarms = append(in.alarms, a)
	}
	return err
}

// insert stores the new records of a group, moves the watermarks, and signs for
// them. Ids are given in the order of commits, so that who reads on from an id
// misses nothing.
func (s *storing) insert(ctx context.Context, group []*intake) error {
	records, err := s.recordRows(ctx, group)
	if err != nil {
		return err
	}
	n := len(group)
	terminals, logs, seqs := make([]string, n), make([]string, n), make([]int64, n)
	hashes, heads, receipts := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	for i, in := range group {
		hash := in.batch.LastHash()
		if in.receipt, err = s.sign(in.batch.Log(), in.batch.Last(), hash); err != nil {
			return err
		}
		terminals[i], logs[i], seqs[i] = string(in.terminal), string(in.batch.Log()), int64(in.batch.Last())
		hashes[i], heads[i], receipts[i] = hash[:], in.batch.Head, in.receipt
	}
	terminal, log, seq := column{"terminal", "text", terminals}, column{"log", "text", logs}, column{"seq", "bigint", seqs}
	started := column{"started", "bigint", slices.Repeat([]int64{millis(s.now)}, n)}
	marks := rows{"watermarks", []column{log, terminal, seq, {"hash", "bytea", hashes}, started},
		"ON CONFLICT (log) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"}
	signed := rows{"receipts", []column{terminal, log, seq, {"head", "bytea", heads}, {"receipt", "bytea", receipts}}, ""}
	if err := s.centre.db.inOrder(ctx, s.tx); err != nil {
		return err
	}
	for _, r := range append(handoverRows(group), records, signed, marks) {
		if err := s.centre.db.insert(ctx, s.tx, r); err != nil {
			return err
		}
	}
	return nil
}

func (s *storing) recordRows(ctx context.Context, group []*intake) (rows, error) {
	var terminals, logs, types []string
	var seqs, received, walls []int64
	var hashes, lines [][]byte
	var trainees, classes, sessions, decisions, reasons []*string
	for _, in := range group {
		for i, e := range in.batch.Entries {
			if e.Seq <= in.mark.seq {
				continue
			}
			sum := in.bodies[i]
			if sum.unread != nil {
				if err := s.raise(ctx, in, alarm{kind: AlarmBody, log: e.Log, seq: e.Seq, detail: "the body is not that of a record of type " + e.Type}); err != nil {
					return rows{}, err
				}
			}
			hash := chain.HashLine(in.batch.Lines[i])
			terminals, logs, types = append(terminals, string(in.terminal)), append(logs, string(e.Log)), append(types, e.Type)
			seqs, received, walls = append(seqs, int64(e.Seq)), append(received, millis(s.now)), append(walls, millis(e.At.Wall.Time))
			hashes, lines = append(hashes, hash[:]), append(lines, in.batch.Lines[i])
			trainees, classes, sessions = append(trainees, sum.trainee), append(classes, sum.class), append(sessions, sum.session)
			decisions, reasons = append(decisions, sum.decision), append(reasons, sum.reason)
		}
	}
	return rows{"records", []column{
		{"terminal", "text", terminals}, {"log", "text", logs}, {"seq", "bigint", seqs}, {"hash", "bytea", hashes}, {"type", "text", types},
		{"line", "bytea", lines}, {"received", "bigint", received}, {"wall", "bigint", walls},
		{"trainee", "text", trainees}, {"class", "text", classes}, {"session", "text", sessions}, {"decision", "text", decisions}, {"reason", "text", reasons},
	}, ""}, nil
}

// logsOf lists the logs of a group.
func logsOf(group []*intake) []string {
	logs := make([]string, len(group))
	for i, in := range group {
		logs[i] = string(in.batch.Log())
	}
	return logs
}

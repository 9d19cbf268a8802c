package centre

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ErrRefused is wrapped by every refusal of a batch. The batch was dealt with
// (set aside, or known to be useless): sending it again will not help.
var ErrRefused = errors.New("batch refused")

// maxQuarantine bounds what one terminal can fill of the quarantine, in
// batches. What comes after is not kept; its alarm is raised all the same.
const maxQuarantine = 200

// Ingest takes in one batch (see [chain.FormBatch]) that came from a terminal
// whose certificate has been checked. When it returns a receipt and no error,
// everything up to the receipt is on disk, but for what the terminal itself
// said that it lost.
//
// A batch that was not expected (sent again, or ahead of what is stored) gives
// the current receipt. So does a batch that is refused, if there is a receipt
// of that log or terminal, together with an error that wraps [ErrRefused]. Any
// other error says that the store did not take it: no acknowledgement may be
// sent, the terminal will send it again.
//
// First the batch must be of this terminal, and its head signed by its key, or by
// one that handovers lead to.
// Then, in one transaction with other batches that wait:
//
//  1. the log's watermark is read and locked;
//  2. what is stored already must be the same bytes;
//  3. what is new must continue the chain at the watermark, or begin after
//     records that the terminal named in a gap record;
//  4. its key must not be one that another followed in any log;
//  5. what the new records claim is compared with what is stored;
//  6. they and the handovers among them are inserted, the watermark moves, and the receipt for it is signed
//     and stored.
func (c *Centre) Ingest(ctx context.Context, id chain.TerminalID, payload []byte) ([]byte, error) {
	in := &intake{terminal: id, payload: payload, turn: make(chan bool, 1)}
	if err := c.look(ctx, in); err != nil {
		return nil, err
	}
	c.arrive(ctx, in)
	if in.failed != nil {
		return nil, fmt.Errorf("storing a batch of %s: %w", id, in.failed)
	}
	for _, a := range in.alarms {
		c.logAlarm(ctx, id, a)
	}
	if n := len(in.fresh); n > 0 {
		c.log.InfoContext(ctx, "batch stored", "terminal", string(id), "log", string(in.batch.Log()),
			"first", uint64(in.batch.Last())-uint64(n)+1, "last", uint64(in.batch.Last()))
	}
	return in.receipt, in.refused
}

// intake is one batch on its way into the store.
type intake struct {
	terminal chain.TerminalID
	payload  []byte
	batch    chain.Batch
	bad      *alarm // why it is not the terminal's own word
	strange  bool   // bad, and by a key that records before it may tell of
	bodies   []body // of batch.Entries

	keys  ledgerKeys   // of the terminal, with what the batch brings
	knew  int          // place of the last one before it
	turns []chain.Turn // of the batch
	by    int          // place of the key that signed it

	turn   chan bool // true: yours is the next group; false: it is done
	failed error     // the store did not take it
	outcome
}

// outcome is what became of a batch in a transaction that was committed.
type outcome struct {
	receipt []byte
	refused error // wraps ErrRefused
	alarms  []alarm
	mark    watermark     // as it was before
	fresh   []chain.Entry // what it brought
	gapIn   chain.LogID   // a log of which the batch says that records are lost
}

// watermark is up to where a log is stored. The zero watermark stands before
// line 1.
type watermark struct {
	seq    chain.Seq
	hash   chain.Hash
	forked chain.Seq // the last record for which a log_fork is open; 0 if none
}

// look checks all that needs no lock.
func (c *Centre) look(ctx context.Context, in *intake) error {
	known, err := findTerminal(ctx, c.db, in.terminal)
	if errors.Is(err, ErrUnknownTerminal) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return fmt.Errorf("storing a batch of %s: %w", in.terminal, err)
	}
	if in.batch, err = chain.ParseBatch(in.payload); err != nil {
		in.bad = &alarm{kind: AlarmRefused, detail: err.Error()}
		return nil
	}
	switch {
	case in.batch.Last() > math.MaxInt64:
		in.bad = &alarm{kind: AlarmRefused, log: in.batch.Log(), detail: "its record numbers are beyond all counting"}
		return nil
	case in.batch.Log().Terminal() != known.ID:
		in.bad = in.distrust(fmt.Errorf("it is of terminal %s", in.batch.Log().Terminal()))
		return nil
	}
	keys, err := c.ledgerKeys(ctx, c.db, known)
	if err != nil {
		return fmt.Errorf("storing a batch of %s: %w", in.terminal, err)
	}
	if err := in.signer(keys); err != nil {
		in.bad, in.strange = in.distrust(err), errors.Is(err, chain.ErrUnknownKey)
		return nil
	}
	for _, e := range in.batch.Entries {
		in.bodies = append(in.bodies, readBody(e))
	}
	return nil
}

// body is what the centre reads in a record's body: what reports ask for, nil
// where there is none, and what is audited.
type body struct {
	trainee, class, session, decision, reason *string

	unread error                    // it does not fit its type
	face   *attendance.FaceEvidence // a match that is claimed for trainee
}

// readBody reads a body. Of types that are not known it takes what goes by the
// same names.
func readBody(e chain.Entry) (s body) {
	var err error
	switch attendance.RecordType(e.Type) {
	case attendance.TypeCheckin:
		var b attendance.CheckinBody
		b, err = attendance.ReadBody[attendance.CheckinBody](e.Body)
		s = body{trainee: text(b.Trainee), class: text(b.Class), session: text(b.Session), decision: text(b.Decision), reason: text(b.Reason)}
		if b.Face != nil && b.Face.Level != attendance.FaceNone {
			s.face = b.Face
		}
	case attendance.TypeEnrol:
		var b attendance.EnrolBody
		b, err = attendance.ReadBody[attendance.EnrolBody](e.Body)
		s = body{trainee: text(b.Trainee)}
	case attendance.TypeConsent:
		var b attendance.ConsentBody
		b, err = attendance.ReadBody[attendance.ConsentBody](e.Body)
		s = body{trainee: text(b.Trainee)}
	case attendance.TypeWithdraw:
		var b attendance.WithdrawBody
		b, err = attendance.ReadBody[attendance.WithdrawBody](e.Body)
		s = body{trainee: text(b.Trainee), reason: text(b.Reason)}
	case attendance.TypeErase:
		var b attendance.EraseBody
		b, err = attendance.ReadBody[attendance.EraseBody](e.Body)
		s = body{trainee: text(b.Trainee)}
	case attendance.TypeFault:
		var b attendance.FaultBody
		b, err = attendance.ReadBody[attendance.FaultBody](e.Body)
		s = body{reason: text(b.Code)}
	case attendance.TypeUnknown:
		_, err = attendance.ReadBody[attendance.UnknownBody](e.Body)
	case attendance.TypePending:
		_, err = attendance.ReadBody[attendance.PendingBody](e.Body)
	case attendance.TypeGap:
		if _, err = attendance.ReadBody[attendance.GapBody](e.Body); err == nil && !chain.NamesGap(e) {
			err = errors.New("it names no records before it") // no verifier takes it
		}
	case attendance.TypeCorrection:
		var b attendance.CorrectionBody
		b, err = attendance.ReadBody[attendance.CorrectionBody](e.Body)
		s = body{decision: text(b.Decision), reason: text(fmt.Sprintf("record %d of %s, by %s: %s", b.Seq, b.Log, b.Operator, b.Reason))}
	case attendance.TypeAdmin:
		var b attendance.AdminBody
		b, err = attendance.ReadBody[attendance.AdminBody](e.Body)
		s = body{decision: text(b.Result), reason: text(b.Reason)}
	case attendance.TypePackage:
		var b attendance.PackageBody
		b, err = attendance.ReadBody[attendance.PackageBody](e.Body)
		s = body{class: text(b.Class)}
	default:
		var b struct{ Trainee, Class, Session string }
		if json.Unmarshal(e.Body, &b) == nil {
			s = body{trainee: text(b.Trainee), class: text(b.Class), session: text(b.Session)}
		}
	}
	for _, column := range []*string{s.trainee, s.class, s.session, s.decision, s.reason} {
		if column != nil && !storable(*column) {
			return body{unread: errors.New("a NUL in a text")}
		}
	}
	s.unread = err
	return s
}

func text[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	out := string(s)
	return &out
}

// mayAcknowledge logs why a message was not stored, and says whether it may be
// acknowledged all the same: it may, unless the store is at fault.
func (c *Centre) mayAcknowledge(ctx context.Context, id chain.TerminalID, what string, err error) bool {
	level := slog.LevelWarn
	if !errors.Is(err, ErrRefused) {
		level = slog.LevelError
	}
	c.log.Log(ctx, level, what+" not stored", "terminal", string(id), "err", err)
	return errors.Is(err, ErrRefused)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

func (d *daemon) openCommands(trust chain.Trust) {
	d.commands = openCommands(&commands{
		path: filepath.Join(d.cfg.State, commandsFile), tenant: d.admission.Tenant, terminal: d.admission.Terminal, key: trust.Package,
		now: d.surelyPast, up: d.clock.Up, carryOut: d.carryOut, log: d.log,
		forged: func() { d.uplink.Raise(chain.AlertForgedDown, "command") },
		record: func(ctx context.Context, r attendance.Record) error {
			_, err := d.terminal.Append(ctx, r)
			return err
		},
	}, d.book.LastCommand())
}

// surelyPast is a time that is over, whatever the clock says: now while the
// clock can be trusted, else by the centre's time in this boot, else that of the
// last receipt.
func (d *daemon) surelyPast() time.Time {
	switch d.clock.Stamp().Clock {
	case chain.ClockSynced, chain.ClockHoldover:
		return d.clock.Now()
	}
	if now, ok := d.clock.Witnessed(); ok {
		return now
	}
	return d.ledger.ReceivedAt()
}

// validAt is the time by which the uplink judges certificates: the wall clock,
// but not before this program was built, nor before the centre's last receipt.
// A box whose clock forgot the time reaches the centre, which then tells it, and
// takes no certificate that ended before. What the kernel's time server said
// does not count: one that lied once would cut the uplink for good. Where the
// centre's time of this boot contradicts the wall clock, the centre's counts.
func (d *daemon) validAt() time.Time {
	now := d.clock.Now()
	if centre, ok := d.clock.Witnessed(); ok && d.clock.Stamp().Clock == chain.ClockSuspect {
		now = centre
	}
	for _, past := range []time.Time{d.built, d.ledger.ReceivedAt()} {
		if past.After(now) {
			now = past
		}
	}
	return now
}

// anchor records trusted time that arrived.
func (d *daemon) anchor(ctx context.Context) {
	for _, a := range d.clock.Anchors() {
		if _, err := d.terminal.Append(ctx, attendance.NewRecord(attendance.TypeAnchor, a)); err != nil && ctx.Err() == nil {
			d.log.Error("anchor not recorded", "source", string(a.Source), "err", err)
		}
	}
}

// carryOut does what a command orders. A failure is a
// [*attendance.CommandError], or the disk's.
func (d *daemon) carryOut(ctx context.Context, order attendance.Command) error {
	switch order.Kind {
	case attendance.CommandResend:
		return d.ledger.Rewind(chain.LogID(order.Resend.Log), chain.Seq(order.Resend.Seq))
	case attendance.CommandErase:
		_, err := d.erase(ctx, order.Erase.Trainee, order.Erase.Reason)
		if errors.Is(err, errNothingToErase) {
			err = &attendance.CommandError{Reason: attendance.CommandNotHere, Err: err}
		}
		return err
	case attendance.CommandCorrect:
		return d.correct(ctx, order)
	case attendance.CommandRotateKey:
		return d.ledger.Rotate(ctx)
	}
	return &attendance.CommandError{Reason: attendance.CommandUnknown, Err: fmt.Errorf("%s is not carried out here", order.Kind)}
}

// correct writes a correction beside the record that it is of. What the centre
// saw must be what stands here.
func (d *daemon) correct(ctx context.Context, order attendance.Command) error {
	line, err := d.ledger.Line(chain.LogID(order.Correct.Log), chain.Seq(order.Correct.Seq))
	if err != nil {
		return err
	}
	entry, err := chain.ParseLine(line)
	if err != nil {
		return err
	}
	if chain.HashLine(line).String() != order.Correct.Hash || attendance.RecordType(entry.Type) != attendance.TypeCheckin {
		return &attendance.CommandError{Reason: attendance.CommandNotHere,
			Err: fmt.Errorf("record %d is not the check-in that the centre saw", order.Correct.Seq)}
	}
	_, err = d.terminal.Append(ctx, attendance.NewRecord(attendance.TypeCorrection, attendance.CorrectionBody{Correct: *order.Correct, Serial: order.Serial}))
	return err
}

package main

import (
	"rollcall/queue"
	"rollcall/queue/chain"
)

// alerts are what the centre should know of the ledger before the records that
// wait reach it. Owned by watchLedger, but for begun.
type alerts struct {
	begun  string // why the ledger was begun anew; "" if it was not. Set by recall
	raised map[chain.AlertKind]string
}

// begunAnew is why the ledger was begun, unless it is this terminal's first.
func begunAnew(l *queue.Ledger) string {
	if l.Status().Receipted > 0 {
		return "" // the centre has seen it
	}
	open, err := l.Opening()
	if err != nil || open.Reason == "new" {
		return ""
	}
	return open.Reason
}

// ledgerAlerts raises and settles them.
func (d *daemon) ledgerAlerts(s queue.Status) {
	now := d.alerts.of(s)
	for kind := range d.alerts.raised {
		if _, still := now[kind]; !still {
			d.uplink.Settle(kind)
		}
	}
	for kind, code := range now {
		if before, was := d.alerts.raised[kind]; !was || before != code {
			d.uplink.Raise(kind, code)
		}
	}
	d.alerts.raised = now
}

// of says what holds. An epoch break and a gap are the centre's own to see once
// the records that tell of them are there.
func (a *alerts) of(s queue.Status) map[chain.AlertKind]string {
	now := map[chain.AlertKind]string{}
	if a.begun != "" && s.Receipted == 0 {
		now[chain.AlertEpochBreak] = a.begun
	}
	if s.Lost > 0 && s.Unsent > 0 {
		now[chain.AlertGap] = ""
	}
	if mark := watermark(s); mark != "" {
		now[chain.AlertLedger] = mark
	}
	if s.DiskFull {
		now[chain.AlertDisk] = "full"
	}
	return now
}

// watermark says how full the ledger is: "", warn, alarm or full.
func watermark(s queue.Status) string {
	switch {
	case s.Unsent >= s.Capacity:
		return "full"
	case s.Unsent*100 >= s.Capacity*95:
		return "alarm"
	case s.Unsent*10 >= s.Capacity*7:
		return "warn"
	}
	return ""
}

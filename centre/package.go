package centre

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// purgeAfter is how long after the last session a terminal may keep a class
// (roster_purge_days_after_class of the rules, 2).
const purgeAfter = 48 * time.Hour

// Published says what a class package came to.
type Published struct {
	Package  *attendance.Package
	Warnings []string // what looks odd, a sentence each
}

// Publish makes a class package for a terminal, signs it and stores it with
// the terminal's next serial. A centre that serves sends it within a second,
// else when it next starts; the terminal keeps the last of each class.
func (c *Centre) Publish(ctx context.Context, id chain.TerminalID, plan *Plan) (Published, error) {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	defer tx.Rollback()
	if err := c.db.inOrder(ctx, tx); err != nil { // of serials, and of ids, by which deliver goes
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	known, err := findTerminal(ctx, tx, id)
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	serial, err := c.nextSerial(ctx, tx, "packages", id)
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	p, err := c.form(known, plan, serial)
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	jws, err := chain.Sign(c.keys.pack, chain.PurposePackage, p)
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO packages (terminal, class, serial, expires, jws) VALUES ($1, $2, $3, $4, $5)",
		string(id), string(p.Class.ID), serial, millis(p.Expires), []byte(jws))
	if err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	if err := tx.Commit(); err != nil {
		return Published{}, fmt.Errorf("publishing class %s: %w", plan.Class.ID, err)
	}
	return Published{Package: p, Warnings: c.oddities(p)}, nil
}

// form makes the payload of a class package, and reads it back as a terminal
// will.
func (c *Centre) form(t terminal, plan *Plan, serial uint64) (*attendance.Package, error) {
	if len(plan.Trainees) == 0 {
		return nil, fmt.Errorf("%w: there is no trainee: list them in the class file, or give a roster", ErrClassFile)
	}
	sealed, key, err := c.lookupKey(t, string(plan.Class.ID))
	if err != nil {
		return nil, err
	}
	now := c.now().In(c.zone).Truncate(time.Second)
	p := &attendance.Package{
		V: 1, Tenant: c.cfg.Tenant, Terminal: string(t.ID), Serial: serial,
		Issued: now, Expires: plan.Expires,
		Class: plan.Class, LookupKey: sealed, Profile: plan.Profile, Sessions: plan.Sessions,
	}
	if p.Expires.IsZero() {
		p.Expires = lastEnd(plan.Sessions).Add(purgeAfter)
	}
	if !p.Expires.After(now) {
		return nil, fmt.Errorf("%w: the class ended at %s and the package would have expired at %s: correct the dates", ErrClassFile,
			lastEnd(plan.Sessions).Format(time.DateTime), p.Expires.Format(time.DateTime))
	}
	for _, o := range plan.Officers {
		p.Officers = append(p.Officers, attendance.Officer{ID: o.ID, Display: attendance.MaskName(o.Name.Reveal()), Keys: o.keys(key)})
	}
	for _, person := range plan.Trainees {
		p.Trainees = append(p.Trainees, attendance.Trainee{ID: person.ID, Display: attendance.MaskName(person.Name.Reveal()), Keys: person.keys(key)})
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if _, err := attendance.ParsePackage(payload); err != nil {
		return nil, fmt.Errorf("%w: a terminal would not take it: %w", ErrClassFile, err)
	}
	return p, nil
}

// keys are the holder's numbers as a terminal may know them.
func (h Holder) keys(key []byte) (keys []attendance.RosterKey) {
	for _, n := range h.numbers() {
		hash := attendance.HashNumber(key, attendance.KeyKind(n[0]), n[1])
		keys = append(keys, attendance.RosterKey{Kind: attendance.KeyKind(n[0]), Hash: hash[:]})
	}
	return keys
}

func lastEnd(sessions []attendance.Session) time.Time {
	var last time.Time
	for _, s := range sessions {
		if s.End.After(last) {
			last = s.End
		}
	}
	return last
}

// oddities are things that are allowed and rarely meant.
func (c *Centre) oddities(p *attendance.Package) []string {
	var odd []string
	now := c.now()
	today := now.In(c.zone).Format(time.DateOnly)
	over, todays := 0, 0
	for _, s := range p.Sessions {
		if s.End.Before(now) {
			over++
		}
		if s.Start.In(c.zone).Format(time.DateOnly) == today {
			todays++
		}
		if length := s.End.Sub(s.Start); length > 12*time.Hour {
			odd = append(odd, fmt.Sprintf("session %s lasts %s", s.ID, length))
		}
	}
	if over > 0 {
		odd = append(odd, fmt.Sprintf("%d of %d sessions are over already", over, len(p.Sessions)))
	}
	if todays == 0 {
		odd = append(odd, "no session is today")
	}
	for i, s := range p.Sessions {
		for _, other := range p.Sessions[:i] {
			if s.Start.Before(other.End) && other.Start.Before(s.End) {
				odd = append(odd, fmt.Sprintf("sessions %s and %s overlap", other.ID, s.ID))
			}
		}
	}
	return odd
}

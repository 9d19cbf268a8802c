package simulator

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// Kept is a record about a person as a store holds it.
type Kept struct {
	Seq      chain.Seq
	Code     string
	Type     attendance.RecordType
	Trainee  attendance.TraineeID
	Session  attendance.SessionID
	Decision attendance.Outcome
	Reason   attendance.Reason
	Unknown  string // keyed hash of an unknown card
	hash     chain.Hash
	body     []byte
}

func (k Kept) String() string {
	return strings.Join(slices.DeleteFunc([]string{string(k.Type), string(k.Decision), string(k.Reason)}, func(s string) bool { return s == "" }), " ")
}

// Verdict is what came of comparing a scenario's truth with the screens, the
// centre's database and the verified export.
type Verdict struct {
	Rows  []VerdictRow
	Wrong []string // one sentence for each thing that is not as it should be
}

// VerdictRow is one tap.
type VerdictRow struct {
	Tap   TapSeen
	Found *Kept // the record the screen's code leads to
	Wrong []string
}

// OK reports whether everything equals the truth.
func (v Verdict) OK() bool { return len(v.Wrong) == 0 }

// Judge compares rounds that were played with what the centre and the
// terminal's export hold.
func (s *Stage) Judge(ctx context.Context, rounds ...*Round) (Verdict, error) {
	central, err := s.centreRecords(ctx)
	if err != nil {
		return Verdict{}, err
	}
	exported, err := s.exportedRecords(ctx)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{}
	if !slices.EqualFunc(central, exported, func(a, b Kept) bool { return a.hash == b.hash && a.Seq == b.Seq }) {
		v.Wrong = append(v.Wrong, fmt.Sprintf("the centre holds %d records about people, the export %d, or others", len(central), len(exported)))
	}
	j := judge{stage: s, left: exported}
	for _, r := range rounds {
		for _, tap := range r.Taps {
			row := j.row(r, tap)
			v.Rows = append(v.Rows, row)
			for _, w := range row.Wrong {
				v.Wrong = append(v.Wrong, fmt.Sprintf("%s (%s): %s", tap.Step.Who, tap.Step.Says, w))
			}
		}
	}
	for _, k := range j.left {
		v.Wrong = append(v.Wrong, fmt.Sprintf("record %d (%s) stands for no tap", k.Seq, k))
	}
	return v, nil
}

// judge takes records off the front as the taps that made them come by.
type judge struct {
	stage *Stage
	left  []Kept
}

func (j *judge) row(r *Round, tap TapSeen) VerdictRow {
	row := VerdictRow{Tap: tap}
	wrong := func(format string, args ...any) { row.Wrong = append(row.Wrong, fmt.Sprintf(format, args...)) }
	truth, screen := tap.Step.Truth, tap.Answer.Screen
	if tap.Err != nil {
		wrong("%v", tap.Err)
	}
	if screen.State != truth.Screen {
		wrong("the screen said %q", screen.State)
	}
	if len(j.left) == 0 {
		wrong("its record is missing")
		return row
	}
	found := j.left[0]
	want := Kept{Type: truth.Record, Decision: truth.Decision, Reason: truth.Reason}
	if truth.Record == attendance.TypeCheckin {
		person, _ := r.Scenario.person(tap.Step.Who)
		want.Trainee, want.Session = attendance.TraineeID(person.ID), r.session(person.Class)
	}
	if !sameFacts(found, want) {
		wrong("the record says %s %s, the truth is %s %s", found.Trainee, found, want.Trainee, want)
		if found.Code != screen.Code {
			return row // another tap's record: this one's is missing
		}
	}
	j.left = j.left[1:]
	row.Found = &found
	if found.Code != screen.Code {
		wrong("the screen gave the code %s, the record's is %s", screen.Code, found.Code)
	}
	if err := j.stage.checkBody(r, tap, found); err != nil {
		wrong("%v", err)
	}
	return row
}

func sameFacts(a, b Kept) bool {
	return a.Type == b.Type && a.Trainee == b.Trainee && a.Session == b.Session && a.Decision == b.Decision && a.Reason == b.Reason
}

// checkBody checks what only the body says: minutes, the time of the tap, and
// that the centre can tell who an unknown card belonged to.
func (s *Stage) checkBody(r *Round, tap TapSeen, k Kept) error {
	switch k.Type {
	case attendance.TypeCheckin:
		body, err := attendance.ReadBody[attendance.CheckinBody](k.body)
		if err != nil {
			return err
		}
		return checkTimes(r, tap, body)
	case attendance.TypeUnknown:
		return s.checkUnknown(r, tap, k)
	}
	return nil
}

func checkTimes(r *Round, tap TapSeen, body attendance.CheckinBody) error {
	tapped, err := time.Parse(attendance.TimeLayout, body.Tapped)
	if err != nil {
		return err
	}
	if tapped.Before(tap.Inserted.Truncate(time.Millisecond)) || tapped.After(tap.Answer.At) {
		return fmt.Errorf("the record says it was tapped at %s, the card went in at %s", body.Tapped, tap.Inserted.Format("15:04:05.000"))
	}
	person, _ := r.Scenario.person(tap.Step.Who)
	class, _ := r.Scenario.class(person.Class)
	late := int(tapped.Sub(r.start(class)) / time.Minute)
	if body.Decision == attendance.Late && (body.LateMin != late || tap.Answer.Screen.Minutes != late) {
		return fmt.Errorf("late by %d minutes, the record says %d and the screen %d", late, body.LateMin, tap.Answer.Screen.Minutes)
	}
	return nil
}

func (s *Stage) checkUnknown(r *Round, tap TapSeen, k Kept) error {
	secret, err := os.ReadFile(s.path("centre", "keys", "lookup.secret"))
	if err != nil {
		return err
	}
	key, err := chain.DeriveLookupKey(secret, stageTerminal, "")
	if err != nil {
		return err
	}
	hash := attendance.HashNumber(key, attendance.KeyIdent, r.Scenario.holder(tap.Step.Who).Ident)
	if k.Unknown != base64.RawURLEncoding.EncodeToString(hash[:]) {
		return fmt.Errorf("the centre cannot tell whose card it was")
	}
	return nil
}

// centreRecords asks the centre's database.
func (s *Stage) centreRecords(ctx context.Context) ([]Kept, error) {
	text, err := s.tool(ctx, "rollcall-centre", "records", "-config", s.path("centre.toml"), "-terminal", stageTerminal, "-json")
	if err != nil {
		return nil, err
	}
	var rows []struct {
		Seq      chain.Seq             `json:"seq"`
		Type     attendance.RecordType `json:"type"`
		Trainee  attendance.TraineeID  `json:"trainee"`
		Session  attendance.SessionID  `json:"session"`
		Decision attendance.Outcome    `json:"decision"`
		Reason   attendance.Reason     `json:"reason"`
		Hash     chain.Hash            `json:"hash"`
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("reading the centre's records: %w", err)
	}
	var kept []Kept
	for _, r := range rows {
		if aboutPeople(r.Type) {
			kept = append(kept, Kept{Seq: r.Seq, Type: r.Type, Trainee: r.Trainee, Session: r.Session, Decision: r.Decision, Reason: r.Reason, hash: r.Hash, Code: r.Hash.Short()})
		}
	}
	return kept, nil
}

// exportedRecords exports the terminal's ledger and has it verified against
// the centre's keys before it is read.
func (s *Stage) exportedRecords(ctx context.Context) ([]Kept, error) {
	export, err := s.tool(ctx, "rollcall", "ledger", "export", s.path("terminal"))
	if err != nil {
		return nil, err
	}
	file := s.path("export.ndjson")
	if err := os.WriteFile(file, export, 0o600); err != nil {
		return nil, err
	}
	said, err := s.tool(ctx, "rollcall", "ledger", "verify", "-trust", s.path("admission.json"), file)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(s.Out, "%s: %s", filepath.Base(file), said)
	return readExport(bytes.NewReader(export))
}

func readExport(r io.Reader) ([]Kept, error) {
	var kept []Kept
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 2*chain.MaxLine)
	for lines.Scan() {
		e, err := chain.ParseLine(lines.Bytes())
		if err != nil || !aboutPeople(attendance.RecordType(e.Type)) {
			continue // heads, receipts, the certificate; verified before
		}
		hash := chain.HashLine(lines.Bytes())
		k := Kept{Seq: e.Seq, Type: attendance.RecordType(e.Type), Code: hash.Short(), hash: hash, body: bytes.Clone(e.Body)}
		if err := k.fill(); err != nil {
			return nil, err
		}
		kept = append(kept, k)
	}
	return kept, lines.Err()
}

func (k *Kept) fill() error {
	switch k.Type {
	case attendance.TypeCheckin:
		b, err := attendance.ReadBody[attendance.CheckinBody](k.body)
		k.Trainee, k.Session, k.Decision, k.Reason = b.Trainee, b.Session, b.Decision, b.Reason
		return err
	case attendance.TypeUnknown:
		b, err := attendance.ReadBody[attendance.UnknownBody](k.body)
		k.Unknown = b.Hash
		return err
	}
	return nil
}

func aboutPeople(t attendance.RecordType) bool {
	return t == attendance.TypeCheckin || t == attendance.TypeUnknown || t == attendance.TypeFault
}

// Print writes the table: who tapped, what the screen said, what was recorded,
// what the truth was.
func (v Verdict) Print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\twho\twhat happened\tscreen\tcode\trecord\ttruth")
	for _, row := range v.Rows {
		mark, record := "ok", "-"
		if len(row.Wrong) > 0 {
			mark = "NO"
		}
		if row.Found != nil {
			record = fmt.Sprintf("%d %s", row.Found.Seq, row.Found)
		}
		step := row.Tap.Step
		truth := Kept{Type: step.Truth.Record, Decision: step.Truth.Decision, Reason: step.Truth.Reason}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, step.Who, step.Says, row.Tap.Answer.Screen.State, row.Tap.Answer.Screen.Code, record, truth)
	}
	_ = table.Flush()
	for _, w2 := range v.Wrong {
		fmt.Fprintln(w, "NOT AS IT SHOULD BE:", w2)
	}
}

package centre

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ErrClassFile is wrapped by every refusal of a class file or roster.
var ErrClassFile = errors.New("class file refused")

// Limits of a class file and its roster.
const (
	maxClassFile = 8 << 20
	maxTrainees  = 5000
	maxSessions  = 2000
	maxName      = 100 // characters
)

// Plan is a class file: a class, its sessions, rules, officers and trainees,
// as an institution writes it. docs/class-file.md describes it.
type Plan struct {
	Class    attendance.ClassInfo
	Sessions []attendance.Session
	Profile  attendance.Profile
	Officers []PlanOfficer
	Trainees []Person
	Expires  time.Time // zero: two days after the last session
	Roster   string    // the file that holds the trainees, if they are not inline
}

// Person is a trainee as the institution knows them. The numbers are hashed
// and the name is masked before anything leaves the centre.
type Person struct {
	ID attendance.TraineeID
	Holder
	where string // "line 7", for messages
}

// Holder is what is known of somebody and their cards.
type Holder struct {
	Name     attendance.PersonName
	Ident    attendance.CardIdent
	CardNo   attendance.CardNo
	PersonNo attendance.PersonNo
	UID      attendance.UID
}

// PlanOfficer is somebody who may vouch, as the institution knows them.
type PlanOfficer struct {
	ID string
	Holder
}

// generic is the rule profile of a class that names none.
func generic() attendance.Profile {
	return attendance.Profile{
		ID: "generic", Version: 1,
		EarlyWindowMin: 30, LateGraceMin: 5,
		FaceThreshold: 0.412, FaceTries: 3, ConfirmDeadlineS: 15,
	}
}

// planFile is the JSON of a class file.
type planFile struct {
	Class    attendance.ClassInfo `json:"class"`
	Sessions []struct {
		ID    attendance.SessionID `json:"id"`
		Start string               `json:"start"`
		End   string               `json:"end"`
	} `json:"sessions"`
	Profile  *profileFile `json:"profile"`
	Officers []struct {
		ID string `json:"id"`
		holderFile
	} `json:"officers"`
	Trainees []personFile `json:"trainees"`
	Roster   string       `json:"roster"`
	Expires  string       `json:"expires"`
}

// profileFile is a rule profile of which anything may be left out.
type profileFile struct {
	ID               *string  `json:"id"`
	Version          *int     `json:"version"`
	InstructorFirst  *bool    `json:"instructor_first"`
	EarlyWindowMin   *int     `json:"early_window_min"`
	LateGraceMin     *int     `json:"late_grace_min"`
	FaceThreshold    *float64 `json:"face_threshold"`
	FaceCalibrated   *bool    `json:"face_calibrated"`
	FaceTries        *int     `json:"face_tries"`
	ConfirmDeadlineS *int     `json:"confirm_deadline_s"`
	Identify         *bool    `json:"identify"`
}

type personFile struct {
	Trainee string `json:"trainee"`
	holderFile
}

type holderFile struct {
	Name     string `json:"name"`
	Ident    string `json:"ssc_ident"`
	CardNo   string `json:"card_no"`
	PersonNo string `json:"person_no"`
	UID      string `json:"uid"`
}

// ParsePlan reads a class file (JSON; UTF-8 or GB18030). Times without a zone
// are taken in the configured one. All that is wrong is reported at once, up
// to a limit; no message holds a name or number of a person.
func (c *Centre) ParsePlan(file []byte) (*Plan, error) { return parsePlan(file, c.zone) }

func parsePlan(file []byte, zone *time.Location) (*Plan, error) {
	text, err := decodeText(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClassFile, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var f planFile
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrClassFile, jsonFault(text, err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the closing brace", ErrClassFile)
	}
	var found problems
	plan := f.plan(zone, &found)
	if f.Trainees != nil && f.Roster != "" {
		found.add("trainees and roster are both given: keep one of them")
	}
	if f.Trainees != nil {
		for i, p := range f.Trainees {
			plan.Trainees = append(plan.Trainees, p.person(fmt.Sprintf("trainee %d", i+1), &found))
		}
		checkTrainees(plan.Trainees, &found)
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	return plan, nil
}

// jsonFault words an error of encoding/json with the line it is in. The
// decoder's own words can quote a value, so they are not used.
func jsonFault(text []byte, err error) string {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: not JSON: look for a missing comma, quote or brace", lineAt(text, syntax.Offset))
	case errors.As(err, &typ):
		return fmt.Sprintf("line %d: %q must be a %s", lineAt(text, typ.Offset), typ.Field, typ.Type)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the file ends too early"
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok && strings.Trim(field, `"abcdefghijklmnopqrstuvwxyz_`) == "" {
		return "unknown field " + field + ": take it out or correct its spelling"
	}
	return "not a class file"
}

func lineAt(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
}

func (f planFile) plan(zone *time.Location, found *problems) *Plan {
	p := &Plan{Class: f.Class, Roster: f.Roster, Profile: f.Profile.profile()}
	if !validID(string(f.Class.ID)) {
		found.add("class.id must be 1 to 64 letters, digits or hyphens: it stands in a topic")
	}
	if !validName(f.Class.Name) {
		found.add("class.name must be given, at most %d characters", maxName)
	}
	if n := len(f.Sessions); n == 0 || n > maxSessions {
		found.add("%d sessions, must be 1 to %d", n, maxSessions)
	}
	seen := map[attendance.SessionID]bool{}
	for i, s := range f.Sessions {
		start, end := found.time(zone, s.Start, "session %d: start", i+1), found.time(zone, s.End, "session %d: end", i+1)
		switch {
		case !validID(string(s.ID)):
			found.add("session %d: id must be 1 to 64 letters, digits or hyphens", i+1)
		case seen[s.ID]:
			found.add("session %d: id %s is there twice", i+1, s.ID)
		case !start.IsZero() && !end.IsZero() && !end.After(start):
			found.add("session %d: it ends before it starts", i+1)
		}
		seen[s.ID] = true
		p.Sessions = append(p.Sessions, attendance.Session{ID: s.ID, Start: start, End: end})
	}
	officers := map[string]bool{}
	for i, o := range f.Officers {
		where := fmt.Sprintf("officer %d", i+1)
		holder := o.holder(where, found)
		switch {
		case !validID(o.ID):
			found.add("%s: id must be 1 to 64 letters, digits or hyphens", where)
		case officers[o.ID]:
			found.add("%s: id %s is there twice", where, o.ID)
		case holder.numbered(o.ID):
			found.add("%s: id is a number of the person or card: records carry it, so it must be an id that says nothing to others", where)
		}
		officers[o.ID] = true
		p.Officers = append(p.Officers, PlanOfficer{ID: o.ID, Holder: holder})
	}
	if f.Expires != "" {
		p.Expires = found.time(zone, f.Expires, "expires")
	}
	return p
}

func (f *profileFile) profile() attendance.Profile {
	p := generic()
	if f == nil {
		return p
	}
	set(&p.ID, f.ID)
	set(&p.Version, f.Version)
	set(&p.InstructorFirst, f.InstructorFirst)
	set(&p.EarlyWindowMin, f.EarlyWindowMin)
	set(&p.LateGraceMin, f.LateGraceMin)
	set(&p.FaceThreshold, f.FaceThreshold)
	set(&p.FaceCalibrated, f.FaceCalibrated)
	set(&p.FaceTries, f.FaceTries)
	set(&p.ConfirmDeadlineS, f.ConfirmDeadlineS)
	set(&p.Identify, f.Identify)
	return p
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// timeLayouts are the forms a time may have in a class file.
var timeLayouts = []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02T15:04"}

func parseTime(s string, zone *time.Location) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, strings.TrimSpace(s), zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// validID is the form of ids that stand in topics and records; the tenant's
// name follows the same rule.
func validID(s string) bool { return chain.ValidTenant(s) }

// validName keeps what a screen shows to printable text of sane length.
func validName(s string) bool {
	letters := 0
	for _, r := range s {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) || unicode.IsControl(r) {
			return false
		}
		if unicode.IsLetter(r) {
			letters++
		}
	}
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxName && letters > 0
}

// decodeText gives a file as UTF-8 without byte order mark. What is not UTF-8
// is taken for GB18030, what Chinese spreadsheets write (it holds GBK and GB
// 2312).
func decodeText(file []byte) ([]byte, error) {
	if len(file) > maxClassFile {
		return nil, fmt.Errorf("the file has %d bytes, at most %d", len(file), maxClassFile)
	}
	if bytes.HasPrefix(file, []byte{0xff, 0xfe}) || bytes.HasPrefix(file, []byte{0xfe, 0xff}) {
		return nil, errors.New("the file is UTF-16: save it as UTF-8")
	}
	text := bytes.TrimPrefix(file, []byte("\ufeff"))
	if utf8.Valid(text) {
		return text, nil
	}
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(file)
	if err != nil || bytes.ContainsRune(text, utf8.RuneError) { // the decoder replaces what it cannot read
		return nil, errors.New("the file is neither UTF-8 nor GB18030 (GBK): save it as UTF-8")
	}
	return text, nil
}

// problems collects what is wrong with a file, so that it can be mended in one
// go.
type problems struct{ lines []string }

// maxProblems is how many are shown.
const maxProblems = 20

func (p *problems) add(format string, args ...any) {
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

func (p *problems) time(zone *time.Location, s, format string, args ...any) time.Time {
	t, ok := parseTime(s, zone)
	if !ok {
		p.add(format+" must be a time such as 2026-11-22 09:00 or 2026-11-22T09:00:00+08:00", args...)
	}
	return t
}

func (p *problems) err() error {
	if len(p.lines) == 0 {
		return nil
	}
	shown := p.lines[:min(len(p.lines), maxProblems)]
	text := strings.Join(shown, "\n  ")
	if more := len(p.lines) - len(shown); more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return fmt.Errorf("%w:\n  %s", ErrClassFile, text)
}

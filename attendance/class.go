package attendance

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ClassID and SessionID are the centre's opaque ids.
type (
	ClassID   string
	SessionID string
)

// KeyKind says which number a lookup key hashes.
type KeyKind string

const (
	KeyIdent    KeyKind = "ssc-ident"  // card identification code
	KeyCardNo   KeyKind = "ssc-cardno" // printed card number
	KeyPersonNo KeyKind = "person-no"  // 18 characters, upper-case X
	KeyUID      KeyKind = "uid"        // serial number of a chip, upper-case hexadecimal
	KeyCode     KeyKind = "code"       // text of a code; never in a roster
)

// LookupHash is the keyed hash of a normalised number: HMAC-SHA-256 over
// kind, a zero byte and the value.
type LookupHash [sha256.Size]byte

// HashNumber computes a lookup hash.
func HashNumber(key []byte, kind KeyKind, value string) LookupHash {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(kind))
	mac.Write([]byte{0})
	mac.Write([]byte(value))
	return LookupHash(mac.Sum(nil))
}

// number is one way to find a person.
type number struct {
	kind  KeyKind
	value personal
}

// numbers lists what a credential offers for finding its holder, the most
// stable first.
func (c Credential) numbers() []number {
	var out []number
	for _, n := range []number{{KeyIdent, c.Ident.personal}, {KeyPersonNo, c.PersonNo.personal}, {KeyCardNo, c.CardNo.personal}, {KeyUID, c.UID.personal}} {
		if !n.value.IsZero() {
			out = append(out, n)
		}
	}
	return out
}

// RosterKey is one entry by which a trainee is found.
type RosterKey struct {
	Kind KeyKind `json:"kind"`
	Hash []byte  `json:"hash"` // 32 bytes
}

// Trainee is a person as the terminal knows them.
type Trainee struct {
	ID      TraineeID   `json:"id"`
	Display string      `json:"display"` // masked by the centre, "张*明"
	Keys    []RosterKey `json:"keys"`
}

// Officer is a person who may vouch, by the centre's word, and proves it with a
// card.
type Officer struct {
	ID      string      `json:"id"`
	Display string      `json:"display"`
	Keys    []RosterKey `json:"keys,omitempty"` // as a trainee's; who has none cannot enrol anybody
}

// Session is one meeting of a class.
type Session struct {
	ID    SessionID `json:"id"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// Profile is a rule profile: what differs by province is data. Every field is
// named in docs/record.md with its unit.
type Profile struct {
	ID               string  `json:"id"`
	Version          int     `json:"version"`
	InstructorFirst  bool    `json:"instructor_first"` // only false is built
	EarlyWindowMin   int     `json:"early_window_min"` // check-in opens this long before the start
	LateGraceMin     int     `json:"late_grace_min"`   // later than this is late
	FaceThreshold    float64 `json:"face_threshold"`   // cosine from which a face is taken for the enrolled one's
	FaceCalibrated   bool    `json:"face_calibrated"`
	FaceTries        int     `json:"face_tries"`
	ConfirmDeadlineS int     `json:"confirm_deadline_s"`
	Identify         bool    `json:"identify,omitempty"` // a face alone may say who it is, 1:N, after a touch on the screen
}

// ProfileRef names the rules a decision was made by.
type ProfileRef struct {
	ID      string `json:"id"`
	Version int    `json:"version"`
}

// Ref names this profile.
func (p Profile) Ref() ProfileRef { return ProfileRef{ID: p.ID, Version: p.Version} }

// ClassInfo names a class.
type ClassInfo struct {
	ID   ClassID `json:"id"`
	Name string  `json:"name"`
}

// Package is what the centre sends down: one class, its sessions, its roster
// and its rules, addressed to one terminal. It comes signed; a package is
// parsed only after its signature was checked.
type Package struct {
	V         int       `json:"v"`
	Tenant    string    `json:"tenant"`
	Terminal  string    `json:"terminal"`
	Serial    uint64    `json:"serial"` // grows with every package of this terminal
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Class     ClassInfo `json:"class"`
	LookupKey []byte    `json:"lookup_key"` // sealed to the terminal
	Profile   Profile   `json:"profile"`
	Sessions  []Session `json:"sessions"`
	Officers  []Officer `json:"officers"`
	Trainees  []Trainee `json:"trainees"`
}

// ErrPackage is wrapped by every refusal of a class package.
var ErrPackage = errors.New("class package refused")

// ParsePackage reads the payload of a class package and checks that this
// program can do what it asks. Unknown keys are refused: a rule that is not
// understood must not be passed over.
func ParsePackage(payload []byte) (*Package, error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	var p Package
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPackage, err)
	}
	return &p, nil
}

func (p *Package) check() error {
	switch {
	case p.V != 1:
		return fmt.Errorf("version %d, this program knows 1", p.V)
	case p.Serial == 0 || p.Class.ID == "" || p.Terminal == "" || p.Tenant == "":
		return errors.New("serial, class, terminal and tenant must be given")
	case !p.Expires.After(p.Issued):
		return errors.New("it expires before it was issued")
	}
	if err := p.Profile.check(); err != nil {
		return fmt.Errorf("profile %q: %w", p.Profile.ID, err)
	}
	sessions := map[SessionID]bool{}
	for _, s := range p.Sessions {
		if s.ID == "" || sessions[s.ID] || !s.End.After(s.Start) {
			return fmt.Errorf("session %q is named twice or ends before it starts", s.ID)
		}
		sessions[s.ID] = true
	}
	officers := map[string]bool{}
	for i, o := range p.Officers {
		if o.ID == "" || officers[o.ID] {
			return fmt.Errorf("officer %d has no id or is named twice", i+1)
		}
		officers[o.ID] = true
	}
	trainees := map[TraineeID]bool{}
	for i, t := range p.Trainees {
		if t.ID == "" || trainees[t.ID] || len(t.Keys) == 0 {
			return fmt.Errorf("trainee %d of the roster has no id, is named twice or has no card", i+1)
		}
		trainees[t.ID] = true
	}
	return nil
}

func (p Profile) check() error {
	switch {
	case p.InstructorFirst:
		return errors.New("instructor_first = true is not built yet")
	case p.ID == "" || p.Version < 1:
		return errors.New("id and version must be given")
	case p.EarlyWindowMin < 0 || p.LateGraceMin < 0:
		return errors.New("early_window_min and late_grace_min must not be negative")
	case p.FaceThreshold <= 0 || p.FaceThreshold >= 1:
		return errors.New("face_threshold must lie between 0 and 1")
	case p.FaceTries < 1 || p.FaceTries > 10:
		return errors.New("face_tries must lie between 1 and 10")
	case p.ConfirmDeadlineS < 5 || p.ConfirmDeadlineS > 60:
		return errors.New("confirm_deadline_s must lie between 5 and 60")
	}
	return nil
}

// OpenAt gives the session that is open at a time, counting the early window.
func (p *Package) OpenAt(now time.Time) (Session, bool) {
	for _, s := range p.Sessions {
		if p.opens(s, now) {
			return s, true
		}
	}
	return Session{}, false
}

func (p *Package) opens(s Session, now time.Time) bool {
	early := time.Duration(p.Profile.EarlyWindowMin) * time.Minute
	return !now.Before(s.Start.Add(-early)) && now.Before(s.End)
}

package attendance

import (
	"cmp"
	"encoding/base64"
	"slices"
	"time"
)

// Roster is what a terminal knows of its classes: an immutable snapshot that
// is swapped whole when a class package arrives. It may be read from several
// goroutines at once.
type Roster struct {
	terminalKey []byte // hashes cards that stand on no roster
	classes     []class
}

type class struct {
	*Package
	key   []byte
	index map[rosterIndex]int // into Trainees

	officers map[rosterIndex]int // into Officers
}

type rosterIndex struct {
	kind KeyKind
	hash LookupHash
}

// NewRoster makes an empty roster. terminalKey is the terminal's own lookup
// key.
func NewRoster(terminalKey []byte) *Roster { return &Roster{terminalKey: terminalKey} }

// With returns a roster that holds p in place of any earlier package of the
// same class. lookupKey is the class's key, opened.
func (r *Roster) With(p *Package, lookupKey []byte) *Roster {
	added := class{Package: p, key: lookupKey, index: map[rosterIndex]int{}, officers: map[rosterIndex]int{}}
	for i, t := range p.Trainees {
		index(added.index, t.Keys, i)
	}
	for i, o := range p.Officers {
		index(added.officers, o.Keys, i)
	}
	next := &Roster{terminalKey: r.terminalKey, classes: []class{added}}
	for _, c := range r.classes {
		if c.Class.ID != p.Class.ID {
			next.classes = append(next.classes, c)
		}
	}
	slices.SortFunc(next.classes, func(a, b class) int { return cmp.Compare(a.Class.ID, b.Class.ID) })
	return next
}

func index(to map[rosterIndex]int, keys []RosterKey, i int) {
	for _, k := range keys {
		if len(k.Hash) == len(LookupHash{}) {
			to[rosterIndex{k.Kind, LookupHash(k.Hash)}] = i
		}
	}
}

// Place is where a trainee belongs at a time.
type Place struct {
	Trainee Trainee
	Package *Package
	Session Session // zero if Open is false
	Open    bool    // the class has a session open
}

// Find tells whose credential this is. Of several classes the first that has
// a session open wins.
func (r *Roster) Find(c Credential, now time.Time) (Place, bool) {
	var found Place
	ok := false
	for _, cl := range r.classes {
		trainee, here := cl.find(c)
		if !here {
			continue
		}
		session, open := cl.OpenAt(now)
		if open {
			return Place{Trainee: trainee, Package: cl.Package, Session: session, Open: true}, true
		}
		if !ok {
			found, ok = Place{Trainee: trainee, Package: cl.Package}, true
		}
	}
	return found, ok
}

func (c class) find(cred Credential) (Trainee, bool) {
	if i, ok := c.lookUp(c.index, cred); ok {
		return c.Trainees[i], true
	}
	return Trainee{}, false
}

func (c class) lookUp(index map[rosterIndex]int, cred Credential) (i int, ok bool) {
	for _, n := range cred.numbers() {
		hash := HashNumber(c.key, n.kind, n.value.Reveal())
		if i, ok = index[rosterIndex{n.kind, hash}]; ok {
			return i, true
		}
	}
	return 0, false
}

// Seats gives everybody whose face may be checked now: the trainees of the
// sessions that are open, with the enrolment that counts by the book.
func (r *Roster) Seats(book *Book, now time.Time) map[TraineeID]Seat {
	seats := map[TraineeID]Seat{}
	for _, c := range r.classes {
		session, open := c.OpenAt(now)
		if !open {
			continue
		}
		for _, t := range c.Trainees {
			enrolment, enrolled := book.Enrolment(t.ID)
			if _, seated := seats[t.ID]; enrolled && !seated { // as Find: the first class wins
				seats[t.ID] = Seat{session.ID, enrolment}
			}
		}
	}
	return seats
}

// identifying gives the first class whose open session lets a face alone say
// who it is.
func (r *Roster) identifying(now time.Time) (Place, bool) {
	for _, c := range r.classes {
		if session, open := c.OpenAt(now); open && c.Profile.Identify {
			return Place{Package: c.Package, Session: session, Open: true}, true
		}
	}
	return Place{}, false
}

// candidate is a trainee whom a face alone may name.
type candidate struct {
	Place
	Enrolment Enrolment
}

// candidates gives those of the seats whose class lets a face alone say who it
// is. Who is seated in a class that does not is none, whatever other classes
// allow.
func (r *Roster) candidates(book *Book, now time.Time) map[TraineeID]candidate {
	seats := r.Seats(book, now)
	found := map[TraineeID]candidate{}
	for _, c := range r.classes {
		session, open := c.OpenAt(now)
		if !open || !c.Profile.Identify {
			continue
		}
		for _, t := range c.Trainees {
			if seat, seated := seats[t.ID]; seated && seat.Session == session.ID {
				found[t.ID] = candidate{Place{Trainee: t, Package: c.Package, Session: session, Open: true}, seat.Enrolment}
			}
		}
	}
	return found
}

// placeOf tells where the trainee of a class code belongs at a time; false if
// this terminal has no such class or the class no such trainee.
func (r *Roster) placeOf(code ClassCode, now time.Time) (Place, bool) {
	i := slices.IndexFunc(r.classes, func(c class) bool { return c.Class.ID == code.Class })
	if i < 0 {
		return Place{}, false
	}
	c := r.classes[i]
	t := slices.IndexFunc(c.Trainees, func(t Trainee) bool { return t.ID == code.Trainee })
	if t < 0 {
		return Place{}, false
	}
	place := Place{Trainee: c.Trainees[t], Package: c.Package}
	s := slices.IndexFunc(c.Sessions, func(s Session) bool { return s.ID == code.Session })
	if s >= 0 && c.opens(c.Sessions[s], now) {
		place.Session, place.Open = c.Sessions[s], true
	}
	return place, true
}

// hashCode hashes the text of a code that names no trainee of this terminal.
func (r *Roster) hashCode(c CodeText) string {
	hash := HashNumber(r.terminalKey, KeyCode, c.Reveal())
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// hashUnknown hashes the most stable number of a card that stands on no
// roster.
func (r *Roster) hashUnknown(c Credential) (KeyKind, string) {
	numbers := c.numbers()
	if len(numbers) == 0 {
		return "", ""
	}
	hash := HashNumber(r.terminalKey, numbers[0].kind, numbers[0].value.Reveal())
	return numbers[0].kind, base64.RawURLEncoding.EncodeToString(hash[:])
}

// FindOfficer tells which officer's credential this is. An officer is one in
// the classes that name them: vouching for a trainee of another class is for
// an officer of that class.
func (r *Roster) FindOfficer(c Credential, of TraineeID) (Officer, bool) {
	for _, cl := range r.classes {
		if !slices.ContainsFunc(cl.Trainees, func(t Trainee) bool { return t.ID == of }) {
			continue
		}
		if i, ok := cl.lookUp(cl.officers, c); ok {
			return cl.Officers[i], true
		}
	}
	return Officer{}, false
}

// Trainee looks a trainee up by id in every class.
func (r *Roster) Trainee(id TraineeID) (Trainee, bool) {
	for _, c := range r.classes {
		if i := slices.IndexFunc(c.Trainees, func(t Trainee) bool { return t.ID == id }); i >= 0 {
			return c.Trainees[i], true
		}
	}
	return Trainee{}, false
}

// Idle is the screen between taps: the class that meets now, or when the next
// one does.
func (r *Roster) Idle(now time.Time) Screen {
	var next time.Time
	for _, c := range r.classes {
		if s, open := c.OpenAt(now); open {
			_, identify := r.identifying(now)
			return Screen{State: ScreenIdle, Class: c.Class.Name, Session: string(s.ID), Until: clockTime(s.End), Identify: identify}
		}
		for _, s := range c.Sessions {
			if s.Start.After(now) && (next.IsZero() || s.Start.Before(next)) {
				next = s.Start
			}
		}
	}
	screen := Screen{State: ScreenNoClass}
	if !next.IsZero() {
		screen.Until = next.In(now.Location()).Format("01-02 15:04")
	}
	return screen
}

func clockTime(t time.Time) string { return t.Format("15:04") }

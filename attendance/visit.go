package attendance

import (
	"errors"
	"math"
	"time"
)

// A match passes at once if it lies so far above the threshold, and else when
// it was made of so many frames; measured in docs/decisions, page 14.
const (
	sureMargin    = 0.10
	settledFrames = 3
)

// tryLength is how long one try at the camera lasts once a usable face was
// seen.
const tryLength = 1500 * time.Millisecond

// Action is one thing the terminal does for a visit.
type Action interface{ action() }

type (
	// ShowScreen puts a screen before the trainee.
	ShowScreen struct{ Screen Screen }
	// OpenCamera lets the camera start while the card is still being read.
	OpenCamera struct{}
	// VerifyFace starts the looks.
	VerifyFace struct {
		Trainee   TraineeID
		Enrolment Enrolment
	}
	// IdentifyFace starts the looks where nobody was named.
	IdentifyFace struct{ Candidates map[TraineeID]Enrolment }
	// AcceptFace says that the look in hand was taken for a trainee.
	AcceptFace struct{ Trainee TraineeID }
	// CloseCamera ends the looks and turns the camera off.
	CloseCamera struct{}
	// StoreRecord makes a record durable; Stored answers it.
	StoreRecord struct{ Record Record }
	// WakeAt asks for a Tick at a time.
	WakeAt struct{ At time.Time }
)

func (ShowScreen) action()   {}
func (OpenCamera) action()   {}
func (VerifyFace) action()   {}
func (IdentifyFace) action() {}
func (AcceptFace) action()   {}
func (CloseCamera) action()  {}
func (StoreRecord) action()  {}
func (WakeAt) action()       {}

// Visit is one tap, or one touch, from the card to the answer: a state machine without input
// or output. Events and the time go in, actions come out, and the loop around
// it acts. It belongs to one goroutine.
type Visit struct {
	roster *Roster
	book   *Book
	open   CodeOpener

	stage      stage
	tap        Tap                     // of CardSeen, later of CardRead; At stays the first
	place      Place                   // of an identification, until somebody is found: the first class that allows it
	candidates map[TraineeID]candidate // of an identification: who may be found; nil with a card
	code       ClassCode               // zero unless one was presented
	enrolment  Enrolment
	face       FaceEvidence
	signals    []Signal
	sawFace    bool // clear enough to judge, and not the enrolled one
	sawPoor    bool // in a poor picture
	cameraUp   bool
	tryEnds    time.Time // zero until a usable face was seen in this try
	deadline   time.Time
	shown      Screen // the look screen that stands
	after      Screen // what to show once the record is on disk
}

type stage int

const (
	reading stage = iota
	looking
	storing
	done
)

// NewVisit begins a visit with the CardSeen that started it.
func NewVisit(roster *Roster, book *Book, open CodeOpener, seen Tap) (*Visit, []Action) {
	v := &Visit{roster: roster, book: book, open: open, tap: seen}
	return v, []Action{ShowScreen{Screen{State: ScreenReading}}, OpenCamera{}}
}

// Done reports whether the visit has ended.
func (v *Visit) Done() bool { return v.stage == done }

// Reader names the reader the visit began at.
func (v *Visit) Reader() string { return v.tap.Reader }

// Tap takes a later event of the same reader. CardGone after the card was read
// changes nothing: the person is still before the camera.
func (v *Visit) Tap(t Tap, now time.Time) []Action {
	if v.stage != reading {
		return nil
	}
	switch t.Kind {
	case CardRead:
		v.tap.Credential = t.Credential
		if t.Credential.Kind == KindQR {
			return v.openCode(now)
		}
		return v.identify(now)
	case CardFailed:
		return v.cardFailed(t.Fault)
	}
	return nil
}

func (v *Visit) cardFailed(fault CardFault) []Action {
	screen := Screen{State: ScreenCardFault, Reason: string(fault)}
	record := NewRecord(TypeFault, FaultBody{
		Part: "reader", Code: string(fault), Tapped: formatTime(v.tap.At), Reader: v.tap.Reader,
	})
	return append([]Action{CloseCamera{}, ShowScreen{screen}}, v.store(record, screen)...)
}

// identify finds the trainee by the card.
func (v *Visit) identify(now time.Time) []Action {
	place, onRoster := v.roster.Find(v.tap.Credential, v.tap.At)
	if !onRoster {
		kind, hash := v.roster.hashUnknown(v.tap.Credential)
		return append([]Action{CloseCamera{}}, v.storeUnknown(kind, hash)...)
	}
	v.place = place
	return v.decide(now)
}

// openCode takes a code in place of a card. The centre's own names its trainee;
// a code of somebody else's can only be noted, and identifies nobody.
func (v *Visit) openCode(now time.Time) []Action {
	text := v.tap.Credential.Code
	code, err := v.open(text.Reveal())
	switch {
	case errors.Is(err, ErrNotClassCode):
		return append([]Action{CloseCamera{}}, v.storePending(v.roster.hashCode(text))...)
	case err != nil:
		return v.cardFailed(FaultBadCode)
	}
	v.code, v.tap.Credential.Level = code, LevelSigned
	place, here := v.roster.placeOf(code, v.tap.At)
	if !here {
		return append([]Action{CloseCamera{}}, v.storeUnknown(KeyCode, v.roster.hashCode(text))...)
	}
	v.place = place
	return v.decide(now)
}

// codeRefused says why a class code may not stand in for the card.
func (v *Visit) codeRefused() Reason {
	switch {
	case v.code.Nonce == "":
		return ReasonNone
	case v.book.CodeUsed(v.code.Nonce):
		return ReasonCodeUsed
	case !v.code.ValidAt(v.tap.At):
		return ReasonCodeTime
	}
	return ReasonNone
}

// decide decides all that needs no camera, or starts the looks.
func (v *Visit) decide(now time.Time) []Action {
	place := v.place
	enrolment, enrolled := v.book.Enrolment(place.Trainee.ID)
	decision := Decide(v.evidence(), place.Session, place.Package.Profile, v.tap.At)
	if decision.Outcome != Unconfirmed {
		return append([]Action{CloseCamera{}}, v.conclude(decision)...)
	}
	if reason := v.codeRefused(); reason != ReasonNone {
		return append([]Action{CloseCamera{}}, v.conclude(Decision{Outcome: Unconfirmed, Reason: reason})...)
	}
	if !enrolled {
		return append([]Action{CloseCamera{}}, v.conclude(Decision{Outcome: Unconfirmed, Reason: ReasonNoEnrolment})...)
	}
	v.stage = looking
	v.enrolment = enrolment
	v.face = FaceEvidence{Level: FaceNone, Tries: 1, Enrol: enrolment.Seq}
	v.deadline = now.Add(time.Duration(place.Package.Profile.ConfirmDeadlineS) * time.Second)
	return append(v.advise(AdviceNone),
		VerifyFace{Trainee: place.Trainee.ID, Enrolment: enrolment},
		WakeAt{v.deadline})
}

// evidence is what is known before the camera has spoken.
func (v *Visit) evidence() Evidence {
	ev := Evidence{OnRoster: true, Open: v.place.Open}
	if first, ok := v.book.First(v.place.Session.ID, v.place.Trainee.ID); ok {
		ev.First = &first
	}
	return ev
}

// Look takes what one camera frame said.
func (v *Visit) Look(l Look, now time.Time) []Action {
	if v.stage != looking {
		return nil
	}
	v.cameraUp = l.Advice != AdviceCamera
	switch {
	case l.Suspect:
		v.signals = append(v.signals, SignalCamera)
		return v.fail(ReasonSuspect)
	case l.Match == nil:
		v.sawPoor = v.sawPoor || l.Advice.poorPicture()
		return v.advise(l.Advice)
	}
	return v.match(l, now)
}

// match takes a face that was compared.
func (v *Visit) match(l Look, now time.Time) []Action {
	who := v.compared(*l.Match)
	if current, ok := v.book.Enrolment(who.Trainee.ID); !ok || current.Seq != who.Enrolment.Seq {
		return v.Unusable() // enrolled anew meanwhile: this match is with a template that no longer counts
	}
	switch {
	case v.passes(*l.Match):
		v.place, v.enrolment = who.Place, who.Enrolment
		return v.accept(*l.Match)
	case v.reaches(*l.Match): // the next frames tell
		return nil
	}
	v.keepBest(*l.Match)
	if l.Advice != AdviceNone { // the picture is at fault, and the try has not begun
		v.sawPoor = true
		return v.advise(l.Advice)
	}
	v.sawFace = true
	if v.tryEnds.IsZero() {
		v.tryEnds = now.Add(tryLength)
		return append(v.advise(AdviceNotSure), WakeAt{earlier(v.tryEnds, v.deadline)})
	}
	return nil
}

// threshold is the one that a match must reach: the terminal's calibrated one,
// which may not undercut one that the centre calibrated; without a calibration
// the rules'.
func (v *Visit) threshold(m Match) float64 {
	profile := v.compared(m).Package.Profile
	switch {
	case m.Threshold > 0 && !profile.FaceCalibrated:
		return m.Threshold
	case m.Threshold <= 0 && v.candidates != nil:
		return max(identifyThreshold, profile.FaceThreshold)
	}
	return max(m.Threshold, profile.FaceThreshold)
}

// accept takes the match. Its level is match and no more: no check of what is
// alive was measured.
func (v *Visit) accept(m Match) []Action {
	v.keep(m)
	v.face.Level, v.face.Enrol = FaceMatch, v.enrolment.Seq
	if v.book.FirstUse(v.place.Trainee.ID, v.enrolment) {
		v.signals = append(v.signals, SignalFirstUse)
	}
	if m.Like != nil {
		if other, ok := v.book.First(v.place.Session.ID, m.Like.Trainee); ok {
			v.face.Like = &LikeFace{Checkin: other.Seq, Score: round(m.Like.Score)}
			v.signals = append(v.signals, SignalSameFace)
		}
	}
	return append([]Action{AcceptFace{v.place.Trainee.ID}, CloseCamera{}}, v.conclude(v.decideFace(ReasonNone))...)
}

// Unusable takes that this trainee's template cannot be used here: it is not
// on this box, or of another embedder.
func (v *Visit) Unusable() []Action {
	if v.stage != looking {
		return nil
	}
	return v.fail(ReasonNoEnrolment)
}

// fail ends the looks without a match.
func (v *Visit) fail(reason Reason) []Action {
	if v.candidates != nil {
		return append([]Action{CloseCamera{}}, v.storeUnidentified(reason)...)
	}
	return append([]Action{CloseCamera{}}, v.conclude(v.decideFace(reason))...)
}

// Tick takes the time a WakeAt asked for. Ticks that come early do nothing.
func (v *Visit) Tick(now time.Time) []Action {
	switch {
	case v.stage != looking:
		return nil
	case !now.Before(v.deadline):
		return v.giveUp()
	case v.tryEnds.IsZero() || now.Before(v.tryEnds):
		return []Action{WakeAt{earlier(v.tryEnds, v.deadline)}}
	case v.face.Tries >= v.place.Package.Profile.FaceTries:
		return v.giveUp()
	}
	v.face.Tries++
	v.tryEnds = time.Time{}
	return append(v.advise(AdviceNotSure), WakeAt{v.deadline})
}

func (v *Visit) giveUp() []Action {
	reason := ReasonNoFace
	switch {
	case v.sawFace && v.candidates != nil:
		reason = ReasonNotIdentified
	case v.sawFace:
		reason = ReasonNotMatched
	case v.sawPoor:
		reason = ReasonPoorPicture
	case !v.cameraUp:
		reason = ReasonNoCamera
	}
	return v.fail(reason)
}

func (v *Visit) decideFace(reason Reason) Decision {
	ev := v.evidence()
	ev.Face, ev.Reason = &v.face, reason
	return Decide(ev, v.place.Session, v.place.Package.Profile, v.tap.At)
}

func (v *Visit) keepBest(m Match) {
	if v.face.Model == "" || m.Score > v.face.Score {
		v.keep(m)
	}
}

// keep takes a match as what the record says of the face.
func (v *Visit) keep(m Match) {
	v.face.Score, v.face.Threshold = round(m.Score), v.threshold(m)
	if v.candidates != nil {
		v.face.Margin, v.face.LeastMargin = round(m.Margin), leastMargin(m)
	}
	v.face.Uncalibrated, v.face.Calibration = m.Threshold <= 0, m.Calibration
	v.face.Quality, v.face.Model, v.face.Frames = round(m.Quality), m.Model, m.Frames
	v.face.Liveness = nil
	if m.Liveness >= 0 {
		live := round(m.Liveness)
		v.face.Liveness = &live
	}
}

// round keeps four digits: more say nothing and differ between processors.
func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// conclude stores a decision about a trainee and remembers the screen that
// may be shown once it is on disk.
func (v *Visit) conclude(d Decision) []Action {
	body := CheckinBody{
		Trainee:  v.place.Trainee.ID,
		Class:    v.place.Package.Class.ID,
		Session:  v.place.Session.ID,
		Decision: d.Outcome,
		Reason:   d.Reason,
		LateMin:  d.LateMin,
		Tapped:   formatTime(v.tap.At),
		Card:     v.tap.Evidence(),
		Profile:  v.place.Package.Profile.Ref(),
		Code:     v.code.Nonce,
		Signals:  v.signals,
	}
	if v.face.Level != "" {
		body.Face = &v.face
	}
	screen := Screen{Name: v.place.Trainee.Display, Class: v.place.Package.Class.Name, At: clockTime(v.tap.At), Minutes: d.LateMin}
	switch d.Outcome {
	case OnTime:
		screen.State = ScreenRecorded
	case Late:
		screen.State = ScreenLate
	case Duplicate:
		first, _ := v.book.First(v.place.Session.ID, v.place.Trainee.ID)
		body.First = first.Seq
		screen.State = ScreenAlready
		if t, err := time.Parse(TimeLayout, first.Tapped); err == nil {
			screen.At = clockTime(t)
		}
	case NoSession:
		screen.State, screen.Reason = ScreenNoted, string(NoSession)
	default:
		screen.State, screen.Reason = ScreenNoted, string(d.Reason)
	}
	return v.store(NewRecord(TypeCheckin, body), screen)
}

func (v *Visit) storeUnknown(kind KeyKind, hash string) []Action {
	record := NewRecord(TypeUnknown, UnknownBody{
		KeyKind: kind, Hash: hash, Tapped: formatTime(v.tap.At), Card: v.tap.Evidence(),
	})
	return v.store(record, Screen{State: ScreenUnknown, At: clockTime(v.tap.At)})
}

// storePending notes a code that cannot be checked here. One that was shown
// before is a picture of a code: such codes change by the minute.
func (v *Visit) storePending(hash string) []Action {
	first, again := v.book.Pending(hash)
	reason := ReasonCodePending
	if again {
		reason = ReasonCodeUsed
	}
	record := NewRecord(TypePending, PendingBody{
		Hash: hash, Tapped: formatTime(v.tap.At), Reader: v.tap.Reader, First: first,
	})
	return v.store(record, Screen{State: ScreenNoted, At: clockTime(v.tap.At), Reason: string(reason)})
}

func (v *Visit) store(record Record, after Screen) []Action {
	v.stage, v.after = storing, after
	return []Action{StoreRecord{record}}
}

// Stored answers StoreRecord: the record is on disk, or it is not and the
// trainee must be told so. The book has seen the record.
func (v *Visit) Stored(s Stored, err error) []Action {
	v.stage = done
	if err != nil {
		return []Action{ShowScreen{Screen{State: ScreenPaused, Reason: "E18"}}}
	}
	v.after.Code = s.Code
	if v.after.State == ScreenRecorded || v.after.State == ScreenLate {
		v.after.Ordinal = v.book.Count(v.place.Session.ID)
	}
	return []Action{ShowScreen{v.after}}
}

// advise shows the look screen, or retry from the second try on, with one
// advice. A screen that stands already is not shown again.
func (v *Visit) advise(advice Advice) []Action {
	screen := v.lookScreen(advice)
	if screen == v.shown {
		return nil
	}
	v.shown = screen
	return []Action{ShowScreen{screen}}
}

func (v *Visit) lookScreen(advice Advice) Screen {
	state := ScreenLook
	if v.face.Tries > 1 {
		state = ScreenRetry
	}
	return Screen{
		State: state, Name: v.place.Trainee.Display, Class: v.place.Package.Class.Name,
		Try: v.face.Tries, Tries: v.place.Package.Profile.FaceTries, Advice: advice,
	}
}

// earlier gives the earlier of two times; a zero time does not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

package attendance

import "time"

// CredentialKind says what was presented.
type CredentialKind string

const (
	KindSSC CredentialKind = "ssc" // social security card
	KindID  CredentialKind = "id"  // resident identity card
	KindUID CredentialKind = "uid" // serial number of a chip, copyable
	KindQR  CredentialKind = "qr"  // a code on paper or on a screen
)

// CardLevel is what reading a card proved. A terminal never claims more than
// it earned.
type CardLevel string

const (
	LevelUID           CardLevel = "uid"           // a serial number, copyable
	LevelFile          CardLevel = "file"          // readable data, copyable
	LevelOpened        CardLevel = "opened"        // a PSAM opened the card: proves the reader to the card only
	LevelAuthenticated CardLevel = "authenticated" // the card answered our fresh challenge and the PSAM agrees
	LevelSigned        CardLevel = "signed"        // a code by the centre for this trainee and session, copyable while it lasts
)

// Credential is what a tap yields. It may be partial: a third-generation card
// without a PSAM gives its card identification code and no person number.
type Credential struct {
	Kind     CredentialKind
	Level    CardLevel
	Ident    CardIdent  // zero if the medium has none
	CardNo   CardNo     // zero if not read
	PersonNo PersonNo   // zero if the card refused it
	Name     PersonName // zero if the card refused it
	Spec     string     // specification version on the card, "2.00"
	ValidTo  string     // "2006-01-02", empty if not on the card

	UID   UID         // with KindUID
	Code  CodeText    // with KindQR; Level stays empty until somebody has checked it
	Photo PersonPhoto // of an identity card, as the module gave it
}

// Partial reports whether the holder's number is missing. A code has none to
// miss.
func (c Credential) Partial() bool { return c.Kind != KindQR && c.PersonNo.IsZero() }

// CardFault is why a card gave no credential. It goes into records and onto
// screens, so it never carries card data.
type CardFault string

const (
	FaultRemoved     CardFault = "removed"     // pulled out while reading
	FaultUnreadable  CardFault = "unreadable"  // contact or format trouble: insert again
	FaultMute        CardFault = "mute"        // no answer to reset: turn the card over
	FaultUnsupported CardFault = "unsupported" // not a card this terminal knows
	FaultBlocked     CardFault = "blocked"     // locked by its issuer
	FaultBadNumber   CardFault = "bad_number"  // a number with a wrong check digit
	FaultExpired     CardFault = "expired"     // past its date, where policy refuses it
	FaultTimeout     CardFault = "timeout"     // the whole read took too long
	FaultBadCode     CardFault = "bad_code"    // a code that no rule of this terminal allows, or one that is forged
)

// TapKind is one step of a card at a reader, or a touch on the screen.
type TapKind int

const (
	CardSeen   TapKind = iota + 1 // a card is there; reading begins
	CardRead                      // the credential is complete as far as the card allows
	CardFailed                    // reading ended without a credential
	CardGone                      // the card left the reader
	Touched                       // nobody named: the screen was touched to check in by face
)

func (k TapKind) String() string {
	switch k {
	case CardSeen:
		return "seen"
	case CardRead:
		return "read"
	case CardFailed:
		return "failed"
	case CardGone:
		return "gone"
	case Touched:
		return "touched"
	}
	return "invalid"
}

// Tap is one event from a reader. Each card presented gives one CardSeen, then
// exactly one CardRead or CardFailed, then CardGone. A touch on the screen is
// one Touched.
type Tap struct {
	Kind       TapKind
	Reader     string // the reader's name as the driver gives it; empty with Touched
	At         time.Time
	Credential Credential // with CardRead
	Fault      CardFault  // with CardFailed
}

package attendance

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what a personal value prints as, whatever the verb.
const redacted = "***"

// personal is a value about a person. It redacts itself in fmt, slog and
// encoding/json; only Reveal gives the value. It is comparable, and its zero
// value means "not known".
//
// fmt cannot call methods on unexported fields, so a struct that holds one
// must hold it in an exported field; TestPersonalValuesRedactThemselves walks
// the types of this package.
type personal struct{ value string }

// Reveal gives the value itself. Callers hash it, compare it or mask it; they
// never log it, never put it into an error, a metric or a topic.
func (p personal) Reveal() string { return p.value }

// IsZero reports whether the value is not known.
func (p personal) IsZero() bool { return p.value == "" }

func (p personal) String() string { return redacted }

// Format prints the redaction for every verb, %x and %#v included.
func (p personal) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (p personal) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the value out of JSON, TOML and XML as well.
func (p personal) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// CardIdent is a card identification code (卡的识别码): 32 upper-case
// hexadecimal digits, the best stable key of a social security card.
type CardIdent struct{ personal }

// CardNo is the printed number of a social security card (卡号): 9 characters,
// unique only within its issuing region, and new with every new card.
type CardNo struct{ personal }

// PersonNo is a social security number (社会保障号码), for citizens the
// resident identity number of GB 11643-1999: 18 characters, X in upper case.
type PersonNo struct{ personal }

// UID is the serial number of a chip (卡片序列号): upper-case hexadecimal digits.
// It can be copied, so it is a weak claim.
type UID struct{ personal }

// CodeText is what a code says that somebody presented.
type CodeText struct{ personal }

// PersonPhoto is the picture on a resident identity card, in the closed form
// (WLT) in which the card holds it: passed through, never decoded, logged or
// stored.
type PersonPhoto struct{ personal }

// PersonName is a full name. Screens show [Trainee.Display], never this.
type PersonName struct{ personal }

// NewCardIdent and those below wrap a value that has been checked and
// normalised by the reader that read it.
func NewCardIdent(s string) CardIdent     { return CardIdent{personal{s}} }
func NewCardNo(s string) CardNo           { return CardNo{personal{s}} }
func NewPersonNo(s string) PersonNo       { return PersonNo{personal{s}} }
func NewPersonName(s string) PersonName   { return PersonName{personal{s}} }
func NewUID(s string) UID                 { return UID{personal{s}} }
func NewCodeText(s string) CodeText       { return CodeText{personal{s}} }
func NewPersonPhoto(b []byte) PersonPhoto { return PersonPhoto{personal{string(b)}} }

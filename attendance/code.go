package attendance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ClassCode is a code that the centre signed: this trainee, at this session, at
// this terminal, within minutes. It stands in for a card, once; it says nothing
// about who holds it, so the face is still asked for. The names in JSON are
// those of RFC 7519 where it has one, and short: the code must fit a QR symbol
// that a cheap scanner reads off a telephone.
type ClassCode struct {
	V        int       `json:"v"`
	Terminal string    `json:"aud"`
	Trainee  TraineeID `json:"sub"`
	Class    ClassID   `json:"cls"`
	Session  SessionID `json:"ses"`
	Issued   int64     `json:"iat"` // Unix seconds
	Expires  int64     `json:"exp"` // Unix seconds
	Nonce    string    `json:"jti"` // makes the code one of a kind; the record carries it
}

const (
	// MaxCodeLife is the longest a class code may be valid. What is valid for
	// hours is lent.
	MaxCodeLife = 15 * time.Minute
	// MaxCodeText is the longest text of a code, in characters.
	MaxCodeText = 512
	// codeSkew is how far the clocks of centre and terminal may differ.
	codeSkew = time.Minute
	maxID    = 64
)

var (
	// ErrNotClassCode says that a code is not the centre's at all: somebody
	// else's, of which this terminal can say nothing.
	ErrNotClassCode = errors.New("not a class code")
	// ErrClassCode is wrapped by every refusal of a class code.
	ErrClassCode = errors.New("class code refused")
)

// A CodeOpener gives the class code in a text that the centre signed for this
// terminal. It returns [ErrNotClassCode] for a text that does not claim to be
// one, and any other error for one that does and is not. It does not judge time
// or use. It is called from the terminal's loop and must not block.
type CodeOpener func(text string) (ClassCode, error)

// ParseClassCode reads the payload of a class code whose signature was checked.
func ParseClassCode(payload []byte) (ClassCode, error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	var c ClassCode
	if err := dec.Decode(&c); err != nil {
		return ClassCode{}, fmt.Errorf("%w: not the payload of one", ErrClassCode)
	}
	if err := c.Check(); err != nil {
		return ClassCode{}, err
	}
	return c, nil
}

// Check reports what no class code may be. Errors wrap [ErrClassCode].
func (c ClassCode) Check() error {
	life := time.Duration(c.Expires-c.Issued) * time.Second
	switch {
	case c.V != 1:
		return fmt.Errorf("%w: version %d, this program knows 1", ErrClassCode, c.V)
	case !isCodeID(c.Terminal) || !isCodeID(string(c.Trainee)) || !isCodeID(string(c.Class)) || !isCodeID(string(c.Session)):
		return fmt.Errorf("%w: terminal, trainee, class and session must be given, with at most %d bytes each", ErrClassCode, maxID)
	case len(c.Nonce) < 12 || len(c.Nonce) > 32 || strings.Trim(c.Nonce, nonceAlphabet) != "":
		return fmt.Errorf("%w: the nonce must have 12 to 32 characters of base64url", ErrClassCode)
	case c.Issued < 0 || c.Expires <= c.Issued || c.Expires-c.Issued > int64(MaxCodeLife/time.Second):
		return fmt.Errorf("%w: valid for %v, must be more than nothing and at most %v", ErrClassCode, life, MaxCodeLife)
	}
	return nil
}

const nonceAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func isCodeID(s string) bool { return s != "" && len(s) <= maxID }

// ValidAt reports whether the code is valid at a time, give or take what two
// clocks may differ.
func (c ClassCode) ValidAt(now time.Time) bool {
	return !now.Before(time.Unix(c.Issued, 0).Add(-codeSkew)) && now.Before(time.Unix(c.Expires, 0).Add(codeSkew))
}

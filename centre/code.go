package centre

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ErrCode is wrapped by every refusal to make a class code.
var ErrCode = errors.New("no code made")

// nonceBytes make a nonce of 12 characters. It need only differ from those of
// one terminal's ledger.
const nonceBytes = 9

// CodeRequest says for whom a class code is. A zero Life is five minutes.
type CodeRequest struct {
	Terminal chain.TerminalID
	Class    attendance.ClassID
	Session  attendance.SessionID
	Trainee  attendance.TraineeID
	Life     time.Duration
}

// Code signs a class code: a text of at most [attendance.MaxCodeText]
// characters, to be shown as a QR symbol at the terminal that it names. It is
// made only for what the terminal knows by the class's last package. Errors
// wrap [ErrCode] where the request is at fault.
func (c *Centre) Code(ctx context.Context, r CodeRequest) (string, error) {
	p, err := c.lastPackage(ctx, r.Terminal, r.Class)
	if err != nil {
		return "", fmt.Errorf("making a code for class %s: %w", r.Class, err)
	}
	if r.Life == 0 {
		r.Life = 5 * time.Minute
	}
	now := c.now()
	if err := c.mayCode(p, r, now); err != nil {
		return "", fmt.Errorf("%w: %w", ErrCode, err)
	}
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return "", err
	}
	code := attendance.ClassCode{
		V: 1, Terminal: string(r.Terminal), Trainee: r.Trainee, Class: r.Class, Session: r.Session,
		Issued: now.Unix(), Expires: now.Add(r.Life).Unix(), Nonce: base64.RawURLEncoding.EncodeToString(nonce),
	}
	if err := code.Check(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrCode, err)
	}
	text, err := chain.Sign(c.keys.pack, chain.PurposeCode, code)
	if err != nil {
		return "", err
	}
	if len(text) > attendance.MaxCodeText {
		return "", fmt.Errorf("%w: it would have %d characters and terminals read %d: the ids are too long", ErrCode, len(text), attendance.MaxCodeText)
	}
	return text, nil
}

// lastPackage gives the package of a class that a terminal was sent last.
func (c *Centre) lastPackage(ctx context.Context, id chain.TerminalID, class attendance.ClassID) (*attendance.Package, error) {
	var jws []byte
	err := c.db.QueryRowContext(ctx, "SELECT jws FROM packages WHERE terminal = $1 AND class = $2 ORDER BY serial DESC LIMIT 1",
		string(id), string(class)).Scan(&jws)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: terminal %s was never sent this class: publish its package first", ErrCode, id)
	}
	if err != nil {
		return nil, err
	}
	payload, err := chain.Open(c.keys.pack.Public(), chain.PurposePackage, jws)
	if err != nil {
		return nil, err
	}
	return attendance.ParsePackage(payload)
}

func (c *Centre) mayCode(p *attendance.Package, r CodeRequest, now time.Time) error {
	if !slices.ContainsFunc(p.Trainees, func(t attendance.Trainee) bool { return t.ID == r.Trainee }) {
		return fmt.Errorf("trainee %q is not in class %s", r.Trainee, r.Class)
	}
	i := slices.IndexFunc(p.Sessions, func(s attendance.Session) bool { return s.ID == r.Session })
	if i < 0 {
		return fmt.Errorf("session %q is not of class %s", r.Session, r.Class)
	}
	s := p.Sessions[i]
	opens := s.Start.Add(-time.Duration(p.Profile.EarlyWindowMin) * time.Minute)
	switch {
	case !now.Before(s.End):
		return fmt.Errorf("session %s ended at %s", s.ID, s.End.In(c.zone).Format(time.DateTime))
	case !now.Add(r.Life).After(opens):
		return fmt.Errorf("session %s opens at %s, after the code would expire: make it later", s.ID, opens.In(c.zone).Format(time.DateTime))
	}
	return nil
}

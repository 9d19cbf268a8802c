package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// PSAMConfig says which keys of a PSAM belong to which keys of the cards. Their
// numbers are the issuer's: there are no defaults, and a key without numbers is
// not used. The keys themselves never leave the PSAM.
type PSAMConfig struct {
	// AID selects the PSAM's application, in hexadecimal; empty means
	// D15600000590.
	AID Hex `toml:"aid"`
	// Open is the key that opens the holder's file by external authentication.
	// Without it such cards stay partial, and their level file.
	Open KeyPair `toml:"open"`
	// Prove is the key by which a card proves itself by internal
	// authentication. Without it no card is more than opened.
	Prove KeyPair `toml:"prove"`
}

// KeyPair names one key on both sides. The zero value is no key.
type KeyPair struct {
	// Card is the key's reference in the card, P2 of the authentication
	// command: 0x0A is known as the reading key of the card's main directory.
	Card uint8 `toml:"card"`
	// Usage is the key's usage in the PSAM. Its upper three bits say by how
	// many factors the key is derived, 1 (the card) or 2 (region and card):
	// 0x48 is an encryption key of two.
	Usage uint8 `toml:"usage"`
	// ID is the key's identifier in the PSAM.
	ID uint8 `toml:"id"`
}

func (k KeyPair) none() bool { return k == KeyPair{} }

func (k KeyPair) levels() int { return int(k.Usage >> 5) }

// The ways a PSAM falls short. None of them fails a card: the credential stays
// at the level it has earned, [Card.Doubt] and [PSAM.Err] say why.
var (
	ErrAlgorithm  = errors.New("the card's cipher has no public form here: its level stays as it is")
	ErrNotProved  = errors.New("the card did not prove itself: it may be a copy, or the keys in the configuration are others")
	ErrNotOpened  = errors.New("the card did not accept the PSAM: the PSAM may be another region's, or the keys in the configuration are others")
	ErrPSAMFailed = errors.New("the PSAM gave no cryptogram: check that it is in its slot and the keys in the configuration")
	ErrPSAMAside  = errors.New("cards in a row did not accept the PSAM; it is set aside until it is opened again, so that no card is locked: check the keys in the configuration")
)

// maxNotOpened is how many cards in a row may refuse the PSAM before it is set
// aside: each refusal uses up one of the few tries that a card has.
const maxNotOpened = 3

// psamBudget is how many commands a cryptogram may cost: four are needed.
const psamBudget = 12

// PSAM is a purchase and service access module (PSAM 卡) in 3DES form: it holds
// the issuer's keys, derives those of a card, and computes what the card
// computes. It may serve several readers at once; their cryptograms wait for
// each other.
type PSAM struct {
	transmitter Transmitter
	cfg         PSAMConfig
	turn        chan struct{} // holds one token; who has it owns what follows

	selected  bool
	notOpened int   // cards in a row
	err       error // of the last use
}

// NewPSAM makes a PSAM of the module behind t, which sends nothing before its
// first use. Make another one when the module was powered down.
func NewPSAM(t Transmitter, cfg PSAMConfig) (*PSAM, error) {
	if len(cfg.AID) == 0 {
		cfg.AID = Hex{0xD1, 0x56, 0x00, 0x00, 0x05, 0x90}
	}
	if len(cfg.AID) < 5 || len(cfg.AID) > 16 {
		return nil, fmt.Errorf("psam: aid: %d bytes, must be 5 to 16", len(cfg.AID))
	}
	for name, k := range map[string]KeyPair{"open": cfg.Open, "prove": cfg.Prove} {
		if !k.none() && k.levels() != 1 && k.levels() != 2 {
			return nil, fmt.Errorf("psam: %s: usage %#02x: its upper three bits must say 1 or 2 factors", name, k.Usage)
		}
	}
	if cfg.Open.none() && cfg.Prove.none() {
		return nil, fmt.Errorf("psam: open and prove: neither key is given: the PSAM would do nothing")
	}
	p := &PSAM{transmitter: t, cfg: cfg, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p, nil
}

// Err gives the trouble of the PSAM's last use, nil if it worked: ErrPSAMFailed
// (or what its reader said) or ErrPSAMAside. It waits while the PSAM is in use.
func (p *PSAM) Err() error {
	<-p.turn
	defer func() { p.turn <- struct{}{} }()
	if p.notOpened >= maxNotOpened {
		return ErrPSAMAside
	}
	return p.err
}

// answered counts whether a card took the PSAM's cryptogram.
func (p *PSAM) answered(opened bool) {
	<-p.turn
	defer func() { p.turn <- struct{}{} }()
	p.notOpened++
	if opened {
		p.notOpened = 0
	}
}

// factors are what a card's own keys are derived by.
type factors struct {
	card   [8]byte // the last 8 historical bytes of its answer to reset
	region [8]byte // six digits of its identification code as text, then 7378
}

// cryptogram computes what a card with these factors computes from process (the
// factor of the process key) and data. Whatever fails is ErrPSAMFailed, and the
// errors of the PSAM's reader too.
func (p *PSAM) cryptogram(ctx context.Context, key KeyPair, f factors, process, data [8]byte) (out [8]byte, err error) {
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return out, fmt.Errorf("%w: busy", ErrPSAMFailed)
	}
	if p.notOpened >= maxNotOpened {
		return out, ErrPSAMAside
	}
	again := p.selected // it may have lost its power since
	out, err = p.compute(ctx, key, f, process, data)
	if _, refused := errors.AsType[*StatusError](err); refused && again {
		out, err = p.compute(ctx, key, f, process, data)
	}
	p.err = nil
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrPSAMFailed, err)
		if ctx.Err() == nil {
			p.err = err
		}
	}
	return out, err
}

func (p *PSAM) compute(ctx context.Context, key KeyPair, f factors, process, data [8]byte) (out [8]byte, err error) {
	module := &Card{transmitter: p.transmitter, left: psamBudget}
	defer func() { p.selected = err == nil }()
	if !p.selected {
		if err := module.tell(ctx, slices.Concat([]byte{0x00, 0xA4, 0x04, 0x00, byte(len(p.cfg.AID))}, p.cfg.AID)); err != nil {
			return out, fmt.Errorf("selecting its application: %w", err)
		}
	}
	by := f.card[:]
	if key.levels() == 2 {
		by = slices.Concat(by, f.region[:])
	}
	by = slices.Concat(by, process[:])
	if err := module.tell(ctx, slices.Concat([]byte{0xBF, 0xDE, key.Usage, key.ID, byte(len(by))}, by)); err != nil {
		return out, fmt.Errorf("deriving the key: %w", err)
	}
	answer, err := module.send(ctx, slices.Concat([]byte{0x80, 0xFA, 0x00, 0x00, 0x08}, data[:]))
	if err != nil {
		return out, fmt.Errorf("computing: %w", err)
	}
	if len(answer) != len(out) {
		return out, fmt.Errorf("computing: %d bytes: %w", len(answer), ErrBadFormat)
	}
	return [8]byte(answer), nil
}

// open lets the card check the PSAM (EXTERNAL AUTHENTICATE, ISO 7816-4
// 7.5.4): nil if the card took it. It proves the reader to the card and
// nothing to the reader, for any copy can say yes. A card that said no is not
// asked again. Only errors of the card's own reader fail the reading.
func (c *Card) open(ctx context.Context, f factors) (doubt, err error) {
	if c.notOpened {
		return ErrNotOpened, nil
	}
	challenge, err := c.challenge(ctx)
	if err != nil {
		return asDoubt(err, ErrNotOpened)
	}
	key := c.PSAM.cfg.Open
	// Published programs let the card's challenge be factor and data at once.
	cipher, err := c.PSAM.cryptogram(ctx, key, f, challenge, challenge)
	if err != nil {
		return err, nil
	}
	err = c.tell(ctx, slices.Concat([]byte{0x00, 0x82, 0x00, key.Card, 0x10}, cipher[:], challenge[:]))
	if status, refused := errors.AsType[*StatusError](err); refused {
		c.notOpened = true
		if status.SW>>8 == 0x63 || status.SW == swLocked { // that used up a try
			c.PSAM.answered(false)
		}
	} else if err == nil {
		c.PSAM.answered(true)
	}
	return asDoubt(err, ErrNotOpened)
}

// challenge asks the card for 8 random bytes (GET CHALLENGE, ISO 7816-4 7.5.3).
func (c *Card) challenge(ctx context.Context) (out [8]byte, err error) {
	answer, err := c.send(ctx, []byte{0x00, 0x84, 0x00, 0x00, 0x08})
	if err != nil {
		return out, err
	}
	if len(answer) != len(out) {
		return out, fmt.Errorf("challenge of %d bytes: %w", len(answer), ErrBadFormat)
	}
	return [8]byte(answer), nil
}

// prove lets the card compute over fresh random bytes of ours (INTERNAL
// AUTHENTICATE, ISO 7816-4 7.5.2) and compares with what the PSAM computes: nil
// if they agree. The bytes are drawn after the card's own challenge went
// through the PSAM, so a card cannot have learned the answer there.
func (c *Card) prove(ctx context.Context, f factors) (doubt, err error) {
	var process, data [8]byte
	c.random(process[:])
	c.random(data[:])
	key := c.PSAM.cfg.Prove
	answer, err := c.send(ctx, slices.Concat([]byte{0x00, 0x88, 0x00, key.Card, 0x10}, process[:], data[:]))
	if err != nil {
		return asDoubt(err, ErrNotProved)
	}
	want, err := c.PSAM.cryptogram(ctx, key, f, process, data)
	if err != nil {
		return err, nil
	}
	if !bytes.Equal(answer, want[:]) {
		return ErrNotProved, nil
	}
	return nil, nil
}

// asDoubt makes a doubt of what the card answered, and leaves an error of its
// reader what it is.
func asDoubt(err, doubt error) (error, error) {
	if _, refused := errors.AsType[*StatusError](err); refused || errors.Is(err, ErrBadFormat) {
		return fmt.Errorf("%w (%w)", doubt, err), nil
	}
	return nil, err
}

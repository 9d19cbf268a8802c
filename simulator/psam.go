package simulator

import (
	"bytes"
	"context"
	"crypto/des"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"rollcall/reader"
)

// tripleKey is a double-length DES key.
type tripleKey [16]byte

// encrypt is 3DES with two keys on one block.
func (k tripleKey) encrypt(block [8]byte) []byte {
	c, err := des.NewTripleDESCipher(slices.Concat(k[:], k[:8]))
	if err != nil {
		panic("simulator: " + err.Error())
	}
	out := make([]byte, 8)
	c.Encrypt(out, block[:])
	return out
}

// derive makes the key of a factor: its left half encrypts the factor, its right
// half the factor inverted, as the banks' cards do it (PBOC, JR/T 0025). That
// the social security card does likewise is our assumption: only card and PSAM
// compute it, and the reader compares.
func (k tripleKey) derive(factor [8]byte) tripleKey {
	inverted := factor
	for i := range inverted {
		inverted[i] ^= 0xFF
	}
	return tripleKey(slices.Concat(k.encrypt(factor), k.encrypt(inverted)))
}

// cryptogram encrypts data under the process key of a factor.
func (k tripleKey) cryptogram(process, data [8]byte) []byte {
	return k.derive(process).encrypt(data)
}

// PSAMFaults are the ways a virtual PSAM misbehaves. The zero value is a good
// one.
type PSAMFaults struct {
	WrongKeys bool                                // another issuer's module: same numbers, other keys
	NoKeys    bool                                // 6A88: these keys are not in it
	Gone      bool                                // out of its slot
	HangAt    int                                 // no answer to this command, in a slot; 0 never
	Twist     func(command, answer []byte) []byte // replaces an answer; nil leaves it
	Delay     func(command []byte) time.Duration  // nil is no time at all; in a slot only
}

// A PSAM is a virtual purchase and service access module in 3DES form, with
// keys that are for tests and stand in this file. Insert it into a [Slot], or
// call Transmit. Its methods may be called at once.
type PSAM struct {
	Faults PSAMFaults // set before it is inserted
	Line   Line

	keys map[[2]byte]tripleKey // root keys by usage and identifier

	mu       sync.Mutex
	commands int
	selected bool
	process  *tripleKey // the process key, once derived
	pending  []byte
}

// psamConfig names the keys of every virtual PSAM, and of the cards it issues.
// 0A is the reading key of the main directory as published; the rest is
// invented.
var psamConfig = reader.PSAMConfig{
	Open:  reader.KeyPair{Card: 0x0A, Usage: 0x48, ID: 0x12},
	Prove: reader.KeyPair{Card: 0x01, Usage: 0x48, ID: 0x01},
}

// NewPSAM makes a PSAM with the test keys.
func NewPSAM() *PSAM {
	return &PSAM{keys: map[[2]byte]tripleKey{
		{psamConfig.Open.Usage, psamConfig.Open.ID}:   tripleKey([]byte("test key to open")),
		{psamConfig.Prove.Usage, psamConfig.Prove.ID}: tripleKey([]byte("test key 2 prove")),
	}}
}

// Config gives what a terminal must know about this PSAM.
func (p *PSAM) Config() reader.PSAMConfig { return psamConfig }

// Issue gives a card the keys that this PSAM will derive for it.
func (p *PSAM) Issue(c *Card) *Card {
	ident := fmt.Sprintf("%X", c.files[slices.IndexFunc(c.files, func(f cardFile) bool { return !f.holder })].record("card_ident")[2:])
	region := [8]byte(append([]byte(ident[:6]), 's', 'x'))
	c.keys = map[byte]*cardKey{}
	for _, pair := range []reader.KeyPair{psamConfig.Open, psamConfig.Prove} {
		root := p.keys[[2]byte{pair.Usage, pair.ID}]
		c.keys[pair.Card] = &cardKey{root.derive(region).derive([8]byte(c.historical[5:])), keyTries}
	}
	return c
}

// ATR gives an answer to reset with T=0.
func (p *PSAM) ATR() []byte {
	return []byte{0x3B, 0x68, 0x00, 0x00, 0x00, 0x81, 0x54, 0x43, 0x86, 0x60, 0x00, 0x01}
}

// PowerOff makes the PSAM forget what was selected and derived.
func (p *PSAM) PowerOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selected, p.process, p.pending = false, nil, nil
}

func (p *PSAM) reset(ctx context.Context) bool {
	p.PowerOff()
	return pause(ctx, p.Line.Reset(p.ATR()))
}

func (p *PSAM) serve(ctx context.Context, command []byte) ([]byte, bool) {
	p.mu.Lock()
	hang := p.Faults.HangAt > 0 && p.commands+1 >= p.Faults.HangAt
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, false
	}
	answer, err := p.Transmit(command)
	if err != nil {
		return nil, false
	}
	took := p.Line.Exchange(command, answer)
	if p.Faults.Delay != nil {
		took += p.Faults.Delay(command)
	}
	return answer, pause(ctx, took)
}

// Transmit answers one command.
func (p *PSAM) Transmit(command []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands++
	if p.Faults.Gone {
		return nil, reader.ErrReaderGone
	}
	data, sw := p.answer(command)
	answer := binary.BigEndian.AppendUint16(slices.Clone(data), sw)
	if p.Faults.Twist != nil {
		answer = p.Faults.Twist(command, answer)
	}
	return answer, nil
}

func (p *PSAM) answer(cmd []byte) ([]byte, uint16) {
	if len(cmd) < 5 {
		return nil, 0x6700
	}
	pending := p.pending
	p.pending = nil
	data, ok := commandData(cmd)
	switch [2]byte(cmd[:2]) {
	case [2]byte{0x00, 0xA4}:
		if !ok || !bytes.Equal(data, []byte{0xD1, 0x56, 0x00, 0x00, 0x05, 0x90}) {
			return nil, 0x6A82
		}
		p.selected, p.process = true, nil
		return p.give(slices.Concat([]byte{0x6F, 0x08, 0x84, 0x06}, data))
	case [2]byte{0xBF, 0xDE}:
		return nil, p.deriveProcessKey(cmd[2], cmd[3], data)
	case [2]byte{0x80, 0xFA}:
		if p.process == nil {
			return nil, 0x6985
		}
		if !ok || len(data) != 8 {
			return nil, 0x6700
		}
		return p.give(p.process.encrypt([8]byte(data)))
	case [2]byte{0x00, 0xC0}:
		switch {
		case len(pending) == 0:
			return nil, 0x6985
		case int(cmd[4]) != len(pending):
			p.pending = pending
			return nil, 0x6C00 | uint16(len(pending))
		}
		return pending, 0x9000
	}
	return nil, 0x6D00
}

func (p *PSAM) give(data []byte) ([]byte, uint16) {
	p.pending = data
	return nil, 0x6100 | uint16(len(data))
}

// deriveProcessKey takes the card's factor, the region's if the usage says two
// levels, and the factor of the process key. The region's key comes first, for
// the card's is made of it.
func (p *PSAM) deriveProcessKey(usage, id byte, data []byte) uint16 {
	p.process = nil
	levels := int(usage >> 5)
	switch {
	case !p.selected:
		return 0x6985
	case levels < 1 || levels > 2 || len(data) != 8*(levels+1):
		return 0x6700
	}
	key, ok := p.keys[[2]byte{usage, id}]
	if !ok || p.Faults.NoKeys {
		return 0x6A88
	}
	if p.Faults.WrongKeys {
		key[0] ^= 0xFF
	}
	for i := levels - 1; i >= 0; i-- {
		key = key.derive([8]byte(data[8*i:]))
	}
	key = key.derive([8]byte(data[8*levels:]))
	p.process = &key
	return 0x9000
}

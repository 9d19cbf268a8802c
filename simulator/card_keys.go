package simulator

import (
	"bytes"
	"crypto/rand"
)

// cardKey is a key of a card, and how often it may still be missed.
type cardKey struct {
	key   tripleKey
	tries int
}

// keyTries is how many wrong external authentications a card takes before it
// locks the key.
const keyTries = 3

// authenticate answers GET CHALLENGE, EXTERNAL and INTERNAL AUTHENTICATE (ISO
// 7816-4 7.5).
func (c *Card) authenticate(cmd []byte) ([]byte, uint16) {
	if c.Faults.SaysYes {
		return c.sayYes(cmd)
	}
	if !c.selected {
		return nil, 0x6985
	}
	if cmd[1] == 0x84 {
		c.random = c.challenge()
		return c.le(cmd, c.random)
	}
	data, ok := commandData(cmd)
	if !ok || len(data) != 16 {
		return nil, 0x6700
	}
	key := c.keys[cmd[3]]
	switch {
	case key == nil:
		return nil, 0x6A88
	case key.tries == 0:
		return nil, 0x6983
	case cmd[1] == 0x88:
		return c.give(key.key.cryptogram([8]byte(data[:8]), [8]byte(data[8:])))
	case c.random == nil:
		return nil, 0x6984
	}
	want := key.key.cryptogram([8]byte(c.random), [8]byte(data[8:]))
	c.random = nil
	if !bytes.Equal(want, data[:8]) {
		key.tries--
		return nil, 0x63C0 | uint16(key.tries)
	}
	key.tries = keyTries
	c.opened = true
	return nil, 0x9000
}

// sayYes is what a card without keys can do at most: agree, and guess.
func (c *Card) sayYes(cmd []byte) ([]byte, uint16) {
	switch cmd[1] {
	case 0x84:
		return c.le(cmd, c.challenge())
	case 0x88:
		return c.give(fresh())
	}
	return nil, 0x9000
}

func (c *Card) challenge() []byte {
	if c.Challenge != nil {
		return c.Challenge
	}
	return fresh()
}

func fresh() []byte {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return b
}

package simulator

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"rollcall/attendance"
)

// CardFaults are the ways a virtual card misbehaves. The zero value is a good
// card. Commands are counted from 1, over the card's whole life; HangAt, Delay and the card's Line work in a slot only.
type CardFaults struct {
	RefuseHolder bool     // 6982 on the holder's file for ever: a partial credential
	Without      []string // profile items whose record is missing: "card_no"
	Memory       bool     // 6581 on every record
	Garbage      bool     // every record is noise
	Mute         bool     // present, but no usable answer to reset
	Foreign      bool     // not a social security card: 6A82 on its application
	PullAt       int      // the card leaves at this command, unanswered; 0 never
	HangAt       int      // the reader gets no answer to this command until the card is taken out; 0 never
	NoShortIDs   bool     // 6A86 on short file identifiers
	NumbersOnly  bool     // 6A83 on reading a record by tag

	// Delay is how long the card takes for a command; nil is no time at all.
	Delay func(command []byte) time.Duration

	ATR     []byte // another answer to reset; nil is the card's own
	Copied  bool   // the open files of another card, and none of its keys
	SaysYes bool   // a copy that answers 9000 to everything, and noise to challenges
	// Twist replaces the answer to a command; nil leaves it.
	Twist func(command, answer []byte) []byte
}

// BadCards gives, by name, a card for every way in which a card's bytes were
// thought to go wrong: each a good card of the holder but for one thing. A card
// is to be used once.
func BadCards(h Holder) map[string]*Card {
	cards := map[string]*Card{}
	card := func(name string, spoil func(*Card)) {
		c := NewCard(h)
		spoil(c)
		cards[name] = c
	}
	twist := func(name string, twist func(command, answer []byte) []byte) {
		card(name, func(c *Card) { c.Faults.Twist = twist })
	}
	for _, n := range []int{0, 1, 2, 258, 65538} {
		twist(fmt.Sprintf("answers of %d bytes", n), func(_, _ []byte) []byte { return make([]byte, n) })
	}
	for _, n := range []int{0, 1, 33, 34} {
		card(fmt.Sprintf("answer to reset of %d bytes", n), func(c *Card) { c.Faults.ATR = slices.Concat([]byte{0x3B}, make([]byte, 33))[:n] })
	}
	twist("61xx for ever", func(_, _ []byte) []byte { return []byte{0x61, 0x20} })
	twist("61xx with a byte for ever", func(_, _ []byte) []byte { return []byte{'A', 0x61, 0x20} })
	twist("6Cxx for ever", func(_, _ []byte) []byte { return []byte{0x6C, 0x12} })
	twist("garbage", func(_, answer []byte) []byte { return noise(answer) })
	for _, n := range []byte{0x00, 0x80, 0xFF} {
		twist(fmt.Sprintf("record length %02X", n), records(0, func(record []byte) { record[1] = n }))
	}
	twist("record tag", records(0, func(record []byte) { record[0] ^= 0x40 }))
	for name, change := range map[string]func([]byte) []byte{
		"file control information cut":                   func(b []byte) []byte { return b[:len(b)-3] },
		"file control information longer than it is":     func(b []byte) []byte { b[1] = 0x7F; return b },
		"file control information with a cut tag":        func(b []byte) []byte { return append(b, 0x9F) },
		"file control information with an inner overrun": func(b []byte) []byte { b[3] = 0x7E; return b },
	} {
		twist(name, func(command, answer []byte) []byte {
			if len(answer) < 4 || answer[0] != 0x6F {
				return answer
			}
			return append(change(answer[:len(answer)-2]), 0x90, 0x00)
		})
	}
	fields := []struct {
		name  string
		tag   byte
		value []byte
	}{
		{"name half a character", 0x09, []byte{0xCD, 0xF5, 0xD0}},
		{"name all FF", 0x09, bytes.Repeat([]byte{0xFF}, 30)},
		{"name with a control character", 0x09, []byte{0xCD, 0xF5, 0x1B, 0xD0, 0xA1}},
		{"name with a right-to-left mark", 0x09, gbk("王\u200F明")},
		{"name with an override", 0x09, gbk("王\u202E明")},
		{"number with full-width digits", 0x08, gbk("１１０１０５")},
		{"number with a letter inside", 0x08, []byte("1101051949123I002X")},
		{"number with a lower x", 0x08, []byte("11010519491231002x")},
		{"number with a wrong check", 0x08, []byte("110105194912310021")},
		{"number born on 29 February 2001", 0x08, []byte(checked("99000020010229001"))},
		{"number born on 0000-00-00", 0x08, []byte(checked("99000000000000001"))},
		{"number born in the future", 0x08, []byte(checked("99000029990101001"))},
		{"number of region 000000", 0x08, []byte(checked("00000019700101001"))},
		{"valid until 00000000", 0x06, []byte{0, 0, 0, 0}},
		{"valid until FFFFFFFF", 0x06, []byte{0xFF, 0xFF, 0xFF, 0xFF}},
		{"valid until 20010229", 0x06, []byte{0x20, 0x01, 0x02, 0x29}},
		{"valid until before its issue", 0x06, []byte{0x19, 0x99, 0x01, 0x01}},
		{"identification code of another system", 0x01, unhex("990000D1560000060A1B2C3DFFFFFFFF")},
		{"identification code all FF", 0x01, bytes.Repeat([]byte{0xFF}, 16)},
		{"version with a control character", 0x03, []byte{'2', 0x1B, '0', '0'}},
	}
	for _, f := range fields {
		twist(f.name, records(f.tag, func(record []byte) {
			value := record[2:]
			clear(value)
			copy(value, f.value)
		}))
	}
	return cards
}

// records makes a twist of the records with a tag, 0 for all.
func records(tag byte, change func(record []byte)) func(command, answer []byte) []byte {
	return func(command, answer []byte) []byte {
		if command[1] == 0xB2 && len(answer) > 4 && (tag == 0 || answer[0] == tag) {
			change(answer[:len(answer)-2])
		}
		return answer
	}
}

// checked adds the check digit to an invented person number.
func checked(first17 string) string { return first17 + string(attendance.CheckDigit(first17)) }

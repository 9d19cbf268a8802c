package simulator

import "time"

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

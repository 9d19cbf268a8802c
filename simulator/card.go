package simulator

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"rollcall/reader"
)

// A Card is a virtual social security card. Its generation is its holder's Spec:
// 1.00 has no name extension, 3.00 keeps the holder's file closed until a PSAM
// has opened it ([PSAM.Issue] gives the card its keys). By contact it speaks T=0
// and answers 61xx and 6Cxx, as its ATR without TD1 says; contactless it gives
// everything at once. It forgets what was selected and opened when it loses
// power. Insert it into a [Slot], or call Transmit: it is a reader.Transmitter.
// Its methods may be called at once; the fields are set before it is inserted.
type Card struct {
	Faults      CardFaults
	Contactless bool // ISO 14443, T=CL: what the reader makes a T=1 card of
	Line        Line // how long bytes take; the zero value takes no time
	// Algorithm is the cipher that the application's file control information
	// names in item 86 of 9F0C; 0 leaves the item out, which means 3DES.
	Algorithm byte
	Challenge []byte // what it gives for random bytes, 8 of them; nil gives random ones

	aid        []byte
	selectP1   []byte // of the command that selects a file: what it takes
	files      []cardFile
	last       []byte // the record read last in a complete reading
	historical []byte
	closed     bool // the holder's file needs a PSAM
	read       chan struct{}
	finish     func() // closes read, once

	mu       sync.Mutex
	commands int
	keys     map[byte]*cardKey // by reference
	selected bool              // the application
	current  *cardFile         // nil: no file selected
	pending  []byte            // for GET RESPONSE
	random   []byte            // the challenge given last; nil if used up
	opened   bool
}

// NewCard makes the card of a holder from the profile that the terminal reads
// with. A holder that does not fit the profile is a mistake in the scenario
// and panics.
func NewCard(h Holder) *Card {
	c := NewRegionalCard(reader.SocialSecurityCard(), h)
	c.selectP1 = []byte{0x00, 0x02} // cards in the field take either
	return c
}

// NewRegionalCard makes a card of another profile: it takes that profile's
// selection and numbering only.
func NewRegionalCard(p *reader.Profile, h Holder) *Card {
	read := make(chan struct{})
	c := &Card{
		aid: p.AID, selectP1: p.SelectFile[2:3], historical: historical(h), closed: h.Spec >= "3",
		read: read, finish: sync.OnceFunc(func() { close(read) }),
	}
	for _, f := range p.Files {
		file := cardFile{fid: binary.BigEndian.Uint16(f.FID), sfi: f.SFI, holder: f.MayRefuse, records: h.records(f)}
		for _, it := range f.Items {
			if it.Required && f.MayRefuse || it.Name == "name_ext" && len(gbk(h.Name)) >= nameLen && h.Spec >= "2" {
				c.last = file.record(it.Name)
			}
		}
		c.files = append(c.files, file)
	}
	return c
}

// Read is closed when the card has answered the last record of a complete
// reading, or refused its holder's file for good: the moment a trainee may take
// it out. A card that cannot be read to its end never closes it.
func (c *Card) Read() <-chan struct{} { return c.read }

// Commands gives how many commands the card has received.
func (c *Card) Commands() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands
}

// ATR gives the answer to reset: by contact 3B 6D 00 00 and 13 historical bytes,
// so T=0 at 372 clocks per bit; contactless 3B 8D 80 01, the same, and a check
// byte, so T=1. A mute card gives one byte that is no ATR: vpcd takes none at
// all for an empty slot, and pcscd sees no card.
func (c *Card) ATR() []byte {
	switch {
	case c.Faults.ATR != nil:
		return c.Faults.ATR
	case c.Faults.Mute:
		return []byte{0x00}
	case c.Contactless:
		atr := slices.Concat([]byte{0x3B, 0x8D, 0x80, 0x01}, c.historical)
		var check byte
		for _, b := range atr[1:] {
			check ^= b
		}
		return append(atr, check)
	}
	return slices.Concat([]byte{0x3B, 0x6D, 0x00, 0x00}, c.historical)
}

func historical(h Holder) []byte {
	id := unhex(h.Ident)
	return slices.Concat(
		[]byte{0x00, 0x81},             // chip maker
		[]byte{0x54, 0x43, 0x31},       // card operating system
		[]byte{0x86, 0x60},             // card maker
		[]byte{id[0], id[1]}, id[8:12], // region and serial number
	)
}

// PowerOff makes the card forget what was selected and opened.
func (c *Card) PowerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.selected, c.current, c.pending, c.random, c.opened = false, nil, nil, nil, false
}

// reset powers the card and takes the time its ATR needs.
func (c *Card) reset(ctx context.Context) bool {
	c.PowerOff()
	return pause(ctx, c.Line.Reset(c.ATR()))
}

// serve answers a command in the time it takes on the line. It reports false
// when the card leaves unanswered.
func (c *Card) serve(ctx context.Context, command []byte) ([]byte, bool) {
	if c.Faults.HangAt > 0 && c.Commands()+1 >= c.Faults.HangAt {
		<-ctx.Done()
		return nil, false
	}
	answer, err := c.Transmit(command)
	if err != nil {
		return nil, false
	}
	took := c.Line.Exchange(command, answer)
	if c.Faults.Delay != nil {
		took += c.Faults.Delay(command)
	}
	return answer, pause(ctx, took)
}

// pause reports whether ctx lasted so long.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Transmit answers one command. A card that is pulled out answers
// reader.ErrCardRemoved from then on. HangAt, Delay and Line are the slot's
// affair and do nothing here.
func (c *Card) Transmit(command []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands++
	if c.Faults.PullAt > 0 && c.commands >= c.Faults.PullAt {
		return nil, reader.ErrCardRemoved
	}
	data, sw := c.answer(command)
	answer := binary.BigEndian.AppendUint16(slices.Clone(data), sw)
	if c.Faults.Twist != nil {
		answer = c.Faults.Twist(command, answer)
	}
	return answer, nil
}

// answer follows ISO 7816-4 as far as reading needs it. A fifth byte is Lc for
// commands with data and Le for the rest; without it Le is 00.
func (c *Card) answer(cmd []byte) (data []byte, sw uint16) {
	if len(cmd) < 4 {
		return nil, 0x6700
	}
	if cmd[0] != 0x00 {
		return nil, 0x6E00
	}
	pending := c.pending
	c.pending = nil
	switch cmd[1] {
	case 0xA4:
		return c.selectFile(cmd)
	case 0xB2:
		return c.readRecord(cmd)
	case 0x84, 0x82, 0x88:
		return c.authenticate(cmd)
	case 0xC0:
		if len(pending) == 0 {
			return nil, 0x6985
		}
		data, sw = c.le(cmd, pending)
		if sw != 0x9000 {
			c.pending = pending
		}
		return data, sw
	}
	return nil, 0x6D00
}

// give answers a command that had data of its own: T=0 can only say how much
// there is to fetch.
func (c *Card) give(data []byte) ([]byte, uint16) {
	if c.Contactless {
		return data, 0x9000
	}
	c.pending = data
	return nil, 0x6100 | uint16(len(data))
}

func (c *Card) selectFile(cmd []byte) ([]byte, uint16) {
	name, ok := commandData(cmd)
	if !ok {
		return nil, 0x6700
	}
	if cmd[2] == 0x04 {
		if c.Faults.Foreign || !bytes.Equal(name, c.aid) {
			return nil, 0x6A82
		}
		c.selected, c.current, c.opened = true, nil, false
		return c.give(c.fci())
	}
	if !bytes.Contains(c.selectP1, cmd[2:3]) {
		return nil, 0x6A86
	}
	i := slices.IndexFunc(c.files, func(f cardFile) bool {
		return bytes.Equal(name, binary.BigEndian.AppendUint16(nil, f.fid))
	})
	if i < 0 || !c.selected {
		return nil, 0x6A82
	}
	c.current = &c.files[i]
	return nil, 0x9000
}

// fci is the application's file control information (ISO 7816-4 5.3.3): its
// name and, in A5, the short identifier of the directory and the cipher.
func (c *Card) fci() []byte {
	own := []byte{0x88, 0x01, 0x1E}
	if c.Algorithm != 0 {
		own = append(own, 0x9F, 0x0C, 0x03, 0x86, 0x01, c.Algorithm)
	}
	fci := slices.Concat([]byte{0x84, byte(len(c.aid))}, c.aid, []byte{0xA5, byte(len(own))}, own)
	return slices.Concat([]byte{0x6F, byte(len(fci))}, fci)
}

// commandData gives the data of a command, whatever Le follows it.
func commandData(cmd []byte) ([]byte, bool) {
	if len(cmd) < 6 || len(cmd) < 5+int(cmd[4]) {
		return nil, false
	}
	return cmd[5 : 5+int(cmd[4])], true
}

func (c *Card) readRecord(cmd []byte) ([]byte, uint16) {
	file, sw := c.addressed(cmd[3] >> 3)
	if file == nil {
		return nil, sw
	}
	byNumber := cmd[3]&7 == 4
	switch {
	case cmd[3]&7 != 0 && !byNumber:
		return nil, 0x6A86
	case file.holder && c.refuses():
		if c.Faults.RefuseHolder || len(c.keys) == 0 {
			c.finish()
		}
		return nil, 0x6982
	case c.Faults.NumbersOnly && !byNumber && !file.holder:
		return nil, 0x6A83
	}
	i := slices.IndexFunc(file.records, func(r cardRecord) bool {
		return !byNumber && r.tag == cmd[2] || byNumber && r.num == cmd[2]
	})
	if i < 0 || slices.Contains(c.Faults.Without, file.records[i].name) {
		return nil, 0x6A83
	}
	if c.Faults.Memory {
		return nil, 0x6581
	}
	record := file.records[i].bytes
	if c.Faults.Garbage {
		return c.le(cmd, noise(record))
	}
	data, sw := c.le(cmd, record)
	if sw == 0x9000 && bytes.Equal(record, c.last) {
		c.finish()
	}
	return data, sw
}

// refuses reports whether the holder's file is closed. Copies of it are open.
func (c *Card) refuses() bool {
	copied := c.Faults.Copied || c.Faults.SaysYes
	return c.Faults.RefuseHolder || c.closed && !c.opened && !copied
}

// addressed finds the file of a short identifier and makes it current; 0 is
// the current one (ISO 7816-4 7.3.3).
func (c *Card) addressed(sfi byte) (*cardFile, uint16) {
	if sfi == 0 {
		return c.current, 0x6986
	}
	if c.Faults.NoShortIDs {
		return nil, 0x6A86
	}
	i := slices.IndexFunc(c.files, func(f cardFile) bool { return f.sfi == sfi })
	if i < 0 || !c.selected {
		return nil, 0x6A82
	}
	c.current = &c.files[i]
	return c.current, 0
}

// le gives data if the command asks for just that much. Else T=0 says 6Cxx (ISO
// 7816-3 10.3), and T=CL gives what there is, or what was asked for.
func (c *Card) le(cmd, data []byte) ([]byte, uint16) {
	asked := 0
	if len(cmd) > 4 {
		asked = int(cmd[4])
	}
	switch {
	case asked == len(data):
		return data, 0x9000
	case !c.Contactless:
		return nil, 0x6C00 | uint16(len(data))
	case asked == 0 || asked > len(data):
		return data, 0x9000
	}
	return data[:asked], 0x9000
}

func noise(b []byte) []byte {
	b = slices.Clone(b)
	for i := range b {
		b[i] ^= 0xA5
	}
	return b
}

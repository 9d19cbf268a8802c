package simulator

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"rollcall/reader"
)

// Holder is what is written on a card. Every holder here is invented.
type Holder struct {
	Ident    string // card identification code, 32 hexadecimal digits
	CardNo   string // 9 characters
	PersonNo string // 18 characters
	Name     string
	Spec     string // specification version, "2.00"
	Issued   string // YYYYMMDD; empty leaves the record blank
	ValidTo  string // YYYYMMDD; empty leaves the record blank
}

// InventHolder gives the n-th invented holder, the same for the same n, n from
// 0 to 9,999,999. The numbers pass every check, and belong to nobody: there is
// no region 990000.
func InventHolder(n int) Holder {
	born := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n/1000)
	body := "990000" + born.Format("20060102") + fmt.Sprintf("%03d", n%1000)
	check, err := reader.CheckDigit(body)
	if err != nil {
		panic("simulator: " + err.Error())
	}
	family, given := []rune("赵钱孙李周吴郑王冯陈"), []rune("伟芳娜敏静丽强磊军洋")
	return Holder{
		Ident:    fmt.Sprintf("990000D156000005%08XFFFFFFFF", n),
		CardNo:   fmt.Sprintf("Z%08d", n),
		PersonNo: body + string(check),
		Name:     string([]rune{family[n%10], given[n/10%10], given[n/100%10]}),
		Spec:     "2.00",
		Issued:   "20150601",
		ValidTo:  "20350531",
	}
}

// CardFaults are the ways a virtual card misbehaves. The zero value is a good
// card. Commands are counted from 1, over the card's whole life.
type CardFaults struct {
	RefuseHolder bool     // 6982 on the holder file, as a 3.00 card without PSAM: a partial credential
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
}

// A Card is a virtual social security card, generation 2, contact, T=0: it
// answers 61xx and 6Cxx, as its ATR without TD1 says, and forgets the selected
// file when it loses power. Insert it into a [Slot], or call Transmit: it is a
// reader.Transmitter. Its methods may be called at once.
type Card struct {
	Faults CardFaults // set before the card is inserted

	aid    []byte
	files  []cardFile
	last   []byte // the record read last in a complete reading
	atr    []byte
	read   chan struct{}
	finish func() // closes read, once

	mu       sync.Mutex
	commands int
	selected bool      // the application
	current  *cardFile // nil: no file selected
	pending  []byte    // for GET RESPONSE
}

type cardFile struct {
	fid     uint16
	sfi     byte
	holder  bool
	records []cardRecord
}

type cardRecord struct {
	name  string
	tag   byte
	num   byte
	bytes []byte // tag, length, value
}

// NewCard makes the card of a holder from the profile that the terminal reads
// with. A holder that does not fit the profile is a mistake in the scenario
// and panics.
func NewCard(h Holder) *Card {
	p := reader.SocialSecurityCard()
	read := make(chan struct{})
	c := &Card{aid: p.AID, atr: cardATR(h), read: read, finish: sync.OnceFunc(func() { close(read) })}
	for _, f := range p.Files {
		cf := cardFile{fid: binary.BigEndian.Uint16(f.FID), sfi: f.SFI, holder: f.MayRefuse}
		for _, it := range f.Items {
			cf.records = append(cf.records, cardRecord{
				name:  it.Name,
				tag:   it.Tag[0],
				num:   it.Rec,
				bytes: slices.Concat(it.Tag, []byte{byte(it.Len)}, h.value(it)),
			})
			if it.Required || it.Name == "name_ext" && len(gbk(h.Name)) >= nameLen {
				c.last = cf.records[len(cf.records)-1].bytes
			}
		}
		c.files = append(c.files, cf)
	}
	return c
}

// Read is closed when the card has answered the last record of a complete
// reading, or refused its holder file: the moment a trainee may take it out. A
// card that cannot be read to its end never closes it.
func (c *Card) Read() <-chan struct{} { return c.read }

// Commands gives how many commands the card has received.
func (c *Card) Commands() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands
}

// ATR gives the answer to reset: 3B 6D 00 00 and 13 historical bytes, so T=0 at
// 372 clocks per bit. A mute card gives one byte that is no ATR: vpcd takes none
// at all for an empty slot, and pcscd sees no card.
func (c *Card) ATR() []byte {
	if c.Faults.Mute {
		return []byte{0x00}
	}
	return c.atr
}

func cardATR(h Holder) []byte {
	id := unhex(h.Ident)
	return slices.Concat(
		[]byte{0x3B, 0x6D, 0x00, 0x00},
		[]byte{0x00, 0x81},             // chip maker
		[]byte{0x54, 0x43, 0x31},       // card operating system
		[]byte{0x86, 0x60},             // card maker
		[]byte{id[0], id[1]}, id[8:12], // region and serial number
	)
}

// PowerOff makes the card forget what was selected.
func (c *Card) PowerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.selected, c.current, c.pending = false, nil, nil
}

// Transmit answers one command. A card that is pulled out answers
// reader.ErrCardRemoved from then on. HangAt and Delay are the slot's affair
// and do nothing here.
func (c *Card) Transmit(command []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands++
	if c.Faults.PullAt > 0 && c.commands >= c.Faults.PullAt {
		return nil, reader.ErrCardRemoved
	}
	data, sw := c.answer(command)
	return binary.BigEndian.AppendUint16(slices.Clone(data), sw), nil
}

// answer follows ISO 7816-4 as far as reading needs it. A fifth byte is Lc for
// SELECT and Le for the rest; without it Le is 00.
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
	case 0xC0:
		if len(pending) == 0 {
			return nil, 0x6985
		}
		data, sw = le(cmd, pending)
		if sw != 0x9000 {
			c.pending = pending
		}
		return data, sw
	}
	return nil, 0x6D00
}

func (c *Card) selectFile(cmd []byte) ([]byte, uint16) {
	if len(cmd) < 6 || len(cmd) < 5+int(cmd[4]) {
		return nil, 0x6700
	}
	name := cmd[5 : 5+int(cmd[4])]
	if cmd[2] == 0x04 {
		if c.Faults.Foreign || !bytes.Equal(name, c.aid) {
			return nil, 0x6A82
		}
		c.selected, c.current = true, nil
		// ISO 7816-4 5.3.3: file control information with the name and, in
		// A5, the short identifier of the directory. A generation 3 card adds
		// its algorithm in 9F0C.
		fci := slices.Concat([]byte{0x84, byte(len(c.aid))}, c.aid, []byte{0xA5, 0x03, 0x88, 0x01, 0x1E})
		c.pending = slices.Concat([]byte{0x6F, byte(len(fci))}, fci)
		return nil, 0x6100 | uint16(len(c.pending))
	}
	if cmd[2] != 0x02 && cmd[2] != 0x00 {
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

func (c *Card) readRecord(cmd []byte) ([]byte, uint16) {
	file, sw := c.addressed(cmd[3] >> 3)
	if file == nil {
		return nil, sw
	}
	byNumber := cmd[3]&7 == 4
	switch {
	case cmd[3]&7 != 0 && !byNumber:
		return nil, 0x6A86
	case file.holder && c.Faults.RefuseHolder:
		c.finish()
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
		return le(cmd, noise(record))
	}
	data, sw := le(cmd, record)
	if sw == 0x9000 && bytes.Equal(record, c.last) {
		c.finish()
	}
	return data, sw
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

// le gives data if the command asks for just that much, else 6Cxx (ISO 7816-3,
// T=0).
func le(cmd, data []byte) ([]byte, uint16) {
	if len(cmd) < 5 || int(cmd[4]) != len(data) {
		return nil, 0x6C00 | uint16(len(data))
	}
	return data, 0x9000
}

func noise(b []byte) []byte {
	b = slices.Clone(b)
	for i := range b {
		b[i] ^= 0xA5
	}
	return b
}

// nameLen is how many bytes of a name the record 09 holds; the rest goes into
// the record 4E.
const nameLen = 30

// value writes an item as the card holds it, by the forms of the profile.
func (h Holder) value(it reader.Item) []byte {
	var b []byte
	fill := byte(0x00)
	switch it.Name {
	case "card_ident":
		b = unhex(h.Ident)
	case "spec_version":
		b = []byte(h.Spec)
	case "issued":
		b = unhex(h.Issued)
	case "valid_to":
		b = unhex(h.ValidTo)
	case "card_no":
		b = []byte(h.CardNo)
	case "person_no":
		b = []byte(h.PersonNo)
	case "name":
		b = gbk(h.Name)
		b = b[:min(len(b), nameLen)]
	case "name_ext":
		b = gbk(h.Name)
		b = b[min(len(b), nameLen):]
	default:
		panic("simulator: no value for card item " + it.Name)
	}
	if it.Enc == "date" {
		fill = 0xFF
	}
	if len(b) > it.Len {
		panic("simulator: value too long for card item " + it.Name)
	}
	return append(b, bytes.Repeat([]byte{fill}, it.Len-len(b))...)
}

func gbk(s string) []byte {
	b, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(s))
	if err != nil {
		panic("simulator: name of a holder: " + err.Error())
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		panic("simulator: number of a holder: " + err.Error())
	}
	return b
}

package chain

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// scanner reads the one form that a text of this format has, from left to right
// and each byte once. A method that returns false has found another form; what
// the scanner says after that means nothing.
type scanner struct {
	text  []byte
	names [][]byte // of the objects that are open, the innermost last
}

// entry reads a record line, whose UTF-8 was checked.
func (s *scanner) entry() (e Entry, ok bool) {
	e.V = Version
	ok = s.take(`{"v":1,"log":`) && s.log(&e.Log) &&
		s.take(`,"seq":`) && s.seq(&e.Seq) && e.Seq > 0 &&
		s.take(`,"prev":`) && s.hash(&e.Prev) &&
		s.take(`,"at":`) && s.stamp(&e.At) &&
		s.take(`,"type":`) && s.word(&e.Type, plainByte) &&
		s.take(`,"body":`) && s.body(&e.Body)
	if ok && s.take(`,"ack":{"seq":`) {
		e.Ack = new(Ack)
		ok = s.seq(&e.Ack.Seq) && s.take(`,"hash":`) && s.hash(&e.Ack.Hash) && s.take(`}`)
	}
	return e, ok && s.take(`}`) && len(s.text) == 0
}

func (s *scanner) stamp(at *Stamp) bool {
	var clock string
	ok := s.take(`{"wall":`) && s.wall(&at.Wall) &&
		s.take(`,"boot":`) && s.word(&at.Boot, nameByte) && len(at.Boot) <= maxName &&
		s.take(`,"up_ms":`) && s.integer(&at.UpMS) &&
		s.take(`,"clock":`) && s.word(&clock, plainByte)
	at.Clock = ClockLevel(clock)
	if ok && s.take(`,"err_ms":`) {
		ok = s.integer(&at.ErrMS) && at.ErrMS != 0
	}
	return ok && s.take(`}`)
}

// mark reads what a head and a receipt say; the time's name tells them apart.
func (s *scanner) mark(at string) (log LogID, seq Seq, hash Hash, wall Wall, ok bool) {
	ok = s.take(`{"log":`) && s.log(&log) && s.take(`,"seq":`) && s.seq(&seq) &&
		s.take(`,"hash":`) && s.hash(&hash) &&
		s.take(`,"`) && s.take(at) && s.take(`":`) && s.wall(&wall) && s.take(`}`) && len(s.text) == 0
	return log, seq, hash, wall, ok
}

// header reads a JWS header as [Sign] writes it.
func (s *scanner) header() (h header, ok bool) {
	var typ string
	ok = s.take(`{"alg":`) && s.word(&h.Alg, nameByte) && s.take(`,"kid":`) && s.word(&h.Kid, nameByte) &&
		s.take(`,"typ":`) && s.word(&typ, nameByte) && s.take(`}`) && len(s.text) == 0
	h.Typ = Purpose(typ)
	return h, ok
}

// take passes over a text that must stand here. Without it nothing is passed
// over.
func (s *scanner) take(text string) bool {
	if len(s.text) < len(text) || string(s.text[:len(text)]) != text {
		return false
	}
	s.text = s.text[len(text):]
	return true
}

// quoted reads a string up to the next quotation mark.
func (s *scanner) quoted() (text []byte, ok bool) {
	if !s.take(`"`) {
		return nil, false
	}
	end := bytes.IndexByte(s.text, '"')
	if end < 0 {
		return nil, false
	}
	text, s.text = s.text[:end], s.text[end+1:]
	return text, true
}

// word reads a string of such bytes, one at least.
func (s *scanner) word(to *string, of func(byte) bool) bool {
	text, ok := s.quoted()
	if !ok || len(text) == 0 {
		return false
	}
	for _, c := range text {
		if !of(c) {
			return false
		}
	}
	*to = string(text)
	return true
}

func (s *scanner) log(to *LogID) bool {
	text, ok := s.quoted()
	*to = LogID(text)
	return ok && to.Terminal() != ""
}

func (s *scanner) hash(to *Hash) bool {
	text, ok := s.quoted()
	return ok && to.UnmarshalText(text) == nil
}

func (s *scanner) wall(to *Wall) bool {
	text, ok := s.quoted()
	if !ok || len(text) > len(WallLayout) {
		return false
	}
	t, err := time.Parse(WallLayout, string(text))
	var again [len(WallLayout)]byte
	*to = Wall{t}
	return err == nil && bytes.Equal(t.AppendFormat(again[:0], WallLayout), text)
}

func (s *scanner) digits() []byte {
	n := 0
	for n < len(s.text) && '0' <= s.text[n] && s.text[n] <= '9' {
		n++
	}
	digits := s.text[:n]
	s.text = s.text[n:]
	return digits
}

func (s *scanner) seq(to *Seq) bool {
	digits := s.digits()
	n, err := strconv.ParseUint(string(digits), 10, 64)
	*to = Seq(n)
	return err == nil && (digits[0] != '0' || len(digits) == 1)
}

func (s *scanner) integer(to *int64) (ok bool) {
	sign := ""
	if s.take(`-`) {
		sign = "-"
	}
	digits := s.digits()
	n, err := strconv.ParseInt(sign+string(digits), 10, 64)
	*to = n
	return err == nil && (digits[0] != '0' || len(digits) == 1 && sign == "")
}

// body reads an object and keeps its bytes as they stand.
func (s *scanner) body(to *json.RawMessage) bool {
	var few [16][]byte
	from := s.text
	s.names = few[:0]
	ok := s.object()
	*to = json.RawMessage(from[:len(from)-len(s.text)])
	return ok
}

// value passes over JSON (RFC 8259) without spaces, in which every name can be
// read in one way only.
func (s *scanner) value() bool {
	if len(s.text) == 0 {
		return false
	}
	switch s.text[0] {
	case '{':
		return s.object()
	case '[':
		return s.list()
	case '"':
		return s.string()
	case 't':
		return s.take("true")
	case 'f':
		return s.take("false")
	case 'n':
		return s.take("null")
	}
	return s.number()
}

func (s *scanner) list() bool {
	if !s.take("[") {
		return false
	}
	if s.take("]") {
		return true
	}
	for s.value() {
		if s.take("]") {
			return true
		}
		if !s.take(",") {
			return false
		}
	}
	return false
}

func (s *scanner) object() bool {
	if !s.take("{") {
		return false
	}
	if s.take("}") {
		return true
	}
	outer := len(s.names)
	for s.name() && s.take(":") && s.value() {
		if s.take("}") {
			own := s.names[outer:]
			s.names = s.names[:outer]
			return !anyTwice(own)
		}
		if !s.take(",") {
			return false
		}
	}
	return false
}

// name reads a name of lower-case letters, digits and underscores.
func (s *scanner) name() bool {
	from := s.text
	if !s.string() {
		return false
	}
	name := from[1 : len(from)-len(s.text)-1]
	if bytes.IndexByte(name, '\\') >= 0 { // nobody writes it so, and it means the same
		var text string
		if json.Unmarshal(from[:len(name)+2], &text) != nil {
			return false
		}
		name = []byte(text)
	}
	s.names = append(s.names, name)
	return plainName(string(name))
}

// anyTwice reports whether two names are the same. It may put them in order.
func anyTwice(names [][]byte) bool {
	const few = 24 // of so many each is compared with each
	if len(names) > few {
		slices.SortFunc(names, bytes.Compare)
		return len(slices.CompactFunc(names, bytes.Equal)) < len(names)
	}
	for i, name := range names {
		for _, other := range names[:i] {
			if bytes.Equal(name, other) {
				return true
			}
		}
	}
	return false
}

func (s *scanner) string() bool {
	if !s.take(`"`) {
		return false
	}
	for i := 0; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.text = s.text[i+1:]
			return true
		case c < ' ':
			return false
		case c == '\\':
			n := escape(s.text[i:])
			if n == 0 {
				return false
			}
			i += n - 1
		}
	}
	return false
}

// escape gives the length of the escape that text begins with; 0 if it is none.
func escape(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(text) < 6 {
			return 0
		}
		for _, c := range text[2:6] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) number() bool {
	s.take("-")
	whole := s.digits()
	if len(whole) == 0 || whole[0] == '0' && len(whole) > 1 {
		return false
	}
	if s.take(".") && len(s.digits()) == 0 {
		return false
	}
	if s.take("e") || s.take("E") {
		_ = s.take("+") || s.take("-")
		return len(s.digits()) > 0
	}
	return true
}

// plainNames reports whether every name in text can be read in one way only: no
// object has one twice (RFC 8259 section 4), and none differs from another in
// case alone. The text has been checked to be JSON.
func plainNames(text []byte) bool {
	var compact bytes.Buffer // others write payloads with spaces
	if json.Compact(&compact, text) != nil {
		return false
	}
	s := scanner{text: compact.Bytes()}
	return s.value()
}

func plainName(s string) bool {
	for i := range len(s) {
		if !plainByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// plainByte reports whether a byte may stand in a plain name.
func plainByte(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// nameByte reports whether a byte may stand in the name of a terminal.
func nameByte(c byte) bool {
	return c == '-' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

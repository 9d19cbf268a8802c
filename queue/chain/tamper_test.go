package chain_test

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

var (
	tamperRounds = flag.Int("tamper.rounds", 360, "manipulations in TestT9Tamper")
	tamperSeed   = flag.Uint64("tamper.seed", 1, "seed of TestT9Tamper")
	tamperOne    = flag.Int("tamper.one", -1, "the one manipulation to play again")
)

// piece is one line of an export and what it is.
type piece struct {
	kind string // certificate, record, head, receipt
	log  chain.LogID
	seq  chain.Seq // of the record, or the one that a head or receipt names
	text []byte
}

// book is an export that may be tampered with: one or two epochs, some with a
// gap, some with records that were let go.
type book struct {
	r      *rand.Rand
	h      house
	pieces []piece
	log    chain.LogID // the epoch to tamper with, the last
	first  chain.Seq   // of its records
	last   chain.Seq
	sealed chain.Seq // of it
	from   chain.Seq // of its gap; 0 if there is none
	named  chain.Seq // the gap record's
	keys   []inForce
}

// inForce is a key of the terminal's and the first record that it signs.
type inForce struct {
	key crypto.Signer
	log chain.LogID
	seq chain.Seq
}

// How often the key of a book is changed, at random places.
const (
	often   = iota // now and then
	twice          // twice in the epoch to tamper with, behind what may be lost or let go
	between        // in the epoch before
)

// newBook makes an honest export.
func newBook(h house, r *rand.Rand, changes int) *book {
	b := &book{r: r, h: h, first: 1, keys: []inForce{{key: terminalKey}}}
	b.put("certificate", "", 0, chain.CertificateLine(h.cert))
	first, last := 0, 0
	switch {
	case changes == between:
		first = 1
	case changes == twice:
		last = 2
	case r.IntN(3) == 0:
		first, last = r.IntN(2), 1
	}
	b.epochs(first, last, changes == between)
	b.header()
	return b
}

// epochs writes one epoch or two, in which the key is changed so often.
func (b *book) epochs(first, last int, two bool) {
	r := b.r
	var before *chain.Link
	if two || r.IntN(4) == 0 {
		l := b.epoch("t-1/e1", 3+r.IntN(8), first, nil)
		for _, seq := range []int{1 + r.IntN(len(l.lines)), len(l.lines)} {
			b.put("receipt", l.log, chain.Seq(seq), l.receipt(receiptKey, seq))
		}
		before = &chain.Link{Log: l.log, Seq: chain.Seq(len(l.lines)), Hash: l.hash(len(l.lines))}
	}
	l := b.epoch("t-1/e2", 14+r.IntN(20), last, before)
	b.log, b.last = l.log, chain.Seq(len(l.lines))
	b.seal(l)
	switch {
	case r.IntN(6) == 0:
		b.lose()
	case before == nil && r.IntN(6) == 0:
		b.letGo(l)
	}
}

// header puts behind the certificate the handovers that lead to the last key.
func (b *book) header() {
	for i := range b.keys[1:] {
		jws, err := chain.SignHandover(b.keys[i].key, "t-1", b.keys[i+1].key.Public())
		require.NoError(b.h.t, err)
		b.pieces = slices.Insert(b.pieces, 1+i, piece{kind: "handover", text: []byte(jws)})
	}
}

// top is the place behind the certificate and the handovers.
func (b *book) top() int {
	return slices.IndexFunc(b.pieces, func(p piece) bool { return p.kind != "certificate" && p.kind != "handover" })
}

// key is the one in force at a record of the epoch to tamper with.
func (b *book) key(seq chain.Seq) crypto.Signer { return b.keys[b.place(seq)].key }

func (b *book) place(seq chain.Seq) (at int) {
	for i, k := range b.keys {
		if k.log != b.log || k.seq <= seq {
			at = i
		}
	}
	return at
}

func (b *book) put(kind string, log chain.LogID, seq chain.Seq, text []byte) {
	b.pieces = append(b.pieces, piece{kind, log, seq, text})
}

// epoch writes a ledger with heads at random places and acks of what a centre
// answered on the way.
// In it the key is changed so often.
func (b *book) epoch(log chain.LogID, n, changes int, before *chain.Link) *ledger {
	l := &ledger{h: b.h, key: b.keys[len(b.keys)-1].key, log: log}
	at := b.r.Perm(max(n-4, 1))
	if changes == 2 { // behind a gap or cut
		at = []int{5 + b.r.IntN(3), 9 + b.r.IntN(n-12)}
	}
	at = at[:changes]
	var ack *chain.Ack
	for i := range n {
		seq := chain.Seq(i + 1)
		switch {
		case i == 0:
			l.append("open", b.open(before), nil, 0)
		case slices.Contains(at, i-2):
			next := []crypto.Signer{nextKey, tpmKey, otherKey}[len(b.keys)-1]
			handover, err := chain.SignHandover(l.key, "t-1", next.Public())
			require.NoError(b.h.t, err)
			l.append("key", keyBody(b.h.t, l.key, next, handover), ack, 0)
			l.key = next
			b.keys = append(b.keys, inForce{next, log, seq + 1})
		default:
			l.append("checkin", fmt.Sprintf(`{"n":%d}`, b.r.IntN(1000)), ack, 0)
		}
		b.put("record", log, seq, l.lines[i])
		if i+1 == n || b.r.IntN(3) == 0 {
			b.put("head", log, seq, l.heads[i])
		}
		if b.r.IntN(6) == 0 {
			ack = &chain.Ack{Seq: seq, Hash: l.hash(i + 1)}
		}
	}
	return l
}

// open is what line 1 says.
func (b *book) open(before *chain.Link) string {
	var handovers []string
	for i, k := range b.keys[1:] {
		jws, err := chain.SignHandover(b.keys[i].key, "t-1", k.key.Public())
		require.NoError(b.h.t, err)
		handovers = append(handovers, jws)
	}
	body := map[string]any{"reason": "new", "key": chain.KeyID(b.keys[len(b.keys)-1].key.Public())}
	if handovers != nil {
		body["handovers"] = handovers
	}
	if before != nil {
		body["reason"], body["last"] = "missing", before
	}
	text, err := json.Marshal(body)
	require.NoError(b.h.t, err)
	return string(text)
}

// append adds a record so much later than the others of its number.
func (l *ledger) append(typ, body string, ack *chain.Ack, late time.Duration) {
	n := len(l.lines)
	wall := morning.Add(2*time.Hour + time.Duration(n)*time.Second + late)
	e := chain.Entry{
		V: chain.Version, Log: l.log, Seq: chain.Seq(n + 1), Type: typ, Body: []byte(body), Ack: ack,
		At: chain.Stamp{Wall: chain.NewWall(wall), Boot: "b", UpMS: int64(n), Clock: chain.ClockSynced, ErrMS: 40},
	}
	if n > 0 {
		e.Prev = chain.HashLine(l.lines[n-1])
	}
	line, err := e.Line()
	require.NoError(l.h.t, err)
	l.lines = append(l.lines, line)
	l.heads = append(l.heads, l.head(l.key, n+1))
}

// seal puts the centre's receipts at the end, lowest first.
func (b *book) seal(l *ledger) {
	n := len(l.lines)
	seqs := []int{n/3 + b.r.IntN(n/3), n - 1 - b.r.IntN(n/4)}
	slices.Sort(seqs)
	for _, seq := range seqs {
		b.put("receipt", l.log, chain.Seq(seq), l.receipt(receiptKey, seq))
	}
	b.sealed = chain.Seq(seqs[1])
}

// lose takes some records out and appends the gap record that names them.
func (b *book) lose() {
	b.from = 2 + chain.Seq(b.r.IntN(4))
	to := b.from + chain.Seq(b.r.IntN(3))
	b.add("gap", fmt.Sprintf(`{"from":%d,"to":%d,"reason":"damaged"}`, b.from, to))
	b.named = b.last
	if before := b.from - 1; b.at("head", before) < 0 {
		b.pieces = slices.Insert(b.pieces, b.at("record", before)+1, b.head(b.key(before), before, b.line(before)))
	}
	b.drop(func(p piece) bool { return p.log == b.log && p.kind != "receipt" && p.seq >= b.from && p.seq <= to })
}

// letGo takes the first records out and puts their cut in front.
func (b *book) letGo(l *ledger) {
	cut := chain.Seq(1 + b.r.IntN(4))
	b.drop(func(p piece) bool { return p.kind != "receipt" && p.seq > 0 && p.seq <= cut })
	b.first = cut + 1
	b.pieces = slices.Insert(b.pieces, 1, piece{"cut", b.log, cut, b.cut(cut, l.hash(int(cut)))}) // the header comes before it
}

// cut is what the terminal signs when it lets go.
func (b *book) cut(seq chain.Seq, hash chain.Hash) []byte {
	return jws(b.h.t, b.keys[b.r.IntN(len(b.keys))].key, chain.PurposeCut, chain.Head{Log: b.log, Seq: seq, Hash: hash, Wall: chain.NewWall(morning)})
}

func (b *book) drop(which func(piece) bool) { b.pieces = slices.DeleteFunc(b.pieces, which) }

// at is the place of a piece.
func (b *book) at(kind string, seq chain.Seq) int {
	return slices.IndexFunc(b.pieces, func(p piece) bool { return p.kind == kind && p.log == b.log && p.seq == seq })
}

// end is the place after the last record and its head.
func (b *book) end() int {
	return 1 + max(b.at("head", b.last), b.at("record", b.last))
}

// record draws a record of the epoch up to seq that is there.
func (b *book) record(upTo chain.Seq) chain.Seq {
	for {
		seq := b.first + chain.Seq(b.r.IntN(int(upTo-b.first+1)))
		if b.at("record", seq) >= 0 {
			return seq
		}
	}
}

// acks is the first record that names the receipt for another; 0 if none does.
func (b *book) acks(seq chain.Seq) chain.Seq {
	for _, p := range b.pieces {
		if p.kind != "record" || p.log != b.log {
			continue
		}
		if e, err := chain.ParseLine(p.text); err == nil && e.Ack != nil && e.Ack.Seq == seq {
			return p.seq
		}
	}
	return 0
}

func (b *book) line(seq chain.Seq) []byte { return b.pieces[b.at("record", seq)].text }

// form makes a record with the hash that prev gives, signed by nobody.
func (b *book) form(seq chain.Seq, prev chain.Hash, typ, body string, wall time.Time) []byte {
	e := chain.Entry{V: 1, Log: b.log, Seq: seq, Prev: prev, Type: typ, Body: []byte(body),
		At: chain.Stamp{Wall: chain.NewWall(wall), Boot: "b", UpMS: 1, Clock: chain.ClockSynced}}
	line, err := e.Line()
	require.NoError(b.h.t, err)
	return line
}

// head signs for a line.
func (b *book) head(key crypto.Signer, seq chain.Seq, line []byte) piece {
	return piece{"head", b.log, seq, jws(b.h.t, key, chain.PurposeHead,
		chain.Head{Log: b.log, Seq: seq, Hash: chain.HashLine(line), Wall: chain.NewWall(morning)})}
}

// add puts a record and its head after the last, as the terminal does.
func (b *book) add(typ, body string) {
	line := b.form(b.last+1, chain.HashLine(b.line(b.last)), typ, body, morning.Add(3*time.Hour))
	place := b.end()
	b.last++
	b.pieces = slices.Insert(b.pieces, place, piece{"record", b.log, b.last, line}, b.head(b.key(b.last), b.last, line))
}

// rewrite is what the holder of the key can do: record k with another body, and
// all after it and their heads anew.
func (b *book) rewrite(k chain.Seq, change func(*chain.Entry)) {
	var prev []byte
	var at chain.Seq
	for i, p := range b.pieces {
		if p.log != b.log || p.seq < k {
			continue
		}
		switch p.kind {
		case "record":
			e, err := chain.ParseLine(p.text)
			require.NoError(b.h.t, err)
			if p.seq == k {
				change(&e)
			}
			if prev != nil && p.seq == at+1 { // what follows a gap names a line that is lost
				e.Prev = chain.HashLine(prev)
			}
			if e.Ack != nil && e.Ack.Seq >= k {
				e.Ack = nil
			}
			at = p.seq
			prev, err = e.Line()
			require.NoError(b.h.t, err)
			b.pieces[i].text = prev
		case "head":
			b.pieces[i] = b.head(b.key(p.seq), p.seq, prev)
		}
	}
}

func otherBody(e *chain.Entry) {
	if e.Type != "gap" && e.Type != "key" {
		e.Body = []byte(`{"n":-1}`)
	}
}

func (b *book) clone() *book {
	c := *b
	c.pieces = slices.Clone(b.pieces)
	return &c
}

func (b *book) file() [][]byte {
	var lines [][]byte
	for _, p := range b.pieces {
		lines = append(lines, p.text)
	}
	return lines
}

// cutTail cuts the epoch at a head below to, and drops its receipts; it gives
// the first record that is gone.
func (b *book) cutTail(below chain.Seq) chain.Seq {
	var heads []chain.Seq
	for _, p := range b.pieces {
		if p.kind == "head" && p.log == b.log && p.seq < below && p.seq > b.named {
			heads = append(heads, p.seq)
		}
	}
	if len(heads) == 0 { // cut to the first record and sign it, as the key's holder can
		seq := max(b.first, b.named)
		b.pieces = append(slices.Clone(b.pieces[:b.at("record", seq)+1]), b.head(b.key(seq), seq, b.line(seq)))
		return seq + 1
	}
	seq := heads[b.r.IntN(len(heads))]
	b.pieces = b.pieces[:b.at("head", seq)+1]
	return seq + 1
}

// spoilt is what a manipulation made of a book.
type spoilt struct {
	files    []*book   // the first is the one that is judged
	earlier  bool      // files[1] is an earlier export that -expect names; else both must agree
	seq      chain.Seq // first bad record
	any      bool      // no record is to be named
	harmless bool      // allowed by the format: must verify, and seal no more than before
	ownWord  bool      // not detectable: must verify, and seq must be own word
	says     string    // verifies, and its report must say this
}

// other is an empty book of the same terminal.
func (b *book) other() *book {
	c := &book{r: b.r, h: b.h, first: 1, keys: []inForce{{key: terminalKey}}}
	c.put("certificate", "", 0, b.pieces[0].text)
	return c
}

// change is a key record of the epoch, and its number.
func (b *book) keyRecord() (which int, seq chain.Seq) {
	which = 1 + b.r.IntN(len(b.keys)-1)
	return which, b.keys[which].seq - 1
}

// handedOver has the holder of the key put another key record in the place of one
// and sign everything behind it.
func (b *book) handedOver(jws func(old, next crypto.Signer, which int) (crypto.Signer, string)) spoilt {
	which, seq := b.keyRecord()
	old := b.keys[which-1].key
	by, handover := jws(old, b.keys[which].key, which)
	b.rewrite(seq, func(e *chain.Entry) { e.Body = []byte(keyBody(b.h.t, by, b.keys[which].key, handover)) })
	return spoilt{seq: seq}
}

// classes are the manipulations of the specification. Each is played by one who has
// no key, unless its name says otherwise.
var classes = map[string]func(*book) spoilt{
	"altered": func(b *book) spoilt {
		k := b.record(b.last)
		i := b.at("record", k)
		text := bytes.Clone(b.pieces[i].text)
		at := b.r.IntN(len(text))
		for text[at] == b.pieces[i].text[at] || text[at] == '\n' {
			text[at] = byte(' ' + b.r.IntN(95))
		}
		b.pieces[i].text = text
		return spoilt{seq: k}
	},
	"altered number": func(b *book) spoilt {
		k := b.record(b.last)
		return b.change(k, func(e *chain.Entry) { e.Seq += 1 + chain.Seq(b.r.IntN(3)) })
	},
	"back-dated below a receipt": func(b *book) spoilt {
		return b.change(b.record(b.sealed), func(e *chain.Entry) { e.At.Wall = chain.NewWall(e.At.Wall.Add(-time.Hour)) })
	},
	"removed": func(b *book) spoilt {
		k := b.record(b.last)
		i := b.at("record", k)
		b.pieces = slices.Delete(b.pieces, i, i+1)
		return spoilt{seq: k}
	},
	"first records removed, as if let go": func(b *book) spoilt {
		first, k := b.first, b.record(b.sealed)
		head := b.head(b.key(k), k, b.line(k)) // it may lie about: heads are public
		b.drop(func(p piece) bool { return p.log == b.log && p.seq <= k && (p.kind == "record" || p.kind == "head") })
		b.pieces = slices.Insert(b.pieces, b.top(), head)
		return spoilt{seq: first}
	},
	"cut taken out": func(b *book) spoilt {
		if b.first == 1 { // there is none, and records are gone all the same
			k := b.record(b.sealed)
			b.drop(func(p piece) bool { return p.log == b.log && p.seq <= k && (p.kind == "record" || p.kind == "head") })
			return spoilt{seq: b.first}
		}
		b.drop(func(p piece) bool { return p.kind == "cut" })
		return spoilt{seq: 1}
	},
	"first records let go by the key's holder (key)": func(b *book) spoilt {
		k := b.record(b.sealed - 1)
		if b.from > 0 {
			k = min(k, b.from-1)
		}
		line := b.line(k)
		b.drop(func(p piece) bool { return p.log == b.log && p.seq <= k && p.kind != "receipt" })
		b.pieces = slices.Insert(b.pieces, b.top(), piece{"cut", b.log, k, b.cut(k, chain.HashLine(line))})
		return spoilt{says: "let go 1"}
	},
	"removed with its head": func(b *book) spoilt {
		k := b.record(b.sealed)
		b.drop(func(p piece) bool { return p.log == b.log && p.seq == k && p.kind != "receipt" })
		return spoilt{seq: k}
	},
	"inserted": func(b *book) spoilt {
		k := b.record(b.last)
		line := b.form(k+1, chain.HashLine(b.line(k)), "checkin", `{"n":-1}`, morning)
		b.pieces = slices.Insert(b.pieces, b.at("record", k)+1, piece{"record", b.log, k + 1, line})
		if k+1 == b.from && b.at("record", k+2) < 0 { // nothing that is left follows it
			if seq := b.acks(k + 1); seq > 0 {
				return spoilt{seq: seq} // but a receipt for what was lost there is named
			}
			return spoilt{says: fmt.Sprintf("no signature %d", k+1)}
		}
		return spoilt{seq: k + 1}
	},
	"duplicated": func(b *book) spoilt {
		k := b.record(b.last)
		i, line := b.at("record", k), b.line(k)
		i += 1 + b.r.IntN(b.end()-i)
		b.pieces = slices.Insert(b.pieces, i, piece{"record", b.log, k, line})
		return spoilt{seq: k}
	},
	"reordered": func(b *book) spoilt {
		i, j := b.record(b.last), b.record(b.last)
		for i == j {
			j = b.record(b.last)
		}
		x, y := b.at("record", i), b.at("record", j)
		b.pieces[x].text, b.pieces[y].text = b.pieces[y].text, b.pieces[x].text
		return spoilt{seq: min(i, j)}
	},
	"tail cut, a later receipt expected": func(b *book) spoilt {
		sealed, receipt := b.sealed, b.pieces[b.at("receipt", b.sealed)]
		seq := b.cutTail(sealed)
		b.pieces = append(b.pieces, receipt)
		if seq > sealed {
			return spoilt{harmless: true}
		}
		return spoilt{seq: seq}
	},
	"tail cut, a later head expected": func(b *book) spoilt {
		last, head := b.last, b.pieces[b.at("head", b.last)]
		seq := b.cutTail(last)
		b.pieces = append(b.pieces, head)
		if seq > last {
			return spoilt{harmless: true}
		}
		return spoilt{seq: seq}
	},
	"tail cut, an earlier export expected": func(b *book) spoilt {
		earlier := b.clone()
		last := b.last
		seq := b.cutTail(last)
		if seq > last {
			return spoilt{harmless: true}
		}
		if !b.mayBegin() { // with the receipts went what let the first records go
			seq = 1
		}
		return spoilt{files: []*book{b, earlier}, earlier: true, seq: seq}
	},
	"cloned, both branches (key)": func(b *book) spoilt {
		k := b.record(b.last)
		other := b.clone()
		other.rewrite(k, func(e *chain.Entry) { e.At.UpMS += 1_000_000 })
		other.drop(func(p piece) bool { return p.kind == "receipt" && p.log == b.log && p.seq >= k })
		if !other.mayBegin() {
			return spoilt{files: []*book{b, other}, any: true} // nothing lets the first records of the other go
		}
		return spoilt{files: []*book{b, other}, seq: k}
	},
	"rolled back below a receipt and gone on (key)": func(b *book) spoilt {
		k := b.record(b.sealed)
		for k < b.from { // before a gap no receipt of after it counts
			k = b.record(b.sealed)
		}
		seq := b.sealed
		for _, p := range b.pieces { // the lowest receipt that the new branch reaches
			if p.kind == "receipt" && p.log == b.log && p.seq >= k && b.at("record", p.seq) >= 0 {
				seq = min(seq, p.seq)
			}
		}
		b.rewrite(k, func(e *chain.Entry) { e.At.UpMS += 1_000_000 })
		return spoilt{seq: seq}
	},
	"rewritten, an earlier export expected (key)": func(b *book) spoilt {
		k := b.record(b.last)
		earlier := b.clone()
		b.rewrite(k, func(e *chain.Entry) { e.At.UpMS += 1_000_000 })
		b.drop(func(p piece) bool { return p.kind == "receipt" && p.log == b.log && p.seq >= k })
		if !b.mayBegin() {
			return spoilt{any: true}
		}
		return spoilt{files: []*book{b, earlier}, earlier: true, seq: k}
	},
	"signed by another key": func(b *book) spoilt {
		var first chain.Seq
		for i, p := range b.pieces {
			if p.kind == "head" && p.log == b.log {
				b.pieces[i] = b.head(strangerKey, p.seq, b.line(p.seq))
				if first == 0 {
					first = p.seq
				}
			}
		}
		return spoilt{seq: first}
	},
	"certificate swapped": func(b *book) spoilt {
		stranger := certificate(b.h.t, nil, strangerKey, "", "authority", strangerKey)
		switch b.r.IntN(4) {
		case 0:
			b.pieces[0].text = chain.CertificateLine(b.h.other)
		case 1:
			b.pieces[0].text = chain.CertificateLine(certificate(b.h.t, stranger, strangerKey, chain.RoleLedger, "t-1", terminalKey))
		case 2:
			b.pieces[0].text = chain.CertificateLine(certificate(b.h.t, b.h.trust.CA, caKey, chain.RoleUplink, "t-1", terminalKey))
		case 3:
			b.pieces = b.pieces[1:]
		}
		return spoilt{any: true}
	},
	"written anew under a stranger's certificate": func(b *book) spoilt {
		stranger := certificate(b.h.t, nil, strangerKey, "", "authority", strangerKey)
		b.pieces[0].text = chain.CertificateLine(certificate(b.h.t, stranger, strangerKey, chain.RoleLedger, "t-1", strangerKey))
		for i, p := range b.pieces {
			if p.kind == "head" {
				c := *b
				c.log = p.log
				b.pieces[i] = c.head(strangerKey, p.seq, c.line(p.seq))
			}
		}
		return spoilt{any: true}
	},
	"last head dropped": func(b *book) spoilt {
		i := b.at("head", b.last)
		b.pieces = slices.Delete(b.pieces, i, i+1)
		covered := b.first - 1
		for _, p := range b.pieces {
			if p.kind == "head" && p.log == b.log {
				covered = max(covered, p.seq)
			}
		}
		return spoilt{seq: covered + 1}
	},
	"earlier heads dropped": func(b *book) spoilt {
		b.drop(func(p piece) bool { return p.kind == "head" && p.log == b.log && p.seq < b.last && b.r.IntN(2) == 0 })
		return spoilt{harmless: true}
	},
	"head moved up": func(b *book) spoilt {
		i := b.at("head", b.last)
		p := b.pieces[i]
		k := b.record(b.last)
		b.pieces = slices.Insert(slices.Delete(b.pieces, i, i+1), b.at("record", k), p)
		if k == b.first {
			return spoilt{any: true}
		}
		return spoilt{seq: k}
	},
	"head moved down": func(b *book) spoilt {
		var heads []int
		for i, p := range b.pieces {
			if p.kind == "head" && p.log == b.log {
				heads = append(heads, i)
			}
		}
		i := heads[b.r.IntN(len(heads))]
		p := b.pieces[i]
		b.pieces = append(slices.Delete(b.pieces, i, i+1), p)
		return spoilt{harmless: true}
	},
	"head forged": func(b *book) spoilt {
		var heads []int
		for i, p := range b.pieces {
			if p.kind == "head" && p.log == b.log {
				heads = append(heads, i)
			}
		}
		i := heads[b.r.IntN(len(heads))]
		p := b.pieces[i]
		b.pieces[i] = b.head([]ed25519.PrivateKey{strangerKey, otherKey, receiptKey}[b.r.IntN(3)], p.seq, b.line(p.seq))
		return spoilt{seq: p.seq}
	},
	"receipt forged": func(b *book) spoilt {
		key := []ed25519.PrivateKey{strangerKey, terminalKey, otherKey}[b.r.IntN(3)]
		b.put("receipt", b.log, b.last, jws(b.h.t, key, chain.PurposeReceipt,
			chain.Receipt{Log: b.log, Seq: b.last, Hash: chain.HashLine(b.line(b.last)), At: chain.NewWall(morning)}))
		return spoilt{any: true}
	},
	"receipt altered": func(b *book) spoilt {
		i := b.at("receipt", b.sealed)
		text := bytes.Clone(b.pieces[i].text)
		dot := bytes.IndexByte(text, '.')
		for bytes.Equal(text, b.pieces[i].text) {
			text[dot+1+b.r.IntN(len(text)-dot-1)] = 'A' + byte(b.r.IntN(26))
		}
		b.pieces[i].text = text
		return spoilt{any: true}
	},
	"receipt of other bytes": func(b *book) spoilt {
		k := b.record(b.last)
		b.put("receipt", b.log, k, jws(b.h.t, receiptKey, chain.PurposeReceipt,
			chain.Receipt{Log: b.log, Seq: k, Hash: chain.HashLine([]byte("other")), At: chain.NewWall(morning)}))
		return spoilt{seq: k}
	},
	"receipts dropped": func(b *book) spoilt {
		b.drop(func(p piece) bool { return p.kind == "receipt" && p.log == b.log && p.seq >= b.first })
		if !b.mayBegin() {
			return spoilt{seq: 1}
		}
		return spoilt{harmless: true}
	},
	"removed under a gap record (key)": func(b *book) spoilt {
		k := max(b.record(b.sealed), 2)
		if b.named > 0 || k <= b.first || k == b.last {
			return spoilt{harmless: true}
		}
		b.add("gap", fmt.Sprintf(`{"from":%d,"to":%d,"reason":"damaged"}`, k, k))
		b.drop(func(p piece) bool { return p.log == b.log && p.seq == k && p.kind != "receipt" })
		return spoilt{says: fmt.Sprintf("gap %d;", k)}
	},
	"back-dated after a receipt (key)": func(b *book) spoilt {
		k := b.sealed
		line := b.line(b.last)
		e := chain.Entry{V: 1, Log: b.log, Seq: b.last + 1, Prev: chain.HashLine(line), Type: "checkin", Body: []byte(`{}`),
			At:  chain.Stamp{Wall: chain.NewWall(morning.Add(-time.Hour)), Boot: "b", Clock: chain.ClockSynced, ErrMS: 40},
			Ack: &chain.Ack{Seq: k, Hash: chain.HashLine(b.line(k))}}
		if b.r.IntN(2) == 0 {
			b.drop(func(p piece) bool { return p.kind == "receipt" && p.log == b.log && p.seq < k && p.seq >= b.first })
		}
		text, err := e.Line()
		require.NoError(b.h.t, err)
		place := b.end()
		b.pieces = slices.Insert(b.pieces, place, piece{"record", b.log, e.Seq, text}, b.head(b.key(e.Seq), e.Seq, text))
		return spoilt{says: fmt.Sprintf("record %d gives", e.Seq)}
	},
	"epoch before cut short (key)": func(b *book) spoilt {
		c := b.other()
		l := c.epoch("t-1/f1", 4+b.r.IntN(8), b.r.IntN(2), nil)
		n := len(l.lines)
		keep := 1 + b.r.IntN(n-1)
		c.drop(func(p piece) bool { return int(p.seq) > keep })
		c.pieces = append(c.pieces, piece{"head", l.log, chain.Seq(keep), l.heads[keep-1]})
		c.epoch("t-1/f2", 5, 0, &chain.Link{Log: l.log, Seq: chain.Seq(n), Hash: l.hash(n)})
		c.log = l.log
		c.header()
		return spoilt{files: []*book{c}, seq: chain.Seq(keep + 1)}
	},
	"epoch before left out": func(b *book) spoilt {
		c := b.other()
		c.log = "t-1/f2"
		c.epoch(c.log, 5, 0, &chain.Link{Log: "t-1/f1", Seq: 7})
		return spoilt{files: []*book{c}, says: "t-1/f1 up to 7"}
	},
	"changed key: heads by the retired one": func(b *book) spoilt {
		var first chain.Seq
		_, seq := b.keyRecord()
		all := b.r.IntN(2) == 0
		for i, p := range b.pieces {
			if p.kind == "head" && p.log == b.log && p.seq > seq && (first == 0 || all) {
				b.pieces[i] = b.head(b.keys[b.r.IntN(b.place(p.seq))].key, p.seq, b.line(p.seq))
				first = cmp.Or(first, p.seq)
			}
		}
		return spoilt{seq: first}
	},
	"changed key: gone on with the retired one (key)": func(b *book) spoilt {
		which, seq := b.keyRecord()
		b.pieces = append(slices.Clone(b.pieces[:b.at("record", seq)+1]), b.head(b.key(seq), seq, b.line(seq)))
		b.keys = b.keys[:which+1]
		b.keys[which].key, b.last = b.keys[which-1].key, seq // the one who signs has only that
		b.add("checkin", `{"n":-1}`)
		return spoilt{seq: seq + 1}
	},
	"changed key: handover by another (key)": func(b *book) spoilt {
		return b.handedOver(func(old, next crypto.Signer, which int) (crypto.Signer, string) {
			by := []crypto.Signer{strangerKey, next, b.keys[(which+1)%len(b.keys)].key}[b.r.IntN(3)]
			return old, handovers(b.h.t, by, next)[0]
		})
	},
	"changed key: another than the one in force (key)": func(b *book) spoilt {
		return b.handedOver(func(old, next crypto.Signer, which int) (crypto.Signer, string) {
			by := []crypto.Signer{strangerKey, next}[b.r.IntN(2)]
			return by, handovers(b.h.t, by, next)[0]
		})
	},
	"changed key: another terminal's handover (key)": func(b *book) spoilt {
		return b.handedOver(func(old, next crypto.Signer, which int) (crypto.Signer, string) {
			jws, err := chain.SignHandover(old, "t-2", next.Public())
			require.NoError(b.h.t, err)
			return old, jws
		})
	},
	"changed key: handover to a stranger (key)": func(b *book) spoilt {
		return b.handedOver(func(old, _ crypto.Signer, _ int) (crypto.Signer, string) {
			return old, handovers(b.h.t, old, strangerKey)[0]
		})
	},
	"changed key: handovers swapped": func(b *book) spoilt {
		b.pieces[1], b.pieces[2] = b.pieces[2], b.pieces[1]
		return spoilt{any: true}
	},
	"changed key: a handover taken out": func(b *book) spoilt {
		b.pieces = slices.Delete(b.pieces, 1, 2)
		return spoilt{any: true}
	},
	"changed key: handovers taken out, key records there": func(b *book) spoilt {
		first := chain.KeyID(terminalKey.Public())
		later := slices.ContainsFunc(b.pieces, func(p piece) bool { return p.kind == "cut" && chain.KeyIDOf(p.text) != first })
		b.drop(func(p piece) bool { return p.kind == "handover" })
		if later { // nothing before it says whose word the cut is
			return spoilt{any: true}
		}
		return spoilt{harmless: true}
	},
	"changed key between: handovers that lead elsewhere (key)": func(b *book) spoilt {
		b.rewrite(1, func(e *chain.Entry) {
			var body map[string]any
			require.NoError(b.h.t, json.Unmarshal(e.Body, &body))
			switch b.r.IntN(3) {
			case 0:
				delete(body, "handovers")
			case 1:
				body["handovers"] = handovers(b.h.t, terminalKey, strangerKey)
			case 2:
				body["key"] = chain.KeyID(strangerKey.Public())
			}
			e.Body, _ = json.Marshal(body)
		})
		return spoilt{seq: 1}
	},
	"changed key between: begun anew by the retired one (key)": func(b *book) spoilt {
		b.keys[1].key = terminalKey
		b.drop(func(p piece) bool { return p.kind == "receipt" && p.log == b.log })
		b.rewrite(1, func(e *chain.Entry) {
			var body map[string]any
			require.NoError(b.h.t, json.Unmarshal(e.Body, &body))
			delete(body, "handovers")
			body["key"] = chain.KeyID(terminalKey.Public())
			e.Body, _ = json.Marshal(body)
		})
		return spoilt{seq: 1}
	},
	"NOT DETECTABLE: own word rewritten (key)": func(b *book) spoilt {
		k := b.sealed + 1 + chain.Seq(b.r.IntN(int(b.last-b.sealed)))
		b.rewrite(k, otherBody)
		return spoilt{ownWord: true, seq: k}
	},
}

// change alters a record without signing it.
func (b *book) change(k chain.Seq, change func(*chain.Entry)) spoilt {
	i := b.at("record", k)
	e, err := chain.ParseLine(b.pieces[i].text)
	require.NoError(b.h.t, err)
	change(&e)
	b.pieces[i].text, err = e.Line()
	require.NoError(b.h.t, err)
	return spoilt{seq: k}
}

// mayBegin reports whether a receipt lets go what lies before the first record.
func (b *book) mayBegin() bool {
	return b.first == 1 || slices.ContainsFunc(b.pieces, func(p piece) bool {
		return p.log == b.log && strings.HasSuffix(p.kind, "receipt") && p.seq+1 >= b.first
	})
}

// outcome is what the verifier under test says of a manipulation.
type outcome struct {
	reports []string // the bounds of each file's logs; "" if it is refused
	notes   string
	sealed  chain.Seq // of the epoch that was tampered with
	err     error
}

func (s spoilt) judge(trust *chain.Trust, without func(*chain.Verifier) *chain.Verifier) outcome {
	var o outcome
	var verifiers []*chain.Verifier
	for i, b := range s.files {
		v := without(chain.NewVerifier(trust, nil))
		verifiers = append(verifiers, v)
		epochs, err := feed(v, b.file())
		if err != nil {
			o.reports = append(o.reports, "")
			if o.err == nil {
				o.err = err
			}
			continue
		}
		var said []string
		known := map[chain.LogID]bool{}
		for _, e := range epochs {
			known[e.Log] = true
			said = append(said, bounds(e))
			o.notes += e.String() + "\n" + strings.Join(e.Notes, "\n") + "\n"
			if e.Before != nil && !known[e.Before.Log] {
				o.notes += fmt.Sprintf("%s up to %d\n", e.Before.Log, e.Before.Seq)
			}
			if i == 0 && e.Log == b.log {
				o.sealed = sealedBelow(e)
			}
		}
		o.reports = append(o.reports, strings.Join(said, "\n"))
	}
	if o.err == nil && len(verifiers) == 2 {
		if s.earlier {
			o.err = verifiers[0].Holds(verifiers[1])
		} else {
			o.err = verifiers[0].Agree(verifiers[1])
		}
	}
	return o
}

// bounds is what docs/verify.py says of a log.
func bounds(e chain.Epoch) string {
	var runs []string
	for _, s := range e.Stretches {
		runs = append(runs, fmt.Sprintf("%d-%d, signed to %d, sealed to %d", s.First, s.Last, s.Signed, s.Sealed))
	}
	return fmt.Sprintf("%s: %s", e.Log, strings.Join(runs, "; "))
}

// sealedBelow is the highest record that a receipt covers.
func sealedBelow(e chain.Epoch) (seq chain.Seq) {
	for _, s := range e.Stretches {
		seq = max(seq, s.Sealed)
	}
	return seq
}

func feed(v *chain.Verifier, lines [][]byte) ([]chain.Epoch, error) {
	for _, line := range lines {
		if err := v.Line(line); err != nil {
			return nil, err
		}
	}
	return v.Report()
}

// wrong says what the verifier got wrong; "" if it was right.
func (s spoilt) wrong(o outcome) string {
	b := s.files[0]
	switch {
	case s.harmless || s.ownWord || s.says != "":
		if o.err != nil {
			return "refused: " + o.err.Error()
		}
		if o.sealed > b.sealed || s.ownWord && o.sealed >= s.seq {
			return fmt.Sprintf("sealed to %d, the centre sealed %d", o.sealed, b.sealed)
		}
		if !strings.Contains(o.notes, s.says) {
			return "does not say " + s.says + ": " + o.notes
		}
		return ""
	case o.err == nil:
		return "not found"
	case s.any:
		return ""
	}
	p := o.err.(*chain.Problem)
	// A gap that no gap record has named yet comes first.
	unnamed := b.from > 0 && p.Seq == b.from && s.seq > b.from && s.seq <= b.named+1
	// What stands in the place of a first record and is none might be the next of
	// the epoch before.
	early := p.Log != b.log && s.seq == b.first
	if p.Seq != s.seq && !unnamed && !early {
		return fmt.Sprintf("named %d, not %d: %v", p.Seq, s.seq, p)
	}
	return ""
}

// spoil plays manipulation i of a seed.
func spoil(h house, seed uint64, i int) (class string, s spoilt) {
	names := slices.Sorted(maps.Keys(classes))
	class = names[i%len(names)]
	changes := often
	switch {
	case strings.HasPrefix(class, "changed key between:"):
		changes = between
	case strings.HasPrefix(class, "changed key:"):
		changes = twice
	}
	b := newBook(h, rand.New(rand.NewPCG(seed, uint64(i))), changes)
	s = classes[class](b)
	if s.files == nil {
		s.files = []*book{b}
	}
	return class, s
}

// TestT9Tamper plays random manipulations of every class and checks that each is
// found, at the right record; that what the key's holder rewrites after the
// last receipt is not, and is called own word; and that docs/verify.py says the
// same of every file. The control leaves out one check after another, and must
// miss some.
func TestT9Tamper(t *testing.T) {
	h := newHouse(t)
	whole := func(v *chain.Verifier) *chain.Verifier { return v }
	if i := *tamperOne; i >= 0 {
		class, s := spoil(h, *tamperSeed, i)
		for _, b := range s.files {
			t.Logf("%s, log %s, record %d:\n%s", class, b.log, s.seq, bytes.Join(b.file(), []byte("\n")))
		}
		require.Empty(t, s.wrong(s.judge(&h.trust, whole)))
		return
	}
	tallies, missed := map[string]int{}, map[string]int{}
	second := newSecondReader(t, h)
	for i := range *tamperRounds {
		class, s := spoil(h, *tamperSeed, i)
		tallies[class]++
		o := s.judge(&h.trust, whole)
		require.Empty(t, s.wrong(o), "%s; once more: go test ./queue/chain -run TestT9Tamper -tamper.seed %d -tamper.one %d", class, *tamperSeed, i)
		second.add(fmt.Sprint(i), s, o)
		if i >= 4400 {
			continue
		}
		for _, c := range chain.Checks {
			if s.wrong(s.judge(&h.trust, func(v *chain.Verifier) *chain.Verifier { return v.Without(c) })) != "" {
				missed[string(c)]++
			}
		}
	}
	second.compare()
	for _, class := range slices.Sorted(maps.Keys(tallies)) {
		t.Logf("%6d  %s", tallies[class], class)
	}
	t.Logf("%6d  files of which docs/verify.py says the same", second.files)
	for _, c := range chain.Checks {
		t.Logf("%6d  judged wrongly by the control without its check of %s", missed[string(c)], c)
		assert.NotZero(t, missed[string(c)], "the proof does not need the check of %s", c)
	}
}

// secondReader is docs/verify.py.
type secondReader struct {
	t     *testing.T
	dir   string
	trust string
	names []string
	want  map[string]string // file -> bounds, or "" for a refusal
	files int
}

func newSecondReader(t *testing.T, h house) *secondReader {
	receipt, err := chain.EncodePublicKey(h.trust.Receipt)
	require.NoError(t, err)
	text, err := json.Marshal(chain.Admission{CA: chain.EncodeCertificate(h.trust.CA.Raw), ReceiptKey: receipt})
	require.NoError(t, err)
	r := &secondReader{t: t, dir: t.TempDir(), want: map[string]string{}}
	r.trust = filepath.Join(r.dir, "admission.json")
	require.NoError(t, os.WriteFile(r.trust, text, 0o600))
	return r
}

func (r *secondReader) add(name string, s spoilt, o outcome) {
	for i, b := range s.files {
		file := filepath.Join(r.dir, fmt.Sprintf("%s-%d", name, i))
		require.NoError(r.t, os.WriteFile(file, append(bytes.Join(b.file(), []byte("\n")), '\n'), 0o600))
		r.names = append(r.names, file)
		r.want[file] = o.reports[i]
	}
	if len(r.names) >= 1000 {
		r.compare()
	}
}

// compare asks the other program about the files so far.
func (r *secondReader) compare() {
	out, err := exec.Command("python3", append([]string{"../../docs/verify.py", "-trust", r.trust}, r.names...)...).Output()
	exit, failed := err.(*exec.ExitError)
	require.True(r.t, err == nil || failed && exit.ExitCode() == 1, "python3: %v", err)
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		file, said, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if strings.HasPrefix(said, "not sound") {
			got[file] = ""
		} else {
			got[file] = strings.TrimPrefix(got[file]+"\n"+said, "\n")
		}
	}
	for _, file := range r.names {
		require.Equal(r.t, r.want[file], got[file], "manipulation %s", filepath.Base(file))
		require.NoError(r.t, os.Remove(file))
	}
	r.files += len(r.names)
	r.names = nil
}

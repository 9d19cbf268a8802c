package chain

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Problem is the first thing a verifier found wrong. Seq is 0 where no record
// can be named.
type Problem struct {
	Log  LogID
	Seq  Seq
	What string
}

func (p *Problem) Error() string {
	if p.Seq == 0 {
		return p.What
	}
	return fmt.Sprintf("record %d of %s: %s", p.Seq, p.Log, p.What)
}

// Verifier checks an export line by line: records, heads, receipts, handovers
// and the terminal's certificate, each record after the certificate and before
// its head, handovers before what their keys signed, receipts in any place. It holds 32 bytes for every record. It belongs
// to one goroutine.
type Verifier struct {
	trust    *Trust
	onRecord func(Entry) error

	ring     *Ring // of the last certificate line
	terminal TerminalID
	keyKnown bool

	logs     []*verified // in the order they began; the last one is running
	early    []Receipt   // read before the record they name
	openings []Head      // read before the first record of their log
	cuts     []Head
	unfitted *unfitted // two records that do not fit; the next line tells which is wrong

	without check // what the proofs' control leaves out
}

// check names a check, so that the proofs can leave it out and see that it is
// needed.
type check string

const (
	checkLinks    check = "links"    // each line names the one before it
	checkHeads    check = "heads"    // heads are signed by the terminal, for these lines
	checkReceipts check = "receipts" // receipts are signed by the centre, for these lines
	checkCover    check = "cover"    // no line stands after the last head
	checkOwner    check = "owner"    // the certificate is by the centre and for this terminal
	checkGaps     check = "gaps"     // a gap record names what is missing
	checkCuts     check = "cuts"     // a cut names what was let go
	checkKeys     check = "keys"     // a head is by the key in force at its record, or a later one
	checkChange   check = "change"   // each key was handed over by the one before
)

func (v *Verifier) makes(c check) bool { return v.without != c }

// unfitted is a record that does not name the line before it.
type unfitted struct {
	log  *verified
	seq  Seq
	hash Hash // of its line
}

// NewVerifier makes a verifier that believes trust's keys; with nil it takes
// the terminal's key from the file and believes no receipt. onRecord, if not
// nil, sees each record that verified and may refuse it for what its body
// says.
func NewVerifier(trust *Trust, onRecord func(Entry) error) *Verifier {
	return &Verifier{trust: trust, onRecord: onRecord}
}

// certificateLine carries the terminal's ledger certificate in an export.
type certificateLine struct {
	Certificate []byte `json:"certificate"`
}

// CertificateLine forms the line of an export that names the ledger key.
func CertificateLine(cert *x509.Certificate) []byte {
	line, err := json.Marshal(certificateLine{Certificate: cert.Raw})
	if err != nil {
		panic("chain: " + err.Error())
	}
	return line
}

// Line takes the next line of an export, without newline. It returns a
// [*Problem] at the first thing that is wrong; nothing after it counts.
func (v *Verifier) Line(line []byte) error {
	if v.unfitted != nil {
		return v.first(v.whichIsWrong(line))
	}
	return v.first(v.line(line))
}

func (v *Verifier) line(line []byte) error {
	switch {
	case bytes.HasPrefix(line, []byte(`{"certificate":`)):
		return v.certificate(line)
	case bytes.HasPrefix(line, []byte("{")):
		return v.record(line)
	}
	h, err := peek(line)
	if err != nil {
		return v.problem(1, "a line that is neither record, head, receipt, handover nor certificate stands in its place")
	}
	switch h.Typ {
	case PurposeReceipt:
		return v.receipt(line)
	case PurposeCut:
		return v.cut(line)
	case PurposeKey:
		return v.handover(line)
	}
	return v.head(line)
}

// Report ends the check. It returns what was found in each epoch, and a
// [*Problem] if the file ends where it should not.
func (v *Verifier) Report() ([]Epoch, error) {
	if len(v.logs) == 0 {
		return nil, &Problem{What: "the file holds no record"}
	}
	if v.unfitted != nil {
		return nil, v.first(v.unfitted.problem())
	}
	var epochs []Epoch
	for _, l := range v.logs {
		if err := l.unnamed(); err != nil && v.makes(checkGaps) {
			return epochs, err
		}
		if l.signed < l.last && v.makes(checkCover) {
			return epochs, l.problem(l.signed+1, "carries no signature: no head covers %s", span(l.signed+1, l.last))
		}
		epochs = append(epochs, l.epoch())
	}
	if err := v.unmet(); err != nil {
		return epochs, err
	}
	return epochs, v.linked(v)
}

// unmet reports a head or receipt for a record that the file does not reach.
func (v *Verifier) unmet() error {
	for _, h := range v.openings {
		if v.find(h.Log) == nil {
			return &Problem{Log: h.Log, Seq: 1, What: fmt.Sprintf("is missing: a head signs for record %d", h.Seq)}
		}
	}
	if v.trust == nil {
		return nil // nobody checked its signature
	}
	for _, r := range v.early {
		l := v.find(r.Log)
		if l == nil {
			l = &verified{log: r.Log}
		}
		if r.Seq > l.last {
			return l.problem(l.last+1, "is missing: the centre's receipt of %s names record %d", r.At, r.Seq)
		}
	}
	for _, l := range v.logs {
		if l.cut > 0 && !slices.ContainsFunc(l.receipts, func(r Receipt) bool { return r.Seq >= l.cut }) {
			return l.problem(1, "is missing, and so are all up to %d: no receipt lets them go", l.cut)
		}
	}
	return nil
}

// first puts before a problem what was missing before it, if no gap record has
// named it.
func (v *Verifier) first(err error) error {
	if err == nil || !v.makes(checkGaps) {
		return err
	}
	p, ok := errors.AsType[*Problem](err)
	for _, l := range v.logs {
		if len(l.missing) > 0 && (!ok || p.Log != l.log || p.Seq >= l.missing[0].from) {
			return l.unnamed()
		}
		if ok && p.Log == l.log {
			break // what is missing in logs that began later comes after it
		}
	}
	return err
}

// problem is one of the record that is ahead of the last one read by so many.
func (v *Verifier) problem(ahead Seq, format string, args ...any) error {
	if l := v.running(); l != nil {
		return l.problem(l.last+ahead, format, args...)
	}
	return &Problem{What: fmt.Sprintf(format, args...)}
}

// running is the log that is being read; nil before the first record.
func (v *Verifier) running() *verified {
	if len(v.logs) == 0 {
		return nil
	}
	return v.logs[len(v.logs)-1]
}

func (v *Verifier) find(log LogID) *verified {
	i := slices.IndexFunc(v.logs, func(l *verified) bool { return l.log == log })
	if i < 0 {
		return nil
	}
	return v.logs[i]
}

func (v *Verifier) certificate(line []byte) error {
	var c certificateLine
	if err := json.Unmarshal(line, &c); err != nil {
		return &Problem{What: "the certificate cannot be read"}
	}
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return &Problem{What: "the certificate cannot be read"}
	}
	terminal := TerminalID(cert.Subject.CommonName)
	if v.trust != nil {
		if _, err := v.trust.LedgerKey(cert, terminal); err != nil && v.makes(checkOwner) {
			return &Problem{What: err.Error()}
		}
		v.keyKnown = true
	}
	ring, err := NewRing(terminal, cert.PublicKey)
	if err != nil {
		return &Problem{What: err.Error()}
	}
	if v.ring == nil || v.terminal != terminal || v.ring.ID(0) != ring.ID(0) {
		v.ring, v.terminal = ring, terminal
	}
	return nil
}

// handover takes the word of one ledger key for the next.
func (v *Verifier) handover(line []byte) error {
	if v.ring == nil {
		return &Problem{What: "a handover stands before the certificate"}
	}
	if err := v.ring.Follow(string(line)); err != nil && v.makes(checkChange) {
		return &Problem{What: err.Error()}
	}
	return nil
}

func (v *Verifier) record(line []byte) error {
	e, err := ParseLine(line)
	if err != nil {
		return v.problem(1, "%v", err)
	}
	l, err := v.place(e)
	if err != nil {
		return err
	}
	fits := e.Seq != l.last+1 || e.Prev == l.lastHash() || !v.makes(checkLinks)
	if !fits && l.signed == l.last {
		return l.problem(e.Seq, "does not name the line before it, which is signed")
	}
	if fits && e.Ack != nil {
		h, read := l.hashAt(e.Ack.Seq)
		if e.Ack.Seq >= e.Seq || read && h != e.Ack.Hash {
			return l.problem(e.Seq, "names a receipt for record %d that does not fit this ledger", e.Ack.Seq)
		}
	}
	now, err := l.keyAt(e)
	if err != nil && v.makes(checkChange) {
		return l.problem(e.Seq, "%v", err)
	}
	if v.onRecord != nil {
		if err := v.onRecord(e); err != nil {
			return l.problem(e.Seq, "%v", err)
		}
	}
	hash := HashLine(line)
	l.add(e, hash)
	l.signs(now)
	if e.Type == typeGap {
		if err := v.nameGap(e); err != nil {
			return err
		}
	}
	if !fits {
		v.unfitted = &unfitted{l, e.Seq, hash}
		return nil
	}
	return v.settle(l)
}

// place finds the log that a record goes on or begins. A record may leave
// others out: a gap record has to name them later.
func (v *Verifier) place(e Entry) (*verified, error) {
	if v.ring == nil {
		return nil, &Problem{Log: e.Log, Seq: e.Seq, What: "stands before the certificate of its terminal"}
	}
	if e.Log.Terminal() != v.terminal && v.makes(checkOwner) {
		return nil, &Problem{Log: e.Log, Seq: e.Seq, What: fmt.Sprintf("is of another terminal than the certificate's, %q", v.terminal)}
	}
	l := v.running()
	switch {
	case l != nil && e.Prev == l.lastHash() && (e.Log != l.log || e.Seq != l.last+1):
		return nil, l.problem(l.last+1, "was changed: it names the line before it, but as record %d of %s", e.Seq, e.Log)
	case l == nil || e.Log != l.log:
		return v.begin(e)
	case e.Seq <= l.last:
		return nil, l.problem(e.Seq, "stands here again, after record %d", l.last)
	}
	return l, nil
}

// begin starts a log. A cut that stands before its first record says that the
// records up to there were let go; in the end a receipt must cover them.
func (v *Verifier) begin(e Entry) (*verified, error) {
	l := &verified{log: e.Log, keyKnown: v.keyKnown, ring: v.ring, now: inForce{unsure: e.Seq > 1}}
	if v.find(e.Log) != nil {
		return nil, l.problem(e.Seq, "begins this log a second time")
	}
	if e.Seq == 1 && e.Prev != (Hash{}) && v.makes(checkLinks) {
		return nil, l.problem(1, "names a line before it")
	}
	for _, c := range v.cuts {
		l.letGo(e, c)
	}
	if !v.makes(checkCuts) {
		for _, h := range v.openings {
			l.letGo(e, h)
		}
	}
	v.logs = append(v.logs, l)
	return l, v.settle(l)
}

// whichIsWrong looks at the line after a record that did not name the one
// before it. If that line vouches for the record, the one before was changed.
func (v *Verifier) whichIsWrong(line []byte) error {
	u := v.unfitted
	if e, err := ParseLine(line); err == nil && e.Log == u.log.log && e.Seq == u.seq+1 && e.Prev == u.hash {
		return u.log.problem(u.seq-1, "was changed: record %d names another hash", u.seq)
	}
	if h, _, err := v.ring.OpenHead(line); err == nil && h.Log == u.log.log && h.Seq == u.seq && h.Hash == u.hash {
		return u.log.problem(u.seq-1, "was changed: record %d names another hash", u.seq)
	}
	return u.problem()
}

func (u *unfitted) problem() error {
	return u.log.problem(u.seq, "does not name the line before it: one of the two was changed")
}

// settle answers receipts that stood before the record they name.
func (v *Verifier) settle(l *verified) error {
	if v.trust == nil {
		return nil
	}
	var err error
	v.early = slices.DeleteFunc(v.early, func(r Receipt) bool {
		if r.Log != l.log || r.Seq != l.last {
			return false
		}
		if err == nil {
			err = v.seal(l, r)
		}
		return true
	})
	return err
}

func (v *Verifier) head(line []byte) error {
	if v.ring == nil {
		return &Problem{What: "a head stands before the certificate"}
	}
	h, by, err := v.ring.OpenHead(line)
	if err != nil && v.makes(checkHeads) {
		return v.problem(0, "head: %v", err)
	}
	if h.Log.Terminal() != v.terminal {
		return v.problem(0, "the head after it is for %s, which the key of %q does not sign for", h.Log, v.terminal)
	}
	l := v.find(h.Log)
	if l == nil {
		v.openings = append(v.openings, h)
		return nil
	}
	if h.Seq > l.last {
		return l.problem(l.last+1, "is missing: a head signs for record %d", h.Seq)
	}
	if place := l.placeAt(h.Seq); (by < place || l.ring != v.ring) && v.makes(checkKeys) {
		return l.problem(h.Seq, "head: %v: the key %s was in force", ErrRetired, l.ring.ID(place))
	}
	got, read := l.hashAt(h.Seq)
	if read && got != h.Hash && v.makes(checkHeads) {
		return l.problem(h.Seq, "is not what its head was signed for")
	}
	if in := l.runOf(h.Seq); in != nil {
		in.Signed = max(in.Signed, h.Seq)
		l.signed = max(l.signed, h.Seq)
	}
	return nil
}

// cut takes the terminal's word for what it let go. It counts for a log that
// begins after it.
func (v *Verifier) cut(line []byte) error {
	if v.ring == nil {
		return &Problem{What: "a cut stands before the certificate"}
	}
	c, err := v.ring.OpenCut(line)
	if err != nil && v.makes(checkHeads) {
		return v.problem(0, "cut: %v", err)
	}
	if c.Log.Terminal() != v.terminal {
		return v.problem(0, "the cut after it is for %s, which the key of %q does not sign for", c.Log, v.terminal)
	}
	v.cuts = append(v.cuts, c)
	return nil
}

func (v *Verifier) receipt(line []byte) error {
	r, err := v.openReceipt(line)
	if err != nil && v.makes(checkReceipts) {
		return v.problem(0, "receipt: %v", err)
	}
	l := v.find(r.Log)
	if l == nil || r.Seq > l.last {
		v.early = append(v.early, r)
		return nil
	}
	if v.trust == nil {
		return nil // no key to check it with: the report says own word
	}
	return v.seal(l, r)
}

// openReceipt reads a receipt and, if the centre's key is known, checks it.
func (v *Verifier) openReceipt(line []byte) (r Receipt, err error) {
	if v.trust != nil && v.makes(checkReceipts) {
		return OpenReceipt(v.trust.Receipt, line)
	}
	payload, err := payloadOf(line)
	if err != nil {
		return r, err
	}
	if json.Unmarshal(payload, &r) != nil {
		return r, ErrMalformed
	}
	return r, nil
}

func (v *Verifier) seal(l *verified, r Receipt) error {
	if err := l.seal(r); err != nil && v.makes(checkReceipts) {
		return err
	}
	return nil
}

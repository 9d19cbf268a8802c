package chain

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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

// Epoch is what a verifier found in one log.
type Epoch struct {
	Log      LogID
	First    Seq
	Last     Seq
	Signed   Seq // covered by a head of the terminal's ledger key
	Sealed   Seq // covered by a receipt of the centre; 0 if none
	SealedAt Wall
	KeyKnown bool // the ledger key's certificate was checked against a trusted centre
}

// String is the sentence an auditor reads.
func (e Epoch) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "verified %s", span(e.First, e.Last))
	if e.Sealed > 0 {
		fmt.Fprintf(&b, "; sealed to %d at %s (centre)", e.Sealed, e.SealedAt)
	}
	if e.Sealed < e.Last {
		fmt.Fprintf(&b, "; own word %s", span(max(e.Sealed+1, e.First), e.Last))
	}
	if !e.KeyKnown {
		b.WriteString("; key taken from the file itself")
	}
	return b.String()
}

func span(first, last Seq) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// Verifier checks an export line by line: records, heads, receipts and the
// terminal's certificate, each record after the certificate and before its
// head, receipts in any place. It holds 32 bytes for every record. It belongs
// to one goroutine.
type Verifier struct {
	trust    *Trust
	onRecord func(Entry) error

	key      crypto.PublicKey // of the last certificate line
	terminal TerminalID
	keyKnown bool

	logs  []*verified // in the order they began; the last one is running
	early []Receipt   // read before the record they name
}

// verified is one log as far as it was read.
type verified struct {
	Epoch
	hashes []Hash // from record 1
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
	switch {
	case bytes.HasPrefix(line, []byte(`{"certificate":`)):
		return v.certificate(line)
	case bytes.HasPrefix(line, []byte("{")):
		return v.record(line)
	}
	h, err := peek(line)
	if err != nil {
		return v.problem(1, "a line that is neither record, head, receipt nor certificate stands in its place")
	}
	if h.Typ == PurposeReceipt {
		return v.receipt(line)
	}
	return v.head(line)
}

// Report ends the check. It returns what was found in each epoch, and a
// [*Problem] if the file ends where it should not.
func (v *Verifier) Report() ([]Epoch, error) {
	if len(v.logs) == 0 {
		return nil, &Problem{What: "the file holds no record"}
	}
	var epochs []Epoch
	for _, l := range v.logs {
		if l.Signed < l.Last {
			return epochs, l.problem(l.Signed+1, "carries no signature: no head covers %s", span(l.Signed+1, l.Last))
		}
		epochs = append(epochs, l.Epoch)
	}
	for _, r := range v.early {
		return epochs, &Problem{Log: r.Log, Seq: r.Seq, What: fmt.Sprintf("is missing: the centre's receipt of %s names it", r.At)}
	}
	return epochs, nil
}

func (l *verified) problem(seq Seq, format string, args ...any) error {
	return &Problem{Log: l.Log, Seq: seq, What: fmt.Sprintf(format, args...)}
}

// problem is one of the record that is ahead of the last one read by so many.
func (v *Verifier) problem(ahead Seq, format string, args ...any) error {
	if l := v.running(); l != nil {
		return l.problem(l.Last+ahead, format, args...)
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
	i := slices.IndexFunc(v.logs, func(l *verified) bool { return l.Log == log })
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
		if err := v.trust.Check(cert, terminal, RoleLedger); err != nil {
			return &Problem{What: err.Error()}
		}
		v.keyKnown = true
	}
	v.key, v.terminal = cert.PublicKey, terminal
	return nil
}

func (v *Verifier) record(line []byte) error {
	e, err := ParseLine(line)
	if err != nil {
		return v.problem(1, "%v", err)
	}
	if err := v.owner(e); err != nil {
		return err
	}
	l := v.running()
	if l == nil || e.Log != l.Log || e.Seq == 1 {
		if l, err = v.begin(e); err != nil {
			return err
		}
	} else if !follows(e, l.Log, l.Last, l.hashes[len(l.hashes)-1]) {
		return l.notNext(e)
	}
	if e.Ack != nil {
		if h, ok := l.hashAt(e.Ack.Seq); !ok || h != e.Ack.Hash {
			return l.problem(e.Seq, "names a receipt for record %d that does not fit this ledger", e.Ack.Seq)
		}
	}
	if v.onRecord != nil {
		if err := v.onRecord(e); err != nil {
			return l.problem(e.Seq, "%v", err)
		}
	}
	l.Last = e.Seq
	l.hashes = append(l.hashes, HashLine(line))
	return v.settle(l)
}

// owner checks that a record is of the terminal whose certificate was read:
// the key of another must never sign for it.
func (v *Verifier) owner(e Entry) error {
	if v.key == nil {
		return &Problem{Log: e.Log, Seq: e.Seq, What: "stands before the certificate of its terminal"}
	}
	if e.Log.Terminal() != v.terminal {
		return &Problem{Log: e.Log, Seq: e.Seq, What: fmt.Sprintf("is of another terminal than the certificate's, %q", v.terminal)}
	}
	return nil
}

// begin starts a log with its record 1.
func (v *Verifier) begin(e Entry) (*verified, error) {
	if v.find(e.Log) != nil {
		return nil, &Problem{Log: e.Log, Seq: e.Seq, What: "begins this log a second time"}
	}
	l := &verified{Epoch: Epoch{Log: e.Log, First: 1, KeyKnown: v.keyKnown}}
	if e.Seq != 1 || e.Prev != (Hash{}) {
		return nil, l.problem(1, "is missing: the ledger begins with record %d", e.Seq)
	}
	v.logs = append(v.logs, l)
	return l, nil
}

// settle answers receipts that stood before the record they name.
func (v *Verifier) settle(l *verified) error {
	var err error
	v.early = slices.DeleteFunc(v.early, func(r Receipt) bool {
		if r.Log != l.Log || r.Seq != l.Last {
			return false
		}
		if err == nil {
			err = l.seal(r)
		}
		return true
	})
	return err
}

func (l *verified) notNext(e Entry) error {
	want := l.Last + 1
	if e.Seq != want {
		return l.problem(want, "is missing: record %d stands in its place", e.Seq)
	}
	return l.problem(want, "does not name the line before it: one of the two was changed")
}

func (v *Verifier) head(line []byte) error {
	if v.running() == nil {
		return &Problem{What: "a head stands before the first record"}
	}
	h, err := OpenHead(v.key, line)
	if err != nil {
		return v.problem(0, "head: %v", err)
	}
	l := v.find(h.Log)
	if l == nil || h.Log.Terminal() != v.terminal {
		return v.problem(0, "the head after it is for %s, which the key of %q does not sign for here", h.Log, v.terminal)
	}
	if h.Seq > l.Last {
		return l.problem(l.Last+1, "is missing: a head signs for record %d", h.Seq)
	}
	if got, ok := l.hashAt(h.Seq); !ok || got != h.Hash {
		return l.problem(h.Seq, "is not what its head was signed for")
	}
	l.Signed = max(l.Signed, h.Seq)
	return nil
}

func (v *Verifier) receipt(line []byte) error {
	if v.trust == nil {
		return nil // no key to check it with: the report says own word
	}
	r, err := OpenReceipt(v.trust.Receipt, line)
	if err != nil {
		return v.problem(0, "receipt: %v", err)
	}
	l := v.find(r.Log)
	if l == nil || r.Seq > l.Last {
		v.early = append(v.early, r)
		return nil
	}
	return l.seal(r)
}

func (l *verified) seal(r Receipt) error {
	if h, ok := l.hashAt(r.Seq); !ok || h != r.Hash {
		return l.problem(r.Seq, "is not what the centre stored: its receipt of %s names another hash", r.At)
	}
	if r.Seq > l.Sealed {
		l.Sealed, l.SealedAt = r.Seq, r.At
	}
	return nil
}

func (l *verified) hashAt(seq Seq) (Hash, bool) {
	if seq < 1 || seq > Seq(len(l.hashes)) {
		return Hash{}, false
	}
	return l.hashes[seq-1], true
}

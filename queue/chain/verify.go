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
// terminal's certificate in any place, each record before its head. It holds
// 32 bytes for every record. It belongs to one goroutine.
type Verifier struct {
	trust    *Trust
	onRecord func(Entry) error

	key      crypto.PublicKey
	terminal TerminalID
	keyKnown bool

	done   []Epoch
	epoch  Epoch
	hashes []Hash    // of the running epoch, from First
	early  []Receipt // read before the record they name
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
		return v.problem(v.epoch.Last+1, "a line that is neither record, head, receipt nor certificate")
	}
	if h.Typ == PurposeReceipt {
		return v.receipt(line)
	}
	return v.head(line)
}

// Report ends the check. It returns what was found in each epoch, and a
// [*Problem] if the file ends where it should not.
func (v *Verifier) Report() ([]Epoch, error) {
	if v.epoch.Log == "" {
		return nil, &Problem{What: "the file holds no record"}
	}
	if err := v.closeEpoch(); err != nil {
		return v.done, err
	}
	for _, r := range v.early {
		return v.done, &Problem{Log: r.Log, Seq: r.Seq, What: fmt.Sprintf("is missing: the centre's receipt of %s names it", r.At)}
	}
	return v.done, nil
}

func (v *Verifier) problem(seq Seq, format string, args ...any) error {
	return &Problem{Log: v.epoch.Log, Seq: seq, What: fmt.Sprintf(format, args...)}
}

func (v *Verifier) certificate(line []byte) error {
	var c certificateLine
	if err := json.Unmarshal(line, &c); err != nil {
		return v.problem(0, "the certificate cannot be read")
	}
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return v.problem(0, "the certificate cannot be read")
	}
	terminal := TerminalID(cert.Subject.CommonName)
	if v.trust != nil {
		if _, err := v.trust.LedgerKey(cert, terminal); err != nil {
			return v.problem(0, "%v", err)
		}
		v.keyKnown = true
	}
	v.key, v.terminal = cert.PublicKey, terminal
	return nil
}

func (v *Verifier) record(line []byte) error {
	e, err := ParseLine(line)
	if err != nil {
		return v.problem(v.epoch.Last+1, "%v", err)
	}
	if e.Log != v.epoch.Log {
		if err := v.openEpoch(e); err != nil {
			return err
		}
	} else if !follows(e, v.epoch.Log, v.epoch.Last, v.hashes[len(v.hashes)-1]) {
		return v.notNext(e)
	}
	if e.Ack != nil {
		if h, ok := v.hashAt(e.Ack.Seq); !ok || h != e.Ack.Hash || e.Ack.Seq >= e.Seq {
			return v.problem(e.Seq, "names a receipt for record %d that does not fit this ledger", e.Ack.Seq)
		}
	}
	if v.onRecord != nil {
		if err := v.onRecord(e); err != nil {
			return v.problem(e.Seq, "%v", err)
		}
	}
	v.epoch.Last = e.Seq
	v.hashes = append(v.hashes, HashLine(line))
	return v.settle()
}

// settle answers receipts that stood before the record they name.
func (v *Verifier) settle() error {
	for i, r := range v.early {
		if r.Log == v.epoch.Log && r.Seq == v.epoch.Last {
			v.early = slices.Delete(v.early, i, i+1)
			return v.seal(r)
		}
	}
	return nil
}

func (v *Verifier) notNext(e Entry) error {
	want := v.epoch.Last + 1
	if e.Seq != want {
		return v.problem(want, "is missing: record %d stands in its place", e.Seq)
	}
	return v.problem(want, "does not name the line before it: one of the two was changed")
}

func (v *Verifier) openEpoch(e Entry) error {
	if v.key == nil {
		return &Problem{Log: e.Log, Seq: e.Seq, What: "stands before the certificate of its terminal"}
	}
	if e.Log.Terminal() != v.terminal {
		return &Problem{Log: e.Log, Seq: e.Seq, What: fmt.Sprintf("is of another terminal than the certificate's, %q", v.terminal)}
	}
	if v.epoch.Log != "" {
		if err := v.closeEpoch(); err != nil {
			return err
		}
	}
	v.epoch = Epoch{Log: e.Log, First: e.Seq, KeyKnown: v.keyKnown}
	v.hashes = nil
	if e.Seq != 1 || e.Prev != (Hash{}) {
		return v.problem(1, "is missing: the ledger begins with record %d", e.Seq)
	}
	return nil
}

func (v *Verifier) closeEpoch() error {
	if v.epoch.Signed < v.epoch.Last {
		return v.problem(v.epoch.Signed+1, "carries no signature: no head covers %s", span(v.epoch.Signed+1, v.epoch.Last))
	}
	v.done = append(v.done, v.epoch)
	return nil
}

func (v *Verifier) head(line []byte) error {
	if len(v.hashes) == 0 {
		return v.problem(0, "a head stands before the first record")
	}
	h, err := OpenHead(v.key, line)
	if err != nil {
		return v.problem(v.epoch.Last, "head: %v", err)
	}
	if h.Log != v.epoch.Log || h.Seq != v.epoch.Last || h.Hash != v.hashes[len(v.hashes)-1] {
		return v.problem(v.epoch.Last, "the head after it is signed for other bytes (record %d of %s)", h.Seq, h.Log)
	}
	v.epoch.Signed = h.Seq
	return nil
}

func (v *Verifier) receipt(line []byte) error {
	if v.trust == nil {
		return nil // no key to check it with: the report says own word
	}
	r, err := OpenReceipt(v.trust.Receipt, line)
	if err != nil {
		return v.problem(v.epoch.Last, "receipt: %v", err)
	}
	if r.Log != v.epoch.Log || r.Seq > v.epoch.Last {
		v.early = append(v.early, r)
		return nil
	}
	return v.seal(r)
}

func (v *Verifier) seal(r Receipt) error {
	if h, ok := v.hashAt(r.Seq); !ok || h != r.Hash {
		return v.problem(r.Seq, "is not what the centre stored: its receipt of %s names another hash", r.At)
	}
	if r.Seq > v.epoch.Sealed {
		v.epoch.Sealed, v.epoch.SealedAt = r.Seq, r.At
	}
	return nil
}

func (v *Verifier) hashAt(seq Seq) (Hash, bool) {
	if seq < v.epoch.First || seq >= v.epoch.First+Seq(len(v.hashes)) {
		return Hash{}, false
	}
	return v.hashes[seq-v.epoch.First], true
}

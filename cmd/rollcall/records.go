package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ledgerShow prints records for a person to read, as they stand: it checks no
// chain. Bodies hold the centre's ids and keyed hashes, and nobody's number.
// Receipts count if the centre's key is known: of a directory by the terminal's
// own admission, of a file by -trust.
func ledgerShow(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger show", flag.ContinueOnError)
	seq := flags.Uint64("seq", 0, "the one record to show, whole; all in short if 0")
	trustFile := flags.String("trust", "", "admission file of the centre to believe")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	name := flags.Arg(0)
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("ledger show: %w", err)
	}
	trust, err := trustOf(name, info.IsDir(), *trustFile)
	if err != nil {
		return err
	}
	receipts, err := readReceipts(ctx, name, trust)
	if err != nil {
		return err
	}
	times, err := readTimes(ctx, name, receipts.bounds)
	if err != nil {
		return err
	}
	s := show{stdout: stdout, seq: chain.Seq(*seq), times: times}
	err = eachRecord(ctx, name, s.record)
	if err == nil && !s.found {
		return fmt.Errorf("ledger show: %s holds no such record", name)
	}
	return err
}

// show prints records one after the other.
type show struct {
	stdout io.Writer
	seq    chain.Seq // the one record; 0 means all
	times  *history
	found  bool
	log    chain.LogID // of the last record that was printed
}

func (s *show) record(e chain.Entry, hash chain.Hash) error {
	if s.seq == 0 {
		return s.short(e, hash)
	}
	if e.Seq == s.seq {
		s.found = true
		return s.whole(e, hash)
	}
	if c, ok := correctionOf(e); ok && s.found && c.Log == string(e.Log) && chain.Seq(c.Seq) == s.seq {
		_, err := fmt.Fprintf(s.stdout, "corrected by record %d: %s\n", e.Seq, inWords(c))
		return err
	}
	return nil
}

func (s *show) short(e chain.Entry, hash chain.Hash) error {
	if !s.found || e.Log != s.log {
		fmt.Fprintf(s.stdout, "%s\n", e.Log)
	}
	s.found, s.log = true, e.Log
	when, said := s.times.date(e), inShort(e)
	if when.amiss(e) {
		said += fmt.Sprintf(" (clock %s: formed %s)", e.At.Clock, when.in(e))
	}
	_, err := fmt.Fprintf(s.stdout, "%6d  %s  %s  %-8s  %-8s  %s\n", e.Seq, hash.Short(), e.At.Wall.Format(time.DateTime), s.lag(e, when), e.Type, said)
	return err
}

// lag is how late the centre had a record at most.
func (s *show) lag(e chain.Entry, when dated) string {
	sealed := s.times.receipts(e).to
	if sealed.IsZero() {
		return "own word"
	}
	return fmt.Sprintf("+%d min", when.lag(e, sealed))
}

func (s *show) whole(e chain.Entry, hash chain.Hash) error {
	var body bytes.Buffer
	if err := json.Indent(&body, e.Body, "", "  "); err != nil {
		return err
	}
	when := s.times.date(e)
	fmt.Fprintf(s.stdout, "record %d of %s, %s\ncode %s, hash %s\nformed %s by its own clock (%s), %d ms after boot %s\nformed %s\n",
		e.Seq, e.Log, e.Type, hash.Short(), hash, e.At.Wall, e.At.Clock, e.At.UpMS, e.At.Boot, when.in(e))
	if e.Ack != nil {
		fmt.Fprintf(s.stdout, "not older than the receipt for record %d\n", e.Ack.Seq)
	}
	if sealed := s.times.receipts(e).to; !sealed.IsZero() {
		fmt.Fprintf(s.stdout, "received by the centre at %s, %s\n", chain.NewWall(sealed), s.lag(e, when))
	} else {
		fmt.Fprintln(s.stdout, "own word: no receipt that is believed covers it")
	}
	_, err := fmt.Fprintf(s.stdout, "%s\n", &body)
	return err
}

// trustOf reads the keys to believe: those of a file that is named, else a state
// directory's own.
func trustOf(name string, isDir bool, trustFile string) (*chain.Trust, error) {
	if trustFile == "" && isDir {
		trustFile = filepath.Join(name, "keys", "admission.json")
	}
	return readTrust(trustFile)
}

// readReceipts gives the receipts in a ledger that the centre signed.
func readReceipts(ctx context.Context, name string, trust *chain.Trust) (received, error) {
	found := received{}
	if trust == nil {
		return found, nil
	}
	err := eachPiece(ctx, name, func(line []byte) error {
		if r, err := chain.OpenReceipt(trust.Receipt, line); err == nil {
			found[r.Log] = append(found[r.Log], r)
		}
		return nil
	})
	for _, receipts := range found {
		slices.SortFunc(receipts, func(a, b chain.Receipt) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return found, err
}

// readTimes observes every record of a ledger.
func readTimes(ctx context.Context, name string, receipts func(chain.Entry) bounds) (*history, error) {
	times := newHistory(receipts)
	return times, eachRecord(ctx, name, func(e chain.Entry, _ chain.Hash) error {
		times.observe(e)
		return nil
	})
}

// eachRecord calls f with every record of an export or of the ledger in a state
// directory.
func eachRecord(ctx context.Context, name string, f func(chain.Entry, chain.Hash) error) error {
	return eachPiece(ctx, name, func(line []byte) error {
		if !bytes.HasPrefix(line, []byte(`{"v":`)) {
			return nil
		}
		e, err := chain.ParseLine(line)
		if err != nil {
			return fmt.Errorf("%w: %w", errFound, err)
		}
		return f(e, chain.HashLine(line))
	})
}

// eachPiece calls f with every line of an export or of the ledger in a state
// directory.
func eachPiece(ctx context.Context, name string, f func([]byte) error) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	text, writer := io.Pipe()
	go func() { writer.CloseWithError(openLedger(ctx, name, info.IsDir(), writer)) }()
	defer text.Close()
	return eachLine(text, f)
}

func ledgerExport(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger export", flag.ContinueOnError)
	table := flags.Bool("csv", false, "the records as comma-separated values, for institutions; it proves nothing")
	trustFile := flags.String("trust", "", "with -csv: admission file of the centre to believe")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	if *table {
		return exportCSV(ctx, flags.Arg(0), *trustFile, stdout)
	}
	return eachPiece(ctx, flags.Arg(0), func(line []byte) error {
		_, err := stdout.Write(append(bytes.Clone(line), '\n'))
		return err
	})
}

// exportCSV verifies a ledger and writes its records as a table (RFC 4180), each
// sealed or own word. It writes nothing of a ledger that is not sound.
func exportCSV(ctx context.Context, name, trustFile string, stdout io.Writer) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("ledger export: %w", err)
	}
	trust, err := trustOf(name, info.IsDir(), trustFile)
	if err != nil {
		return err
	}
	// The ledger is read several times: it may grow meanwhile, and only the end
	// of the first reading says what is sealed.
	text, writer := io.Pipe()
	go func() { writer.CloseWithError(openLedger(ctx, name, info.IsDir(), writer)) }()
	_, epochs, err := verify(text, trust, nil)
	text.Close()
	if err != nil {
		return err
	}
	times, err := readTimes(ctx, name, sealedBounds(epochs))
	if err != nil {
		return err
	}
	w := csv.NewWriter(stdout)
	header := []string{"log", "seq", "time", "type", "decision", "trainee", "class", "session", "late_min", "word", "sealed_at", "lag_min", "code",
		"clock", "earliest", "latest", "dated_by", "corrects"}
	if err := w.Write(header); err != nil {
		return err
	}
	err = eachRecord(ctx, name, func(e chain.Entry, hash chain.Hash) error {
		word, sealed := wordFor(epochs, e.Log, e.Seq)
		if word == "" {
			return nil
		}
		return w.Write(row(e, word, sealed, hash, times.date(e)))
	})
	w.Flush()
	if err != nil {
		return err
	}
	return w.Error()
}

// wordFor says whose word a record is, and since when it is the centre's; "" if
// it was not verified.
func wordFor(epochs []chain.Epoch, log chain.LogID, seq chain.Seq) (word string, sealed chain.Wall) {
	for _, e := range epochs {
		for _, s := range e.Stretches {
			if e.Log != log || seq < s.First || seq > s.Last {
				continue
			}
			at, ok := e.SealedAt(seq)
			switch {
			case ok:
				return "sealed", at
			case seq <= s.Signed:
				return "own word", at
			}
			return "no signature", at
		}
	}
	return "", sealed
}

// row is one record as a line of the table. Columns that a record of its type
// does not have are empty. The lag is from the earliest moment at which it may
// have been formed to the first receipt in the file that covers it: at most so
// late did the centre have it.
func row(e chain.Entry, word string, sealed chain.Wall, hash chain.Hash, when dated) []string {
	var c attendance.CheckinBody
	if e.Type == string(attendance.TypeCheckin) {
		c, _ = attendance.ReadBody[attendance.CheckinBody](e.Body) // verify has read it
	}
	late, at, lag, corrects := "", "", "", ""
	if c.Decision == attendance.Late {
		late = strconv.Itoa(c.LateMin)
	}
	if !sealed.IsZero() {
		at, lag = sealed.String(), strconv.Itoa(when.lag(e, sealed.Time))
	}
	if correction, ok := correctionOf(e); ok {
		c.Decision, corrects = correction.Decision, fmt.Sprintf("%s %d", correction.Log, correction.Seq)
	}
	when = when.in(e)
	return []string{string(e.Log), fmt.Sprint(e.Seq), e.At.Wall.String(), e.Type,
		string(c.Decision), string(c.Trainee), string(c.Class), string(c.Session), late, word, at, lag, hash.Short(),
		string(e.At.Clock), moment(when.from), moment(when.to), string(when.by), corrects}
}

// moment writes a time that may not be known.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return chain.NewWall(t).String()
}

// correctionOf reads a correction record; ok is false for any other.
func correctionOf(e chain.Entry) (c attendance.CorrectionBody, ok bool) {
	if e.Type != string(attendance.TypeCorrection) {
		return c, false
	}
	c, err := attendance.ReadBody[attendance.CorrectionBody](e.Body)
	return c, err == nil
}

func inWords(c attendance.CorrectionBody) string {
	return fmt.Sprintf("%s, by %s: %s", c.Decision, c.Operator, c.Reason)
}

// inShort is what a record says, for a line of a list.
func inShort(e chain.Entry) string {
	if c, ok := correctionOf(e); ok {
		of := fmt.Sprintf("of record %d", c.Seq)
		if c.Log != string(e.Log) {
			of += " of " + c.Log
		}
		return of + ": " + inWords(c)
	}
	if e.Type == string(attendance.TypeKey) {
		if k, err := attendance.ReadBody[attendance.KeyBody](e.Body); err == nil {
			return fmt.Sprintf("key %s hands over to %s", k.Old, k.New)
		}
	}
	if e.Type != string(attendance.TypeCheckin) {
		return string(e.Body)
	}
	c, err := attendance.ReadBody[attendance.CheckinBody](e.Body)
	if err != nil {
		return string(e.Body)
	}
	said := string(c.Decision)
	switch {
	case c.Decision == attendance.Late:
		said += fmt.Sprintf(" by %d min", c.LateMin)
	case c.Reason != "":
		said += ": " + string(c.Reason)
	}
	if c.Face != nil {
		said += ", face " + string(c.Face.Level)
	}
	if c.Card == (attendance.CardEvidence{}) { // a face alone
		return fmt.Sprintf("%s %s %s, %s, no card", c.Trainee, c.Class, c.Session, said)
	}
	return fmt.Sprintf("%s %s %s, %s, card %s", c.Trainee, c.Class, c.Session, said, c.Card.Level)
}

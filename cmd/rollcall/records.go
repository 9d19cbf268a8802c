package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// ledgerShow prints records for a person to read, as they stand: it checks
// nothing. Bodies hold the centre's ids and keyed hashes, and nobody's number.
func ledgerShow(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger show", flag.ContinueOnError)
	seq := flags.Uint64("seq", 0, "the one record to show, whole; all in short if 0")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	found, log := false, chain.LogID("")
	err := eachPiece(ctx, flags.Arg(0), func(line []byte) error {
		if !bytes.HasPrefix(line, []byte(`{"v":`)) {
			return nil
		}
		e, err := chain.ParseLine(line)
		if err != nil {
			return fmt.Errorf("%w: %w", errFound, err)
		}
		switch {
		case *seq == 0:
			if !found || e.Log != log {
				fmt.Fprintf(stdout, "%s\n", e.Log)
			}
			found, log = true, e.Log
			fmt.Fprintf(stdout, "%6d  %s  %s  %-8s  %s\n", e.Seq, chain.HashLine(line).Short(), e.At.Wall.Format(time.DateTime), e.Type, inShort(e))
		case chain.Seq(*seq) == e.Seq:
			found = true
			return showWhole(stdout, e, chain.HashLine(line))
		}
		if c, ok := correctionOf(e); ok && found && c.Log == string(e.Log) && c.Seq == *seq {
			_, err = fmt.Fprintf(stdout, "corrected by record %d: %s\n", e.Seq, inWords(c))
		}
		return err
	})
	if err == nil && !found {
		return fmt.Errorf("ledger show: %s holds no such record", flags.Arg(0))
	}
	return err
}

func showWhole(w io.Writer, e chain.Entry, hash chain.Hash) error {
	var body bytes.Buffer
	if err := json.Indent(&body, e.Body, "", "  "); err != nil {
		return err
	}
	fmt.Fprintf(w, "record %d of %s, %s\ncode %s, hash %s\nformed %s (clock %s), %d ms after boot %s\n",
		e.Seq, e.Log, e.Type, hash.Short(), hash, e.At.Wall, e.At.Clock, e.At.UpMS, e.At.Boot)
	if e.Ack != nil {
		fmt.Fprintf(w, "not older than the receipt for record %d\n", e.Ack.Seq)
	}
	_, err := fmt.Fprintf(w, "%s\n", &body)
	return err
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
	if trustFile == "" && info.IsDir() {
		trustFile = filepath.Join(name, "keys", "admission.json")
	}
	trust, err := readTrust(trustFile)
	if err != nil {
		return err
	}
	// The ledger is read twice: it may grow meanwhile, and only the end of the
	// first reading says what is sealed.
	text, writer := io.Pipe()
	go func() { writer.CloseWithError(openLedger(ctx, name, info.IsDir(), writer)) }()
	_, epochs, err := verify(text, trust, nil)
	text.Close()
	if err != nil {
		return err
	}
	w := csv.NewWriter(stdout)
	header := []string{"log", "seq", "time", "type", "decision", "trainee", "class", "session", "late_min", "word", "sealed_at", "lag_min", "code"}
	if err := w.Write(header); err != nil {
		return err
	}
	err = eachPiece(ctx, name, func(line []byte) error {
		if !bytes.HasPrefix(line, []byte(`{"v":`)) {
			return nil
		}
		e, err := chain.ParseLine(line)
		if err != nil {
			return err
		}
		word, sealed := wordFor(epochs, e.Log, e.Seq)
		if word == "" {
			return nil
		}
		return w.Write(row(e, word, sealed, chain.HashLine(line)))
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
// does not have are empty. The lag is from the record's own clock to the first
// receipt in the file that covers it: at most so late did the centre have it.
func row(e chain.Entry, word string, sealed chain.Wall, hash chain.Hash) []string {
	var c attendance.CheckinBody
	if e.Type == string(attendance.TypeCheckin) {
		c, _ = attendance.ReadBody[attendance.CheckinBody](e.Body) // verify has read it
	}
	late, at, lag := "", "", ""
	if c.Decision == attendance.Late {
		late = strconv.Itoa(c.LateMin)
	}
	if !sealed.IsZero() {
		at, lag = sealed.String(), strconv.Itoa(int(sealed.Sub(e.At.Wall.Time).Minutes()))
	}
	return []string{string(e.Log), fmt.Sprint(e.Seq), e.At.Wall.String(), e.Type,
		string(c.Decision), string(c.Trainee), string(c.Class), string(c.Session), late, word, at, lag, hash.Short()}
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

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue/chain"
)

// The book is written down now and then, with the record that it goes up to, so
// that a start reads the records after that one and not a year of them. Without
// it, or with one that is damaged or does not fit the ledger, all are read.
const (
	bookName = "book"
	// bookEvery is after how many records it is written down again: as many as a
	// start reads at most.
	bookEvery = 2048
	// bookKeeps is how many of the last records it remembers check-ins and codes
	// of, beside those of sessions that a package names.
	bookKeeps = 8192
)

// recallBook rebuilds what the ledger says.
func (d *daemon) recallBook() error {
	defer debug.FreeOSMemory() // of the files that were read
	book, seen, err := loadBook(d.bookFile())
	if err == nil {
		d.book, d.booked = book, seen
		ok, err := d.ledger.EachSince(seen, d.observe)
		if ok || err != nil {
			return readingLedger(err)
		}
	}
	d.log.Info("the whole ledger is read", "err", err)
	d.book, d.booked = attendance.NewBook(), chain.Link{}
	return readingLedger(d.ledger.Each(d.observe))
}

func readingLedger(err error) error {
	if err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	return nil
}

func (d *daemon) observe(e chain.Entry) error {
	if err := d.book.Observe(uint64(e.Seq), attendance.RecordType(e.Type), e.Body); err != nil {
		// What stands there is evidence for the auditor, no reason to turn a class away.
		d.log.Error("record does not hold", "seq", e.Seq, "err", err)
	}
	return nil
}

// keepBook writes the book down after every so many records, and at the start
// if so many were read.
func (d *daemon) keepBook(ctx context.Context) error {
	for {
		changed := d.ledger.Changed()
		end := d.ledger.End()
		if end.Log != d.booked.Log || end.Seq >= d.booked.Seq+bookEvery {
			if err := d.writeBook(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("the book was not written down: the next start reads more records", "err", err)
				d.booked = end // not again for each record
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (d *daemon) writeBook(ctx context.Context) error {
	var text []byte
	var seen chain.Link
	var err error
	asked := d.terminal.Consult(ctx, func(b *attendance.Book) { // who stores every record that the book is about
		seen = d.ledger.End()
		if uint64(seen.Seq) > bookKeeps {
			b.Forget(d.packages.names, uint64(seen.Seq)-bookKeeps)
		}
		text, err = b.Memory()
	})
	if err = errors.Join(asked, err); err != nil {
		return err
	}
	if err := saveBook(d.bookFile(), seen, text); err != nil {
		return err
	}
	d.booked = seen
	return nil
}

func (d *daemon) bookFile() string { return filepath.Join(d.cfg.State, bookName) }

// saveBook writes three parts, each on its line: the SHA-256 of the rest, the
// record, the book.
func saveBook(path string, seen chain.Link, book []byte) error {
	mark, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	rest := append(append(mark, '\n'), book...)
	return device.WriteDurable(path, append(bookSum(rest), rest...), 0o600)
}

func bookSum(rest []byte) []byte {
	sum := sha256.Sum256(rest)
	return append(hex.AppendEncode(nil, sum[:]), '\n')
}

var errBook = errors.New("the file with the book is damaged")

func loadBook(path string) (*attendance.Book, chain.Link, error) {
	var seen chain.Link
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, seen, err
	}
	rest := text[min(len(text), 2*sha256.Size+1):]
	mark, book, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || !bytes.HasPrefix(text, bookSum(rest)) || json.Unmarshal(mark, &seen) != nil {
		return nil, seen, errBook
	}
	b, err := attendance.RecallBook(book)
	return b, seen, err
}

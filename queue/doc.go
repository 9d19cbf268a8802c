// Package queue is the terminal's ledger and outbox: a record is on disk when
// [Ledger.Append] returns, and is let go only against the centre's signed
// receipt.
//
// It promises that records keep the order in which they were stored, that
// their sequence has no gaps, that what stands in the file was checked against
// the terminal's key when it was opened, and that a disk that may have lied
// ends the process instead of the records. It never deletes, reorders or
// re-encodes a line, and it never empties a file to recover.
//
// One process has the ledger open at a time. Within it every method may be
// called from several goroutines at once; one goroutine, [Ledger.Run], writes
// records. Lines, heads and receipts are those of queue/chain
// (docs/record.md). The store is one bbolt file, ledger.db, in the state
// directory; ledger.last beside it outlives its loss.
package queue

// Package queue is the terminal's ledger and outbox: a record is on disk when
// [Ledger.Append] returns, and is let go only against the centre's signed
// receipt.
//
// It promises that records keep the order in which they were stored, that no
// sequence number is used twice or missing without a record that names it, that
// no line is given out which was not checked against the next one or a
// signature, and that a disk that may have lied ends the process instead of
// the records. It never reorders or re-encodes a line, never empties a file to
// recover, and deletes only what the centre has had for the retention.
//
// One process has the ledger open at a time. Within it every method may be
// called from several goroutines at once; one goroutine, [Ledger.Run], writes
// records. Lines, heads and receipts are those of queue/chain
// (docs/record.md). The store is the directory ledger in the state directory,
// of bbolt files that are only added to (docs/decisions/10-store.md);
// ledger.last beside it outlives its loss.
package queue

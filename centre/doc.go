// Package centre is the reference central system: it admits terminals, takes
// in their records, answers with signed receipts, and sends class packages.
//
// What it promises. A record is in the database, durably, before a receipt for
// it is signed and, on its own [Listener], before the MQTT acknowledgement is
// sent. Records of a log are stored once, in order and only if they continue
// the hash chain under the terminal's own key. What does not fit is set aside
// in quarantine with an alarm and never overwrites anything. Any batch that was
// not expected is answered with the current receipt, so that the terminal
// rewinds or skips.
//
// Who may call it: a [Centre] may be used from several goroutines, and several
// processes, on several machines with PostgreSQL, may open the same database
// with copies of the same keys (the command line tools do, beside a running
// server); the database serialises them.
//
// What it refuses: it never alters or deletes a record, never prints a card or
// person number, and keeps no number at all: a class file's numbers are hashed
// with the lookup key of the class and terminal and then forgotten.
//
// Formats are those of package chain; MQTT is 3.1.1 (OASIS, 2014) over TLS 1.3.
package centre

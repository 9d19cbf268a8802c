// Package chain is the record format both ends of the wire and the offline
// verifier agree on: lines, the hash chain, signed heads, the centre's
// receipts, and who signs what. docs/record.md specifies the bytes and has
// vectors that this package's tests read.
//
// It is pure: standard library only, no room of the house, no clock, no file.
// Everything in it may be called from several goroutines at once, except a
// [Verifier], which belongs to one.
//
// A ledger is text: one record per line, compact JSON. The bytes of the line
// are the truth; they are hashed, stored, sent and exported as they were
// formed, and never encoded again. Signatures are JWS in compact form (RFC
// 7515) with EdDSA (RFC 8037) or ES256 (RFC 7518), so a stock JOSE library and a
// SHA-256 check an export with no server. The algorithm follows from the key,
// never from the signature's header, and the key from the certificate: its own,
// or one that handovers lead to ([Ring]).
//
// What it promises: up to the centre's last receipt a line that was altered,
// removed, inserted, reordered or back-dated is found by anyone who has the
// centre's public keys. After it the lines are the key holder's own word, and
// the report says so.
package chain

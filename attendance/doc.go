// Package attendance holds the words of the trade and the rules that turn a
// tap into a record: what a trainee, a session, a roster and a decision are,
// and what the screen says about them.
//
// It is pure. It imports the standard library only, reads no clock, opens no
// file and starts no goroutine, so the same code answers at the terminal (for
// feedback), at the centre and in the offline verifier (for money). The one
// loop it holds, [Terminal], acts through four small interfaces declared
// beside it and reads from top to bottom like the path of one tap.
//
// Values about people (card numbers, person numbers, names) have types that
// print as "***" whatever the verb; reading one takes a call to Reveal.
package attendance

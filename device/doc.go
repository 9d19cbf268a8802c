// Package device is this box: its keys and the centre's admission, how far its
// clock can be trusted, what is plugged in and comes back, and how it feels.
//
// What it promises: private keys never leave their files and never print; a
// file written with [WriteDurable] is there after a power cut, whole, old or
// new; a [Clock] never claims more than the kernel and its own eyes saw; a
// part that failed is named with what to do about it, and its return counted.
//
// [Keys], [Clock] and [Health] may be used from several goroutines at once.
// Nothing here decides about attendance, opens a card or sees a picture.
package device

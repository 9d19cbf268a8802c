// Package simulator gives the parts of a classroom that are not there when
// Rollcall is built, shown or tested: cards, readers, cameras, people, brokers
// that fail, and a whole class that arrives.
//
// Its parts stand at the lowest seam there is, so that what is above them is
// the real thing: virtual cards and PSAMs behind Debian's own pcscd and vpcd
// ([Pcscd], [Slot]), people before a camera that speaks MJPEG over HTTP
// ([Camera]), cuts and delays on a TCP connection. Each part behaves: it refuses
// what the real one refuses, takes the time that the real one takes if it is
// asked to ([Line]), and fails in the ways that are set on it ([CardFaults]).
// Cards and PSAMs are checked against dialogues transcribed from public sources
// (reader/testdata/spec-*) before a reader is tested against them.
//
// Everybody here is invented, by numbers of a region that does not exist, or
// comes from a picture that NOTICE names. The keys of virtual PSAMs stand in the
// source. Nothing here is evidence of how accurate faces are, or that a card
// of a given region behaves so.
//
// The daemon never imports this package; cmd/rollcall-sim and outer tests do.
// Methods may be called at once unless they say otherwise; fields are set
// before a part starts. The virtual readers listen on all interfaces: this is
// for build machines, never for a terminal in service.
//
// Cards follow ISO 7816-3 and 7816-4 as far as reading needs them, and the
// public application of the social security card.
package simulator

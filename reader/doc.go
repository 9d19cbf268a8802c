// Package reader turns a device's bytes into a credential: what a card
// answers to APDUs becomes an [attendance.Credential], or an error that says
// in one of few ways why not.
//
// It promises that a card, however it answers, costs a bounded number of
// commands ([CommandBudget]) and of bytes, that nothing it reports but the
// credential holds card data, and that it never sends a PIN: public programs
// try default PINs, and that can lock a citizen's card.
//
// What a card looks like is a [Profile], which is data (JSON), so a region
// that does it otherwise is a file and not code. Profiles are read-only after
// parsing and may be shared; a [Card] belongs to one goroutine.
//
// The package opens no device. Drivers stand below it (reader/pcsc,
// reader/serial) and give it a [Transmitter] or bytes. Commands follow ISO
// 7816-4; files and records follow the public application of the social
// security card, versions 1.00 to 3.00. A 3.00 card opens its holder's file to a
// [PSAM] only, and without one gives a partial credential, which is not an
// error.
//
// A credential's level is earned, never assumed: file is data that anybody can
// copy, opened means that the card accepted the PSAM (a copy may say so too),
// and authenticated that it answered random bytes of ours as the PSAM does. Where
// no public source says how (SM4, SSF33) the level stays as it is.
package reader

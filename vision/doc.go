// Package vision answers one question of the terminal, "is this that person?",
// from what the camera worker sees.
//
// [Checker] starts the worker process (cmd/rollcall-vision), watches it, kills
// it when it hangs and brings it back; it opens the camera at a tap, matches
// in plain Go and closes the camera again. [Gallery] keeps the templates,
// sealed, one file each. [Manifest] names the nets and their sums. The
// worker's protocol is in protocol.go.
//
// It promises: Open and Close never block; a look carries a match only for a
// frame that was taken after that look was asked for; a template is used only
// if it is the one that the ledger's enrolment names; embeddings and pictures
// are never written in clear and print as "***".
//
// Checker and Gallery may be called from several goroutines at once. The
// package needs no C: OpenCV stands behind vision/opencv, which only the
// worker and tests import.
package vision

// Package panel is the screen of a terminal: a page for a kiosk browser on the
// same box, served on loopback, embedded in the binary, with no file from
// anywhere else.
//
// What it promises: [Panel.Show] and [Panel.Preview] never wait for a browser;
// every screen shown reaches every connected page in order, and a page that
// comes late or falls behind gets the newest one; a camera picture is passed
// on only while a person is asked to look, newest wins, and none is kept. The
// page finds back by itself when the daemon was away.
//
// What it refuses: addresses other than loopback, requests for other host
// names (DNS rebinding), requests from other origins, and any name but the
// masked one the centre sent.
//
// Beside the page it answers /livez, /readyz and /healthz. All methods of
// [Panel] may be called from several goroutines at once.
package panel

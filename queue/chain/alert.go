package chain

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// PurposeAlert is of an [Alert], by the terminal's ledger key.
const PurposeAlert Purpose = "rollcall-alert"

// MaxAlert bounds an alert as it is sent, in bytes. Real ones have under 500, and
// 400 more for each handover.
const MaxAlert = 8 << 10

// AlertKind names what is wrong at a terminal. A centre takes kinds that it
// does not know, by their plain names.
type AlertKind string

const (
	AlertEpochBreak   AlertKind = "epoch_break"    // the ledger was begun anew; Code is the open record's reason
	AlertGap          AlertKind = "gap"            // records that the centre has not were lost here
	AlertLedger       AlertKind = "ledger"         // records wait: Code is warn, alarm or full
	AlertDisk         AlertKind = "disk"           // the disk is full
	AlertCamera       AlertKind = "camera_suspect" // the picture is frozen, repeats, or comes from elsewhere
	AlertForgedDown   AlertKind = "forged_down"    // something came down that the centre did not sign; Code says what
	AlertWrongReceipt AlertKind = "wrong_receipt"  // a receipt does not fit this ledger
	AlertCertificate  AlertKind = "certificate"    // the uplink certificate: Code is expiring or expired
)

// AlertKinds lists the kinds that this program's terminals know.
var AlertKinds = []AlertKind{AlertEpochBreak, AlertGap, AlertLedger, AlertDisk, AlertCamera, AlertForgedDown, AlertWrongReceipt, AlertCertificate}

// Alert is the terminal's word that something is wrong with it: a JWS with
// [PurposeAlert] by its ledger key, sent before the records that wait. It
// stands outside the chain and proves no attendance. It comes again with every
// connection and every hour for as long as it holds.
type Alert struct {
	V     int       `json:"v"`
	Log   LogID     `json:"log"`
	Seq   Seq       `json:"seq"` // the last record when it was raised; with Kind it names the alert
	Kind  AlertKind `json:"kind"`
	Code  string    `json:"code,omitempty"` // which, of its kind: a plain name
	Count uint64    `json:"count"`          // how often it happened since it was raised
	Since Wall      `json:"since"`          // when it was raised
	At    Wall      `json:"at"`             // when it was sent
}

// FormAlert joins what is sent: the handovers that lead to the key that signed,
// oldest first, then the alert; newline-separated. The centre may get it before
// the records that tell of a new key. Of more than fit the last are taken.
func FormAlert(jws string, handovers ...string) []byte {
	text := []byte(jws)
	for _, h := range slices.Backward(handovers) {
		if len(h)+1+len(text) > MaxAlert {
			break
		}
		text = append([]byte(h+"\n"), text...)
	}
	return text
}

// OpenAlert checks the signatures and form of what [FormAlert] joined. The ring
// holds the keys known so far and grows by the handovers; by is the place of the
// key that signed. A version that this program does not know is an error that
// says so and unwraps to [ErrMalformed].
func OpenAlert(ring *Ring, text []byte) (a Alert, by int, err error) {
	if len(text) > MaxAlert {
		return a, 0, fmt.Errorf("alert of %d bytes, at most %d: %w", len(text), MaxAlert, ErrMalformed)
	}
	handovers, jws := []string(nil), text
	if end := bytes.LastIndexByte(text, '\n'); end >= 0 {
		handovers, jws = strings.Split(string(text[:end]), "\n"), text[end+1:]
	}
	if err := ring.Follow(handovers...); err != nil {
		return a, 0, err
	}
	payload, by, err := ring.Open(PurposeAlert, jws)
	if err != nil {
		return a, by, err
	}
	a, err = readAs[Alert](PurposeAlert, payload)
	switch {
	case err != nil:
		return a, by, err
	case a.V != 1:
		return a, by, fmt.Errorf("alert of version %d, this program knows 1: %w", a.V, ErrMalformed)
	case a.Log.Terminal() == "" || !plainName(string(a.Kind)) || a.Code != "" && !plainName(a.Code):
		return a, by, fmt.Errorf("alert: %w", ErrMalformed)
	}
	return a, by, nil
}

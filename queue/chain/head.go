package chain

import (
	"crypto"
	"encoding/json"
	"fmt"
)

// Head is the terminal's signed word that its ledger runs to a line: a JWS
// with [PurposeHead] by the terminal's ledger key. It stands after the record
// it covers, outside the chain, and may be dropped once a later one covers it.
type Head struct {
	Log  LogID `json:"log"`
	Seq  Seq   `json:"seq"`
	Hash Hash  `json:"hash"`
	Wall Wall  `json:"wall"`
}

// Receipt is the centre's signed word that it stored everything up to a line:
// a JWS with [PurposeReceipt] by the centre's receipt key. It is cumulative.
type Receipt struct {
	Log  LogID `json:"log"`
	Seq  Seq   `json:"seq"`
	Hash Hash  `json:"hash"`
	At   Wall  `json:"at"`
}

// OpenReceipt checks a receipt's signature. Whether Hash is the hash of the
// terminal's own line is for the caller to compare before believing it.
func OpenReceipt(pub crypto.PublicKey, jws []byte) (Receipt, error) {
	payload, err := Open(pub, PurposeReceipt, jws)
	if err != nil {
		return Receipt{}, err
	}
	return readReceipt(payload)
}

func readHead(payload []byte) (h Head, err error) {
	s := scanner{text: payload}
	var ok bool
	if h.Log, h.Seq, h.Hash, h.Wall, ok = s.mark("wall"); ok {
		return h, nil
	}
	return readAs[Head](PurposeHead, payload)
}

func readReceipt(payload []byte) (r Receipt, err error) {
	s := scanner{text: payload}
	var ok bool
	if r.Log, r.Seq, r.Hash, r.At, ok = s.mark("at"); ok {
		return r, nil
	}
	return readAs[Receipt](PurposeReceipt, payload)
}

// readAs reads a payload that another JOSE library may have written: in any
// order, with spaces, with names that we do not know.
func readAs[T any](purpose Purpose, payload []byte) (v T, err error) {
	if err := json.Unmarshal(payload, &v); err != nil || !plainNames(payload) {
		return v, fmt.Errorf("%s: payload: %w", purpose, ErrMalformed)
	}
	return v, nil
}

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

// OpenHead checks a head's signature.
func OpenHead(pub crypto.PublicKey, jws []byte) (Head, error) {
	return openAs[Head](pub, PurposeHead, jws)
}

// OpenReceipt checks a receipt's signature. Whether Hash is the hash of the
// terminal's own line is for the caller to compare before believing it.
func OpenReceipt(pub crypto.PublicKey, jws []byte) (Receipt, error) {
	return openAs[Receipt](pub, PurposeReceipt, jws)
}

func openAs[T any](pub crypto.PublicKey, purpose Purpose, jws []byte) (T, error) {
	var v T
	payload, err := Open(pub, purpose, jws)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(payload, &v); err != nil || !plainNames(payload) {
		return v, fmt.Errorf("%s: payload: %w", purpose, ErrMalformed)
	}
	return v, nil
}

package chain

import (
	"crypto"
	"crypto/x509"
	"fmt"
)

// Handover is the word of a terminal's ledger key for the one that signs after
// it: a JWS with [PurposeKey] by the old key. From the key in the certificate
// handovers lead to the key in force, so that a new key needs no new
// certificate, and a certificate that is no beginning of them proves nothing.
type Handover struct {
	Terminal TerminalID `json:"terminal"`
	Key      []byte     `json:"key"` // of the next key: SubjectPublicKeyInfo (RFC 5280 4.1), base64
}

// SignHandover hands a terminal's ledger over to the next key.
func SignHandover(old crypto.Signer, terminal TerminalID, next crypto.PublicKey) (string, error) {
	if _, err := algorithmOf(next); err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(next)
	if err != nil {
		return "", fmt.Errorf("handing the ledger over: %w", err)
	}
	return Sign(old, PurposeKey, Handover{terminal, der})
}

// Follow gives the key that handovers, in order, lead to from a key of this
// terminal. Without any it is the key itself. The error wraps [ErrSignature] or
// [ErrMalformed].
func Follow(key crypto.PublicKey, terminal TerminalID, handovers ...string) (crypto.PublicKey, error) {
	for _, jws := range handovers {
		h, err := openAs[Handover](key, PurposeKey, []byte(jws))
		if err != nil {
			return nil, err
		}
		if h.Terminal != terminal {
			return nil, fmt.Errorf("%s: it is of terminal %q: %w", PurposeKey, h.Terminal, ErrSignature)
		}
		next, err := x509.ParsePKIXPublicKey(h.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: key: %w", PurposeKey, ErrMalformed)
		}
		if _, err := algorithmOf(next); err != nil {
			return nil, err
		}
		key = next
	}
	return key, nil
}

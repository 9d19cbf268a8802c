package chain

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
)

// LookupKeySize is the size of a lookup key in bytes.
const LookupKeySize = 32

// DeriveLookupKey derives the key that hashes card and person numbers for one
// class at one terminal, HKDF-SHA-256 (RFC 5869) over the centre's secret. One
// stolen box opens no other roster. Class "" is the terminal's own key, for
// cards that stand on no roster.
func DeriveLookupKey(centreSecret []byte, terminal TerminalID, class string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, centreSecret, nil, lookupInfo(terminal, class), LookupKeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving a lookup key: %w", err)
	}
	return key, nil
}

// SealLookupKey encrypts a lookup key to a terminal's X25519 sealing key with
// HPKE (RFC 9180: DHKEM X25519, HKDF-SHA-256, AES-256-GCM), so that a broker
// between the two learns nothing from a class package.
func SealLookupKey(sealing []byte, terminal TerminalID, class string, key []byte) ([]byte, error) {
	point, err := ecdh.X25519().NewPublicKey(sealing)
	if err != nil {
		return nil, fmt.Errorf("sealing key of %s: %w", terminal, ErrMalformed)
	}
	pub, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("sealing key of %s: %w", terminal, ErrMalformed)
	}
	return hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(lookupInfo(terminal, class)), key)
}

// OpenLookupKey is the terminal's side of [SealLookupKey].
func OpenLookupKey(sealing *ecdh.PrivateKey, terminal TerminalID, class string, sealed []byte) ([]byte, error) {
	priv, err := hpke.NewDHKEMPrivateKey(sealing)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	key, err := hpke.Open(priv, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(lookupInfo(terminal, class)), sealed)
	if err != nil || len(key) != LookupKeySize {
		return nil, fmt.Errorf("lookup key is not sealed to this terminal for this class: %w", ErrMalformed)
	}
	return key, nil
}

func lookupInfo(terminal TerminalID, class string) string {
	return "rollcall lookup key\x00" + string(terminal) + "\x00" + class
}

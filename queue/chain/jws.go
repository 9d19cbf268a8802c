package chain

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// ErrSignature says that a signature is not by the key it should be by, or not
// over these bytes.
var ErrSignature = errors.New("signature does not verify")

// Purpose is what a signature is for, the "typ" of its header (RFC 8725
// section 3.11). A signature for one purpose never serves another.
type Purpose string

const (
	PurposeHead    Purpose = "rollcall-head"
	PurposeReceipt Purpose = "rollcall-receipt"
	PurposePackage Purpose = "rollcall-package"
	PurposeCode    Purpose = "rollcall-code"
	PurposeCommand Purpose = "rollcall-command"
	PurposeKey     Purpose = "rollcall-key"
	PurposeCut     Purpose = "rollcall-cut"
)

// header is the JWS header. Field order is fixed by the struct, so a header is
// the same bytes each time.
type header struct {
	Alg  string   `json:"alg"`
	Kid  string   `json:"kid"`
	Typ  Purpose  `json:"typ"`
	Crit []string `json:"crit,omitempty"` // extensions a reader must know (RFC 7515 4.1.11): none here
}

// algorithm is how a kind of key signs.
type algorithm struct {
	name   string // "alg" of the header
	sign   func(key crypto.Signer, input []byte) ([]byte, error)
	verify func(pub crypto.PublicKey, input, sig []byte) bool
}

// algorithmOf gives the algorithm that goes with a key, which no header can
// change: EdDSA for Ed25519 (RFC 8037 3.1), ES256 for P-256 (RFC 7518 3.4), the
// one that a TPM 2.0 has. SM2 with SM3 joins here.
func algorithmOf(pub crypto.PublicKey) (algorithm, error) {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return edDSA, nil
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return es256, nil
		}
	}
	return algorithm{}, fmt.Errorf("key of type %T cannot sign records: %w", pub, errors.ErrUnsupported)
}

var edDSA = algorithm{
	name: "EdDSA",
	sign: func(key crypto.Signer, input []byte) ([]byte, error) {
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	},
	verify: func(pub crypto.PublicKey, input, sig []byte) bool {
		return ed25519.Verify(pub.(ed25519.PublicKey), input, sig)
	},
}

// es256Half is the size of r and of s; a signature is the two, big-endian.
const es256Half = 32

var es256 = algorithm{
	name: "ES256",
	sign: func(key crypto.Signer, input []byte) ([]byte, error) {
		digest := sha256.Sum256(input)
		der, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		var point struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &point); err != nil {
			return nil, err
		}
		sig := make([]byte, 2*es256Half)
		point.R.FillBytes(sig[:es256Half])
		point.S.FillBytes(sig[es256Half:])
		return sig, nil
	},
	verify: func(pub crypto.PublicKey, input, sig []byte) bool {
		if len(sig) != 2*es256Half {
			return false
		}
		digest := sha256.Sum256(input)
		r, s := new(big.Int).SetBytes(sig[:es256Half]), new(big.Int).SetBytes(sig[es256Half:])
		return ecdsa.Verify(pub.(*ecdsa.PublicKey), digest[:], r, s)
	},
}

// KeyID is the first 16 hexadecimal digits of the SHA-256 of a public key's
// SubjectPublicKeyInfo. It helps to find a key; it proves nothing.
func KeyID(pub crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8])
}

// Sign makes a JWS in compact form over payload, which must be JSON.
func Sign(key crypto.Signer, purpose Purpose, payload any) (string, error) {
	alg, err := algorithmOf(key.Public())
	if err != nil {
		return "", err
	}
	head, err := json.Marshal(header{Alg: alg.name, Kid: KeyID(key.Public()), Typ: purpose})
	if err != nil {
		return "", fmt.Errorf("signing %s: %w", purpose, err)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return "", fmt.Errorf("signing %s: %w", purpose, err)
	}
	b64 := base64.RawURLEncoding
	input := b64.EncodeToString(head) + "." + b64.EncodeToString(body)
	sig, err := alg.sign(key, []byte(input))
	if err != nil {
		return "", fmt.Errorf("signing %s: %w", purpose, err)
	}
	return input + "." + b64.EncodeToString(sig), nil
}

// Open checks a JWS in compact form against one key and one purpose and gives
// its payload. The header's algorithm must be the key's own.
func Open(pub crypto.PublicKey, purpose Purpose, jws []byte) ([]byte, error) {
	return open(purpose, jws, func(string) crypto.PublicKey { return pub })
}

// open checks a JWS against the key that is known by its key id; nil if none is.
func open(purpose Purpose, jws []byte, known func(kid string) crypto.PublicKey) ([]byte, error) {
	dot := bytes.LastIndexByte(jws, '.')
	if dot < 0 {
		return nil, fmt.Errorf("%s: %w", purpose, ErrMalformed)
	}
	input := jws[:dot]
	head64, payload64, ok := bytes.Cut(input, []byte("."))
	if !ok {
		return nil, fmt.Errorf("%s: %w", purpose, ErrMalformed)
	}
	h, err := readHeader(head64)
	if err != nil || h.Crit != nil {
		return nil, fmt.Errorf("%s: header: %w", purpose, ErrMalformed)
	}
	payload, err := decode64(payload64)
	if err != nil {
		return nil, fmt.Errorf("%s: payload: %w", purpose, ErrMalformed)
	}
	sig, err := decode64(jws[dot+1:])
	if err != nil {
		return nil, fmt.Errorf("%s: signature: %w", purpose, ErrMalformed)
	}
	pub := known(h.Kid)
	if pub == nil {
		return nil, fmt.Errorf("%s: %w", purpose, ErrUnknownKey)
	}
	alg, err := algorithmOf(pub)
	if err != nil {
		return nil, err
	}
	if h.Alg != alg.name || h.Typ != purpose || !alg.verify(pub, input, sig) {
		return nil, fmt.Errorf("%s: %w", purpose, ErrSignature)
	}
	return payload, nil
}

// peek gives the header of a JWS without checking anything.
func peek(jws []byte) (header, error) {
	head64, _, _ := bytes.Cut(jws, []byte("."))
	return readHeader(head64)
}

func readHeader(head64 []byte) (h header, err error) {
	text, err := decode64(head64)
	if err != nil {
		return h, fmt.Errorf("signature header: %w", ErrMalformed)
	}
	s := scanner{text: text}
	if h, ok := s.header(); ok {
		return h, nil
	}
	if json.Unmarshal(text, &h) != nil { // as another JOSE library writes it
		return h, fmt.Errorf("signature header: %w", ErrMalformed)
	}
	return h, nil
}

// KeyIDOf gives the key id that a JWS claims, without checking anything; "" if
// it is none.
func KeyIDOf(jws []byte) string {
	h, err := peek(jws)
	if err != nil {
		return ""
	}
	return h.Kid
}

// payloadOf gives the payload of a JWS without checking anything.
func payloadOf(jws []byte) ([]byte, error) {
	parts := bytes.Split(jws, []byte("."))
	if len(parts) != 3 {
		return nil, ErrMalformed
	}
	return decode64(parts[1])
}

// decode64 is strict base64url without padding. Go's decoder passes over line
// ends; other readers do not.
func decode64(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, ErrMalformed
	}
	return strict64.AppendDecode(nil, text)
}

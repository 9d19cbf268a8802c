package chain

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// ErrUntrusted says that a certificate is not one the centre gave to this
// terminal for this use.
var ErrUntrusted = errors.New("certificate is not trusted")

// Role is the one use of a certificate, its subject's organizational unit. A
// terminal's TLS certificate can never speak for its ledger.
type Role string

const (
	RoleLedger Role = "ledger" // signs heads; long-lived
	RoleUplink Role = "uplink" // TLS client
	RoleCentre Role = "centre" // TLS server
	RoleReader Role = "reader" // TLS client of the centre's read API; never a terminal
)

// Request is what a new terminal tells the centre: public keys only. The
// private keys never leave the box.
type Request struct {
	V        int        `json:"v"`
	Terminal TerminalID `json:"terminal"`
	Ledger   string     `json:"ledger"` // PEM, certificate signing request of the ledger key
	// Handovers lead to the ledger key from the certificate's, where it was changed.
	Handovers []string `json:"handovers,omitempty"`
	Uplink    string   `json:"uplink"` // PEM, certificate signing request of the TLS key
	Sealing   []byte   `json:"sealing"`
}

// Admission is the centre's answer. It holds nothing secret (the lookup key
// is sealed to the terminal), so the same file tells an auditor whom to trust.
type Admission struct {
	V          int        `json:"v"`
	Tenant     string     `json:"tenant"`
	Terminal   TerminalID `json:"terminal"`
	CA         string     `json:"ca"`          // PEM certificate
	Ledger     string     `json:"ledger"`      // PEM certificate, RoleLedger
	Uplink     string     `json:"uplink"`      // PEM certificate, RoleUplink
	ReceiptKey string     `json:"receipt_key"` // PEM public key, pinned
	PackageKey string     `json:"package_key"` // PEM public key, pinned
	// LookupKey keys the hashes of cards that stand on no roster. It is sealed
	// to the terminal with [SealLookupKey], class "".
	LookupKey []byte `json:"lookup_key"`
}

// ValidTenant reports whether a tenant's name may stand in a topic.
func ValidTenant(tenant string) bool { return validName(tenant) }

// Trust is what a reader of records believes beforehand: the centre's keys.
type Trust struct {
	CA      *x509.Certificate
	Receipt crypto.PublicKey
	Package crypto.PublicKey
}

// Trust takes the centre's keys out of an admission.
func (a Admission) Trust() (Trust, error) {
	var t Trust
	var err error
	if t.CA, err = ParseCertificate(a.CA); err != nil {
		return t, fmt.Errorf("centre's authority: %w", err)
	}
	if t.Receipt, err = ParsePublicKey(a.ReceiptKey); err != nil {
		return t, fmt.Errorf("centre's receipt key: %w", err)
	}
	if t.Package, err = ParsePublicKey(a.PackageKey); err != nil {
		return t, fmt.Errorf("centre's package key: %w", err)
	}
	return t, nil
}

// LedgerKey gives the key of a certificate that may sign this terminal's heads.
func (t Trust) LedgerKey(cert *x509.Certificate, terminal TerminalID) (crypto.PublicKey, error) {
	if err := t.Check(cert, terminal, RoleLedger); err != nil {
		return nil, err
	}
	return cert.PublicKey, nil
}

// Check checks that cert was given by the centre's authority to this terminal
// for this use. Validity in time is not judged here: a ledger outlives
// certificates, and each receipt bounds when a key was used. It returns an
// error that wraps [ErrUntrusted].
func (t Trust) Check(cert *x509.Certificate, terminal TerminalID, role Role) error {
	roots := x509.NewCertPool()
	roots.AddCert(t.CA)
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: cert.NotBefore.Add(time.Second),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: not signed by the centre's authority", ErrUntrusted)
	}
	if got := RoleOf(cert); got != role || TerminalID(cert.Subject.CommonName) != terminal {
		return fmt.Errorf("%w: it is the %s certificate of %q", ErrUntrusted, got, cert.Subject.CommonName)
	}
	return nil
}

// RoleOf reads a certificate's role.
func RoleOf(cert *x509.Certificate) Role {
	if len(cert.Subject.OrganizationalUnit) != 1 {
		return ""
	}
	return Role(cert.Subject.OrganizationalUnit[0])
}

// ParseCertificate reads one certificate in PEM.
func ParseCertificate(text string) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return nil, fmt.Errorf("not one PEM certificate: %w", ErrMalformed)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", ErrMalformed)
	}
	return cert, nil
}

// ParsePublicKey reads one public key in PEM (SubjectPublicKeyInfo, RFC 5280).
func ParsePublicKey(text string) (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return nil, fmt.Errorf("not one PEM public key: %w", ErrMalformed)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", ErrMalformed)
	}
	return key, nil
}

// EncodePublicKey is the inverse of [ParsePublicKey].
func EncodePublicKey(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encoding a public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// EncodeCertificate is the inverse of [ParseCertificate].
func EncodeCertificate(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

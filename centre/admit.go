package centre

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"rollcall/queue/chain"
)

// ErrRequest is wrapped by every refusal of a terminal's request.
var ErrRequest = errors.New("request refused")

// maxRequest bounds a terminal's request, in bytes.
const maxRequest = 64 << 10

// Admit takes a terminal's request (the JSON of [chain.Request]) and gives its
// admission. The same request again gives the same ledger certificate and a
// fresh uplink certificate: that is how one is renewed. A known terminal with
// other keys is refused: a person has to find out which box is the right one.
func (c *Centre) Admit(ctx context.Context, request []byte) (chain.Admission, error) {
	var none chain.Admission
	req, err := parseRequest(request)
	if err != nil {
		return none, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return none, fmt.Errorf("admitting %s: %w", req.id, err)
	}
	defer tx.Rollback()
	known, err := findTerminal(ctx, tx, req.id)
	switch {
	case errors.Is(err, ErrRevoked):
		return none, fmt.Errorf("%w: %w. Give the box a new terminal id", ErrRequest, err)
	case errors.Is(err, ErrUnknownTerminal):
		if len(req.handovers) > 0 {
			return none, fmt.Errorf("%w: the ledger key of %s was changed where it was admitted before; make new keys for a new admission", ErrRequest, req.id)
		}
		known, err = c.newTerminal(req)
		if err != nil {
			return none, fmt.Errorf("admitting %s: %w", req.id, err)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO terminals (id, ledger, uplink_key, sealing, admitted) VALUES ($1, $2, $3, $4, $5)",
			string(known.ID), known.Ledger, known.UplinkKey, known.Sealing, millis(c.now()))
		if err != nil {
			return none, fmt.Errorf("admitting %s: %w", req.id, err)
		}
	case err != nil:
		return none, fmt.Errorf("admitting %s: %w", req.id, err)
	}
	same, err := c.has(ctx, tx, known, req)
	if err != nil {
		return none, fmt.Errorf("admitting %s: %w", req.id, err)
	}
	if !same {
		return none, fmt.Errorf("%w: %s is admitted already, with other keys. If the box was set up anew, give it a new terminal id; if not, somebody may be passing off another box as it", ErrRequest, req.id)
	}
	admission, err := c.admission(known, req)
	if err != nil {
		return none, fmt.Errorf("admitting %s: %w", req.id, err)
	}
	if err := tx.Commit(); err != nil {
		return none, fmt.Errorf("admitting %s: %w", req.id, err)
	}
	c.log.InfoContext(ctx, "terminal admitted", "terminal", string(req.id))
	return admission, nil
}

// request is a checked [chain.Request].
type request struct {
	id        chain.TerminalID
	ledger    crypto.PublicKey
	handovers []string // that lead to it, if it is not the first
	uplink    crypto.PublicKey
	sealing   []byte
}

func parseRequest(text []byte) (request, error) {
	var none request
	if len(text) > maxRequest {
		return none, fmt.Errorf("%d bytes, at most %d", len(text), maxRequest)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var req chain.Request
	if err := dec.Decode(&req); err != nil {
		return none, fmt.Errorf("it is not a terminal's request: %w", err)
	}
	if req.V != 1 {
		return none, fmt.Errorf("version %d, this program knows 1", req.V)
	}
	if !req.Terminal.Valid() {
		return none, errors.New("terminal: the id must be 1 to 64 letters, digits or hyphens")
	}
	ledger, err := parseSigningRequest(req.Ledger, req.Terminal, chain.RoleLedger)
	if err != nil {
		return none, err
	}
	if _, err := chain.NewRing(req.Terminal, ledger); err != nil {
		return none, fmt.Errorf("ledger: a key of type %T, must be Ed25519 or on P-256", ledger)
	}
	uplink, err := parseSigningRequest(req.Uplink, req.Terminal, chain.RoleUplink)
	if err != nil {
		return none, err
	}
	if p, ok := uplink.(*ecdsa.PublicKey); !ok || p.Curve != elliptic.P256() {
		return none, fmt.Errorf("uplink: a key of type %T, must be on P-256", uplink)
	}
	if _, err := ecdh.X25519().NewPublicKey(req.Sealing); err != nil {
		return none, errors.New("sealing: not an X25519 public key")
	}
	return request{id: req.Terminal, ledger: ledger, handovers: req.Handovers, uplink: uplink, sealing: req.Sealing}, nil
}

// parseSigningRequest checks that whoever asks holds the key, and asks for
// this terminal and this role.
func parseSigningRequest(text string, id chain.TerminalID, role chain.Role) (crypto.PublicKey, error) {
	csr, err := openSigningRequest([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	unit := csr.Subject.OrganizationalUnit
	if csr.Subject.CommonName != string(id) || len(unit) != 1 || unit[0] != string(role) {
		return nil, fmt.Errorf("%s: the certificate signing request is for %q as %q, not for this terminal and role", role, csr.Subject.CommonName, unit)
	}
	return csr.PublicKey, nil
}

// openSigningRequest reads a signing request that is signed by its own key.
func openSigningRequest(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM certificate signing request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		return nil, errors.New("the certificate signing request is damaged or not signed by its own key")
	}
	return csr, nil
}

// documentSigning is id-kp-documentSigning (RFC 9336).
var documentSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 36}

func (c *Centre) newTerminal(req request) (terminal, error) {
	t := terminal{ID: req.id, Sealing: req.sealing}
	var err error
	if t.UplinkKey, err = x509.MarshalPKIXPublicKey(req.uplink); err != nil {
		return t, err
	}
	ledger := certificate(string(req.id), chain.RoleLedger, c.now(), ledgerLife)
	ledger.UnknownExtKeyUsage = []asn1.ObjectIdentifier{documentSigning} // and not TLS
	t.Ledger, err = c.keys.issue(ledger, req.ledger)
	return t, err
}

// has reports whether a request names the keys the terminal was admitted with;
// of its ledger keys the last.
func (c *Centre) has(ctx context.Context, q querier, t terminal, req request) (bool, error) {
	uplink, err := x509.MarshalPKIXPublicKey(req.uplink)
	if err != nil {
		return false, err
	}
	keys, err := c.ledgerKeys(ctx, q, t)
	if err != nil {
		return false, err
	}
	if keys.ring.Follow(req.handovers...) != nil {
		return false, nil
	}
	return chain.KeyID(keys.ring.Key()) == chain.KeyID(req.ledger) && bytes.Equal(uplink, t.UplinkKey) && bytes.Equal(req.sealing, t.Sealing), nil
}

func (c *Centre) admission(t terminal, req request) (chain.Admission, error) {
	a := chain.Admission{
		V: 1, Tenant: c.cfg.Tenant, Terminal: t.ID,
		CA: chain.EncodeCertificate(c.keys.ca.Raw), Ledger: t.Ledger,
	}
	uplink := certificate(string(t.ID), chain.RoleUplink, c.now(), uplinkLife)
	uplink.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	var err error
	if a.Uplink, err = c.keys.issue(uplink, req.uplink); err != nil {
		return a, err
	}
	if a.ReceiptKey, err = chain.EncodePublicKey(c.keys.receipt.Public()); err != nil {
		return a, err
	}
	if a.PackageKey, err = chain.EncodePublicKey(c.keys.pack.Public()); err != nil {
		return a, err
	}
	a.LookupKey, _, err = c.lookupKey(t, "")
	return a, err
}

// lookupKey derives the key that hashes numbers for a class at a terminal, and
// seals it to the terminal.
func (c *Centre) lookupKey(t terminal, class string) (sealed, key []byte, err error) {
	key, err = chain.DeriveLookupKey(c.keys.lookup, t.ID, class)
	if err != nil {
		return nil, nil, err
	}
	sealed, err = chain.SealLookupKey(t.Sealing, t.ID, class, key)
	return sealed, key, err
}

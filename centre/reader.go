package centre

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rollcall/queue/chain"
)

// ErrReader is wrapped by every refusal to add or remove a reader.
var ErrReader = errors.New("reader not changed")

const (
	readerLife = 2 * year
	// readerPrefix begins the CommonName of a reader's certificate. Terminal ids
	// have no dot: to a broker that takes the name for the user, no reader is a
	// terminal.
	readerPrefix = "reader."
)

// Reader is a system that may read over the network, by a token or by a
// certificate of the centre's authority.
type Reader struct {
	Name  string
	Added time.Time
	Until time.Time // end of its certificate; zero: it has a token, which does not end
}

// AddReader gives a system a name and a token to read with. The token is
// returned once; the centre keeps only its hash.
func (c *Centre) AddReader(ctx context.Context, name string) (token string, err error) {
	if name == "" || len(name) > 64 || !storable(name) || strings.ContainsAny(name, "\r\n") {
		return "", fmt.Errorf("%w: give it a name of at most 64 bytes", ErrReader)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	token = base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	res, err := c.db.ExecContext(ctx, "INSERT INTO readers (name, token, added) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", name, sum[:], millis(c.now()))
	if err != nil {
		return "", fmt.Errorf("adding a reader: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(fmt.Errorf("%w: there is a reader of that name; remove it first to give it another token", ErrReader), err)
	}
	return token, nil
}

// CertifyReader gives a system a name and, for its signing request in PEM, a
// certificate to read with. The same name and key again give a fresh one: that
// is how one is renewed. The centre knows the key, not the certificate: whoever
// is removed is refused with each that was given.
func (c *Centre) CertifyReader(ctx context.Context, name string, request []byte) (certificatePEM string, err error) {
	if !chain.ValidTenant(name) { // it is plain
		return "", fmt.Errorf("%w: with a certificate the name must be 1 to 64 letters, digits or hyphens", ErrReader)
	}
	pub, err := readerKey(request)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrReader, err)
	}
	key, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrReader, err)
	}
	template := certificate(readerPrefix+name, chain.RoleReader, c.now(), readerLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if certificatePEM, err = c.keys.issue(template, pub); err != nil {
		return "", fmt.Errorf("adding a reader: %w", err)
	}
	res, err := c.db.ExecContext(ctx, `INSERT INTO readers (name, key, added, until)
		SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM readers r WHERE r.key = $2 AND r.name <> $1)
		ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE readers.key = excluded.key`,
		name, key, millis(c.now()), millis(template.NotAfter))
	if err != nil {
		return "", fmt.Errorf("adding a reader: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(fmt.Errorf("%w: there is a reader of that name with another key or a token, or of another name with this key: remove it first", ErrReader), err)
	}
	return certificatePEM, nil
}

// readerKey checks a signing request. The centre writes name and role itself; a
// request that says it is for another role is somebody else's.
func readerKey(request []byte) (any, error) {
	if len(request) > maxRequest {
		return nil, fmt.Errorf("the signing request has %d bytes, at most %d", len(request), maxRequest)
	}
	csr, err := openSigningRequest(request)
	if err != nil {
		return nil, err
	}
	for _, unit := range csr.Subject.OrganizationalUnit {
		if unit != string(chain.RoleReader) {
			return nil, fmt.Errorf("the certificate signing request is for %q, not for a reader", unit)
		}
	}
	switch pub := csr.PublicKey.(type) {
	case ed25519.PublicKey:
		return pub, nil
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return pub, nil
		}
	}
	return nil, fmt.Errorf("a key of type %T, must be Ed25519 or on P-256", csr.PublicKey)
}

// RemoveReader takes a token or certificate back; from the next request on it
// opens nothing.
func (c *Centre) RemoveReader(ctx context.Context, name string) error {
	res, err := c.db.ExecContext(ctx, "DELETE FROM readers WHERE name = $1", name)
	if err != nil {
		return fmt.Errorf("removing a reader: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%w: there is no reader of that name", ErrReader), err)
	}
	return nil
}

// Readers lists those who may read, by name.
func (c *Centre) Readers(ctx context.Context) ([]Reader, error) {
	rows, err := c.db.QueryContext(ctx, "SELECT name, added, until FROM readers ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("reading readers: %w", err)
	}
	defer rows.Close()
	var readers []Reader
	for rows.Next() {
		r, added, until := Reader{}, int64(0), sql.NullInt64{}
		if err := rows.Scan(&r.Name, &added, &until); err != nil {
			return nil, fmt.Errorf("reading readers: %w", err)
		}
		r.Added = c.at(added)
		if until.Valid {
			r.Until = c.at(until.Int64)
		}
		readers = append(readers, r)
	}
	return readers, rows.Err()
}

// errStranger is wrapped by why a request is nobody's who may read.
var errStranger = errors.New("not let in")

// whoReads gives the name of the reader whose request it is: that of the
// connection's certificate, or without one that of the token. TLS has checked
// that the certificate is of the centre's authority.
func (c *Centre) whoReads(req *http.Request) (name string, err error) {
	var row *sql.Row
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		cert := req.TLS.PeerCertificates[0]
		if chain.RoleOf(cert) != chain.RoleReader {
			return "", fmt.Errorf("%w: this certificate is not for reading; rollcall-centre reader gives one that is", errStranger)
		}
		if c.now().After(cert.NotAfter) { // since the connection began
			return "", fmt.Errorf("%w: this certificate has ended; rollcall-centre reader gives another", errStranger)
		}
		row = c.db.QueryRowContext(req.Context(), "SELECT name FROM readers WHERE key = $1", cert.RawSubjectPublicKeyInfo)
	} else {
		token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return "", fmt.Errorf("%w: send the token that rollcall-centre reader gave, as Authorization: Bearer, or use the certificate that it gave", errStranger)
		}
		sum := sha256.Sum256([]byte(token))
		row = c.db.QueryRowContext(req.Context(), "SELECT name FROM readers WHERE token = $1", sum[:])
	}
	if err := row.Scan(&name); errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("%w: no reader has this token or certificate, or any more; rollcall-centre reader gives one", errStranger)
	} else if err != nil {
		return "", err
	}
	return name, nil
}

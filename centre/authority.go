package centre

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"rollcall/queue/chain"
)

// ErrKeysExist says that a centre was set up in this directory before.
var ErrKeysExist = errors.New("keys exist")

// How long certificates live. A ledger certificate outlives the box it is for:
// records are verified for years after.
const (
	caLife     = 40 * year
	ledgerLife = 20 * year
	uplinkLife = 2 * year
	serverLife = 10 * year
	year       = 365 * 24 * time.Hour
)

// centreName is the centre's name towards a broker. No terminal can have it:
// terminal ids have no dot.
const centreName = "rollcall.centre"

// Files in keys/. tls.crt and tls.key are the server's towards terminals and
// the client's towards a broker.
const (
	fileCA      = "ca.crt"
	fileCAKey   = "ca.key"
	fileTLS     = "tls.crt"
	fileTLSKey  = "tls.key"
	fileReceipt = "receipt.key"
	filePackage = "package.key"
	fileLookup  = "lookup.secret"
)

// authority holds the centre's keys.
type authority struct {
	ca      *x509.Certificate
	caKey   crypto.Signer
	tlsKey  crypto.Signer
	receipt ed25519.PrivateKey
	pack    ed25519.PrivateKey
	lookup  []byte
}

// Init makes the centre's keys: the authority that signs certificates, the TLS
// server certificate, the receipt and package keys, and the secret that lookup
// keys are derived from. It returns [ErrKeysExist] rather than overwrite any.
//
// The keys appear together or not at all: they are written to a directory
// beside, synced, and renamed.
func Init(cfg Config, now time.Time) error {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	keys := filepath.Join(cfg.Dir, "keys")
	if _, err := os.Lstat(keys); !errors.Is(err, fs.ErrNotExist) {
		return keysExist(keys)
	}
	files, err := newKeys(cfg.Names, now)
	if err != nil {
		return fmt.Errorf("making the centre's keys: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("making the centre's keys: %w", err)
	}
	fresh, err := os.MkdirTemp(cfg.Dir, "keys-")
	if err != nil {
		return fmt.Errorf("making the centre's keys: %w", err)
	}
	defer os.RemoveAll(fresh)
	for name, content := range files {
		if err := writeDurably(filepath.Join(fresh, name), content); err != nil {
			return fmt.Errorf("making the centre's keys: %w", err)
		}
	}
	if err := errors.Join(syncDir(fresh), os.Rename(fresh, keys), syncDir(cfg.Dir)); err != nil {
		if _, there := os.Lstat(keys); there == nil {
			return keysExist(keys)
		}
		return fmt.Errorf("making the centre's keys: %w", err)
	}
	return nil
}

func keysExist(dir string) error {
	return fmt.Errorf("%s is there already and keys are never overwritten; to begin a new centre, name another dir: %w", dir, ErrKeysExist)
}

func writeDurably(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newKeys(names []string, now time.Time) (map[string][]byte, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	caTemplate := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Rollcall centre"},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, err
	}
	tlsKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := authority{ca: ca, caKey: caKey}
	serverCert, err := a.issue(serverTemplate(names, now), tlsKey.Public())
	if err != nil {
		return nil, err
	}
	_, receipt, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, pack, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	files := map[string][]byte{
		fileCA:     []byte(chain.EncodeCertificate(caDER)),
		fileTLS:    []byte(serverCert),
		fileLookup: secret,
	}
	for name, key := range map[string]crypto.Signer{fileCAKey: caKey, fileTLSKey: tlsKey, fileReceipt: receipt, filePackage: pack} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		files[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return files, nil
}

// certificate is the template of an end certificate. Its start lies an hour
// back, for clocks that lag.
func certificate(name string, role chain.Role, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, OrganizationalUnit: []string{string(role)}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
}

// serverTemplate is the template of the certificate that terminals see.
func serverTemplate(names []string, now time.Time) *x509.Certificate {
	server := certificate(centreName, chain.RoleCentre, now, serverLife)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, name)
		}
	}
	return server
}

// issue signs a certificate for a public key and gives it in PEM.
func (a *authority) issue(template *x509.Certificate, pub crypto.PublicKey) (string, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return "", err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, pub, a.caKey)
	if err != nil {
		return "", err
	}
	return chain.EncodeCertificate(der), nil
}

// loadAuthority reads keys/.
func loadAuthority(cfg Config) (*authority, error) {
	var a authority
	text, err := os.ReadFile(cfg.keyFile(fileCA))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no keys in %s: run rollcall-centre init first, or set dir to where they are", filepath.Join(cfg.Dir, "keys"))
	}
	if err != nil {
		return nil, err
	}
	if a.ca, err = chain.ParseCertificate(string(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.keyFile(fileCA), err)
	}
	if a.caKey, err = readKey[crypto.Signer](cfg.keyFile(fileCAKey)); err != nil {
		return nil, err
	}
	if a.receipt, err = readKey[ed25519.PrivateKey](cfg.keyFile(fileReceipt)); err != nil {
		return nil, err
	}
	if a.pack, err = readKey[ed25519.PrivateKey](cfg.keyFile(filePackage)); err != nil {
		return nil, err
	}
	if a.tlsKey, err = readKey[crypto.Signer](cfg.keyFile(fileTLSKey)); err != nil {
		return nil, err
	}
	if a.lookup, err = os.ReadFile(cfg.keyFile(fileLookup)); err != nil {
		return nil, err
	}
	if len(a.lookup) != 32 {
		return nil, fmt.Errorf("%s: %d bytes, must be 32", cfg.keyFile(fileLookup), len(a.lookup))
	}
	return &a, nil
}

func readKey[K crypto.Signer](path string) (K, error) {
	var none K
	text, err := os.ReadFile(path)
	if err != nil {
		return none, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return none, fmt.Errorf("%s: not a PEM private key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, fmt.Errorf("%s: not a PKCS #8 private key", path)
	}
	k, ok := key.(K)
	if !ok {
		return none, fmt.Errorf("%s: a key of type %T, must be %T", path, key, none)
	}
	return k, nil
}

func (a *authority) caPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca)
	return pool
}

func (a *authority) trust() chain.Trust {
	return chain.Trust{CA: a.ca, Receipt: a.receipt.Public(), Package: a.pack.Public()}
}

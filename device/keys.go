package device

import (
	"crypto"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"rollcall/queue/chain"
)

// The files of a key directory. Each key has one use.
const (
	ledgerFile   = "ledger.pem"   // Ed25519, signs heads; with the handovers that lead to it
	uplinkFile   = "uplink.pem"   // P-256, TLS client: 0.6 ms a handshake, RSA takes 2.0
	sealingFile  = "sealing.pem"  // X25519, opens lookup keys
	templateFile = "template.pem" // 32 random bytes, sealed all face templates in the first builds
)

const (
	privateBlock  = "PRIVATE KEY" // PKCS #8 (RFC 5208)
	templateBlock = "ROLLCALL TEMPLATE KEY"
)

// ErrSeal says that sealed bytes are damaged, were sealed by another terminal,
// or for another use.
var ErrSeal = errors.New("sealed bytes do not open with this terminal's key")

// Keys are a terminal's private keys, kept in files that only their owner can
// read. They may be used from several goroutines at once and print as "***".
type Keys struct {
	dir      string
	ledger   *ledgerKeys
	uplink   *ecdsa.PrivateKey
	sealing  *ecdh.PrivateKey
	template cipher.AEAD // nil but in a terminal of the first builds
}

// CreateKeys makes new keys in dir, which must be missing or empty: keys are
// never overwritten, because records signed with them could not be told from
// forged ones afterwards. The error unwraps to [fs.ErrExist] if there are keys.
//
//  1. write and fsync all files in a new directory beside dir, mode 0700
//  2. fsync that directory
//  3. rename it to dir, which the kernel refuses if dir holds anything
//  4. fsync the parent, so that the rename itself is kept
func CreateKeys(dir string) (*Keys, error) {
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	fresh, err := os.MkdirTemp(parent, ".keys-") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	defer os.RemoveAll(fresh) // gone already once it was renamed
	if err := writeNewKeys(fresh); err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	// not os.Rename, which refuses an empty directory as well
	if err := syscall.Rename(fresh, dir); err != nil {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTDIR) {
			return nil, fmt.Errorf("creating keys: %s is in use and keys are never overwritten; give another directory: %w", dir, fs.ErrExist)
		}
		return nil, fmt.Errorf("creating keys in %s: %w", dir, err)
	}
	if err := syncDirectory(parent); err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	return OpenKeys(dir)
}

func writeNewKeys(dir string) error {
	_, ledger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	uplink, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	sealing, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	for name, key := range map[string]any{ledgerFile: ledger, uplinkFile: uplink, sealingFile: sealing} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := writePEM(filepath.Join(dir, name), privateBlock, der); err != nil {
			return err
		}
	}
	return syncDirectory(dir)
}

func writePEM(path, block string, data []byte) error {
	return writeSynced(path, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: data}), 0o600)
}

// OpenKeys reads the keys in dir. It refuses a directory wider than 0700 and
// files wider than 0600, and says how to mend that. Missing keys unwrap to
// [fs.ErrNotExist].
func OpenKeys(dir string) (*Keys, error) {
	if err := checkMode(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening keys: %w", err)
	}
	k := Keys{dir: dir}
	var err error
	if k.ledger, err = openLedgerKeys(dir); err != nil {
		return nil, err
	}
	if k.uplink, err = readKey[*ecdsa.PrivateKey](dir, uplinkFile); err != nil {
		return nil, err
	}
	if k.sealing, err = readKey[*ecdh.PrivateKey](dir, sealingFile); err != nil {
		return nil, err
	}
	if k.template, err = readTemplateKey(dir); err != nil {
		return nil, err
	}
	return &k, nil
}

func readKey[K any](dir, name string) (K, error) {
	var key K
	path := filepath.Join(dir, name)
	der, err := readPEM(path, privateBlock)
	if err != nil {
		return key, fmt.Errorf("opening keys: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(K)
	if err != nil || !ok {
		return key, fmt.Errorf("opening keys: %s holds no key of type %T; restore the key directory from where it was saved", path, key)
	}
	return key, nil
}

// readTemplateKey gives nil if there is none.
func readTemplateKey(dir string) (cipher.AEAD, error) {
	path := filepath.Join(dir, templateFile)
	key, err := readPEM(path, templateBlock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening keys: %w", err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("opening keys: %s holds %d bytes, not %d; restore the key directory from where it was saved", path, len(key), keySize)
	}
	return aead(key), nil
}

func readPEM(path, kind string) ([]byte, error) {
	if err := checkMode(path, 0o600); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(rest) > 0 {
		return nil, fmt.Errorf("%s is not one PEM block %q; restore the key directory from where it was saved", path, kind)
	}
	return block.Bytes, nil
}

func checkMode(path string, widest fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&^widest != 0 {
		return fmt.Errorf("%s can be used by others (mode %04o); run: chmod %o %s", path, mode, widest, path)
	}
	return nil
}

// Uplink is the key of the TLS client certificate (ECDSA, P-256).
func (k *Keys) Uplink() crypto.Signer { return k.uplink }

// SealedTemplates reports whether there is still the one key that sealed every
// template in the first builds. [Keys.OpenTemplate] opens with it what is to be
// sealed anew under [SubjectKeys].
func (k *Keys) SealedTemplates() bool { return k.template != nil }

// OpenTemplate opens what the first builds sealed; all it can say is [ErrSeal].
func (k *Keys) OpenTemplate(sealed, aad []byte) ([]byte, error) {
	if k.template == nil {
		return nil, ErrSeal
	}
	plain, err := k.template.Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

// DestroyTemplateKey ends the key of the first builds, once nothing needs it:
// nobody may call OpenTemplate meanwhile.
func (k *Keys) DestroyTemplateKey() error {
	if err := destroyFile(filepath.Join(k.dir, templateFile)); err != nil {
		return fmt.Errorf("destroying the former template key: %w", err)
	}
	k.template = nil
	return nil
}

// OpenLookupKey opens a lookup key that the centre sealed to this terminal for
// a class; class "" is the terminal's own.
func (k *Keys) OpenLookupKey(terminal chain.TerminalID, class string, sealed []byte) ([]byte, error) {
	return chain.OpenLookupKey(k.sealing, terminal, class, sealed)
}

// Request is what the centre needs to admit this terminal: public keys only,
// each certificate request signed by its own key (RFC 2986).
func (k *Keys) Request(terminal chain.TerminalID) (chain.Request, error) {
	if !terminal.Valid() {
		return chain.Request{}, fmt.Errorf("terminal %q: a terminal's name is 1 to 64 letters, digits and hyphens", terminal)
	}
	now := k.ledger.inForce()
	ledger, err := certificateRequest(now.private, terminal, chain.RoleLedger)
	if err != nil {
		return chain.Request{}, err
	}
	uplink, err := certificateRequest(k.uplink, terminal, chain.RoleUplink)
	if err != nil {
		return chain.Request{}, err
	}
	return chain.Request{
		V: 1, Terminal: terminal, Ledger: ledger, Handovers: now.handovers, Uplink: uplink, Sealing: k.sealing.PublicKey().Bytes(),
	}, nil
}

func certificateRequest(key crypto.Signer, terminal chain.TerminalID, role chain.Role) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: string(terminal), OrganizationalUnit: []string{string(role)}},
	}, key)
	if err != nil {
		return "", fmt.Errorf("requesting the %s certificate: %w", role, err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

const redacted = "***"

// Format prints the redaction for every verb. It stands on the value, so that
// a copy is as silent as the pointer.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (k Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the keys out of JSON and TOML as well.
func (k Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }

package device

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"rollcall/queue/chain"
)

// nextSuffix names the file of a ledger key that is not in force yet.
const nextSuffix = "-next"

const handoverBlock = "ROLLCALL HANDOVER" // a JWS (docs/record.md section 3)

// ErrLedgerKey says that the ledger was handed over to a key that is not here.
var ErrLedgerKey = errors.New("the ledger goes on with a key that is not in the key directory: restore the directory as it was, " +
	"or have the centre admit this box anew under another id")

// ledgerKey is the content of the ledger key's file: the private key, and the
// handovers that lead to it from the certificate's key, oldest first.
type ledgerKey struct {
	private   crypto.Signer
	handovers []string
}

// ledgerKeys is the ledger key's file. It is replaced whole, so that key and
// handovers never part.
type ledgerKeys struct {
	path string

	mu  sync.Mutex
	now ledgerKey // guarded by mu; replaced whole
}

func (l *ledgerKeys) inForce() ledgerKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Ledger is the key in force that signs heads and nothing else: Ed25519 (RFC
// 8032), or P-256 where a file holds one.
func (k *Keys) Ledger() crypto.Signer { return k.ledger.inForce().private }

// Handovers lead to the key in force from the one in the terminal's
// certificate, oldest first.
func (k *Keys) Handovers() []string { return k.ledger.inForce().handovers }

// Ring gives the ledger's keys from the one that an admission certifies to the
// one in force. The error wraps [ErrAdmission] if handovers do not lead from one
// to the other.
func (k *Keys) Ring(a chain.Admission) (*chain.Ring, error) {
	now := k.ledger.inForce()
	cert, err := chain.ParseCertificate(a.Ledger)
	if err != nil {
		return nil, fmt.Errorf("%w: ledger certificate: %w", ErrAdmission, err)
	}
	ring, err := chain.NewRing(a.Terminal, cert.PublicKey, now.handovers...)
	if err == nil && ring.ID(ring.Last()) != chain.KeyID(now.private.Public()) {
		err = fmt.Errorf("%w: it is for another key than this terminal's; send the centre a new request", chain.ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ledger certificate: %w", ErrAdmission, err)
	}
	return ring, nil
}

// Prepare makes the ledger key that is to follow and has the one in force sign
// its handover. Both are on disk, beside the key in force, when it returns; what
// was prepared before is thrown away.
func (k *Keys) Prepare(terminal chain.TerminalID) (handover string, err error) {
	_, next, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making the next ledger key: %w", err)
	}
	now := k.ledger.inForce()
	if handover, err = chain.SignHandover(now.private, terminal, next.Public()); err != nil {
		return "", fmt.Errorf("making the next ledger key: %w", err)
	}
	text, err := ledgerKey{next, append(slices.Clone(now.handovers), handover)}.encode()
	if err == nil {
		err = WriteDurable(k.ledger.path+nextSuffix, text, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("making the next ledger key: %w", err)
	}
	return handover, nil
}

// Settle ends what [Keys.Prepare] began, and gives the key in force. handover is
// the last that the ledger holds as its last record, or empty. If it leads to
// the prepared key, that one takes the place of the key in force:
//
//  1. Rename the prepared file over the one in force.
//  2. Sync the directory.
//
// Else the prepared key is thrown away. A handover that leads to neither is
// [ErrLedgerKey]. What was settled may be settled again.
func (k *Keys) Settle(handover string) (crypto.Signer, error) {
	l := k.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	led := len(l.now.handovers) > 0 && l.now.handovers[len(l.now.handovers)-1] == handover
	if handover == "" || led {
		if err := os.Remove(l.path + nextSuffix); !errors.Is(err, fs.ErrNotExist) {
			if err = errors.Join(err, syncDirectory(filepath.Dir(l.path))); err != nil {
				return nil, fmt.Errorf("removing a ledger key that was not taken: %w", err)
			}
		}
		return l.now.private, nil
	}
	next, err := readLedgerKey(l.path + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Equal(next.handovers, append(slices.Clone(l.now.handovers), handover)) {
		return nil, ErrLedgerKey
	}
	if err == nil {
		err = os.Rename(l.path+nextSuffix, l.path)
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(l.path))
	}
	if err != nil {
		return nil, fmt.Errorf("taking the next ledger key: %w", err)
	}
	l.now = next
	return next.private, nil
}

func (l ledgerKey) encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(l.private)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})
	for _, jws := range l.handovers {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: handoverBlock, Bytes: []byte(jws)})...)
	}
	return text, nil
}

func openLedgerKeys(dir string) (*ledgerKeys, error) {
	l := &ledgerKeys{path: filepath.Join(dir, ledgerFile)}
	var err error
	if l.now, err = readLedgerKey(l.path); err != nil {
		return nil, fmt.Errorf("opening keys: %w", err)
	}
	return l, nil
}

func readLedgerKey(path string) (ledgerKey, error) {
	if err := checkMode(path, 0o600); err != nil {
		return ledgerKey{}, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return ledgerKey{}, err
	}
	l, err := parseLedgerKey(text)
	if err != nil {
		return l, fmt.Errorf("%s %w; restore the key directory from where it was saved", path, err)
	}
	return l, nil
}

// parseLedgerKey reads what encode gives.
func parseLedgerKey(text []byte) (l ledgerKey, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != privateBlock {
		return l, fmt.Errorf("does not begin with a PEM block %q", privateBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	switch key := parsed.(type) {
	case ed25519.PrivateKey:
		l.private = key
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			l.private = key
		}
	}
	if err != nil || l.private == nil {
		return l, errors.New("holds no private key of type Ed25519 or P-256")
	}
	for block, rest = pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != handoverBlock {
			return l, fmt.Errorf("holds a PEM block %q", block.Type)
		}
		l.handovers = append(l.handovers, string(block.Bytes))
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return l, errors.New("goes on with what is no PEM block")
	}
	return l, nil
}

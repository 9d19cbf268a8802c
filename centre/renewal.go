package centre

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"rollcall/queue/chain"
)

// serverCertificate is what the centre shows terminals, readers and brokers. It
// looks at its files with every connection: a renewed certificate is taken
// without a restart, and one that terminals would refuse is not. Any goroutine
// may call it.
type serverCertificate struct {
	crt, key string   // paths
	names    []string // that terminals dial
	ca       *x509.Certificate
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex
	use     *tls.Certificate // guarded by mu
	taken   []byte           // guarded by mu: the files' content that use was made of
	refused []byte           // guarded by mu: content that was looked at and is not used
}

// newServerCertificate reads the files for the first time. One that terminals
// would refuse is taken all the same: there is no other.
func newServerCertificate(cfg Config, ca *x509.Certificate, log *slog.Logger, now func() time.Time) (*serverCertificate, error) {
	s := &serverCertificate{crt: cfg.keyFile(fileTLS), key: cfg.keyFile(fileTLSKey), names: cfg.Names, ca: ca, log: log, now: now}
	content, cert, err := s.read()
	if err != nil {
		return nil, err
	}
	s.use, s.taken = cert, content
	return s, nil
}

// read reads the two files. The content is theirs, as far as it could be read.
func (s *serverCertificate) read() (content []byte, cert *tls.Certificate, err error) {
	crt, err := os.ReadFile(s.crt)
	if err != nil {
		return nil, nil, err
	}
	key, err := os.ReadFile(s.key)
	if err != nil {
		return crt, nil, err
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return append(crt, key...), nil, fmt.Errorf("%s: %w", s.crt, err)
	}
	return append(crt, key...), &pair, nil
}

// current is the certificate for a connection that begins.
func (s *serverCertificate) current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, cert, err := s.read()
	if err == nil && bytes.Equal(content, s.taken) {
		s.refused = nil
		return s.use
	}
	if err == nil {
		err = s.fit(cert.Leaf)
	}
	switch {
	case err == nil:
		s.log.Info("server certificate renewed", "not_after", cert.Leaf.NotAfter)
		s.use, s.taken, s.refused = cert, content, nil
	case s.refused == nil || !bytes.Equal(content, s.refused):
		s.log.Error("renewed server certificate not taken, the one before stays in use", "err", err)
		s.refused = append([]byte{}, content...) // not nil: said once
	}
	return s.use
}

// fit reports why terminals would refuse a certificate.
func (s *serverCertificate) fit(leaf *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: s.now()}); err != nil {
		return fmt.Errorf("%s: %w", s.crt, err)
	}
	if role := chain.RoleOf(leaf); role != chain.RoleCentre {
		return fmt.Errorf("%s: it is a certificate for %q, not for %q", s.crt, role, chain.RoleCentre)
	}
	for _, name := range s.names {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("%s: names in the configuration: %w", s.crt, err)
		}
	}
	return nil
}

// forServer and forClient are what crypto/tls asks.
func (s *serverCertificate) forServer(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current(), nil
}

func (s *serverCertificate) forClient(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.current(), nil
}

// Renew makes the centre's TLS certificate anew, for the same key and the names
// that the configuration has now, and gives its end. A centre that serves takes
// it with the next connection.
func Renew(cfg Config, now time.Time) (until time.Time, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return until, fmt.Errorf("configuration: %w", err)
	}
	keys, err := loadAuthority(cfg)
	if err != nil {
		return until, err
	}
	server := serverTemplate(cfg.Names, now)
	text, err := keys.issue(server, keys.tlsKey.Public())
	if err != nil {
		return until, fmt.Errorf("renewing the centre's certificate: %w", err)
	}
	path := cfg.keyFile(fileTLS)
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) { // a crash left it
		return until, fmt.Errorf("renewing the centre's certificate: %w", err)
	}
	if err := errors.Join(writeDurably(path+".new", []byte(text)), os.Rename(path+".new", path), syncDir(filepath.Dir(path))); err != nil {
		return until, fmt.Errorf("renewing the centre's certificate: %w", err)
	}
	return server.NotAfter, nil
}

package mqtt

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"rollcall/queue/chain"
)

// expiryWarning is how long before its end the terminal's own certificate is
// told of: time for a person to carry a new admission to a box that is offline.
const expiryWarning = 14 * 24 * time.Hour

// tlsConfig believes the centre's authority alone, and of its certificates
// only those for the centre: terminals hold some by the same authority.
func tlsConfig(cfg Config) (*tls.Config, error) {
	trust, err := cfg.Admission.Trust()
	if err != nil {
		return nil, err
	}
	own, err := ownCertificate(cfg.Key, cfg.Admission.Uplink)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(trust.CA)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		Certificates: []tls.Certificate{own},
		Time:         cfg.Now,
		VerifyConnection: func(state tls.ConnectionState) error {
			if role := chain.RoleOf(state.PeerCertificates[0]); role != chain.RoleCentre {
				return fmt.Errorf("%w: it is a %s certificate", chain.ErrUntrusted, role)
			}
			return nil
		},
	}, nil
}

func ownCertificate(key crypto.Signer, pem string) (tls.Certificate, error) {
	cert, err := chain.ParseCertificate(pem)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("uplink certificate: %w", err)
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cert.PublicKey) {
		return tls.Certificate{}, errors.New("the uplink certificate is for another key than this terminal's: ask the centre for a new admission")
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// lookAtCertificate takes the terminal's certificate from disk, where a new
// admission may have put another, and says when it ends. Renewed is true when
// it is another one than before. One that cannot be read leaves the one in use.
func (u *Uplink) lookAtCertificate() (renewed bool) {
	before := u.tls.Certificates[0].Leaf
	if u.cfg.Certificate != nil {
		text, err := u.cfg.Certificate()
		var own tls.Certificate
		if err == nil {
			own, err = ownCertificate(u.cfg.Key, text)
		}
		switch {
		case err != nil:
			u.log.Warn("uplink certificate not read again", "err", err)
		case !own.Leaf.Equal(before):
			u.tls = u.tls.Clone()
			u.tls.Certificates = []tls.Certificate{own}
			u.log.Info("uplink certificate renewed", "not_after", own.Leaf.NotAfter)
			renewed = true
		}
	}
	end := u.tls.Certificates[0].Leaf.NotAfter
	switch left := end.Sub(u.cfg.Now()); {
	case left <= 0:
		u.certificateTrouble(&Trouble{Code: Expired, Until: end}, "expired")
	case left <= expiryWarning:
		u.certificateTrouble(&Trouble{Code: Expiring, Until: end}, "expiring")
	default:
		delete(u.wrong, "")
		u.Settle(chain.AlertCertificate)
	}
	return renewed
}

func (u *Uplink) certificateTrouble(t *Trouble, code string) {
	if before := u.wrong[""]; before == nil || before.Code != t.Code {
		u.Raise(chain.AlertCertificate, code)
	}
	u.wrong[""] = t
}

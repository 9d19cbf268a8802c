package device

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rollcall/queue/chain"
)

const admissionFile = "admission.json"

// ErrAdmission is wrapped by every refusal of an admission.
var ErrAdmission = errors.New("admission refused")

// SaveAdmission keeps the centre's answer beside the keys in dir, durably. It
// is refused, and nothing is written, unless its certificates are for these
// keys and this terminal, in the right roles, signed by the authority in it,
// and its lookup key opens. Times of validity are not judged: the clock may
// not be set yet.
func SaveAdmission(dir string, a chain.Admission) error {
	keys, err := OpenKeys(dir)
	if err != nil {
		return err
	}
	if err := keys.check(a); err != nil {
		return err
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("saving the admission: %w", err)
	}
	return WriteDurable(filepath.Join(dir, admissionFile), append(text, '\n'), 0o644)
}

// LoadAdmission reads the admission kept in dir and checks it again. A
// terminal that was never admitted gives an error that unwraps to
// [fs.ErrNotExist].
func LoadAdmission(dir string) (chain.Admission, error) {
	keys, err := OpenKeys(dir)
	if err != nil {
		return chain.Admission{}, err
	}
	path := filepath.Join(dir, admissionFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return chain.Admission{}, fmt.Errorf("the centre has not admitted this terminal yet: send it the request and save its answer: %w", err)
	}
	if err != nil {
		return chain.Admission{}, fmt.Errorf("loading the admission: %w", err)
	}
	a, err := parseAdmission(text)
	if err == nil {
		err = keys.check(a)
	}
	if err != nil {
		return chain.Admission{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func parseAdmission(text []byte) (chain.Admission, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var a chain.Admission
	if err := dec.Decode(&a); err != nil {
		return a, fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	return a, nil
}

func (k *Keys) check(a chain.Admission) error {
	switch {
	case a.V != 1:
		return fmt.Errorf("%w: version %d, this program knows 1", ErrAdmission, a.V)
	case !a.Terminal.Valid() || !chain.ValidTenant(a.Tenant):
		return fmt.Errorf("%w: terminal %q of tenant %q: names are 1 to 64 letters, digits and hyphens", ErrAdmission, a.Terminal, a.Tenant)
	}
	trust, err := a.Trust()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	if _, err := checkCertificate(trust, a.Terminal, a.Ledger, chain.RoleLedger); err != nil {
		return fmt.Errorf("%w: ledger certificate: %w", ErrAdmission, err)
	}
	if _, err := k.Ring(a); err != nil {
		return err
	}
	uplink, err := checkCertificate(trust, a.Terminal, a.Uplink, chain.RoleUplink)
	if err == nil && !k.uplink.PublicKey.Equal(uplink) {
		err = fmt.Errorf("%w: it is for another key than this terminal's; send the centre a new request", chain.ErrUntrusted)
	}
	if err != nil {
		return fmt.Errorf("%w: uplink certificate: %w", ErrAdmission, err)
	}
	if _, err := k.OpenLookupKey(a.Terminal, "", a.LookupKey); err != nil {
		return fmt.Errorf("%w: %w", ErrAdmission, err)
	}
	return nil
}

func checkCertificate(trust chain.Trust, terminal chain.TerminalID, text string, role chain.Role) (crypto.PublicKey, error) {
	cert, err := chain.ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	return cert.PublicKey, trust.Check(cert, terminal, role)
}

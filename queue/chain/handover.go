package chain

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
)

// Handover is the word of a terminal's ledger key for the one that signs after
// it: a JWS with [PurposeKey] by the old key. From the key in the certificate
// handovers lead to the key in force, so that a new key needs no new
// certificate, and a certificate that is no beginning of them proves nothing.
type Handover struct {
	Terminal TerminalID `json:"terminal"`
	Key      []byte     `json:"key"` // of the next key: SubjectPublicKeyInfo (RFC 5280 4.1), base64
}

// MaxHandover bounds a handover's JWS, in bytes. Real ones have under 500.
const MaxHandover = 1 << 10

var (
	// ErrUnknownKey says that no handover in hand leads to the key that signed.
	ErrUnknownKey = fmt.Errorf("signed by a key that no handover leads to: %w", ErrSignature)

	// ErrRetired says that a key signed which another had followed by then.
	ErrRetired = fmt.Errorf("signed by a retired key: %w", ErrSignature)
)

// SignHandover hands a terminal's ledger over to the next key.
func SignHandover(old crypto.Signer, terminal TerminalID, next crypto.PublicKey) (string, error) {
	if _, err := algorithmOf(next); err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(next)
	if err != nil {
		return "", fmt.Errorf("handing the ledger over: %w", err)
	}
	return Sign(old, PurposeKey, Handover{terminal, der})
}

// Ring is the keys of a terminal's ledger in the order in which they were in
// force: the certificate's, and those that handovers lead to. It only grows.
// It may be used from several goroutines at once while none follows a handover.
type Ring struct {
	terminal TerminalID
	keys     []ringKey // one at least
}

// ringKey is a key and the handover that leads to it.
type ringKey struct {
	id       string
	key      crypto.PublicKey
	handover string // empty for the certificate's
}

// NewRing makes the ring of a certificate's key. With handovers it follows them
// (see [Ring.Follow]). A key that cannot sign records is an error that wraps
// [errors.ErrUnsupported].
func NewRing(terminal TerminalID, key crypto.PublicKey, handovers ...string) (*Ring, error) {
	if _, err := algorithmOf(key); err != nil {
		return nil, err
	}
	r := &Ring{terminal, []ringKey{{id: KeyID(key), key: key}}}
	return r, r.Follow(handovers...)
}

// Clone gives a ring that grows by itself.
func (r *Ring) Clone() *Ring { return &Ring{r.terminal, slices.Clone(r.keys)} }

// Follow takes handovers in order. Each must be by a key of the ring and lead to
// the one after it, or from the last to a new one. The error wraps
// [ErrSignature] or [ErrMalformed].
func (r *Ring) Follow(handovers ...string) error {
	for _, jws := range handovers {
		if err := r.follow(jws); err != nil {
			return fmt.Errorf("handover: %w", err)
		}
	}
	return nil
}

func (r *Ring) follow(jws string) error {
	if len(jws) > MaxHandover {
		return fmt.Errorf("%d bytes, at most %d: %w", len(jws), MaxHandover, ErrMalformed)
	}
	payload, by, err := r.Open(PurposeKey, []byte(jws))
	if err != nil {
		return err
	}
	h, err := readAs[Handover](PurposeKey, payload)
	if err != nil {
		return err
	}
	if h.Terminal != r.terminal {
		return fmt.Errorf("it is of terminal %q: %w", h.Terminal, ErrSignature)
	}
	next, err := x509.ParsePKIXPublicKey(h.Key)
	if err != nil {
		return fmt.Errorf("key: %w", ErrMalformed)
	}
	if _, err := algorithmOf(next); err != nil {
		return fmt.Errorf("%w: %w", err, ErrMalformed)
	}
	id := KeyID(next)
	switch at := r.Place(id); {
	case by < r.Last() && at == by+1:
		return nil // known
	case by < r.Last():
		return fmt.Errorf("it leads to another key than the handover known: %w", ErrRetired)
	case at >= 0:
		return fmt.Errorf("it leads back to a key before it: %w", ErrSignature)
	}
	r.keys = append(r.keys, ringKey{id, next, jws})
	return nil
}

// Key gives the last key, the one in force as far as the ring knows.
func (r *Ring) Key() crypto.PublicKey { return r.keys[len(r.keys)-1].key }

// Last is the place of the last key. The certificate's is at 0.
func (r *Ring) Last() int { return len(r.keys) - 1 }

// Handovers lead from the certificate's key to the last, in order.
func (r *Ring) Handovers() []string {
	var jws []string
	for _, k := range r.keys[1:] {
		jws = append(jws, k.handover)
	}
	return jws
}

// ID is the key id of the key at a place.
func (r *Ring) ID(place int) string { return r.keys[place].id }

// Place is that of the key with a key id; -1 if the ring does not hold it.
func (r *Ring) Place(id string) int {
	return slices.IndexFunc(r.keys, func(k ringKey) bool { return k.id == id })
}

// Open checks a signature by a key of the ring, and gives that key's place. The
// header names the key, and only among those of the ring. The error wraps
// [ErrUnknownKey], [ErrSignature] or [ErrMalformed].
func (r *Ring) Open(purpose Purpose, jws []byte) (payload []byte, by int, err error) {
	payload, err = open(purpose, jws, func(kid string) crypto.PublicKey {
		if by = r.Place(kid); by < 0 {
			return nil
		}
		return r.keys[by].key
	})
	return payload, by, err
}

// OpenHead checks a head's signature, and gives the place of the key.
func (r *Ring) OpenHead(jws []byte) (Head, int, error) {
	return r.openMark(PurposeHead, jws)
}

// OpenCut checks the signature of a cut: the terminal's word that it let go the
// records up to one, which the centre had received. It has the form of a head,
// and a head never serves as one: whoever takes more lines out has none for
// them. It is signed later than the records before it, by whatever key is in
// force then.
func (r *Ring) OpenCut(jws []byte) (Head, error) {
	cut, _, err := r.openMark(PurposeCut, jws)
	return cut, err
}

func (r *Ring) openMark(purpose Purpose, jws []byte) (Head, int, error) {
	payload, by, err := r.Open(purpose, jws)
	if err != nil {
		return Head{}, by, err
	}
	h, err := readHead(payload)
	return h, by, err
}

// inForce is which key of a ring signs a record and what follows it.
type inForce struct {
	place  int
	hands  bool // the record hands over to the next key, which signs what follows
	unsure bool // records before it are missing, which may have handed over
}

// next is what is in force at the record after, as far as that one does not say.
func (f inForce) next() inForce {
	if f.hands {
		f.place++
	}
	return inForce{place: f.place, unsure: f.unsure}
}

// at gives what is in force at the next record: line 1 says it, and key records
// say what follows. The ring grows by what they bring.
func (f inForce) at(e Entry, ring *Ring) (inForce, error) {
	f = f.next()
	switch {
	case e.Type == typeOpen && e.Seq == 1:
		return f.atOpen(e, ring)
	case e.Type == typeKey:
		return f.atKey(e, ring)
	}
	return f, nil
}

func (f inForce) atOpen(e Entry, ring *Ring) (inForce, error) {
	var open struct {
		Key       string   `json:"key"`
		Handovers []string `json:"handovers"`
	}
	if json.Unmarshal(e.Body, &open) != nil || open.Key == "" {
		return f, nil
	}
	if err := ring.Follow(open.Handovers...); err != nil {
		return f, err
	}
	if ring.Place(open.Key) != len(open.Handovers) {
		return f, fmt.Errorf("its handovers do not lead to the key that it names: %w", ErrSignature)
	}
	return inForce{place: len(open.Handovers)}, nil
}

func (f inForce) atKey(e Entry, ring *Ring) (inForce, error) {
	var body struct {
		Old      string `json:"old"`
		New      string `json:"new"`
		Handover string `json:"handover"`
	}
	if json.Unmarshal(e.Body, &body) != nil {
		return f, fmt.Errorf("key record: %w", ErrMalformed)
	}
	old := ring.Place(body.Old)
	if old < f.place || old > f.place && !f.unsure {
		return f, fmt.Errorf("it changes another key than the one in force: %w", ErrSignature)
	}
	if KeyIDOf([]byte(body.Handover)) != body.Old {
		return f, fmt.Errorf("its handover is by another key than the one in force: %w", ErrSignature)
	}
	if err := ring.Follow(body.Handover); err != nil {
		return f, err
	}
	if ring.Place(body.New) != old+1 {
		return f, fmt.Errorf("its handover does not lead to the key that it names: %w", ErrSignature)
	}
	return inForce{place: old, hands: true}, nil
}

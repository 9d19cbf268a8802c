package centre_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/queue/chain"
)

func TestInitMakesSecretsForTheOwnerOnlyAndNeverOverwrites(t *testing.T) {
	_, cfg, _ := newCentre(t)
	before := map[string][]byte{}
	keys := filepath.Join(cfg.Dir, "keys")
	require.NoError(t, filepath.WalkDir(keys, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		assert.Zero(t, info.Mode().Perm()&0o077, "%s is open to others", path)
		if d.Type().IsRegular() {
			before[path], err = os.ReadFile(path)
		}
		return err
	}))
	assert.Len(t, before, 7)

	assert.ErrorIs(t, centre.Init(cfg, time.Now()), centre.ErrKeysExist)
	for path, content := range before {
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, content, now)
	}
	left, err := filepath.Glob(keys + "-*")
	require.NoError(t, err)
	assert.Empty(t, left)
	info, err := os.Stat(filepath.Join(cfg.Dir, "centre.db"))
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077)
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	good := centre.Config{Tenant: "test", Dir: t.TempDir()}
	for _, tt := range []struct {
		name string
		cfg  centre.Config
		says string
	}{
		{"no keys", good, "run rollcall-centre init first"},
		{"no tenant", centre.Config{Dir: good.Dir}, `tenant = ""`},
		{"tenant that cannot stand in a topic", centre.Config{Dir: good.Dir, Tenant: "a/b"}, `tenant = "a/b"`},
		{"no such zone", centre.Config{Dir: good.Dir, Tenant: "test", Zone: "Asia/Beijing"}, `zone = "Asia/Beijing"`},
		{"listener and broker", centre.Config{Dir: good.Dir, Tenant: "test", Listen: ":1", Broker: "b:1"}, "remove one"},
		{"address without port", centre.Config{Dir: good.Dir, Tenant: "test", Listen: "localhost"}, `listen = "localhost"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := centre.Open(t.Context(), tt.cfg, nil, time.Now)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

func TestAdmission(t *testing.T) {
	c, _, _ := newCentre(t)
	b := admitted(t, c, "t-1")
	a := b.admission
	assert.Equal(t, "test", a.Tenant)
	assert.Equal(t, chain.TerminalID("t-1"), a.Terminal)

	trust, err := a.Trust()
	require.NoError(t, err)
	ledger, err := chain.ParseCertificate(a.Ledger)
	require.NoError(t, err)
	key, err := trust.LedgerKey(ledger, "t-1")
	require.NoError(t, err)
	assert.True(t, b.ledger.Public().(ed25519.PublicKey).Equal(key))
	assert.WithinDuration(t, time.Now().AddDate(20, 0, 0), ledger.NotAfter, 10*24*time.Hour)

	uplink, err := chain.ParseCertificate(a.Uplink)
	require.NoError(t, err)
	assert.Equal(t, chain.RoleUplink, chain.RoleOf(uplink))
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, uplink.ExtKeyUsage, "it can never pass for the server")
	assert.WithinDuration(t, time.Now().AddDate(2, 0, 0), uplink.NotAfter, 10*24*time.Hour)
	_, err = trust.LedgerKey(uplink, "t-1")
	assert.ErrorIs(t, err, chain.ErrUntrusted)

	lookup, err := chain.OpenLookupKey(b.sealing, "t-1", "", a.LookupKey)
	require.NoError(t, err)
	assert.Len(t, lookup, chain.LookupKeySize)
	other := admitted(t, c, "t-2")
	_, err = chain.OpenLookupKey(other.sealing, "t-1", "", a.LookupKey)
	assert.Error(t, err, "another terminal's keys do not open it")
}

func TestAdmissionAgain(t *testing.T) {
	c, cfg, _ := newCentre(t)
	b := admitted(t, c, "t-1")

	t.Run("with the same keys renews the uplink certificate only", func(t *testing.T) {
		again, err := c.Admit(t.Context(), b.request(t))
		require.NoError(t, err)
		assert.Equal(t, b.admission.Ledger, again.Ledger)
		assert.Equal(t, b.admission.ReceiptKey, again.ReceiptKey)
		assert.NotEqual(t, b.admission.Uplink, again.Uplink)
	})
	t.Run("with other keys is refused", func(t *testing.T) {
		for name, change := range map[string]func(b, other *box){
			"all":     func(b, other *box) { *b = *other },
			"ledger":  func(b, other *box) { b.ledger = other.ledger },
			"uplink":  func(b, other *box) { b.uplink = other.uplink },
			"sealing": func(b, other *box) { b.sealing = other.sealing },
		} {
			t.Run(name, func(t *testing.T) {
				changed := *b
				change(&changed, newBox(t, "t-1"))
				_, err := c.Admit(t.Context(), changed.request(t))
				require.ErrorIs(t, err, centre.ErrRequest)
				assert.ErrorContains(t, err, "t-1 is admitted already, with other keys")
			})
		}
	})
	assert.Equal(t, 1, count(t, cfg, "terminals"))
}

func TestAdmissionRefuses(t *testing.T) {
	c, cfg, _ := newCentre(t)
	b := newBox(t, "t-1")
	other := newBox(t, "t-2")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	with := func(change func(*chain.Request)) []byte {
		var r chain.Request
		require.NoError(t, json.Unmarshal(b.request(t), &r))
		change(&r)
		text, err := json.Marshal(r)
		require.NoError(t, err)
		return text
	}
	for _, tt := range []struct {
		name    string
		request []byte
		says    string
	}{
		{"no JSON", []byte("x"), "not a terminal's request"},
		{"unknown field", []byte(`{"v":1,"secret":"x"}`), "not a terminal's request"},
		{"too long", bytes.Repeat([]byte(" "), 70_000), "at most"},
		{"another version", with(func(r *chain.Request) { r.V = 2 }), "version 2"},
		{"an id that is no topic", with(func(r *chain.Request) { r.Terminal = "a/b" }), "letters, digits or hyphens"},
		{"the centre's own name", with(func(r *chain.Request) { r.Terminal = "rollcall.centre" }), "letters, digits or hyphens"},
		{"names of another terminal", with(func(r *chain.Request) { r.Terminal = "t-2" }), `for "t-1"`},
		{"roles exchanged", with(func(r *chain.Request) { r.Ledger, r.Uplink = r.Uplink, r.Ledger }), "not for this terminal and role"},
		{"a ledger key on P-384", with(func(r *chain.Request) { r.Ledger = signingRequest(t, "t-1", chain.RoleLedger, p384) }), "must be Ed25519 or on P-256"},
		{"a ledger key that was handed over before", with(func(r *chain.Request) { r.Handovers = []string{"x"} }), "make new keys"},
		{"an uplink key on another curve", with(func(r *chain.Request) { r.Uplink = signingRequest(t, "t-1", chain.RoleUplink, p384) }), "must be on P-256"},
		{"not signed by its key", with(func(r *chain.Request) { r.Ledger = forge(t, r.Ledger, b, other) }), "not signed by its own key"},
		{"no sealing key", with(func(r *chain.Request) { r.Sealing = nil }), "X25519"},
		{"something after the request", with(func(r *chain.Request) { r.Ledger += r.Ledger }), "not one PEM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.Admit(t.Context(), tt.request)
			require.ErrorIs(t, err, centre.ErrRequest)
			assert.ErrorContains(t, err, tt.says)
		})
	}
	assert.Zero(t, count(t, cfg, "terminals"))
}

// forge puts another's key into a signing request.
func forge(t *testing.T, text string, b, other *box) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	block.Bytes = bytes.Replace(block.Bytes, b.ledger.Public().(ed25519.PublicKey), other.ledger.Public().(ed25519.PublicKey), 1)
	return string(pem.EncodeToMemory(block))
}

func FuzzAdmit(f *testing.F) {
	c, _, _ := newCentre(f)
	f.Add(newBox(f, "t-1").request(f))
	f.Add([]byte(`{"v":1,"terminal":"t-1","ledger":"","uplink":"","sealing":""}`))
	f.Fuzz(func(t *testing.T, request []byte) {
		if _, err := c.Admit(t.Context(), request); err != nil {
			assert.ErrorIs(t, err, centre.ErrRequest)
		}
	})
}

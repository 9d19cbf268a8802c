package device

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

func newKeys(t *testing.T) (string, *Keys) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "keys")
	keys, err := CreateKeys(dir)
	require.NoError(t, err)
	return dir, keys
}

func TestKeysSurviveAReopen(t *testing.T) {
	dir, created := newKeys(t)
	opened, err := OpenKeys(dir)
	require.NoError(t, err)
	assert.Equal(t, created.Ledger().Public(), opened.Ledger().Public())
	assert.Equal(t, created.Uplink().Public(), opened.Uplink().Public())
	assert.False(t, opened.SealedTemplates())
}

func TestKeyFilesAreForTheirOwnerOnly(t *testing.T) {
	dir, _ := newKeys(t)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
	siblings, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	assert.Len(t, siblings, 1, "nothing temporary is left")
}

func TestCreateKeysNeverOverwrites(t *testing.T) {
	dir, keys := newKeys(t)
	_, err := CreateKeys(dir)
	require.ErrorIs(t, err, fs.ErrExist)
	assert.ErrorContains(t, err, "never overwritten")
	again, err := OpenKeys(dir)
	require.NoError(t, err)
	assert.Equal(t, keys.Ledger().Public(), again.Ledger().Public())

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err = CreateKeys(file)
	assert.ErrorIs(t, err, fs.ErrExist)

	empty := t.TempDir()
	_, err = CreateKeys(empty)
	assert.NoError(t, err, "a directory that provisioning made is taken")
}

func TestOpenKeysRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"wide directory": {func(t *testing.T, dir string) { require.NoError(t, os.Chmod(dir, 0o755)) }, "chmod 700"},
		"wide file": {func(t *testing.T, dir string) {
			require.NoError(t, os.Chmod(filepath.Join(dir, ledgerFile), 0o640))
		}, "chmod 600"},
		"missing file": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, sealingFile)))
		}, "no such file"},
		"another key's file": {func(t *testing.T, dir string) {
			text, err := os.ReadFile(filepath.Join(dir, sealingFile))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, ledgerFile), text, 0o600))
		}, "holds no private key of type Ed25519 or P-256"},
		"not PEM": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, templateFile), []byte("key"), 0o600))
		}, "is not one PEM block"},
		"short template key": {func(t *testing.T, dir string) {
			text := pem.EncodeToMemory(&pem.Block{Type: templateBlock, Bytes: make([]byte, 16)})
			require.NoError(t, os.WriteFile(filepath.Join(dir, templateFile), text, 0o600))
		}, "holds 16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := newKeys(t)
			test.spoil(t, dir)
			_, err := OpenKeys(dir)
			assert.ErrorContains(t, err, test.want)
		})
	}
	_, err := OpenKeys(filepath.Join(t.TempDir(), "none"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

// TestTheFormerTemplateKeyOpensAndGoes: what a terminal of the first builds has.
func TestTheFormerTemplateKeyOpensAndGoes(t *testing.T) {
	dir, _ := newKeys(t)
	key := bytes.Repeat([]byte{7}, keySize)
	require.NoError(t, writePEM(filepath.Join(dir, templateFile), templateBlock, key))
	keys, err := OpenKeys(dir)
	require.NoError(t, err)
	require.True(t, keys.SealedTemplates())
	sealed := aead(key).Seal(nil, nil, []byte("template"), []byte("use"))
	plain, err := keys.OpenTemplate(sealed, []byte("use"))
	require.NoError(t, err)
	assert.Equal(t, "template", string(plain))
	_, err = keys.OpenTemplate(sealed, []byte("other use"))
	assert.ErrorIs(t, err, ErrSeal)

	require.NoError(t, keys.DestroyTemplateKey())
	assert.False(t, keys.SealedTemplates())
	_, err = keys.OpenTemplate(sealed, []byte("use"))
	assert.ErrorIs(t, err, ErrSeal)
	keys, err = OpenKeys(dir)
	require.NoError(t, err)
	assert.False(t, keys.SealedTemplates())
	require.NoError(t, keys.DestroyTemplateKey(), "twice does no harm")
}

func TestRequestNamesTerminalAndRole(t *testing.T) {
	_, keys := newKeys(t)
	req, err := keys.Request("t-1")
	require.NoError(t, err)
	for role, text := range map[chain.Role]string{chain.RoleLedger: req.Ledger, chain.RoleUplink: req.Uplink} {
		block, _ := pem.Decode([]byte(text))
		require.NotNil(t, block)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		require.NoError(t, err)
		require.NoError(t, csr.CheckSignature())
		assert.Equal(t, "t-1", csr.Subject.CommonName)
		assert.Equal(t, []string{string(role)}, csr.Subject.OrganizationalUnit)
	}

	lookup := bytes.Repeat([]byte{7}, chain.LookupKeySize)
	sealed, err := chain.SealLookupKey(req.Sealing, "t-1", "c-1", lookup)
	require.NoError(t, err)
	got, err := keys.OpenLookupKey("t-1", "c-1", sealed)
	require.NoError(t, err)
	assert.Equal(t, lookup, got)
	_, err = keys.OpenLookupKey("t-1", "c-2", sealed)
	assert.Error(t, err)

	_, err = keys.Request("room 3/1")
	assert.ErrorContains(t, err, "letters, digits and hyphens")
}

func TestKeysNeverPrint(t *testing.T) {
	_, keys := newKeys(t)
	holder := struct {
		Keys *Keys
		Copy Keys
	}{keys, *keys}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, value := range []any{keys, *keys, holder.Copy} {
			assert.Equal(t, redacted, fmt.Sprintf(verb, value), verb)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "keys", keys, "copy", *keys)
	text, err := json.Marshal(holder)
	require.NoError(t, err)
	assert.Equal(t, `{"Keys":"***","Copy":"***"}`, string(text))
	assert.Contains(t, log.String(), `"keys":"***","copy":"***"`)
}

func TestKeysSign(t *testing.T) {
	_, keys := newKeys(t)
	jws, err := chain.Sign(keys.Ledger(), chain.PurposeHead, chain.Head{Log: "t-1/1"})
	require.NoError(t, err)
	_, err = chain.Open(keys.Ledger().Public().(ed25519.PublicKey), chain.PurposeHead, []byte(jws))
	assert.NoError(t, err)

	digest := sha256.Sum256([]byte("handshake"))
	sig, err := keys.Uplink().Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	assert.True(t, ecdsa.VerifyASN1(keys.Uplink().Public().(*ecdsa.PublicKey), digest[:], sig))
}

func TestWriteDurableReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteDurable(path, []byte("one"), 0o644))
	require.NoError(t, os.WriteFile(path+".new", []byte("left by a power cut"), 0o600))
	require.NoError(t, WriteDurable(path, []byte("two"), 0o640))

	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "two", string(got))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	assert.NoFileExists(t, path+".new")

	assert.ErrorContains(t, WriteDurable(filepath.Join(t.TempDir(), "no", "file"), nil, 0o644), "no such file")
}

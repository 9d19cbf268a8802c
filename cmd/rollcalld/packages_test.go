package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue/chain"
)

// room is a terminal's package store with a centre that signs for it.
type room struct {
	t       *testing.T
	dir     string
	keys    *device.Keys
	centre  ed25519.PrivateKey
	sealing []byte
	records []attendance.Record
	term    *attendance.Terminal
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Append implements attendance.Ledger.
func (r *room) Append(_ context.Context, record attendance.Record) (attendance.Stored, error) {
	r.records = append(r.records, record)
	return attendance.Stored{Seq: uint64(len(r.records))}, nil
}

// newRoom makes keys and a terminal loop that stores what it is given.
func newRoom(t *testing.T) *room {
	dir := t.TempDir()
	keys, err := device.CreateKeys(filepath.Join(dir, "keys"))
	require.NoError(t, err)
	request, err := keys.Request("t-1")
	require.NoError(t, err)
	_, centre, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	r := &room{t: t, dir: dir, keys: keys, centre: centre, sealing: request.Sealing}
	r.term = attendance.NewTerminal(attendance.TerminalConfig{
		Ledger: r, Faces: nobody{}, Panel: nobody{}, Book: attendance.NewBook(), Log: slog.New(slog.DiscardHandler),
		Roster: func() *attendance.Roster { return attendance.NewRoster(nil) }, Now: func() time.Time { return noon },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.term.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return r
}

// nobody shows nothing and looks at nothing.
type nobody struct{}

func (nobody) Show(attendance.Screen)      {}
func (nobody) Open()                       {}
func (nobody) Close()                      {}
func (nobody) Accept(attendance.TraineeID) {}
func (nobody) Identify(context.Context, map[attendance.TraineeID]attendance.Enrolment) <-chan attendance.Look {
	return nil
}

func (nobody) Seat(map[attendance.TraineeID]attendance.Seat) {}
func (nobody) Verify(context.Context, attendance.TraineeID, attendance.Enrolment) <-chan attendance.Look {
	return nil
}

// store opens the package store as the daemon does at a start.
func (r *room) store() *packages {
	sealed := r.seal("t-1", "")
	p, err := openPackages(&packages{
		dir: filepath.Join(r.dir, "packages"), keys: r.keys, log: slog.New(slog.DiscardHandler), now: func() time.Time { return noon },
		admission: chain.Admission{Tenant: "demo", Terminal: "t-1", LookupKey: sealed},
		trust:     chain.Trust{Package: r.centre.Public()},
	})
	require.NoError(r.t, err)
	return p
}

func (r *room) seal(terminal chain.TerminalID, class string) []byte {
	key, err := chain.DeriveLookupKey([]byte("the centre's secret"), terminal, class)
	require.NoError(r.t, err)
	sealed, err := chain.SealLookupKey(r.sealing, terminal, class, key)
	require.NoError(r.t, err)
	return sealed
}

// sign signs a package of one trainee, changed by change.
func (r *room) sign(by ed25519.PrivateKey, serial uint64, change func(*attendance.Package)) []byte {
	p := attendance.Package{
		V: 1, Tenant: "demo", Terminal: "t-1", Serial: serial, Issued: noon.Add(-time.Hour), Expires: noon.Add(time.Hour),
		Class: attendance.ClassInfo{ID: "c-1", Name: "n"}, LookupKey: r.seal("t-1", "c-1"),
		Profile:  attendance.Profile{ID: "generic", Version: 1, FaceThreshold: 0.412, FaceTries: 3, ConfirmDeadlineS: 15},
		Trainees: []attendance.Trainee{{ID: "T1", Keys: []attendance.RosterKey{{Kind: attendance.KeyIdent, Hash: make([]byte, 32)}}}},
	}
	if change != nil {
		change(&p)
	}
	payload, err := json.Marshal(p)
	require.NoError(r.t, err)
	jws, err := chain.Sign(by, chain.PurposePackage, json.RawMessage(payload))
	require.NoError(r.t, err)
	return []byte(jws)
}

func TestPackageIsUsedRecordedAndSurvivesARestart(t *testing.T) {
	r := newRoom(t)
	p := r.store()
	require.NoError(t, p.accept(t.Context(), r.sign(r.centre, 1, nil), r.term))
	_, ok := p.roster.Load().Trainee("T1")
	assert.True(t, ok)
	require.Len(t, r.records, 1)
	assert.Equal(t, attendance.TypePackage, r.records[0].Type)

	restarted := r.store()
	_, ok = restarted.roster.Load().Trainee("T1")
	assert.True(t, ok, "the class is served after a restart without network")

	book := attendance.NewBook()
	assert.Equal(t, []attendance.ClassID{"c-1"}, restarted.unanswered(book), "killed between file and record")
	require.NoError(t, book.Observe(1, r.records[0].Type, r.records[0].Body))
	assert.Empty(t, restarted.unanswered(book))
}

func TestPackagesThatAreRefused(t *testing.T) {
	_, stranger, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	r := newRoom(t)
	p := r.store()
	require.NoError(t, p.accept(t.Context(), r.sign(r.centre, 5, nil), r.term))
	kept, err := os.ReadFile(p.file("c-1"))
	require.NoError(t, err)
	good := r.sign(r.centre, 6, nil)
	receipt, err := chain.Sign(r.centre, chain.PurposeReceipt, json.RawMessage(`{}`))
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		jws  []byte
		want error
	}{
		"forged by a stranger":     {r.sign(stranger, 6, nil), chain.ErrSignature},
		"one character changed":    {flipped(good), chain.ErrSignature},
		"a receipt, not a package": {[]byte(receipt), chain.ErrSignature},
		"not signed at all":        {[]byte("{}"), chain.ErrMalformed},
		"older than ours":          {r.sign(r.centre, 4, nil), attendance.ErrPackage},
		"for another terminal":     {r.sign(r.centre, 6, func(p *attendance.Package) { p.Terminal = "t-2" }), attendance.ErrPackage},
		"of another tenant":        {r.sign(r.centre, 6, func(p *attendance.Package) { p.Tenant = "other" }), attendance.ErrPackage},
		"expired":                  {r.sign(r.centre, 6, func(p *attendance.Package) { p.Expires = noon.Add(-time.Minute) }), attendance.ErrPackage},
		"key of another class":     {r.sign(r.centre, 6, func(p *attendance.Package) { p.LookupKey = r.seal("t-1", "c-2") }), chain.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, p.accept(t.Context(), tc.jws, r.term), tc.want)
			now, err := os.ReadFile(p.file("c-1"))
			require.NoError(t, err)
			assert.Equal(t, kept, now, "what was kept stays")
			assert.Len(t, r.records, 1)
		})
	}
	require.ErrorIs(t, p.accept(t.Context(), r.sign(r.centre, 5, nil), r.term), errAlreadyHere)
	require.NoError(t, p.accept(t.Context(), good, r.term), "control: the good one is taken")
}

// flipped changes one character in the middle of the signature.
func flipped(jws []byte) []byte {
	out := bytes.Clone(jws)
	if i := len(out) - 10; out[i] == 'A' {
		out[i] = 'B'
	} else {
		out[i] = 'A'
	}
	return out
}

func TestDamagedPackageFileIsPassedOver(t *testing.T) {
	r := newRoom(t)
	p := r.store()
	require.NoError(t, p.accept(t.Context(), r.sign(r.centre, 1, nil), r.term))
	require.NoError(t, p.accept(t.Context(), r.sign(r.centre, 2, func(p *attendance.Package) {
		p.Class.ID, p.LookupKey = "c-2", r.seal("t-1", "c-2")
	}), r.term))
	require.NoError(t, os.WriteFile(p.file("c-1"), []byte("x"), 0o600))
	again := r.store()
	assert.Len(t, again.status(), 1)
	assert.Equal(t, "c-2", again.status()[0].Class)
}

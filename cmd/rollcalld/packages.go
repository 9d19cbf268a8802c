package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue/chain"
)

// packages keeps the class packages this terminal works from: one signed file
// a class, checked anew at every start, so that the terminal goes on without
// network. The lookup keys in them are sealed to the terminal's key store and
// never stand on disk in clear.
type packages struct {
	dir       string
	admission chain.Admission
	trust     chain.Trust
	keys      *device.Keys
	now       func() time.Time
	log       *slog.Logger

	roster atomic.Pointer[attendance.Roster]

	mu     sync.Mutex // guards what follows
	stored map[attendance.ClassID]storedPackage
}

type storedPackage struct {
	*attendance.Package
	sha256 string
}

// errAlreadyHere says that a package is not newer than the one that is kept:
// it is retained at the broker and comes again with every connection.
var errAlreadyHere = errors.New("package is here already")

// openPackages reads what is kept. A file that does not verify is passed over
// and reported: the other classes go on.
func openPackages(p *packages) (*packages, error) {
	key, err := p.keys.OpenLookupKey(p.admission.Terminal, "", p.admission.LookupKey)
	if err != nil {
		return nil, fmt.Errorf("admission: %w: admit this terminal again", err)
	}
	p.stored = map[attendance.ClassID]storedPackage{}
	p.roster.Store(attendance.NewRoster(key))
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("class packages: %w", err)
	}
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("class packages: %w", err)
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".jws" {
			continue
		}
		if err := p.load(f); err != nil {
			p.log.Error("class package passed over", "file", f.Name(), "err", err)
		}
	}
	return p, nil
}

func (p *packages) load(f fs.DirEntry) error {
	jws, err := os.ReadFile(filepath.Join(p.dir, f.Name()))
	if err != nil {
		return err
	}
	class, key, err := p.open(jws)
	if err != nil {
		return err
	}
	p.use(class, key, jws)
	return nil
}

// open checks that a package is the centre's word, to this terminal.
func (p *packages) open(jws []byte) (*attendance.Package, []byte, error) {
	payload, err := chain.Open(p.trust.Package, chain.PurposePackage, jws)
	if err != nil {
		return nil, nil, err
	}
	class, err := attendance.ParsePackage(payload)
	if err != nil {
		return nil, nil, err
	}
	if class.Terminal != string(p.admission.Terminal) || class.Tenant != p.admission.Tenant {
		return nil, nil, fmt.Errorf("%w: it is addressed to terminal %s of %s", attendance.ErrPackage, class.Terminal, class.Tenant)
	}
	key, err := p.keys.OpenLookupKey(p.admission.Terminal, string(class.Class.ID), class.LookupKey)
	return class, key, err
}

func (p *packages) use(class *attendance.Package, key, jws []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := sha256.Sum256(jws)
	p.stored[class.Class.ID] = storedPackage{class, hex.EncodeToString(sum[:])}
	p.roster.Store(p.roster.Load().With(class, key))
}

// accept takes a package that came down: it is checked, kept durably, used
// from the next tap on, and answered by a record.
func (p *packages) accept(ctx context.Context, jws []byte, terminal *attendance.Terminal) error {
	class, key, err := p.open(jws)
	if err != nil {
		return err
	}
	if err := p.fresh(class); err != nil {
		return err
	}
	if err := device.WriteDurable(p.file(class.Class.ID), jws, 0o600); err != nil {
		return fmt.Errorf("keeping a class package: %w", err)
	}
	p.use(class, key, jws)
	return p.answer(ctx, class.Class.ID, terminal)
}

// fresh refuses what is old: a replayed package, or one whose time is over.
func (p *packages) fresh(class *attendance.Package) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.stored[class.Class.ID]
	switch {
	case ok && class.Serial == kept.Serial:
		return errAlreadyHere
	case ok && class.Serial < kept.Serial:
		return fmt.Errorf("%w: serial %d is older than %d, which this terminal has", attendance.ErrPackage, class.Serial, kept.Serial)
	case !class.Expires.After(p.now()):
		return fmt.Errorf("%w: it expired at %s", attendance.ErrPackage, class.Expires)
	}
	return nil
}

// names reports whether a package that is in use names a session.
func (p *packages) names(id attendance.SessionID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kept := range p.stored {
		if slices.ContainsFunc(kept.Sessions, func(s attendance.Session) bool { return s.ID == id }) {
			return true
		}
	}
	return false
}

// answer records that a package is in use.
func (p *packages) answer(ctx context.Context, id attendance.ClassID, terminal *attendance.Terminal) error {
	p.mu.Lock()
	kept := p.stored[id]
	p.mu.Unlock()
	_, err := terminal.Append(ctx, attendance.NewRecord(attendance.TypePackage, attendance.PackageBody{
		Class: id, Serial: kept.Serial, SHA256: kept.sha256, Sessions: len(kept.Sessions), Trainees: len(kept.Trainees),
	}))
	return err
}

// unanswered lists packages that were kept but not yet recorded: the daemon
// was killed between the two.
func (p *packages) unanswered(book *attendance.Book) []attendance.ClassID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []attendance.ClassID
	for id, kept := range p.stored {
		if !book.HasPackage(id, kept.sha256) {
			ids = append(ids, id)
		}
	}
	return ids
}

// file names a package's file by the hash of its class id, which is the
// centre's to choose and may hold anything.
func (p *packages) file(id attendance.ClassID) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(p.dir, strings.ToLower(hex.EncodeToString(sum[:8]))+".jws")
}

func (p *packages) status() []control.ClassStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []control.ClassStatus{}
	for id, kept := range p.stored {
		out = append(out, control.ClassStatus{Class: string(id), Serial: kept.Serial, Sessions: len(kept.Sessions), Trainees: len(kept.Trainees)})
	}
	return out
}

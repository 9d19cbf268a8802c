package queue

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// Open opens the ledger in cfg.Dir, or makes a new one whose line 1 says so.
// It starts nothing. It returns [ErrInUse].
//
// It checks the last file, every byte of it, and that its last line carries
// this terminal's signature; files before it are checked when they are first
// read, and all of them by [Ledger.Run] in the background. A damaged file is
// set aside under a name that ends in .bad, every record in it that can be
// proved is kept, and what is missing is named: by a gap record if records
// follow, and by a new epoch, linked to the last record that can be read, if
// the end may be missing.
func Open(cfg Config, log *slog.Logger) (*Ledger, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	store, err := lockStore(cfg.Dir, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		l := &Ledger{
			Store:     store,
			cfg:       cfg,
			log:       log,
			signing:   signing{cfg.Key, cfg.Ring},
			rotations: make(chan chan error),
			disk:      func(write func() error) error { return write() },
			waiting:   make(chan *request, chain.MaxBatchRecords),
			over:      make(chan struct{}),
			broken:    make(chan struct{}),
			changed:   make(chan struct{}),
		}
		store.notice = l.suspect
		err := l.open()
		if err == nil && l.failure == nil {
			return l, nil
		}
		// A file that was found damaged on the way is mended by the next try.
		again := (errors.Is(err, ErrDamaged) || l.failure != nil) && tries < maxMends
		if !again {
			return nil, errors.Join(err, l.failure, store.Close())
		}
		store.closeAll()
	}
}

// maxMends is how many files may be found damaged in one start.
const maxMends = 16

func (l *Ledger) open() error {
	if err := l.loadOrMake(); err != nil {
		return err
	}
	if err := l.mendSealed(); err != nil {
		return err
	}
	if err := l.openCurrent(); err != nil {
		return err
	}
	if err := l.recallReceipts(); err != nil {
		return err
	}
	l.recallAgain()
	if err := l.tellGaps(); err != nil {
		return err
	}
	l.countBad()
	if err := l.signCuts(); err != nil {
		return err
	}
	return l.removeCut()
}

// loadOrMake reads the state, or makes it: of a ledger of the first version,
// of the files that are there, or of a new epoch.
func (l *Ledger) loadOrMake() error {
	for _, left := range []string{l.root + newSuffix, filepath.Join(l.root, stateName+newSuffix)} { // of a crash; seen by nobody
		if err := os.RemoveAll(left); err != nil {
			return err
		}
	}
	s, err := loadState(l.root)
	switch {
	case err == nil:
	case errors.Is(err, ErrDamaged):
		l.log.Error("the ledger's state file is damaged: what it said is found again in the records and at the centre")
		if err := keepBad(filepath.Join(l.root, stateName)); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("opening the ledger: %w", err)
	}
	l.state = s
	if len(s.Epochs) > 0 && s.current().Log.Terminal() != l.cfg.Terminal {
		return fmt.Errorf("the ledger in %s is of terminal %q, this is %q: use its own state directory", l.dir, s.current().Log.Terminal(), l.cfg.Terminal)
	}
	if err := l.adopt(); err != nil {
		return err
	}
	if len(l.state.Epochs) == 0 {
		return l.make()
	}
	if err := l.setTakenAside(); err != nil {
		return err
	}
	return l.save(l.state)
}

// adopt takes up epochs that the state does not name: it was lost, or a crash
// came between an epoch and the state that names it.
func (l *Ledger) adopt() error {
	dirs, err := os.ReadDir(l.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	for i := range l.state.Epochs {
		if err := l.state.Epochs[i].listFiles(l.root); err != nil {
			return err
		}
	}
	var found []epoch
	for _, d := range dirs {
		e := epoch{Log: chain.NewLogID(l.cfg.Terminal, d.Name())}
		if !d.IsDir() || e.Log.Terminal() == "" || l.state.find(e.Log) != nil {
			continue
		}
		if err := e.listFiles(l.root); err != nil {
			return err
		}
		if len(e.files) == 0 {
			continue
		}
		found = append(found, e)
	}
	// Epochs link to the one before; where that cannot be read, the order in
	// which their directories were made stands in for it.
	slices.SortStableFunc(found, func(a, b epoch) int {
		return modified(filepath.Join(l.root, a.name())).Compare(modified(filepath.Join(l.root, b.name())))
	})
	l.state.Epochs = append(l.state.Epochs, found...)
	for i := range l.state.Epochs {
		if err := l.missingFiles(&l.state.Epochs[i]); err != nil {
			return err
		}
	}
	for i := range l.state.Epochs[:max(0, len(l.state.Epochs)-1)] {
		if e := &l.state.Epochs[i]; e.Ended == "" {
			e.Ended = reasonDamaged
		}
	}
	return nil
}

// missingFiles notices files that are not there any more.
func (l *Ledger) missingFiles(e *epoch) error {
	start := chain.Seq(1)
	if e.Cut != nil {
		start = e.Cut.Through + 1
	}
	if len(e.files) > 0 && e.files[0] > start {
		e.addGap(Gap{From: start, To: e.files[0] - 1, Reason: reasonMissing})
	}
	for _, first := range e.Files {
		at, there := slices.BinarySearch(e.files, first)
		switch {
		case there || first < start || e.next(first-1) != first:
		case at == len(e.files): // what it held is not known
			e.Ended = cmp.Or(e.Ended, reasonMissing)
		case at > 0: // from the end of the file before
			if err := os.WriteFile(l.path(e, e.files[at-1])+suspectSuffix, nil, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// make makes the store in a directory that is renamed into its place.
func (l *Ledger) make() error {
	if _, err := os.Stat(filepath.Join(l.dir, oldName)); err == nil {
		return l.takeOver()
	}
	root := l.root
	l.root += newSuffix
	err := l.newEpoch(l.openRecord())
	fresh := l.root
	l.root = root
	if err != nil {
		return fmt.Errorf("making a ledger in %s: %w", l.dir, err)
	}
	return l.install(fresh)
}

// install renames a store that was made whole into its place.
func (l *Ledger) install(fresh string) error {
	l.closeActive()
	if err := os.Remove(l.root); err != nil && !errors.Is(err, fs.ErrNotExist) { // unless it was empty
		if err := os.Rename(l.root, fmt.Sprintf("%s%s%d", l.root, badSuffix, time.Now().Unix())); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, l.root); err != nil {
		return fmt.Errorf("making a ledger in %s: %w", l.dir, err)
	}
	return syncDir(l.dir)
}

// newEpoch adds an epoch with its line 1 and makes it the current one:
//
//  1. Make its directory and first file under another name, synced.
//  2. Rename the directory and sync the one above. The epoch exists.
//  3. Replace the state file.
//
// After a crash between 2 and 3 the next start takes it up.
func (l *Ledger) newEpoch(records ...attendance.Record) error {
	var name [6]byte
	_, _ = rand.Read(name[:]) // crypto/rand ends the program rather than fail
	e := epoch{Log: chain.NewLogID(l.cfg.Terminal, hex.EncodeToString(name[:])), files: []chain.Seq{1}}
	if ring := l.signs().ring; ring.Last() > 0 {
		e.Keys = []keyed{{1, ring.ID(ring.Last())}}
	}
	groups, err := l.group(e.Log, records)
	if err != nil {
		return err
	}
	dir := filepath.Join(l.root, e.name())
	if err := os.RemoveAll(dir + newSuffix); err != nil {
		return err
	}
	if err := os.MkdirAll(dir+newSuffix, 0o700); err != nil {
		return err
	}
	db, err := createFile(filepath.Join(dir+newSuffix, fileName(1)), func(b *bbolt.Bucket) error {
		for _, g := range groups {
			if err := g.put(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if err := os.Rename(dir+newSuffix, dir); err != nil {
		return err
	}
	if err := errors.Join(syncDir(l.root), syncDir(filepath.Dir(l.root))); err != nil {
		return err
	}
	s := l.state.clone()
	s.Epochs = append(s.Epochs, e)
	return l.save(s)
}

// group forms the first lines of an epoch, a head for each batch.
func (l *Ledger) group(log chain.LogID, records []attendance.Record) (groups []*group, err error) {
	end := tail{log: log}
	for len(records) > 0 {
		g := &group{cfg: l.cfg, key: l.signs().key, end: end, force: true}
		for len(records) > 0 && !g.whole() {
			if err := g.add(records[0]); err != nil {
				return nil, err
			}
			records = records[1:]
		}
		if err := g.sign(); err != nil {
			return nil, err
		}
		end, groups = g.end, append(groups, g)
	}
	return groups, nil
}

// save makes a new state durable and takes it.
func (l *Ledger) save(s state) error {
	if err := s.save(l.root); err != nil {
		return fmt.Errorf("storing the ledger's state: %w", err)
	}
	l.Store.mu.Lock()
	defer l.Store.mu.Unlock()
	l.state = s
	return nil
}

// openCurrent checks the last file of the current epoch and opens it to write.
// Where the end of the epoch may be missing it begins another.
func (l *Ledger) openCurrent() error {
	if reason := l.state.current().Ended; reason != "" { // a crash came before the next epoch
		return l.begin(reason)
	}
	e := l.state.current()
	first := e.files
	if len(first) == 0 {
		return l.end(reasonDamaged)
	}
	last := first[len(first)-1]
	c, err := l.openLast(e, last)
	switch {
	case errors.Is(err, ErrDamaged):
		whole, err := l.mend(len(l.state.Epochs)-1, last, true)
		if err != nil {
			return err
		}
		if !whole {
			return l.end(reasonDamaged)
		}
		return l.openCurrent()
	case err != nil:
		return err
	}
	l.tail, l.filled = c.tail, c.size
	l.begun, l.records = c.wall, int(c.seq-last)+1
	if err := l.settle(&attendance.LastKnown{Log: string(c.log), Seq: uint64(c.seq)}); err != nil {
		return err
	}
	older, err := l.compareLast()
	if err != nil {
		return err
	}
	if older {
		return l.end(reasonOlder)
	}
	return nil
}

// openLast checks the last file and opens it to write.
func (l *Ledger) openLast(e *epoch, first chain.Seq) (content, error) {
	path := l.path(e, first)
	c, err := checkFile(path, e, first)
	if err == nil {
		err = l.ownHead(c)
	}
	if err != nil {
		return c, err
	}
	l.forget(path)
	if err := l.probe(path); err != nil {
		return c, err
	}
	db, err := openFile(path, false)
	if err != nil {
		return c, fmt.Errorf("opening %s: %w", path, err)
	}
	l.active = &file{path: path, db: db}
	return c, nil
}

// probe has another process open a file first.
func (l *Ledger) probe(path string) error {
	if l.cfg.Probe == nil {
		return nil
	}
	err := l.cfg.Probe(path)
	if err != nil && !errors.Is(err, ErrDamaged) {
		l.log.Warn("the last ledger file was not opened in another process first", "err", err)
		return nil
	}
	return err
}

// ownHead checks that the last line carries this terminal's signature.
func (l *Ledger) ownHead(c content) error {
	head, _, err := l.state.current().openHead(l.signs().ring, c.head)
	if err == nil && head.Log == c.log && head.Seq == c.seq && head.Hash == c.hash {
		return nil
	}
	if errors.Is(err, chain.ErrUnknownKey) {
		return fmt.Errorf("the ledger in %s is signed with another key than this terminal's (were the keys replaced?): "+
			"put the keys back, or move the directory %s away; then a new epoch begins and the centre is told", l.dir, l.root)
	}
	return fmt.Errorf("%w: the last record, %d, does not carry its signature", ErrDamaged, c.seq)
}

// end closes the current epoch for good, and begins another.
func (l *Ledger) end(reason string) error {
	l.closeActive()
	s := l.state.clone()
	s.current().Ended = reason
	if err := l.save(s); err != nil {
		return err
	}
	return l.begin(reason)
}

// begin begins an epoch that names the last line that can be read, and says
// again what outlasts the one before: who is enrolled, and who withdrew.
func (l *Ledger) begin(reason string) error {
	l.log.Error("a new epoch of the ledger begins: the end of the one before may be missing", "reason", reason)
	last, err := l.lastReadable()
	if err != nil {
		return err
	}
	if err := l.settle(last); err != nil {
		return err
	}
	if note, err := readLast(l.dir); err == nil && (last == nil || reason == reasonOlder || note.Log == last.Log && note.Seq > last.Seq) {
		last = note
	}
	body := l.openBody()
	body.Reason, body.Last = reason, last
	records := append([]attendance.Record{attendance.NewRecord(attendance.TypeOpen, body)}, l.standing()...)
	if err := l.newEpoch(records...); err != nil {
		return err
	}
	return l.openCurrent()
}

// standing gives what outlasts the epochs that can be read.
func (l *Ledger) standing() []attendance.Record {
	var s attendance.Standing
	err := l.Each(func(e chain.Entry) error {
		return s.Observe(attendance.Record{Type: attendance.RecordType(e.Type), Body: e.Body})
	})
	if err != nil {
		l.log.Error("not every enrolment of the epoch before could be read", "err", err)
	}
	return s.Records()
}

// lastReadable is the last line of the last epoch; nil if it has none.
func (l *Ledger) lastReadable() (*attendance.LastKnown, error) {
	e := l.state.current()
	if len(e.files) == 0 {
		return nil, nil
	}
	first := e.files[len(e.files)-1]
	c, err := checkFile(l.path(e, first), e, first)
	if errors.Is(err, ErrDamaged) {
		return nil, nil
	}
	return &attendance.LastKnown{Log: string(c.log), Seq: uint64(c.seq), Hash: c.hash.String()}, err
}

// mendSealed mends files that were found damaged while they were read, and the
// last one of an epoch that ended.
func (l *Ledger) mendSealed() error {
	for i := range l.state.Epochs {
		for _, first := range slices.Clone(l.state.Epochs[i].files) {
			e := &l.state.Epochs[i]
			mark := l.path(e, first) + suspectSuffix
			_, err := os.Stat(mark)
			ended := e.Ended != "" && first == e.files[len(e.files)-1]
			if err != nil && !ended {
				if info, err := os.Stat(l.path(e, first)); err != nil || info.Size() > 0 {
					continue
				}
			}
			if e.after(first) == 0 && !ended {
				_ = os.Remove(mark)
				continue // the last file is always checked
			}
			if err := l.mendSuspect(i, first); err != nil {
				return err
			}
			if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (l *Ledger) mendSuspect(i int, first chain.Seq) error {
	e := &l.state.Epochs[i]
	c, err := checkFile(l.path(e, first), e, first)
	if errors.Is(err, ErrDamaged) {
		_, err := l.mend(i, first, false)
		return err
	}
	if err != nil {
		return err
	}
	next := e.after(first)
	if next == 0 || e.next(c.seq) >= next {
		return nil
	}
	s := l.state.clone() // a whole file is missing
	s.Epochs[i].addGap(Gap{From: c.seq + 1, To: next - 1, Reason: reasonMissing})
	return l.save(s)
}

// mend sets a damaged file aside and puts what can be read of it into its
// place. whole is false if records may be missing after the last of it.
func (l *Ledger) mend(i int, first chain.Seq, last bool) (whole bool, err error) {
	s := l.state.clone()
	e := &s.Epochs[i]
	path := l.path(e, first)
	var next tail
	if following := e.after(first); following > 0 {
		if next, err = l.namedBy(e, following); err != nil {
			return false, err
		}
	}
	kept, err := salvage(path, e, l.signs().ring, l.cfg.ReceiptKey, next)
	if err != nil {
		return false, fmt.Errorf("reading the damaged file %s: %w", path, err)
	}
	if err := kept.sign(l.signs().key); err != nil {
		return false, err
	}
	upTo := kept.upTo
	if next.seq > 0 {
		upTo = max(upTo, next.seq)
	}
	gaps := kept.gaps(first, upTo, reasonDamaged)
	for _, g := range gaps {
		e.addGap(g)
	}
	if last && !kept.whole {
		e.Ended = reasonDamaged
	}
	l.log.Error("damaged ledger file set aside", "file", path+badSuffix, "records", len(kept.lines), "gaps", len(gaps), "end_known", kept.whole)
	if err := l.save(s); err != nil {
		return false, err
	}
	l.forget(path)
	if err := replaceDamaged(path, kept); err != nil {
		return false, fmt.Errorf("setting %s aside: %w", path, err)
	}
	s = l.state.clone()
	e = &s.Epochs[i]
	if err := e.listFiles(l.root); err != nil {
		return false, err
	}
	if len(kept.lines) > 0 && kept.lines[first] == nil { // its name follows its first record
		from := slices.Min(kept.seqs())
		if err := os.Rename(path, l.path(e, from)); err != nil {
			return false, err
		}
		if err := errors.Join(syncDir(filepath.Dir(path)), e.listFiles(l.root)); err != nil {
			return false, err
		}
	}
	return kept.whole, l.save(s)
}

// namedBy is what a file says of the line before its first.
func (l *Ledger) namedBy(e *epoch, first chain.Seq) (tail, error) {
	c, err := checkFile(l.path(e, first), e, first)
	if err == nil {
		return tail{log: e.Log, seq: first - 1, hash: c.prev}, nil
	}
	if !errors.Is(err, ErrDamaged) {
		return tail{}, err
	}
	return tail{log: e.Log, seq: first - 1}, nil // a hash of zeros names no line
}

// tellGaps writes a gap record for each gap that none names yet.
func (l *Ledger) tellGaps() error {
	s := l.state.clone()
	current := s.current().Log
	for i := range s.Epochs {
		for j := range s.Epochs[i].Gaps {
			gap := &s.Epochs[i].Gaps[j]
			if gap.Told {
				continue
			}
			body := attendance.GapBody{From: uint64(gap.From), To: uint64(gap.To), Reason: gap.Reason}
			if log := s.Epochs[i].Log; log != current {
				body.Log = string(log)
			}
			if err := l.appendNow(attendance.NewRecord(attendance.TypeGap, body)); err != nil {
				return fmt.Errorf("naming lost records: %w", err)
			}
			gap.Told, gap.By = true, &told{Log: current, Seq: l.tail.seq}
		}
	}
	// Rotation may have added a file meanwhile.
	s.current().files = l.state.current().files
	return l.save(s)
}

// appendNow stores a record before Run.
func (l *Ledger) appendNow(record attendance.Record) error {
	g := group{cfg: l.cfg, key: l.signs().key, end: l.tail, force: true}
	if err := errors.Join(g.add(record), g.sign()); err != nil {
		return err
	}
	if err := l.store(&g); err != nil {
		return err
	}
	l.tail = g.end
	return nil
}

// countBad counts files that were set aside and still wait for somebody.
func (l *Ledger) countBad() {
	bad, _ := filepath.Glob(filepath.Join(l.root, "*", "*"+badSuffix+"*"))
	state, _ := filepath.Glob(filepath.Join(l.root, stateName+badSuffix+"*"))
	l.bad = len(bad) + len(state)
}

// suspect marks a file that was found damaged while it was read, so that the
// next start looks at it, and ends the acknowledging.
func (l *Ledger) suspect(path string, err error) {
	if strings.HasSuffix(path, fileSuffix) {
		_ = os.WriteFile(path+suspectSuffix, nil, 0o600) // found again if this fails
	}
	l.fail(fmt.Errorf("%w: %w", ErrStopped, err))
}

// takeOver makes a store of a ledger of the first version: one file, ledger.db.
//
//  1. Make the whole store under another name.
//  2. Rename it, and sync the directory. It counts from here on.
//  3. Rename ledger.db to ledger.db.taken.
func (l *Ledger) takeOver() error {
	old := filepath.Join(l.dir, oldName)
	f, err := os.Open(old)
	if err != nil {
		return fmt.Errorf("taking over %s: %w", old, err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("taking over %s: %w", old, ErrInUse)
	}
	kept, err := salvage(old, &epoch{}, l.signs().ring, l.cfg.ReceiptKey, tail{})
	if err != nil {
		return fmt.Errorf("taking over %s: %w", old, err)
	}
	if err := kept.sign(l.signs().key); err != nil {
		return err
	}
	e := epoch{Log: kept.log, Receipt: kept.receipt}
	switch {
	case len(kept.lines) == 0:
		return fmt.Errorf("%w: %s: no record signed with this terminal's key can be read in it (were the keys replaced?); nothing was changed. "+
			"Move it to %s.bad, keep it for support, and start again: a new epoch begins and the centre is told", ErrDamaged, old, old)
	case e.Log.Terminal() != l.cfg.Terminal:
		return fmt.Errorf("the ledger in %s is of terminal %q, this is %q: use its own state directory", l.dir, e.Log.Terminal(), l.cfg.Terminal)
	case !kept.whole:
		e.Ended = reasonDamaged
	}
	for _, g := range kept.gaps(1, kept.upTo, reasonDamaged) {
		e.addGap(g)
	}
	fresh := l.root + newSuffix
	dir := filepath.Join(fresh, e.name())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, seqs := range kept.files() {
		db, err := createFile(filepath.Join(dir, fileName(seqs[0])), func(b *bbolt.Bucket) error { return kept.put(b, seqs) })
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			return fmt.Errorf("taking over %s: %w", old, err)
		}
		e.files = append(e.files, seqs[0])
	}
	l.state = state{Epochs: []epoch{e}}
	if err := l.state.save(fresh); err != nil {
		return fmt.Errorf("taking over %s: %w", old, err)
	}
	if err := errors.Join(syncDir(fresh), l.install(fresh)); err != nil {
		return err
	}
	l.log.Info("ledger of the first version taken over", "records", len(kept.lines))
	return l.setTakenAside()
}

// setTakenAside renames the file of the first version once the store holds
// what was in it.
func (l *Ledger) setTakenAside() error {
	err := os.Rename(filepath.Join(l.dir, oldName), filepath.Join(l.dir, takenName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(l.dir))
}

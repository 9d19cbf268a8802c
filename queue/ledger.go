package queue

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/bbolt"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

var (
	// ErrFull says that as many records wait for a receipt as the ledger may
	// hold. Nothing is overwritten; it heals when the centre answers.
	ErrFull = errors.New("the ledger is full of records that the centre has not received: restore the connection")

	// ErrStopped says that the ledger takes no more records: it was shut down,
	// or the disk reported an error. Records it acknowledged before are kept.
	ErrStopped = errors.New("the ledger has stopped")

	// ErrRecord says that a record can never be stored as it is.
	ErrRecord = errors.New("record refused")

	// ErrReceipt says that a receipt is not for this ledger as it stands.
	ErrReceipt = errors.New("receipt refused")
)

// DefaultCapacity is the capacity of a ledger that names none, in records.
const DefaultCapacity = 100_000

// headSize bounds a head in bytes, for sizing commits.
const headSize = 1 << 10

// Config is what a ledger needs.
type Config struct {
	// Dir is the state directory. It must exist and be writable.
	Dir string `toml:"dir"`
	// Capacity is how many records may wait for the centre's receipt before
	// appending is refused (about 1 KiB each). 0 means 100,000.
	Capacity int `toml:"capacity"`

	// Terminal is the terminal's id, from its admission.
	Terminal chain.TerminalID `toml:"-"`
	// Key signs heads.
	Key crypto.Signer `toml:"-"`
	// ReceiptKey is the centre's, pinned in the admission.
	ReceiptKey crypto.PublicKey `toml:"-"`
	// Stamp says when a record is formed.
	Stamp func() chain.Stamp `toml:"-"`
	// Software names this program and its version; it stands in line 1.
	Software string `toml:"-"`
}

func (c *Config) check() error {
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	switch {
	case c.Dir == "":
		return errors.New("ledger: dir is missing: name the state directory")
	case c.Capacity < 0:
		return fmt.Errorf("ledger: capacity = %d must be above 0", c.Capacity)
	case !c.Terminal.Valid():
		return fmt.Errorf("ledger: terminal id %q must be letters, digits and hyphens, at most 64", c.Terminal)
	case c.Key == nil || c.ReceiptKey == nil || c.Stamp == nil:
		return errors.New("ledger: key, receipt key and stamp must be given")
	}
	return nil
}

// Status is where the ledger stands.
type Status struct {
	Log         chain.LogID
	Last        chain.Seq  // of the last record
	Receipted   chain.Seq  // the centre has everything up to here; 0 before its first receipt
	ReceiptedAt chain.Wall // the centre's time of that receipt
	Unsent      int        // records that wait for a receipt
	Capacity    int        // of Unsent
}

// Ledger is the open ledger of this terminal.
type Ledger struct {
	*Store
	cfg Config
	id  chain.LogID
	log *slog.Logger

	update  func(func(*bbolt.Tx) error) error // db.Update; tests make it fail
	waiting chan *request                     // Append waits when it is full
	over    chan struct{}                     // closed when Run has returned
	broken  chan struct{}                     // closed when the disk reported an error
	disk    sync.Mutex                        // held by write
	sealing sync.Mutex                        // held by Receipt: one at a time

	mu      sync.Mutex // guards the rest
	end     tail
	receipt chain.Receipt // zero before the first
	changed chan struct{} // closed and replaced at each change
	failure error         // of the disk
}

// request is one Append on its way to the committer.
type request struct {
	ctx    context.Context
	record attendance.Record
	answer chan answer // holds one, so the committer never waits
}

type answer struct {
	stored attendance.Stored
	err    error
}

// Open opens the ledger in cfg.Dir, or makes a new one whose line 1 says so.
// It reads and hashes every line and starts nothing. It returns [ErrInUse],
// or [ErrDamaged] with the file left untouched.
func Open(cfg Config, log *slog.Logger) (*Ledger, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.Dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(cfg); err != nil {
			return nil, fmt.Errorf("making a ledger in %s: %w", cfg.Dir, err)
		}
	}
	store, err := openStore(path, false)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		Store:   store,
		cfg:     cfg,
		log:     log,
		update:  store.db.Update,
		waiting: make(chan *request, chain.MaxBatchRecords),
		over:    make(chan struct{}),
		broken:  make(chan struct{}),
		changed: make(chan struct{}),
	}
	if err := l.recall(); err != nil {
		_ = store.Close()
		return nil, err
	}
	return l, nil
}

// recall checks the file and learns from it where the ledger stands.
func (l *Ledger) recall() error {
	var err error
	if l.end, err = l.check(l.cfg.Key.Public()); err != nil {
		return err
	}
	l.id = l.end.log
	if got := l.id.Terminal(); got != l.cfg.Terminal {
		return fmt.Errorf("the ledger in %s is of terminal %q, this is %q: use its own state directory", l.cfg.Dir, got, l.cfg.Terminal)
	}
	if err := l.compareLast(); err != nil {
		return err
	}
	jws, err := l.lastReceipt()
	if err != nil || jws == nil {
		return err
	}
	r, err := chain.OpenReceipt(l.cfg.ReceiptKey, jws)
	if err != nil {
		// The centre has another key now. Its next receipt says where it is.
		l.log.Warn("stored receipt is not by the centre's key", "err", err)
		return nil
	}
	if err := l.owns(r); err != nil {
		return damaged(l.path, err)
	}
	l.receipt = r
	return nil
}

// create makes a ledger with line 1:
//
//  1. Make the whole file under another name, line 1, its head and the log id
//     in one commit (bbolt syncs the file).
//  2. Rename it. The epoch exists from here on.
//  3. Sync the directory.
//
// A file left by a crash before step 2 was seen by nobody and is made anew.
func create(cfg Config) error {
	path := filepath.Join(cfg.Dir, fileName)
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error { return firstLine(tx, cfg) })
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return syncDir(cfg.Dir)
}

func firstLine(tx *bbolt.Tx, cfg Config) error {
	for _, name := range [][]byte{bucketLines, bucketHeads, bucketState} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	var epoch [6]byte
	_, _ = rand.Read(epoch[:]) // crypto/rand ends the program rather than fail
	log := chain.NewLogID(cfg.Terminal, hex.EncodeToString(epoch[:]))
	g := group{cfg: cfg, end: tail{log: log}}
	if err := g.add(openRecord(cfg)); err != nil {
		return err
	}
	if err := g.sign(); err != nil {
		return err
	}
	return buckets(tx, func(lines, heads, state *bbolt.Bucket) error {
		return errors.Join(state.Put(stateLog, []byte(log)), g.put(lines, heads))
	})
}

// Append stores a record. When it returns nil the record is on disk, at the
// place and with the code in Stored, and will be delivered.
//
// It waits for [Ledger.Run]. It returns [ErrFull], [ErrStopped], [ErrRecord],
// or ctx's error; if ctx ends while the commit is under way, or the disk
// reports an error, the record may have been stored all the same. It does not
// retry.
func (l *Ledger) Append(ctx context.Context, record attendance.Record) (attendance.Stored, error) {
	r := &request{ctx: ctx, record: record, answer: make(chan answer, 1)}
	select {
	case l.waiting <- r:
	case <-ctx.Done():
		return attendance.Stored{}, ctx.Err()
	case <-l.broken:
		return attendance.Stored{}, l.stopped()
	case <-l.over:
		return attendance.Stored{}, l.stopped()
	}
	select {
	case a := <-r.answer:
		return a.stored, a.err
	case <-ctx.Done():
		return attendance.Stored{}, ctx.Err()
	case <-l.over:
	}
	select { // Run answers before it returns
	case a := <-r.answer:
		return a.stored, a.err
	default:
		return attendance.Stored{}, l.stopped()
	}
}

// Run commits what is appended until ctx ends; what waits then is still
// committed. It is called once. It returns nil, or the error of a disk that
// failed: the ledger acknowledges nothing more, and the process must start
// again and read what is on disk.
func (l *Ledger) Run(ctx context.Context) error {
	defer close(l.over)
	for {
		select {
		case r := <-l.waiting:
			if err := l.commit(r); err != nil {
				return err
			}
		case <-l.broken:
			return l.stopped()
		case <-ctx.Done():
			return l.finish()
		}
	}
}

// finish commits what waited when Run was asked to end.
func (l *Ledger) finish() error {
	for {
		select {
		case r := <-l.waiting:
			if err := l.commit(r); err != nil {
				return err
			}
		default:
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.failure
		}
	}
}

// commit stores first and what waits behind it with one head in one commit.
// It returns an error only if the disk did.
func (l *Ledger) commit(first *request) error {
	l.mu.Lock()
	g := group{cfg: l.cfg, end: l.end, receipt: l.receipt}
	l.mu.Unlock()

	var taken []*request
	for r := first; r != nil; r = l.next(&g) {
		if err := r.ctx.Err(); err != nil {
			continue // nobody waits for it any more
		}
		if err := g.add(r.record); err != nil {
			r.answer <- answer{err: err}
			continue
		}
		taken = append(taken, r)
	}
	if len(taken) == 0 {
		return nil
	}
	if err := g.sign(); err != nil {
		refuse(taken, err)
		return nil
	}
	err := l.write("storing records", func(tx *bbolt.Tx) error {
		return buckets(tx, func(lines, heads, _ *bbolt.Bucket) error { return g.put(lines, heads) })
	})
	if err != nil {
		refuse(taken, err)
		return err
	}
	l.advance(func() { l.end = g.end })
	for i, r := range taken {
		stored := g.stored(i)
		l.log.Info("record stored", "seq", stored.Seq, "type", string(r.record.Type))
		r.answer <- answer{stored: stored}
	}
	return nil
}

// write makes a change durable. The first error is the last change: after it
// nobody knows what is on the disk until it is read again, so nothing more is
// acknowledged.
func (l *Ledger) write(doing string, change func(*bbolt.Tx) error) error {
	l.disk.Lock()
	defer l.disk.Unlock()
	select {
	case <-l.broken:
		return l.stopped()
	default:
	}
	err := guard(func() error { return l.update(change) })
	if err == nil {
		return nil
	}
	l.mu.Lock()
	l.failure = fmt.Errorf("%w: %s: %w", ErrStopped, doing, err)
	l.mu.Unlock()
	close(l.broken)
	return l.stopped()
}

// next takes another waiting record if it is sure to fit, whatever its size:
// one commit never outgrows one uplink message.
func (l *Ledger) next(g *group) *request {
	if len(g.lines) == chain.MaxBatchRecords || g.size+chain.MaxLine+headSize > chain.MaxBatchBytes {
		return nil
	}
	select {
	case r := <-l.waiting:
		return r
	default:
		return nil
	}
}

func refuse(taken []*request, err error) {
	for _, r := range taken {
		r.answer <- answer{err: err}
	}
}

// group is the records of one commit.
type group struct {
	cfg     Config
	end     tail // after the last line
	receipt chain.Receipt

	lines  [][]byte
	hashes []chain.Hash
	size   int // bytes of lines with their newlines
	wall   chain.Wall
	head   []byte
}

// add puts the envelope around a record and forms its line.
func (g *group) add(record attendance.Record) error {
	if g.end.seq-g.receipt.Seq >= chain.Seq(g.cfg.Capacity) {
		return ErrFull
	}
	e := chain.Entry{
		V:    chain.Version,
		Log:  g.end.log,
		Seq:  g.end.seq + 1,
		Prev: g.end.hash,
		At:   g.cfg.Stamp(),
		Type: string(record.Type),
		Body: record.Body,
	}
	if g.receipt.Seq > 0 {
		e.Ack = &chain.Ack{Seq: g.receipt.Seq, Hash: g.receipt.Hash}
	}
	line, err := e.Line()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	// A line that a verifier refuses must never come between two that it takes.
	if _, err := chain.ParseLine(line); err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	g.end.seq, g.end.hash, g.wall = e.Seq, chain.HashLine(line), e.At.Wall
	g.lines, g.hashes = append(g.lines, line), append(g.hashes, g.end.hash)
	g.size += len(line) + 1
	return nil
}

// sign makes the head that covers the last line.
func (g *group) sign() error {
	head, err := chain.Sign(g.cfg.Key, chain.PurposeHead, chain.Head{Log: g.end.log, Seq: g.end.seq, Hash: g.end.hash, Wall: g.wall})
	g.head = []byte(head)
	return err
}

func (g *group) put(lines, heads *bbolt.Bucket) error {
	lines.FillPercent, heads.FillPercent = 1, 1 // keys only grow
	first := g.end.seq - chain.Seq(len(g.lines)) + 1
	for i, line := range g.lines {
		if err := lines.Put(seqKey(first+chain.Seq(i)), line); err != nil {
			return err
		}
	}
	return heads.Put(seqKey(g.end.seq), g.head)
}

func (g *group) stored(i int) attendance.Stored {
	first := g.end.seq - chain.Seq(len(g.lines)) + 1
	return attendance.Stored{Seq: uint64(first) + uint64(i), Code: g.hashes[i].Short()}
}

// Batch gives the payload of one uplink message (chain.FormBatch): the lines
// after a record, ending at one that a head covers, and the last of them. It
// is nil when there are none. Limits under one commit are exceeded, those of
// chain.MaxBatchRecords and chain.MaxBatchBytes never.
func (l *Ledger) Batch(after chain.Seq, maxRecords, maxBytes int) (payload []byte, last chain.Seq, err error) {
	r, err := l.run(after, maxRecords, maxBytes)
	if err != nil || len(r.lines) == 0 {
		return nil, after, err
	}
	last = after + chain.Seq(len(r.lines))
	if _, err := chain.OpenHead(l.cfg.Key.Public(), r.head); err != nil {
		return nil, after, damaged(l.path, fmt.Errorf("the head of record %d: %w", last, err))
	}
	return chain.FormBatch(r.lines, r.head), last, nil
}

// Status says where the ledger stands.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{
		Log:         l.end.log,
		Last:        l.end.seq,
		Receipted:   l.receipt.Seq,
		ReceiptedAt: l.receipt.At,
		Unsent:      int(l.end.seq - l.receipt.Seq),
		Capacity:    l.cfg.Capacity,
	}
}

// Marks is the part of [Ledger.Status] that an uplink needs.
func (l *Ledger) Marks() (log chain.LogID, last, receipted chain.Seq) {
	s := l.Status()
	return s.Log, s.Last, s.Receipted
}

// Changed gives a channel that is closed at the next change of
// [Ledger.Status]. Take the channel first and the status after it.
func (l *Ledger) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// advance changes where the ledger stands and wakes who waits for it.
func (l *Ledger) advance(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Ledger) stopped() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		return l.failure
	}
	return ErrStopped
}

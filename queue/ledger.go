package queue

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

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

// DefaultRetention is the retention of a ledger that names none.
const DefaultRetention = 180 * 24 * time.Hour

// For sizing commits: bounds of a head, and of the handovers that may go with it,
// in bytes.
const (
	headSize      = 1 << 10
	handoversSize = 4 << 10
)

// Config is what a ledger needs.
type Config struct {
	// Dir is the state directory. It must exist and be writable.
	Dir string `toml:"dir"`
	// Capacity is how many records may wait for the centre's receipt before
	// appending is refused (about 1 KiB each). 0 means 100,000.
	Capacity int `toml:"capacity"`
	// Retention is how long records are kept after the centre received them,
	// by the centre's clock. Shorter gives disk back sooner. 0 means 180 days.
	Retention time.Duration `toml:"retention"`

	// Terminal is the terminal's id, from its admission.
	Terminal chain.TerminalID `toml:"-"`
	// Key signs heads.
	Key crypto.Signer `toml:"-"`
	// Ring leads from the key in the terminal's certificate to Key; nil if it is
	// that key.
	Ring *chain.Ring `toml:"-"`
	// Keys keeps Key and those that follow it; nil if it cannot be changed.
	Keys Keys `toml:"-"`
	// ReceiptKey is the centre's, pinned in the admission.
	ReceiptKey crypto.PublicKey `toml:"-"`
	// Stamp says when a record is formed.
	Stamp func() chain.Stamp `toml:"-"`
	// Software names this program and its version; it stands in line 1.
	Software string `toml:"-"`
	// Probe has another process call [Probe] with the last file, after our own
	// check of it and before bbolt opens it in this process. A file of which it
	// says [ErrDamaged] is salvaged; another error says nothing of the file. nil:
	// our own check is enough.
	Probe func(path string) error `toml:"-"`
}

func (c *Config) check() error {
	if c.Capacity == 0 {
		c.Capacity = DefaultCapacity
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	switch {
	case c.Retention < 0:
		return fmt.Errorf("ledger: retention = %s must be above 0", c.Retention)
	case c.Dir == "":
		return errors.New("ledger: dir is missing: name the state directory")
	case c.Capacity < 0:
		return fmt.Errorf("ledger: capacity = %d must be above 0", c.Capacity)
	case !c.Terminal.Valid():
		return fmt.Errorf("ledger: terminal id %q must be letters, digits and hyphens, at most 64", c.Terminal)
	case c.Key == nil || c.ReceiptKey == nil || c.Stamp == nil:
		return errors.New("ledger: key, receipt key and stamp must be given")
	}
	if c.Ring == nil {
		ring, err := chain.NewRing(c.Terminal, c.Key.Public())
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		c.Ring = ring
	}
	if chain.KeyID(c.Ring.Key()) != chain.KeyID(c.Key.Public()) {
		return errors.New("ledger: its handovers lead to another key than the one that signs")
	}
	return nil
}

// Status is where the ledger stands. Log to ReceiptedAt are of the current
// epoch.
type Status struct {
	Log         chain.LogID
	Last        chain.Seq  // of the last record
	Receipted   chain.Seq  // the centre has everything up to here; 0 before its first receipt
	ReceiptedAt chain.Wall // the centre's time of that receipt
	Unsent      int        // records of any epoch that wait for a receipt
	Capacity    int        // of Unsent
	DiskFull    bool       // records are refused until the disk has room again
	SetAside    int        // damaged files, kept under names that end in .bad
	Lost        int        // records that could not be read in them and that the centre has not
}

// Ledger is the open ledger of this terminal.
type Ledger struct {
	*Store
	cfg Config
	log *slog.Logger

	disk      func(write func() error) error // makes a change of files; tests make it fail
	waiting   chan *request                  // Append waits when it is full
	rotations chan chan error                // Rotate waits for the committer
	over      chan struct{}                  // closed when Run has returned
	broken    chan struct{}                  // closed when nothing is acknowledged any more
	writing   sync.Mutex                     // held by write: one change of files at a time

	// Of the last file; held with writing.
	records int
	filled  int64      // bytes in use
	begun   chain.Wall // its first record
	ballast ballast

	bad int // damaged files; set by Open

	mu        sync.Mutex // guards the rest
	signing   signing
	tail      tail
	lasts     map[chain.LogID]chain.Seq // of epochs that ended
	receipts  map[chain.LogID]chain.Receipt
	again     map[chain.LogID]chain.Seq // records after this one go up again, whatever was receipted
	announced announcement
	full      bool          // the disk
	changed   chan struct{} // closed and replaced at each change
	failure   error         // why nothing is acknowledged any more
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
// committed. Beside that it checks the files that opening left unchecked, and
// lets go what the retention allows. It is called once. It returns nil, or the
// error of a disk that failed or a file that is damaged: the ledger
// acknowledges nothing more, and the process must start again and read what is
// on disk.
func (l *Ledger) Run(ctx context.Context) error {
	defer close(l.over)
	auditing, stop := context.WithCancel(ctx)
	var audit sync.WaitGroup
	defer audit.Wait()
	defer stop()
	audit.Go(func() { l.audit(auditing) })
	look := time.NewTicker(diskInterval)
	defer look.Stop()
	for {
		select {
		case r := <-l.waiting:
			if err := l.commit(r); err != nil {
				return err
			}
		case answer := <-l.rotations:
			answer <- l.rotate()
		case <-look.C:
			l.lookAtDisk()
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
// It returns an error only if nothing more may be acknowledged.
func (l *Ledger) commit(first *request) error {
	unsent := l.Status().Unsent
	l.mu.Lock()
	g := group{cfg: l.cfg, key: l.signing.key, end: l.tail, receipt: l.receipts[l.tail.log], unsent: unsent}
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
	if err := l.write("storing records", func() error { return l.store(&g) }); err != nil {
		refuse(taken, err)
		if errors.Is(err, ErrDiskFull) {
			return nil
		}
		return err
	}
	l.advance(func() { l.tail = g.end })
	for i, r := range taken {
		stored := g.stored(i)
		l.log.Info("record stored", "seq", stored.Seq, "type", string(r.record.Type))
		r.answer <- answer{stored: stored}
	}
	return nil
}

// write makes a change durable. A full disk refuses it and nothing more. Any
// other error is of the last change: after it nobody knows what is on the disk
// until it is read again (a second fsync would say yes and mean nothing), so
// nothing more is acknowledged.
func (l *Ledger) write(doing string, change func() error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	select {
	case <-l.broken:
		return l.stopped()
	default:
	}
	err := guard(func() error { return l.disk(change) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrDiskFull):
		return err
	case isDiskFull(err):
		l.setFull(l.ballast.release)
		return fmt.Errorf("%w (%w)", ErrDiskFull, err)
	}
	l.fail(fmt.Errorf("%w: %s: %w", ErrStopped, doing, err))
	return l.stopped()
}

// fail ends the acknowledging for good. The first reason stays.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		return
	}
	l.failure = err
	close(l.broken)
}

// store puts a group into the last file, or as the first into another.
func (l *Ledger) store(g *group) error {
	if err := l.room(g); err != nil {
		return err
	}
	if l.fits(g) {
		size, err := update(l.active.db, g.put)
		l.filled, l.records = size, l.records+len(g.lines)
		return err
	}
	e := l.state.current()
	first := g.end.seq - chain.Seq(len(g.lines)) + 1
	path := l.path(e, first)
	db, err := createFile(path, g.put)
	if err != nil {
		return err
	}
	l.filled, l.records, l.begun = 0, len(g.lines), g.first
	s := l.now().clone()
	s.current().files = append(s.current().files, first)
	l.Store.mu.Lock()
	l.Store.open = append(l.Store.open, l.active)
	l.active = &file{path: path, db: db}
	l.state = s
	l.Store.mu.Unlock()
	if err := s.clone().save(l.root); err != nil {
		// It says no more than the directory does, and is saved again.
		l.log.Warn("a new ledger file was not noted in the state", "err", err)
	}
	return nil
}

// fits reports whether the last file takes a group. A commit writes its lines
// and some pages of the way to them anew.
func (l *Ledger) fits(g *group) bool {
	return l.records+len(g.lines) <= maxFileRecords &&
		l.filled+2*int64(g.size)+64<<10 <= maxFileBytes &&
		g.wall.Sub(l.begun.Time) < maxFileAge
}

// next takes another waiting record if it is sure to fit, whatever its size:
// one commit never outgrows one uplink message.
func (l *Ledger) next(g *group) *request {
	if g.whole() {
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
	key     crypto.Signer
	end     tail // after the last line
	receipt chain.Receipt
	unsent  int  // records that wait already
	force   bool // a record about the ledger itself, which a full one takes too

	lines  [][]byte
	hashes []chain.Hash
	size   int        // bytes of lines with their newlines
	first  chain.Wall // of its first line
	wall   chain.Wall // of its last
	head   []byte
}

// add puts the envelope around a record and forms its line.
func (g *group) add(record attendance.Record) error {
	if !g.force && g.unsent+len(g.lines) >= g.cfg.Capacity {
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
	if len(g.lines) == 0 {
		g.first = e.At.Wall
	}
	g.end.seq, g.end.hash, g.wall = e.Seq, chain.HashLine(line), e.At.Wall
	g.lines, g.hashes = append(g.lines, line), append(g.hashes, g.end.hash)
	g.size += len(line) + 1
	return nil
}

// whole reports that one more record might not fit into one uplink message.
func (g *group) whole() bool {
	return len(g.lines) == chain.MaxBatchRecords || g.size+chain.MaxLine+headSize+handoversSize > chain.MaxBatchBytes
}

// sign makes the head that covers the last line.
func (g *group) sign() error {
	head, err := chain.Sign(g.key, chain.PurposeHead, chain.Head{Log: g.end.log, Seq: g.end.seq, Hash: g.end.hash, Wall: g.wall})
	g.head = []byte(head)
	return err
}

func (g *group) put(b *bbolt.Bucket) error {
	b.FillPercent = 1 // keys only grow
	first := g.end.seq - chain.Seq(len(g.lines)) + 1
	for i, line := range g.lines {
		if err := b.Put(seqKey(first+chain.Seq(i)), line); err != nil {
			return err
		}
	}
	return b.Put(headKey(g.end.seq), g.head)
}

func (g *group) stored(i int) attendance.Stored {
	first := g.end.seq - chain.Seq(len(g.lines)) + 1
	return attendance.Stored{Seq: uint64(first) + uint64(i), Code: g.hashes[i].Short()}
}

// Batch gives the payload of one uplink message (chain.FormBatch): the lines
// after a record of the log that [Ledger.Marks] names, ending at one that a
// head covers, and the last of them. It is nil when there are none. Limits
// under one commit are exceeded, those of chain.MaxBatchRecords and
// chain.MaxBatchBytes never. Where the records after it are lost, it gives in
// turn the batch with the gap record that names them, and what stands behind.
// Handovers go with a head by a key that no record before it tells of.
func (l *Ledger) Batch(after chain.Seq, maxRecords, maxBytes int) (payload []byte, last chain.Seq, err error) {
	log, _, _ := l.Marks()
	from := after
	gap, first := l.announce(log, after)
	if first {
		log, from = gap.Log, gap.Seq-1
	}
	r, err := l.run(log, from, maxRecords, min(maxBytes, chain.MaxBatchBytes-handoversSize))
	if err != nil || len(r.lines) == 0 {
		return nil, after, err
	}
	now, ring := l.now(), l.signs().ring // after the lines: a change of the key may have come between
	e := now.find(log)
	_, by, err := e.openHead(ring, r.head)
	if err != nil {
		holds, _ := e.file(r.last)
		return nil, after, l.damaged(l.path(e, holds), fmt.Errorf("%w: the head of record %d: %w", ErrDamaged, r.last, err))
	}
	if by > 0 && (first || !e.explains(ring.ID(by), r.last)) {
		return chain.FormBatch(r.lines, r.head, ring.Handovers()[:by]...), r.last, nil
	}
	return chain.FormBatch(r.lines, r.head), r.last, nil
}

// Status says where the ledger stands.
func (l *Ledger) Status() Status {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.receipts[l.tail.log]
	s := Status{
		Log: l.tail.log, Last: l.tail.seq, Receipted: r.Seq, ReceiptedAt: r.At,
		Capacity: l.cfg.Capacity, DiskFull: l.full, SetAside: l.bad,
	}
	for i := range now.Epochs {
		e := &now.Epochs[i]
		s.Unsent += l.waitingIn(e)
		s.Lost += e.missing(l.receipts[e.Log].Seq)
	}
	return s
}

// waitingIn counts the records of an epoch that wait for a receipt. The caller
// holds mu.
func (l *Ledger) waitingIn(e *epoch) int {
	from := l.receipts[e.Log].Seq
	if e.Cut != nil {
		from = max(from, e.Cut.Through)
	}
	last := l.lastOf(e.Log)
	if from >= last {
		return 0
	}
	return max(0, int(last-from)-e.missing(from))
}

func (l *Ledger) lastOf(log chain.LogID) chain.Seq {
	if log == l.tail.log {
		return l.tail.seq
	}
	return l.lasts[log]
}

// End names the last record.
func (l *Ledger) End() chain.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return chain.Link{Log: l.tail.log, Seq: l.tail.seq, Hash: l.tail.hash}
}

// Marks says what an uplink sends: a log that [Ledger.Rewind] named, or the
// oldest with records that wait for a receipt, or the current one; its last
// record, and the one after which to go on: the last that the centre is known
// to have.
func (l *Ledger) Marks() (log chain.LogID, last, receipted chain.Seq) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	log = l.tail.log
	for i := range now.Epochs {
		if after, ok := l.again[now.Epochs[i].Log]; ok {
			return now.Epochs[i].Log, l.lastOf(now.Epochs[i].Log), after
		}
		if l.waitingIn(&now.Epochs[i]) > 0 {
			log = now.Epochs[i].Log
			break
		}
	}
	return log, l.lastOf(log), l.receipts[log].Seq
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

package queue_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

var (
	cuts       = flag.Int("cuts", 24, "power cuts that TestF24PowerCut makes")
	cutSeed    = flag.Uint64("cut-seed", 1, "seed of the first of them; cut n has seed + n")
	cutJournal = flag.String("cut-journal", "", "name of the files of what is cut: read if they are there, else made. With them a seed gives the same bytes again")
)

// A file system for tests notes everything that is written and synced, and
// then builds what a disk may hold after a power cut: what was synced, and of
// the rest any part. Writes may be lost, cut at a sector, or done in another
// order; of the names in a directory any number of the last changes may be
// lost. It is mounted with FUSE, so the store runs on it unchanged.

const sector = 512

// change is one thing that was done; of what is not said the fields are zero.
type change struct {
	Kind  changeKind
	Ino   uint64 // the file, or the directory
	Name  string // in the directory
	Child uint64 // what has the name
	At    int64
	Data  []byte
	Ack   attendance.Stored
}

type changeKind int

const (
	wrote changeKind = iota
	truncated
	named
	unnamed
	synced
	acknowledged
)

// journal notes changes.
type journal struct {
	mu      sync.Mutex
	Changes []change
	Root    uint64            // the top directory
	Start   int               // below a file system: so many changes made its empty disk
	numbers map[uint64]uint64 // the disk below uses numbers of files again
	last    uint64
	back    string // the directory below

	fault func(changeKind) syscall.Errno // what a write or sync says instead; nil: it works
}

func (j *journal) fails(kind changeKind) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fault == nil {
		return 0
	}
	return j.fault(kind)
}

// setFault changes what the disk says from now on.
func (j *journal) setFault(f func(changeKind) syscall.Errno) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = f
}

func (j *journal) note(c change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.Ino, c.Child = j.number(c.Ino), j.number(c.Child)
	j.Changes = append(j.Changes, c)
}

func (j *journal) number(ino uint64) uint64 {
	if n, ok := j.numbers[ino]; ok || ino == 0 {
		return n
	}
	return j.fresh(ino)
}

// fresh gives a number to a file that was made.
func (j *journal) fresh(ino uint64) uint64 {
	j.last++
	j.numbers[ino] = j.last
	return j.last
}

// made notes a new file or directory.
func (j *journal) made(c change) {
	j.mu.Lock()
	j.fresh(c.Child)
	j.mu.Unlock()
	j.note(c)
}

// node is a file or directory that notes what happens to it.
type node struct {
	fs.LoopbackNode
	journal *journal
}

// WrapChild makes what is found under it note too.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, journal: n.journal}
}

func (n *node) ino() uint64 { return n.StableAttr().Ino }

func (n *node) path(name string) string {
	return filepath.Join(n.RootData.Path, n.Path(n.Root()), name)
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, h, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if r, ok := h.(fs.FileReleaser); ok {
		r.Release(ctx)
	}
	f, err := os.OpenFile(n.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	n.journal.made(change{Kind: named, Ino: n.ino(), Name: name, Child: child.StableAttr().Ino})
	return child, &handle{f, child.StableAttr().Ino, n.journal}, 0, 0
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := os.OpenFile(n.path(""), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	if flags&syscall.O_TRUNC != 0 {
		if err := f.Truncate(0); err != nil {
			return nil, 0, fs.ToErrno(err)
		}
		n.journal.note(change{Kind: truncated, Ino: n.ino()})
	}
	return &handle{f, n.ino(), n.journal}, 0, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		n.journal.made(change{Kind: named, Ino: n.ino(), Name: name, Child: child.StableAttr().Ino, At: 1})
	}
	return child, errno
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	child := n.GetChild(name).StableAttr().Ino
	dir := int64(0)
	if n.GetChild(name).IsDir() {
		dir = 1
	}
	errno := n.LoopbackNode.Rename(ctx, name, to, newName, flags)
	if errno == 0 {
		n.journal.note(change{Kind: named, Ino: to.EmbeddedInode().StableAttr().Ino, Name: newName, Child: child, At: dir, Data: []byte(name)})
	}
	return errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.LoopbackNode.Link(ctx, target, name, out)
	if errno == 0 {
		n.journal.note(change{Kind: named, Ino: n.ino(), Name: name, Child: child.StableAttr().Ino})
	}
	return child, errno
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	errno := n.LoopbackNode.Unlink(ctx, name)
	if errno == 0 {
		n.journal.note(change{Kind: unnamed, Ino: n.ino(), Name: name})
	}
	return errno
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	errno := n.LoopbackNode.Rmdir(ctx, name)
	if errno == 0 {
		n.journal.note(change{Kind: unnamed, Ino: n.ino(), Name: name})
	}
	return errno
}

func (n *node) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	errno := n.LoopbackNode.Setattr(ctx, nil, in, out)
	if size, ok := in.GetSize(); ok && errno == 0 {
		n.journal.note(change{Kind: truncated, Ino: n.ino(), At: int64(size)})
	}
	return errno
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, f, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{h.(below), n}, f, 0
}

// dirHandle is an open directory.
type dirHandle struct {
	below
	node *node
}

type below interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.node.Fsync(ctx, nil, flags)
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if errno := n.journal.fails(synced); errno != 0 {
		return errno
	}
	n.journal.note(change{Kind: synced, Ino: n.ino()})
	return 0
}

// handle is an open file.
type handle struct {
	f       *os.File
	ino     uint64
	journal *journal
}

func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultFd(h.f.Fd(), off, len(dest)), 0
}

func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.journal.fails(wrote); errno != 0 {
		return 0, errno
	}
	n, err := h.f.WriteAt(data, off)
	h.journal.note(change{Kind: wrote, Ino: h.ino, At: off, Data: bytes.Clone(data[:n])})
	return uint32(n), fs.ToErrno(err)
}

func (h *handle) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }

// mount mounts an empty noting file system.
func mount(t *testing.T) (dir string, j *journal, root uint64) {
	t.Helper()
	dir, back := t.TempDir(), t.TempDir()
	j = &journal{numbers: map[uint64]uint64{}, back: back}
	var st syscall.Stat_t
	require.NoError(t, syscall.Stat(back, &st))
	data := &fs.LoopbackRoot{Path: back, Dev: uint64(st.Dev)}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, journal: j}
	data.RootNode = top
	server, err := fs.Mount(dir, top, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	require.NoError(t, err, "this test mounts a file system and needs root and /dev/fuse")
	t.Cleanup(func() { require.NoError(t, server.Unmount()) })
	j.mu.Lock()
	defer j.mu.Unlock()
	return dir, j, j.number(top.ino())
}

// image is what a disk holds: files by their number, and names.
type image struct {
	files map[uint64][]byte
	dirs  map[uint64]map[string]entry
}

type entry struct {
	ino uint64
	dir bool
}

// after builds what the disk may hold if the power goes after so many changes,
// and what was acknowledged by then. With syncs false it takes no notice of
// them.
func (j *journal) after(n int, syncs bool, r *rand.Rand) (image, []attendance.Stored) {
	j.mu.Lock()
	defer j.mu.Unlock()
	changes := j.Changes[:n]
	last := map[uint64]int{} // the last sync of each file and directory
	var acks []attendance.Stored
	for i, c := range changes {
		if c.Kind == synced && syncs {
			last[c.Ino] = i
		} else if c.Kind == acknowledged {
			acks = append(acks, c.Ack)
		}
	}
	img := image{map[uint64][]byte{}, map[uint64]map[string]entry{}}
	lossy := r.Float64() // of unsynced writes, this share is lost
	var late []change    // writes that are done after all others
	stopped := map[uint64]bool{}
	for i, c := range changes {
		safe := i < last[c.Ino] || i < j.Start
		switch c.Kind {
		case wrote:
			if !safe && r.Float64() < lossy {
				continue
			}
			if !safe && r.IntN(4) == 0 {
				c.Data = c.Data[:r.IntN(len(c.Data)/sector+1)*sector]
			}
			if !safe && j.Start == 0 && r.IntN(4) == 0 { // no disk puts an older sector over a newer
				late = append(late, c)
				continue
			}
			img.write(c)
		case truncated:
			if safe || r.Float64() >= lossy {
				img.truncate(c)
			}
		case named, unnamed:
			// A directory keeps the order of its changes.
			if stopped[c.Ino] = stopped[c.Ino] || !safe && r.Float64() < lossy/2; !stopped[c.Ino] {
				img.name(c)
			}
		}
	}
	r.Shuffle(len(late), func(a, b int) { late[a], late[b] = late[b], late[a] })
	for _, c := range late {
		img.write(c)
	}
	return img, acks
}

func (m image) write(c change) {
	b := m.files[c.Ino]
	if end := int(c.At) + len(c.Data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[c.At:], c.Data)
	m.files[c.Ino] = b
}

func (m image) truncate(c change) {
	b := m.files[c.Ino]
	if int(c.At) > len(b) {
		b = append(b, make([]byte, int(c.At)-len(b))...)
	}
	m.files[c.Ino] = b[:c.At]
}

func (m image) name(c change) {
	names := m.dirs[c.Ino]
	if names == nil {
		names = map[string]entry{}
		m.dirs[c.Ino] = names
	}
	if c.Kind == unnamed {
		delete(names, c.Name)
		return
	}
	if c.Data != nil {
		delete(names, string(c.Data))
	}
	names[c.Name] = entry{c.Child, c.At == 1}
}

// restore writes an image out.
func (m image) restore(t *testing.T, ino uint64, dir string) {
	for name, e := range m.dirs[ino] {
		path := filepath.Join(dir, name)
		if e.dir {
			require.NoError(t, os.Mkdir(path, 0o700))
			m.restore(t, e.ino, path)
			continue
		}
		require.NoError(t, os.WriteFile(path, m.files[e.ino], 0o600))
	}
}

// A test process that finds this variable fills the ledger in the directory it
// names and ends: records, files that rotate, receipts, a retention that lets
// old ones go, and a restart.
const childFill = "ROLLCALL_TEST_FILL"

func fillForPowerCut(dir string) error {
	cfg := queuetest.Config(dir)
	cfg.Retention = 48 * time.Hour
	day := 0
	stamp := cfg.Stamp
	cfg.Stamp = func() chain.Stamp {
		s := stamp()
		s.Wall = chain.NewWall(s.Wall.AddDate(0, 0, day))
		return s
	}
	for range 2 {
		l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for range 3 {
			day++
			if err := fillDay(l, day); err != nil {
				stop()
				return errors.Join(err, <-ended)
			}
		}
		stop()
		if err := errors.Join(<-ended, l.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fillDay(l *queue.Ledger, day int) error {
	for n := range 8 {
		s, err := l.Append(context.Background(), queuetest.Record(100*day+n))
		if err != nil {
			return err
		}
		fmt.Printf("%d %s\n", s.Seq, s.Code)
	}
	status := l.Status()
	payload, last, err := l.Batch(status.Receipted, chain.MaxBatchRecords, chain.MaxBatchBytes)
	if err != nil {
		return err
	}
	b, err := chain.ParseBatch(payload)
	if err != nil {
		return err
	}
	jws, err := chain.Sign(queuetest.CentreKey, chain.PurposeReceipt, chain.Receipt{
		Log: status.Log, Seq: last, Hash: b.LastHash(), At: chain.NewWall(time.Date(2026, 11, 21+day, 9, 0, 0, 0, time.UTC))})
	if err != nil {
		return err
	}
	if _, err := l.Receipt([]byte(jws)); err != nil {
		return err
	}
	return l.LetGo()
}

// noted is what filling a ledger on the noting file system changes.
func noted(t *testing.T) *journal { return notedBy(t, ".files", noteNow) }

// notedBy gives what -cut-journal holds of a kind, or notes and keeps it there.
func notedBy(t *testing.T, kind string, note func(*testing.T) *journal) *journal {
	t.Helper()
	j := &journal{}
	file, err := os.Open(*cutJournal + kind)
	if err == nil {
		defer file.Close()
		require.NoError(t, gob.NewDecoder(file).Decode(j))
		return j
	}
	j = note(t)
	if *cutJournal != "" {
		j.keep(t, *cutJournal+kind)
	}
	return j
}

func (j *journal) keep(t *testing.T, path string) {
	var text bytes.Buffer
	require.NoError(t, gob.NewEncoder(&text).Encode(j))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, text.Bytes(), 0o600))
}

func noteNow(t *testing.T) *journal {
	t.Helper()
	dir, j, root := mount(t)
	j.fill(t, dir)
	j.mu.Lock() // the kernel lets files go a little later
	defer j.mu.Unlock()
	return &journal{Changes: slices.Clone(j.Changes), Root: root}
}

// fill has a child fill a ledger in dir, and notes what it acknowledged.
func (j *journal) fill(t *testing.T, dir string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childFill+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var s attendance.Stored
		_, err := fmt.Sscanf(lines.Text(), "%d %s", &s.Seq, &s.Code)
		require.NoError(t, err)
		j.note(change{Kind: acknowledged, Ack: s})
	}
	require.NoError(t, child.Wait())
}

// afterCut opens a ledger after a power cut, and says what is wrong with it.
func afterCut(dir string, acks []attendance.Stored) error {
	cfg := queuetest.Config(dir)
	l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer l.Close()
	codes := map[uint64]string{}
	var logs []chain.LogID
	var first chain.Seq
	err = l.Each(func(e chain.Entry) error {
		line, err := e.Line()
		codes[uint64(e.Seq)] = chain.HashLine(line).Short()
		if first == 0 {
			first = e.Seq
		}
		if e.Log != append(logs, e.Log)[0] || len(logs) == 0 {
			logs = append(logs, e.Log)
		}
		return err
	})
	if err != nil {
		return err
	}
	status := l.Status()
	if len(logs) != 1 || status.SetAside > 0 {
		return fmt.Errorf("the cut was taken for damage: %d epochs, %d files set aside", len(logs), status.SetAside)
	}
	for _, ack := range acks {
		if letGo := ack.Seq < uint64(first); !letGo && codes[ack.Seq] != ack.Code {
			return fmt.Errorf("record %d was acknowledged and is lost", ack.Seq)
		} else if letGo && status.Receipted < chain.Seq(ack.Seq) {
			return fmt.Errorf("record %d was let go without a receipt", ack.Seq)
		}
	}
	return nil
}

// cut cuts the power so many times, and gives what went wrong by seed.
func (j *journal) cut(t *testing.T, syncs bool) map[uint64]error {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "rollcall-power-cut-*") // many small files
	require.NoError(t, err)
	defer os.RemoveAll(base)
	wrong := map[uint64]error{}
	for n := range *cuts {
		seed := *cutSeed + uint64(n)
		dir := filepath.Join(base, "image")
		require.NoError(t, os.Mkdir(dir, 0o700))
		if err := afterCut(dir, j.imageOf(t, seed, syncs, dir)); err != nil {
			wrong[seed] = err
		}
		require.NoError(t, os.RemoveAll(dir))
		if done := n + 1; done%1000 == 0 && done < *cuts {
			t.Logf("%d of %d power cuts, %d went wrong; -cut-seed %d goes on from here", done, *cuts, len(wrong), seed+1)
		}
	}
	return wrong
}

// imageOf writes out what a disk may hold after the cut of a seed, and gives
// what was acknowledged by then.
func (j *journal) imageOf(t *testing.T, seed uint64, syncs bool, dir string) []attendance.Stored {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	img, acks := j.after(j.from(r), syncs, r)
	img.restore(t, j.Root, dir)
	return acks
}

// No power cut loses a record that was acknowledged, and none is taken for
// damage. `make proof-crash` runs it longer.
func TestF24PowerCut(t *testing.T) {
	j := noted(t)
	wrong := j.cut(t, true)
	t.Logf("%d changes noted, %d power cuts from seed %d, %d went wrong", len(j.Changes), *cuts, *cutSeed, len(wrong))
	j.tell(t, ".files", "-cuts", wrong)
}

// tell says what went wrong, and keeps what is needed to see it again.
func (j *journal) tell(t *testing.T, kind, count string, wrong map[uint64]error) {
	t.Helper()
	if len(wrong) == 0 {
		return
	}
	kept := cmp.Or(*cutJournal, filepath.Join(os.TempDir(), fmt.Sprintf("rollcall-power-cut-%d", time.Now().Unix())))
	j.keep(t, kept+kind)
	for i, seed := range slices.Sorted(maps.Keys(wrong)) {
		if assert.NoError(t, wrong[seed], "the same bytes again: -cut-journal %s %s 1 -cut-seed %d", kept, count, seed); i == 5 {
			break
		}
	}
}

// The same cuts on a disk that does not sync must lose records.
func TestF24PowerCutControl(t *testing.T) {
	j := noted(t)
	wrong := j.cut(t, false)
	t.Logf("control, syncs without effect: %d of %d power cuts went wrong", len(wrong), *cuts)
	assert.Greater(t, len(wrong), *cuts/4, "the harness would not notice a disk that lies")
}

// A seed and a journal give the same disk, to the byte.
func TestF24PowerCutReplays(t *testing.T) {
	*cutJournal = filepath.Join(t.TempDir(), "journal")
	defer func() { *cutJournal = "" }()
	first, again := noted(t), noted(t)
	a, b := t.TempDir(), t.TempDir()
	assert.Equal(t, first.imageOf(t, 7, true, a), again.imageOf(t, 7, true, b))
	read := func(dir string) (text []string) {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			text = append(text, path[len(dir):], string(b))
			return err
		}))
		return text
	}
	assert.NotEmpty(t, read(a))
	assert.Equal(t, read(a), read(b))
}

package queue_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
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
	cuts    = flag.Int("cuts", 50, "power cuts that TestPowerCut makes")
	cutSeed = flag.Uint64("cut-seed", 1, "seed of the first of them; cut n has seed + n")
)

// A file system for tests notes everything that is written and synced, and
// then builds what a disk may hold after a power cut: what was synced, and of
// the rest any part. Writes may be lost, cut at a sector, or done in another
// order; of the names in a directory any number of the last changes may be
// lost. It is mounted with FUSE, so the store runs on it unchanged.

const sector = 512

// change is one thing that was done; of what is not said the fields are zero.
type change struct {
	kind  changeKind
	ino   uint64 // the file, or the directory
	name  string // in the directory
	child uint64 // what has the name
	at    int64
	data  []byte
	ack   attendance.Stored
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
	changes []change
	numbers map[uint64]uint64 // the disk below uses numbers of files again
	last    uint64
}

func (j *journal) note(c change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.ino, c.child = j.number(c.ino), j.number(c.child)
	j.changes = append(j.changes, c)
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
	j.fresh(c.child)
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
	n.journal.made(change{kind: named, ino: n.ino(), name: name, child: child.StableAttr().Ino})
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
		n.journal.note(change{kind: truncated, ino: n.ino()})
	}
	return &handle{f, n.ino(), n.journal}, 0, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		n.journal.made(change{kind: named, ino: n.ino(), name: name, child: child.StableAttr().Ino, at: 1})
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
		n.journal.note(change{kind: named, ino: to.EmbeddedInode().StableAttr().Ino, name: newName, child: child, at: dir, data: []byte(name)})
	}
	return errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.LoopbackNode.Link(ctx, target, name, out)
	if errno == 0 {
		n.journal.note(change{kind: named, ino: n.ino(), name: name, child: child.StableAttr().Ino})
	}
	return child, errno
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	errno := n.LoopbackNode.Unlink(ctx, name)
	if errno == 0 {
		n.journal.note(change{kind: unnamed, ino: n.ino(), name: name})
	}
	return errno
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	errno := n.LoopbackNode.Rmdir(ctx, name)
	if errno == 0 {
		n.journal.note(change{kind: unnamed, ino: n.ino(), name: name})
	}
	return errno
}

func (n *node) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	errno := n.LoopbackNode.Setattr(ctx, nil, in, out)
	if size, ok := in.GetSize(); ok && errno == 0 {
		n.journal.note(change{kind: truncated, ino: n.ino(), at: int64(size)})
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
	n.journal.note(change{kind: synced, ino: n.ino()})
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
	n, err := h.f.WriteAt(data, off)
	h.journal.note(change{kind: wrote, ino: h.ino, at: off, data: bytes.Clone(data[:n])})
	return uint32(n), fs.ToErrno(err)
}

func (h *handle) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }

// mount mounts an empty noting file system.
func mount(t *testing.T) (dir string, j *journal, root uint64) {
	t.Helper()
	dir, back := t.TempDir(), t.TempDir()
	j = &journal{numbers: map[uint64]uint64{}}
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
	changes := j.changes[:n]
	last := map[uint64]int{} // the last sync of each file and directory
	var acks []attendance.Stored
	for i, c := range changes {
		if c.kind == synced && syncs {
			last[c.ino] = i
		} else if c.kind == acknowledged {
			acks = append(acks, c.ack)
		}
	}
	img := image{map[uint64][]byte{}, map[uint64]map[string]entry{}}
	lossy := r.Float64() // of unsynced writes, this share is lost
	var late []change    // writes that are done after all others
	stopped := map[uint64]bool{}
	for i, c := range changes {
		safe := i < last[c.ino]
		switch c.kind {
		case wrote:
			if !safe && r.Float64() < lossy {
				continue
			}
			if !safe && r.IntN(4) == 0 {
				c.data = c.data[:r.IntN(len(c.data)/sector+1)*sector]
			}
			if !safe && r.IntN(4) == 0 {
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
			if stopped[c.ino] = stopped[c.ino] || !safe && r.Float64() < lossy/2; !stopped[c.ino] {
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
	b := m.files[c.ino]
	if end := int(c.at) + len(c.data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[c.at:], c.data)
	m.files[c.ino] = b
}

func (m image) truncate(c change) {
	b := m.files[c.ino]
	if int(c.at) > len(b) {
		b = append(b, make([]byte, int(c.at)-len(b))...)
	}
	m.files[c.ino] = b[:c.at]
}

func (m image) name(c change) {
	names := m.dirs[c.ino]
	if names == nil {
		names = map[string]entry{}
		m.dirs[c.ino] = names
	}
	if c.kind == unnamed {
		delete(names, c.name)
		return
	}
	if c.data != nil {
		delete(names, string(c.data))
	}
	names[c.name] = entry{c.child, c.at == 1}
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

// noted fills a ledger on the noting file system.
func noted(t *testing.T) (*journal, uint64) {
	t.Helper()
	dir, j, root := mount(t)
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
		j.note(change{kind: acknowledged, ack: s})
	}
	require.NoError(t, child.Wait())
	j.mu.Lock() // the kernel lets files go a little later
	defer j.mu.Unlock()
	return &journal{changes: slices.Clone(j.changes)}, root
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
func (j *journal) cut(t *testing.T, root uint64, syncs bool) map[uint64]error {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "rollcall-power-cut-*") // many small files
	require.NoError(t, err)
	defer os.RemoveAll(base)
	wrong := map[uint64]error{}
	for n := range *cuts {
		seed := *cutSeed + uint64(n)
		r := rand.New(rand.NewPCG(seed, 1))
		img, acks := j.after(1+r.IntN(len(j.changes)), syncs, r)
		dir := filepath.Join(base, "image")
		require.NoError(t, os.Mkdir(dir, 0o700))
		img.restore(t, root, dir)
		if err := afterCut(dir, acks); err != nil {
			wrong[seed] = err
		}
		require.NoError(t, os.RemoveAll(dir))
	}
	return wrong
}

// No power cut loses a record that was acknowledged, and none is taken for
// damage. `make proof-crash` runs it longer. The journal differs a little from
// run to run: a seed names the cut, not its bytes.
func TestPowerCut(t *testing.T) {
	j, root := noted(t)
	wrong := j.cut(t, root, true)
	t.Logf("%d changes noted, %d power cuts, %d went wrong", len(j.changes), *cuts, len(wrong))
	for i, seed := range slices.Sorted(maps.Keys(wrong)) {
		if assert.NoError(t, wrong[seed], "replay with -cuts 1 -cut-seed %d", seed); i == 5 {
			break
		}
	}
}

// The same cuts on a disk that does not sync must lose records.
func TestPowerCutControl(t *testing.T) {
	j, root := noted(t)
	wrong := j.cut(t, root, false)
	t.Logf("control, syncs without effect: %d of %d power cuts went wrong", len(wrong), *cuts)
	assert.Greater(t, len(wrong), *cuts/4, "the harness would not notice a disk that lies")
}

package queue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrDiskFull says that the disk has no room for a record. Nothing is
// overwritten; records are taken again as soon as there is room.
var ErrDiskFull = errors.New("the disk is full: free some space; records are taken again as soon as there is room")

const (
	ballastName = "ballast"
	ballastSize = 16 << 20
	// roomNeeded is what must be free for a record beside the ballast: one
	// commit of the largest size, and some for what others write.
	roomNeeded   = 1 << 20
	diskInterval = 10 * time.Second
)

// ballast is a file that holds room on the disk. It is let go when the disk is
// full, so that deletes, logs and receipts go on; records wait until it is
// back. Its zero value is away.
type ballast struct {
	path string
	away bool
}

// hold takes the room. It reports false if the disk does not give it.
func (b *ballast) hold() bool {
	if info, err := os.Stat(b.path); err == nil && info.Size() == ballastSize {
		b.away = false
		return true
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		b.away = true
		return false
	}
	defer f.Close()
	err = syscall.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		_, err = f.WriteAt(make([]byte, ballastSize), 0)
	}
	if b.away = err != nil; b.away {
		_ = f.Truncate(0)
	}
	return !b.away
}

// release gives the room back.
func (b *ballast) release() {
	b.away = true
	_ = os.Truncate(b.path, 0)
}

// room refuses a record while the disk is full. The caller holds writing.
func (l *Ledger) room(*group) error {
	if l.ballast.path == "" {
		l.ballast = ballast{path: filepath.Join(l.root, ballastName)}
		l.ballast.away = true
	}
	free, err := freeBytes(l.root)
	if err != nil {
		return nil // the write itself will tell
	}
	switch {
	case free < roomNeeded:
		l.setFull(l.ballast.release)
		return ErrDiskFull
	case l.ballast.away && (free < ballastSize+2*roomNeeded || !l.ballast.hold()):
		l.setFull(func() {})
		return ErrDiskFull
	}
	l.setRoom()
	return nil
}

// lookAtDisk notices that there is room again although nobody appends.
func (l *Ledger) lookAtDisk() {
	l.writing.Lock()
	defer l.writing.Unlock()
	_ = l.room(nil)
}

func (l *Ledger) setFull(and func()) {
	and()
	l.mu.Lock()
	was := l.full
	l.mu.Unlock()
	if !was {
		l.log.Error("disk full: records are refused")
		l.advance(func() { l.full = true })
	}
}

func (l *Ledger) setRoom() {
	l.mu.Lock()
	was := l.full
	l.mu.Unlock()
	if was {
		l.log.Info("disk has room again")
		l.advance(func() { l.full = false })
	}
}

// freeBytes is what a process like this one may still write.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// isDiskFull reports a write that found no room. An error of fsync is never
// one: what it was about is lost from memory.
func isDiskFull(err error) bool {
	path, ok := errors.AsType[*fs.PathError](err)
	return ok && path.Op != "sync" && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

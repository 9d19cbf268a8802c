package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file (go.etcd.io/bbolt/internal/common, version 2,
// little-endian): pages with a header of 16 bytes (id 8, flags 2, count 2,
// overflow 4), the first two of which hold the metas.
const (
	pageHeader   = 16
	metaSize     = 64
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	noFreelist   = ^uint64(0)
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	bucketEntry  = 0x01 // flag of a leaf element
)

// maxImage bounds what is read of one file: far above [maxFileBytes], which
// only a ledger of the first version passes.
const maxImage = 1 << 30

// image is a bbolt file in memory. It is read with bounds checked and no page
// visited twice: bbolt maps a file and follows whatever a page says, so no file
// is given to it that this did not walk through first.
type image struct {
	data []byte
	size int // of a page
	meta meta
	both bool // both metas are good, so the newest commit is the newest
}

type meta struct {
	root, freelist, high, tx uint64 // high is the first page after the last
}

// readImage reads a file. An error that is not [ErrDamaged] is the disk's.
func readImage(path string) (image, error) {
	f, err := os.Open(path)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return image{}, err
	}
	data := make([]byte, min(info.Size(), maxImage)) // at once: growing would take it twice
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return image{}, err
	}
	return imageOf(data[:n])
}

func imageOf(data []byte) (image, error) {
	m := image{data: data}
	if err := m.readMetas(); err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return m, nil
}

// readMetas takes the good meta with the newest commit.
func (m *image) readMetas() error {
	m.size = os.Getpagesize()
	for size := 1 << 10; size <= 64<<10; size <<= 1 { // of the machine that wrote it
		if _, ok := m.metaAt(0, size); ok {
			m.size = size
			break
		}
	}
	first, ok := m.metaAt(0, m.size)
	second, ok2 := m.metaAt(m.size, m.size)
	m.both = ok && ok2
	switch {
	case !ok && !ok2:
		return errors.New("neither of its two first pages can be read")
	case !ok || ok2 && second.tx > first.tx:
		m.meta = second
	default:
		m.meta = first
	}
	return nil
}

func (m *image) metaAt(at, size int) (meta, bool) {
	if at+pageHeader+metaSize > len(m.data) {
		return meta{}, false
	}
	b := m.data[at+pageHeader:]
	le := binary.LittleEndian
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8])
	if le.Uint32(b) != metaMagic || le.Uint32(b[4:]) != metaVersion || int(le.Uint32(b[8:])) != size || le.Uint64(b[56:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{root: le.Uint64(b[16:]), freelist: le.Uint64(b[32:]), high: le.Uint64(b[40:]), tx: le.Uint64(b[48:])}, true
}

// page is one page with its overflow.
type page struct {
	flags, count int
	body         []byte // after the header
}

func (m *image) page(id uint64) (page, error) {
	at := id * uint64(m.size)
	if id < 2 || id >= m.meta.high || at+uint64(m.size) > uint64(len(m.data)) {
		return page{}, fmt.Errorf("page %d lies outside the file", id)
	}
	b := m.data[at:]
	le := binary.LittleEndian
	if le.Uint64(b) != id {
		return page{}, fmt.Errorf("page %d is another", id)
	}
	end := (uint64(le.Uint32(b[12:])) + 1) * uint64(m.size)
	if end > uint64(len(b)) {
		return page{}, fmt.Errorf("page %d runs over the end of the file", id)
	}
	return page{flags: int(le.Uint16(b[8:])), count: int(le.Uint16(b[10:])), body: b[pageHeader:end]}, nil
}

// element gives entry i of a leaf or branch page. For a branch value is nil and
// child the page it leads to.
func (p page) element(i int) (key, value []byte, child uint64, flags uint32, err error) {
	le := binary.LittleEndian
	at := i * 16
	if at+16 > len(p.body) {
		return nil, nil, 0, 0, errors.New("a page names more entries than it has room for")
	}
	e := p.body[at:]
	var pos, keySize, valueSize uint64
	if p.flags == flagLeaf {
		flags, pos, keySize, valueSize = le.Uint32(e), uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
	} else {
		pos, keySize, child = uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])), le.Uint64(e[8:])
	}
	if pos+keySize+valueSize > uint64(len(e)) || keySize == 0 {
		return nil, nil, 0, 0, errors.New("an entry runs over the end of its page")
	}
	return e[pos : pos+keySize], e[pos+keySize : pos+keySize+valueSize], child, flags, nil
}

// pos is where the key of an entry lies, from the entry on.
func (p page) pos(i int) int {
	at := 16 * i
	if p.flags == flagLeaf {
		at += 4
	}
	return int(binary.LittleEndian.Uint32(p.body[at:]))
}

// walk visits every entry of the named buckets in order. Without skip it ends
// at the first thing that cannot be right. With skip it passes over such
// pages, and returns an error if the last entries may be among them.
func (m *image) walk(skip bool, visit func(bucket string, key, value []byte) error) error {
	w := &walk{image: m, skip: skip, seen: map[uint64]bool{}}
	err := w.tree(m.meta.root, between{}, true, func(name, value []byte, flags uint32, last bool) error {
		if flags&bucketEntry == 0 || len(value) < 16 {
			return errors.New("an entry stands outside the buckets")
		}
		leaf := func(key, value []byte, flags uint32, last bool) error {
			if flags != 0 && !skip {
				return errors.New("an entry says that it is a bucket")
			}
			return visit(string(name), key, value)
		}
		root := binary.LittleEndian.Uint64(value)
		if root != 0 {
			return w.tree(root, between{}, last, leaf)
		}
		// A small bucket stands inside its entry.
		if len(value) < 16+pageHeader {
			return errors.New("a bucket is cut short")
		}
		b := value[16:]
		p := page{flags: int(binary.LittleEndian.Uint16(b[8:])), count: int(binary.LittleEndian.Uint16(b[10:])), body: b[pageHeader:]}
		return w.entries(p, between{}, last, leaf)
	})
	if err == nil && !skip {
		err = w.freelist()
	}
	if err == nil && !skip && m.meta.high > uint64(len(m.data)/m.size) {
		err = errors.New("the file is shorter than it says") // bbolt would take pages behind its end for free ones
	}
	return err
}

type walk struct {
	*image
	skip bool
	seen map[uint64]bool
}

// between is where the keys under a page lie: from least to below end, which is
// nil if nothing follows.
type between struct{ least, end []byte }

func (b between) holds(key []byte) bool {
	return bytes.Compare(b.least, key) <= 0 && (b.end == nil || bytes.Compare(key, b.end) < 0)
}

// tree visits the leaves under a page; last says that what comes last in the
// bucket lies under it.
func (w *walk) tree(id uint64, keys between, last bool, leaf func(key, value []byte, flags uint32, last bool) error) error {
	if w.seen[id] {
		return w.passOver(last, fmt.Errorf("page %d is reached twice", id))
	}
	w.seen[id] = true
	p, err := w.page(id)
	if err != nil {
		return w.passOver(last, err)
	}
	for i := range uint64(len(p.body)+pageHeader) / uint64(w.size) {
		if i > 0 && (w.seen[id+i] || id+i >= w.meta.high) && !w.skip {
			return fmt.Errorf("page %d runs into another", id)
		}
		w.seen[id+i] = true
	}
	return w.entries(p, keys, last, leaf)
}

func (w *walk) passOver(last bool, err error) error {
	if w.skip && !last {
		return nil
	}
	return err
}

func (w *walk) entries(p page, keys between, last bool, leaf func(key, value []byte, flags uint32, last bool) error) error {
	if p.flags != flagLeaf && p.flags != flagBranch {
		return w.passOver(last, fmt.Errorf("a page is of the unknown kind %#x", p.flags))
	}
	var before []byte
	at := 16 * p.count // where bbolt writes the first key: right after the last entry
	for i := range p.count {
		last := last && i == p.count-1
		key, value, child, flags, err := p.element(i)
		if err == nil && 16*i+p.pos(i) != at {
			last, err = true, errors.New("entries do not lie where they were written") // the count may be wrong too
		}
		at += len(key) + len(value)
		if err == nil && bytes.Compare(before, key) >= 0 {
			err = errors.New("entries are out of order")
		}
		if err == nil && !w.skip && !keys.holds(key) {
			err = errors.New("an entry is not where the way to its page says")
		}
		if err == nil && p.flags == flagBranch {
			under := between{key, keys.end}
			if i+1 < p.count {
				under.end, _, _, _, _ = p.element(i + 1) // what is wrong with it comes to light in its turn
			}
			err = w.tree(child, under, last, leaf)
		} else if err == nil {
			err = leaf(key, value, flags, last)
		}
		if err != nil {
			if err = w.passOver(last, err); err != nil {
				return err
			}
		}
		before = key
	}
	return nil
}

// freelist checks that no page which is in use is listed as free: bbolt would
// write over it.
func (w *walk) freelist() error {
	if w.meta.freelist == noFreelist {
		return nil
	}
	p, err := w.page(w.meta.freelist)
	if err != nil {
		return err
	}
	if p.flags != flagFreelist || p.count == 0xFFFF || p.count*8 > len(p.body) {
		return errors.New("the list of free pages cannot be read")
	}
	for i := range uint64(len(p.body)+pageHeader) / uint64(w.size) {
		w.seen[w.meta.freelist+i] = true
	}
	free := map[uint64]bool{}
	for i := range p.count {
		id := binary.LittleEndian.Uint64(p.body[8*i:])
		if id < 2 || id >= w.meta.high || w.seen[id] || free[id] {
			return fmt.Errorf("page %d is listed as free", id)
		}
		free[id] = true
	}
	return nil
}

// scan visits every entry of every page that looks like a leaf, whether or not
// anything leads to it. Old copies come too, and in no order.
func (m *image) scan(visit func(key, value []byte)) {
	for at := 0; at+pageHeader <= len(m.data); at += m.size {
		b := m.data[at:]
		if int(binary.LittleEndian.Uint16(b[8:])) != flagLeaf {
			continue
		}
		end := (uint64(binary.LittleEndian.Uint32(b[12:])) + 1) * uint64(m.size)
		p := page{flags: flagLeaf, count: int(binary.LittleEndian.Uint16(b[10:])), body: b[pageHeader:min(end, uint64(len(b)))]}
		for i := range p.count {
			key, value, _, flags, err := p.element(i)
			if err != nil {
				continue
			}
			visit(key, value)
			if flags&bucketEntry != 0 && len(value) > 16+pageHeader { // a small bucket inside its entry
				inner := page{flags: flagLeaf, count: int(binary.LittleEndian.Uint16(value[16+10:])), body: value[16+pageHeader:]}
				for i := range inner.count {
					if key, value, _, _, err := inner.element(i); err == nil {
						visit(key, value)
					}
				}
			}
		}
	}
}

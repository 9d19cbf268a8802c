package queue

import (
	"bytes"
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"

	"rollcall/queue/chain"
)

// salvaged is what can be read of a damaged file and proved to be what was
// written: each line is named by the line after it or by a signed head.
type salvaged struct {
	lines   map[chain.Seq][]byte
	heads   map[chain.Seq][]byte
	log     chain.LogID
	receipt string // the last in the file; only one of the first version holds any
	upTo    chain.Seq
	whole   bool // nothing can be missing after the last line
}

// evidence gathers lines and heads from anywhere in a file.
type evidence struct {
	log     chain.LogID // empty: that of the first line found
	epoch   *epoch
	ring    *chain.Ring
	centre  crypto.PublicKey
	seen    map[chain.Hash]bool
	lines   map[chain.Seq][][]byte
	heads   map[chain.Seq][]signed
	receipt chain.Receipt
	jws     []byte
}

type signed struct {
	hash chain.Hash
	jws  []byte
}

// take sorts a value by what it is. Nothing that stands around it is believed.
func (v *evidence) take(value []byte) {
	sum := chain.HashLine(value)
	if v.seen[sum] || len(value) > chain.MaxLine {
		return
	}
	v.seen[sum] = true
	if bytes.HasPrefix(value, []byte("{")) {
		e, err := chain.ParseLine(value)
		if err == nil && v.log == "" {
			v.log = e.Log
		}
		if err == nil && e.Log == v.log {
			v.lines[e.Seq] = append(v.lines[e.Seq], bytes.Clone(value))
		}
		return
	}
	if h, _, err := v.epoch.openHead(v.ring, value); err == nil {
		v.heads[h.Seq] = append(v.heads[h.Seq], signed{h.Hash, bytes.Clone(value)})
	} else if r, err := chain.OpenReceipt(v.centre, value); err == nil && r.Seq > v.receipt.Seq {
		v.receipt, v.jws = r, bytes.Clone(value)
	}
}

// salvage reads all that can be read of a file. next is what the file after it
// says of this one's last line; it is zero for the last file. It changes
// nothing.
func salvage(path string, e *epoch, ring *chain.Ring, centre crypto.PublicKey, next tail) (salvaged, error) {
	v := &evidence{log: e.Log, epoch: e, ring: ring, centre: centre, seen: map[chain.Hash]bool{}, lines: map[chain.Seq][][]byte{}, heads: map[chain.Seq][]signed{}}
	m, err := readImage(path)
	if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
		return salvaged{}, err
	}
	var highest chain.Seq
	walked := err
	if err == nil {
		walked = m.walk(true, func(_ string, key, value []byte) error {
			v.take(value)
			if seq, _, ok := readKey(key); ok {
				highest = max(highest, seq)
			}
			return nil
		})
	}
	if m.size > 0 {
		m.scan(func(_, value []byte) { v.take(value) })
	}
	s := v.proved(next)
	s.whole = walked == nil && m.both && s.upTo >= highest && s.upTo > 0
	if next.seq > 0 {
		s.whole = true
	}
	return s, nil
}

// proved keeps the lines that the next line or a head names, from the last to
// the first.
func (v *evidence) proved(next tail) salvaged {
	s := salvaged{lines: map[chain.Seq][]byte{}, heads: map[chain.Seq][]byte{}, log: v.log, receipt: string(v.jws)}
	named := next
	for _, seq := range slices.Backward(slices.Sorted(maps.Keys(v.lines))) {
		for _, line := range v.lines[seq] {
			hash := chain.HashLine(line)
			i := slices.IndexFunc(v.heads[seq], func(h signed) bool { return h.hash == hash })
			if i < 0 && (named.seq != seq || named.hash != hash) {
				continue
			}
			if i >= 0 {
				s.heads[seq] = v.heads[seq][i].jws
			}
			e, _ := chain.ParseLine(line) // it parsed before
			s.lines[seq] = line
			s.upTo = max(s.upTo, seq)
			named = tail{seq: seq - 1, hash: e.Prev}
			break
		}
	}
	return s
}

// gaps names what is missing of first..last.
func (s salvaged) gaps(first, last chain.Seq, reason string) (gaps []Gap) {
	at := first
	for _, seq := range append(slices.Sorted(maps.Keys(s.lines)), last+1) {
		if seq > at {
			gaps = append(gaps, Gap{From: at, To: seq - 1, Reason: reason})
		}
		at = max(at, seq+1)
	}
	return gaps
}

// sign gives every last line before a gap a head: a batch ends at one.
func (s salvaged) sign(key crypto.Signer) error {
	for seq, line := range s.lines {
		if s.heads[seq] != nil || s.lines[seq+1] != nil {
			continue
		}
		e, err := chain.ParseLine(line)
		if err != nil {
			return err
		}
		head, err := chain.Sign(key, chain.PurposeHead, chain.Head{Log: e.Log, Seq: seq, Hash: chain.HashLine(line), Wall: e.At.Wall})
		if err != nil {
			return err
		}
		s.heads[seq] = []byte(head)
	}
	return nil
}

// put writes lines first..last and their heads.
func (s salvaged) put(b *bbolt.Bucket, seqs []chain.Seq) error {
	b.FillPercent = 1
	for _, seq := range seqs {
		if err := b.Put(seqKey(seq), s.lines[seq]); err != nil {
			return err
		}
		if head := s.heads[seq]; head != nil {
			if err := b.Put(headKey(seq), head); err != nil {
				return err
			}
		}
	}
	return nil
}

// files cuts the salvaged lines into files.
func (s salvaged) files() (files [][]chain.Seq) {
	size := 0
	var part []chain.Seq
	for _, seq := range slices.Sorted(maps.Keys(s.lines)) {
		part = append(part, seq)
		size += len(s.lines[seq]) + len(s.heads[seq]) + 64
		whole := s.heads[seq] != nil // a file ends at a head
		if whole && (len(part) >= maxFileRecords-chain.MaxBatchRecords || size > maxFileBytes*3/4) {
			files, part, size = append(files, part), nil, 0
		}
	}
	if len(part) > 0 {
		files = append(files, part)
	}
	return files
}

// replaceDamaged puts what was salvaged of a file into its place:
//
//  1. Write the lines into a new file under another name, synced.
//  2. Give the damaged file a second name that ends in .bad.
//  3. Rename the new file over it, or without any line take the name away.
//  4. Sync the directory.
//
// What the state says of gaps is durable before; so a crash in between only
// means that it is done again.
func replaceDamaged(path string, s salvaged) error {
	if len(s.lines) > 0 {
		db, err := makeFile(path+newSuffix, func(b *bbolt.Bucket) error { return s.put(b, slices.Sorted(maps.Keys(s.lines))) })
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	if err := keepBad(path); err != nil {
		return err
	}
	var err error
	if len(s.lines) > 0 {
		err = os.Rename(path+newSuffix, path)
	} else {
		err = os.Remove(path) // its bytes stay under the other name
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// keepBad gives a damaged file a second name: .bad, or .bad2 and so on.
func keepBad(path string) error {
	for n := 1; ; n++ {
		bad := path + badSuffix
		if n > 1 {
			bad += fmt.Sprint(n)
		}
		err := os.Link(path, bad)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
			return nil
		case !errors.Is(err, fs.ErrExist):
			return err
		}
		if a, err := os.Stat(path); err == nil {
			if b, err := os.Stat(bad); err == nil && os.SameFile(a, b) {
				return nil // a crash came between the link and the rename
			}
		}
	}
}

// addGap adds a gap unless it is known.
func (e *epoch) addGap(g Gap) {
	if e.next(g.From-1) > g.To {
		return
	}
	e.Gaps = append(e.Gaps, g)
	slices.SortFunc(e.Gaps, func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
}

func (s salvaged) seqs() []chain.Seq { return slices.Collect(maps.Keys(s.lines)) }

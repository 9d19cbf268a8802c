package queuetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// Ledger is what the tests hold every ledger to.
type Ledger interface {
	Run(ctx context.Context) error
	Append(ctx context.Context, record attendance.Record) (attendance.Stored, error)
	Each(f func(chain.Entry) error) error
	Batch(after chain.Seq, maxRecords, maxBytes int) (payload []byte, last chain.Seq, err error)
	Receipt(jws []byte) (chain.Receipt, error)
	Status() queue.Status
	Changed() <-chan struct{}
	Close() error
}

// Test holds a ledger to its contract. open opens the one in cfg.Dir, or makes
// it.
func Test(t *testing.T, open func(cfg queue.Config) (Ledger, error)) {
	start := func(t *testing.T, cfg queue.Config) (Ledger, func()) {
		t.Helper()
		l, err := open(cfg)
		require.NoError(t, err)
		return l, Start(t, l)
	}
	for name, test := range map[string]func(*testing.T, starter){
		"line 1 opens the epoch":               opens,
		"append keeps order":                   order,
		"many writers share commits":           manyWriters,
		"what was appended outlives a restart": restart,
		"receipts":                             receipts,
		"a receipt outlives a restart":         receiptRestart,
		"records name the last receipt":        acknowledges,
		"batches end at a head":                batches,
		"a full ledger refuses and recovers":   full,
		"a bad record harms no other":          badRecord,
		"a caller that went away":              gone,
		"after the end":                        afterEnd,
		"each ends at the first error":         eachEnds,
		"changes wake":                         wakes,
	} {
		t.Run(name, func(t *testing.T) { test(t, start) })
	}
}

type starter func(t *testing.T, cfg queue.Config) (l Ledger, stop func())

// add appends records first..last.
func add(t *testing.T, l Ledger, first, last int) (stored []attendance.Stored) {
	t.Helper()
	for n := first; n <= last; n++ {
		s, err := l.Append(t.Context(), Record(n))
		require.NoError(t, err)
		stored = append(stored, s)
	}
	return stored
}

// Read gives all entries.
func Read(t testing.TB, l interface {
	Each(func(chain.Entry) error) error
}) (entries []chain.Entry) {
	t.Helper()
	require.NoError(t, l.Each(func(e chain.Entry) error {
		entries = append(entries, e)
		return nil
	}))
	return entries
}

// HashOf gives the hash of a stored line.
func HashOf(t testing.TB, l Ledger, seq chain.Seq) chain.Hash {
	t.Helper()
	payload, _, err := l.Batch(seq-1, 1, 1)
	require.NoError(t, err)
	b, err := chain.ParseBatch(payload)
	require.NoError(t, err)
	return chain.HashLine(b.Lines[0])
}

func opens(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	entries := Read(t, l)
	require.Len(t, entries, 1)
	assert.Equal(t, Terminal, entries[0].Log.Terminal())
	assert.Equal(t, chain.Hash{}, entries[0].Prev)
	body, err := attendance.ReadBody[attendance.OpenBody](entries[0].Body)
	require.NoError(t, err)
	want := attendance.OpenBody{Reason: "new", Terminal: string(Terminal), Key: chain.KeyID(TerminalKey.Public()), Software: "rollcall test"}
	assert.Equal(t, want, body)
	s := l.Status()
	assert.Equal(t, queue.Status{Log: entries[0].Log, Last: 1, Unsent: 1, Capacity: queue.DefaultCapacity}, s)
}

func order(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	stored := add(t, l, 1, 20)
	entries := Read(t, l)
	require.Len(t, entries, 21)
	for i, s := range stored {
		seq := chain.Seq(i + 2)
		assert.EqualValues(t, seq, s.Seq)
		assert.Equal(t, HashOf(t, l, seq).Short(), s.Code)
		assert.Equal(t, HashOf(t, l, seq-1), entries[i+1].Prev)
		assert.Equal(t, string(Record(i+1).Body), string(entries[i+1].Body))
	}
}

func manyWriters(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	const writers, each = 32, 10
	var mu sync.Mutex
	bodies := map[uint64]string{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var before uint64
			for n := range each {
				r := Record(w*each + n)
				s, err := l.Append(t.Context(), r)
				if !assert.NoError(t, err) {
					return
				}
				assert.Greater(t, s.Seq, before, "a writer's records keep its order")
				before = s.Seq
				mu.Lock()
				bodies[s.Seq] = string(r.Body)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, bodies, writers*each)
	for _, e := range Read(t, l)[1:] {
		assert.Equal(t, bodies[uint64(e.Seq)], string(e.Body))
	}
}

func restart(t *testing.T, start starter) {
	cfg := Config(t.TempDir())
	l, stop := start(t, cfg)
	add(t, l, 1, 5)
	before, status := Read(t, l), l.Status()
	stop()
	l, _ = start(t, cfg)
	assert.Equal(t, before, Read(t, l))
	assert.Equal(t, status, l.Status())
	stored := add(t, l, 6, 6)
	assert.EqualValues(t, 7, stored[0].Seq)
}

func receipts(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	add(t, l, 1, 9)
	log := l.Status().Log
	hash := func(seq chain.Seq) chain.Hash { return HashOf(t, l, seq) }
	for _, step := range []struct {
		name      string
		jws       []byte
		err       error
		receipted chain.Seq
	}{
		{"forged", Receipt(t, StrangerKey, log, 5, hash(5)), chain.ErrSignature, 0},
		{"by the terminal itself", Receipt(t, TerminalKey, log, 5, hash(5)), chain.ErrSignature, 0},
		{"garbage", []byte("garbage"), chain.ErrMalformed, 0},
		{"of another log", Receipt(t, CentreKey, "t-test/other", 5, hash(5)), queue.ErrReceipt, 0},
		{"with the hash of another line", Receipt(t, CentreKey, log, 5, hash(6)), queue.ErrReceipt, 0},
		{"for a record to come", Receipt(t, CentreKey, log, 11, hash(10)), queue.ErrReceipt, 0},
		{"for record 0, with a hash", Receipt(t, CentreKey, log, 0, hash(1)), queue.ErrReceipt, 0},
		{"that the centre has nothing", Receipt(t, CentreKey, log, 0, chain.Hash{}), nil, 0},
		{"good", Receipt(t, CentreKey, log, 5, hash(5)), nil, 5},
		{"the same again", Receipt(t, CentreKey, log, 5, hash(5)), nil, 5},
		{"an older one", Receipt(t, CentreKey, log, 3, hash(3)), nil, 5},
		{"an older one with a wrong hash", Receipt(t, CentreKey, log, 3, hash(4)), queue.ErrReceipt, 5},
		{"a later one", Receipt(t, CentreKey, log, 10, hash(10)), nil, 10},
	} {
		t.Run(step.name, func(t *testing.T) {
			_, err := l.Receipt(step.jws)
			if step.err == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, step.err)
			}
			s := l.Status()
			assert.Equal(t, step.receipted, s.Receipted)
			assert.Equal(t, int(10-step.receipted), s.Unsent)
		})
	}
	assert.Equal(t, "2026-11-21T09:00:00.000Z", l.Status().ReceiptedAt.String())
	assert.Len(t, Read(t, l), 10, "a receipt deletes nothing")
}

func receiptRestart(t *testing.T, start starter) {
	cfg := Config(t.TempDir())
	l, stop := start(t, cfg)
	add(t, l, 1, 4)
	_, err := l.Receipt(Receipt(t, CentreKey, l.Status().Log, 3, HashOf(t, l, 3)))
	require.NoError(t, err)
	stop()
	l, _ = start(t, cfg)
	assert.EqualValues(t, 3, l.Status().Receipted)
}

func acknowledges(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	add(t, l, 1, 2)
	hash := HashOf(t, l, 2)
	_, err := l.Receipt(Receipt(t, CentreKey, l.Status().Log, 2, hash))
	require.NoError(t, err)
	add(t, l, 3, 3)
	entries := Read(t, l)
	assert.Nil(t, entries[2].Ack)
	assert.Equal(t, &chain.Ack{Seq: 2, Hash: hash}, entries[3].Ack)
}

func batches(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	const writers = 64
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for i := range 5 {
				_, err := l.Append(t.Context(), Record(n*5+i))
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	for _, limit := range []struct{ records, bytes int }{
		{chain.MaxBatchRecords, chain.MaxBatchBytes}, {10, chain.MaxBatchBytes}, {chain.MaxBatchRecords, 4096}, {1, 1},
	} {
		var after chain.Seq
		var prev chain.Hash
		for after < l.Status().Last {
			payload, last, err := l.Batch(after, limit.records, limit.bytes)
			require.NoError(t, err)
			b, err := chain.ParseBatch(payload) // within the wire's limits
			require.NoError(t, err)
			_, _, err = b.Check(Ring(), 0)
			require.NoError(t, err)
			require.Equal(t, after+1, b.First())
			require.Equal(t, prev, b.Entries[0].Prev)
			require.Equal(t, last, b.Last())
			after, prev = last, b.LastHash()
		}
	}
	payload, last, err := l.Batch(l.Status().Last, 1, 1)
	assert.NoError(t, err)
	assert.Nil(t, payload, "nothing after the last record")
	assert.Equal(t, l.Status().Last, last)
}

func full(t *testing.T, start starter) {
	cfg := Config(t.TempDir())
	cfg.Capacity = 3
	l, _ := start(t, cfg)
	add(t, l, 1, 2)
	_, err := l.Append(t.Context(), Record(3))
	assert.ErrorIs(t, err, queue.ErrFull)
	_, err = l.Receipt(Receipt(t, CentreKey, l.Status().Log, 1, HashOf(t, l, 1)))
	require.NoError(t, err)
	add(t, l, 4, 4)
	_, err = l.Append(t.Context(), Record(5))
	assert.ErrorIs(t, err, queue.ErrFull)
	assert.EqualValues(t, 4, l.Status().Last, "what was refused left no gap")
}

func badRecord(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	bad := map[string]attendance.Record{
		"no type":        {Body: []byte(`{}`)},
		"no body":        {Type: "fault"},
		"not JSON":       {Type: "fault", Body: []byte(`{`)},
		"not an object":  {Type: "fault", Body: []byte(`[]`)},
		"invalid UTF-8":  {Type: "fault", Body: []byte("{\"a\":\"\xff\"}")},
		"one name twice": {Type: "fault", Body: []byte(`{"a":1,"a":2}`)},
		"too long":       {Type: "fault", Body: append(append([]byte(`{"a":"`), make([]byte, chain.MaxLine)...), `"}`...)},
	}
	var wg sync.WaitGroup
	for name, r := range bad {
		wg.Go(func() {
			_, err := l.Append(t.Context(), r)
			assert.ErrorIs(t, err, queue.ErrRecord, name)
		})
	}
	for n := range 10 {
		wg.Go(func() {
			_, err := l.Append(t.Context(), Record(n))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Len(t, Read(t, l), 11)
}

func gone(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 20 {
		_, err := l.Append(ctx, Record(n))
		if err != nil { // both ways out were open
			assert.ErrorIs(t, err, context.Canceled)
		}
	}
	add(t, l, 100, 100)
	assert.Len(t, Read(t, l), int(l.Status().Last))
}

func afterEnd(t *testing.T, start starter) {
	l, stop := start(t, Config(t.TempDir()))
	stop()
	_, err := l.Append(t.Context(), Record(1))
	assert.ErrorIs(t, err, queue.ErrStopped)
}

func eachEnds(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	add(t, l, 1, 3)
	enough := errors.New("enough")
	seen := 0
	err := l.Each(func(chain.Entry) error {
		seen++
		return enough
	})
	assert.ErrorIs(t, err, enough)
	assert.Equal(t, 1, seen)
}

func wakes(t *testing.T, start starter) {
	l, _ := start(t, Config(t.TempDir()))
	stored := l.Changed()
	add(t, l, 1, 1)
	<-stored
	received := l.Changed()
	_, err := l.Receipt(Receipt(t, CentreKey, l.Status().Log, 1, HashOf(t, l, 1)))
	require.NoError(t, err)
	<-received
}

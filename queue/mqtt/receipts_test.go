package mqtt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

var offlineReceipts = flag.Int("offline.receipts", 300, "hostile receipts to answer batches with")

// liar answers batches with what looks like a receipt.
type liar struct {
	t      testing.TB
	rand   *rand.Rand
	honest []byte // the last honest receipt
	sealed chain.Seq
}

// lie is a way to answer.
type lie struct {
	name string
	tell func(l *liar, b chain.Batch) []byte
}

// sign makes a receipt of anything by any key, for any purpose.
func (l *liar) sign(key ed25519.PrivateKey, purpose chain.Purpose, r chain.Receipt) []byte {
	r.At = chain.NewWall(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	jws, err := chain.Sign(key, purpose, r)
	require.NoError(l.t, err)
	return []byte(jws)
}

// parts cuts a JWS.
func parts(jws []byte) [][]byte { return bytes.Split(jws, []byte(".")) }

func of(b chain.Batch) chain.Receipt {
	return chain.Receipt{Log: b.Log(), Seq: b.Last(), Hash: b.LastHash()}
}

// lies are all ways but the right one. None may let a record go.
var lies = []lie{
	{"held back", func(*liar, chain.Batch) []byte { return nil }},
	{"signed by a stranger", func(l *liar, b chain.Batch) []byte { return l.sign(queuetest.StrangerKey, chain.PurposeReceipt, of(b)) }},
	{"signed by the terminal itself", func(l *liar, b chain.Batch) []byte { return l.sign(queuetest.TerminalKey, chain.PurposeReceipt, of(b)) }},
	{"the centre's word for another purpose", func(l *liar, b chain.Batch) []byte { return l.sign(queuetest.CentreKey, chain.PurposePackage, of(b)) }},
	{"the batch's own head", func(_ *liar, b chain.Batch) []byte { return b.Head }},
	{"another terminal's", func(l *liar, b chain.Batch) []byte {
		r := of(b)
		r.Log = "t-other/e1"
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, r)
	}},
	{"of another epoch", func(l *liar, b chain.Batch) []byte {
		r := of(b)
		r.Log = chain.NewLogID(queuetest.Terminal, "000000000000")
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, r)
	}},
	{"with another hash", func(l *liar, b chain.Batch) []byte {
		r := of(b)
		r.Hash[l.rand.IntN(len(r.Hash))] ^= 1 << l.rand.IntN(8)
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, r)
	}},
	{"with the hash of the record before", func(l *liar, b chain.Batch) []byte {
		r := of(b)
		r.Hash = b.Entries[len(b.Entries)-1].Prev
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, r)
	}},
	{"for a record to come", func(l *liar, b chain.Batch) []byte {
		r := of(b)
		r.Seq += chain.Seq(1 + l.rand.IntN(1000))
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, r)
	}},
	{"an old one again", func(l *liar, _ chain.Batch) []byte { return l.honest }},
	{"for record 0", func(l *liar, b chain.Batch) []byte {
		return l.sign(queuetest.CentreKey, chain.PurposeReceipt, chain.Receipt{Log: b.Log()})
	}},
	{"an old signature under another payload", func(l *liar, b chain.Batch) []byte {
		if l.honest == nil {
			return nil
		}
		old, forged := parts(l.honest), parts(l.sign(queuetest.StrangerKey, chain.PurposeReceipt, of(b)))
		return bytes.Join([][]byte{old[0], forged[1], old[2]}, []byte("."))
	}},
	{"without an algorithm", func(l *liar, b chain.Batch) []byte {
		p := parts(l.sign(queuetest.StrangerKey, chain.PurposeReceipt, of(b)))
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"rollcall-receipt"}`))
		return bytes.Join([][]byte{[]byte(header), p[1], nil}, []byte("."))
	}},
	{"one bit changed", func(l *liar, b chain.Batch) []byte {
		jws := l.sign(queuetest.CentreKey, chain.PurposeReceipt, of(b))
		jws[l.rand.IntN(len(jws))] ^= 1 << l.rand.IntN(8)
		return jws
	}},
	{"cut short", func(l *liar, b chain.Batch) []byte {
		jws := l.sign(queuetest.CentreKey, chain.PurposeReceipt, of(b))
		return jws[:l.rand.IntN(len(jws))]
	}},
	{"huge", func(l *liar, b chain.Batch) []byte {
		return append(l.sign(queuetest.CentreKey, chain.PurposeReceipt, of(b)), bytes.Repeat([]byte("x"), 60_000)...)
	}},
	{"noise", func(l *liar, _ chain.Batch) []byte {
		noise := make([]byte, l.rand.IntN(1000))
		for i := range noise {
			noise[i] = byte(l.rand.Uint32())
		}
		return noise
	}},
}

// receiptRuns answers n batches with lies; each 20th is answered honestly for
// one record more. It gives how many lies let a record go, and how often each
// was told, and the journal. receipted says up to where records were let go.
func receiptRuns(t *testing.T, seed uint64, n int, ledger func(*site) mqtt.Ledger, receipted func(*site) chain.Seq) (letGo int, told map[string]int, journal []string) {
	l := &liar{t: t, rand: rand.New(rand.NewPCG(seed, 2))}
	told = map[string]int{}
	c := &centre{}
	quick := func(cfg *mqtt.Config) {
		cfg.ReceiptTimeout, cfg.RetryMax, cfg.RetryStart = time.Second, time.Second, time.Second
	}
	virtual(t, quick, c, func(t *testing.T, s *site, p *pipes) {
		var err error
		s.uplink, err = mqtt.New(s.cfg, ledger(s), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		s.uplink.SetDial(p.dial)
		s.uplink.SetJitter(pauses(seed))
		over, ended := false, make(chan struct{})
		runs, last, gone, began := 0, "", chain.Seq(0), time.Now()
		c.script = func(_ int, b chain.Batch) reply {
			if got := receipted(s); got > max(l.sealed, gone) && !over {
				gone = got
				letGo++
				told["let go by: "+last]++
			}
			runs++
			switch {
			case over:
				return reply{forget: true}
			case runs == n:
				over = true
				close(ended)
				return reply{forget: true}
			case runs%20 == 0 && b.First() == l.sealed+1:
				e := b.Entries[0]
				l.honest = l.sign(queuetest.CentreKey, chain.PurposeReceipt, chain.Receipt{Log: e.Log, Seq: e.Seq, Hash: chain.HashLine(b.Lines[0])})
				l.sealed, last = e.Seq, "honest"
				return reply{forget: true, first: [][]byte{l.honest}}
			}
			tale := lies[l.rand.IntN(len(lies))]
			journal = append(journal, fmt.Sprintf("%s: %d-%d %s", time.Since(began), b.First(), b.Last(), tale.name))
			last = tale.name
			told[last]++
			message := tale.tell(l, b)
			if message == nil && tale.name == "held back" {
				return reply{forget: true}
			}
			return reply{forget: true, first: [][]byte{message}}
		}
		s.add(n/20 + 40)
		stop := s.run()
		for waiting := true; waiting; {
			select {
			case <-ended:
				waiting = false
			case <-time.After(time.Minute):
				s.add(1) // of the control's none may be left to send
			}
		}
		time.Sleep(10 * time.Second)
		stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		assert.LessOrEqual(t, s.ledger.Status().Receipted, l.sealed)
	})
	return letGo, told, journal
}

// No record is let go without a valid receipt, whatever comes in its place.
func TestNoReceiptNoLettingGo(t *testing.T) {
	t.Parallel()
	letGo, told, _ := receiptRuns(t, *offlineSeed, *offlineReceipts, own, sealed)
	fmt.Printf("seed %d: %d hostile receipts of %d kinds: %d let a record go\n", *offlineSeed, *offlineReceipts, len(lies), letGo)
	assert.Zerof(t, letGo, "%v", told)
	for _, lie := range lies {
		assert.NotZero(t, told[lie.name], lie.name)
	}
}

func own(s *site) mqtt.Ledger { return s.ledger }

func sealed(s *site) chain.Seq { return s.ledger.Status().Receipted }

// A seed plays the same lies again, to the same batches at the same times.
func TestNoReceiptSeedReplays(t *testing.T) {
	t.Parallel()
	_, _, first := receiptRuns(t, 7, 100, own, sealed)
	_, _, again := receiptRuns(t, 7, 100, own, sealed)
	_, _, other := receiptRuns(t, 8, 100, own, sealed)
	require.Greater(t, len(first), 90)
	assert.Equal(t, first, again)
	assert.NotEqual(t, first, other)
}

// gullible believes a receipt without its signature, and lets go.
type gullible struct {
	mqtt.Ledger
	believed atomic.Uint64
}

func (g *gullible) CheckReceipt(jws []byte) (chain.Receipt, error) { return g.Receipt(jws) }

func (g *gullible) Receipt(jws []byte) (chain.Receipt, error) {
	var r chain.Receipt
	if p := parts(jws); len(p) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(string(p[1]))
		_ = json.Unmarshal(payload, &r)
	}
	if log, last, _ := g.Marks(); r.Log == log && r.Seq <= last {
		g.believed.Store(max(g.believed.Load(), uint64(r.Seq)))
	}
	return r, nil
}

func (g *gullible) Marks() (log chain.LogID, last, receipted chain.Seq) {
	log, last, _ = g.Ledger.Marks()
	return log, last, chain.Seq(g.believed.Load())
}

// The control: a ledger that believes what it is told lets records go.
func TestNoReceiptControlBelieves(t *testing.T) {
	t.Parallel()
	var g *gullible
	letGo, _, _ := receiptRuns(t, *offlineSeed, 100,
		func(s *site) mqtt.Ledger {
			g = &gullible{Ledger: s.ledger}
			return g
		},
		func(*site) chain.Seq { return chain.Seq(g.believed.Load()) })
	fmt.Printf("control, signatures not checked: records let go %d times in 100\n", letGo)
	assert.NotZero(t, letGo)
}

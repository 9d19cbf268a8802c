package mqtt_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	reference "rollcall/centre"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// fault is what a hostile broker, or the centre behind it, does with a batch.
type fault string

const (
	honest        fault = "honest"
	forget        fault = "acknowledged and forgotten"
	drop          fault = "dropped"
	stuck         fault = "connection falls silent"
	late          fault = "delivered late"
	twice         fault = "delivered twice"
	afterNext     fault = "delivered after the next"
	mute          fault = "receipt lost"
	oldReceipts   fault = "old receipts sent again"
	restart       fault = "broker restarts and loses what it held"
	restartStored fault = "broker restarts after the centre stored"
	crashBefore   fault = "centre crashes before the commit"
	crashAfter    fault = "centre crashes after the commit"
)

// faults are drawn with equal chance; honest has a third.
var faults = []fault{honest, honest, honest, honest, honest, honest, forget, drop, stuck, late, twice, afterNext, mute, oldReceipts, restart, restartStored, crashBefore, crashAfter}

// hostile is a reference centre behind a broker that does to each batch what a
// seed says. Its handler runs in one goroutine a connection.
type hostile struct {
	t     testing.TB
	front *centre // the broker
	cfg   reference.Config
	conf  *tls.Config
	pipes *pipes
	seed  uint64

	mu       sync.Mutex // guards what follows
	centre   *reference.Centre
	back     time.Time // when the broker is there again
	held     []byte    // a batch to deliver after the next
	receipts [][]byte
	counts   map[fault]int
	tries    map[chain.Seq]uint64   // how often a batch came that begins there
	clients  map[*broker.Client]int // in the order they came
	journal  []string               // what crossed the wire, and what was done with it
	began    time.Time
	batches  int
}

// Events of one round never fall together, so that no scheduler decides about
// their order: packets take wireTime, which no timeout is a multiple of, and
// two that a broker sends at once leave it apart.
const (
	wireTime = 13*time.Millisecond + 1009*time.Nanosecond
	apart    = time.Millisecond + 31*time.Nanosecond
)

// newHostile makes keys, centre and broker, and admits a terminal.
func newHostile(t testing.TB, seed uint64) (*hostile, *device.Keys, chain.Admission) {
	t.Helper()
	dir := t.TempDir()
	h := &hostile{
		t: t, cfg: reference.Config{Tenant: "test", Dir: filepath.Join(dir, "centre"), Names: []string{"centre.test"}},
		pipes: newPipes(), seed: seed, counts: map[fault]int{}, tries: map[chain.Seq]uint64{}, clients: map[*broker.Client]int{}, began: time.Now(),
	}
	h.pipes.way.Delay = wireTime
	require.NoError(t, reference.Init(h.cfg, time.Now()))
	h.open()
	keys, err := device.CreateKeys(filepath.Join(dir, "keys"))
	require.NoError(t, err)
	request, err := keys.Request(queuetest.Terminal)
	require.NoError(t, err)
	text, err := json.Marshal(request)
	require.NoError(t, err)
	admission, err := h.centre.Admit(context.Background(), text)
	require.NoError(t, err)
	cert, err := tls.LoadX509KeyPair(filepath.Join(h.cfg.Dir, "keys", "tls.crt"), filepath.Join(h.cfg.Dir, "keys", "tls.key"))
	require.NoError(t, err)
	clients := x509.NewCertPool()
	require.True(t, clients.AppendCertsFromPEM([]byte(admission.CA)))
	h.conf = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, Time: time.Now, SessionTicketsDisabled: true}
	return h, keys, admission
}

func (h *hostile) open() {
	var err error
	h.centre, err = reference.Open(context.Background(), h.cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(h.t, err)
}

// crash closes the centre without a word and starts it again.
func (h *hostile) crash() {
	require.NoError(h.t, h.centre.Close())
	h.open()
}

// serve opens the broker. While it is closed nobody listens.
func (h *hostile) serve() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.front = serve(h.t, h.pipes, h.conf, &centre{take: h.take, wire: h.wire})
}

func (h *hostile) stop() {
	h.front.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	require.NoError(h.t, h.centre.Close())
}

func (h *hostile) dial(ctx context.Context, network, address string) (net.Conn, error) {
	h.mu.Lock()
	away := h.front == nil || time.Now().Before(h.back)
	h.mu.Unlock()
	if away {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	return h.pipes.dial(ctx, network, address)
}

// draw says what is done with a batch. It follows from the seed, where the
// batch begins, and how often one came that begins there: never from what was
// drawn before.
func (h *hostile) draw(first chain.Seq) (fault, time.Duration) {
	r := rand.New(rand.NewPCG(h.seed, uint64(first)<<20|h.tries[first]))
	h.tries[first]++
	return faults[r.IntN(len(faults))], time.Duration(r.Int64N(int64(90 * time.Second)))
}

// note writes a line of the journal. h.mu is held.
func (h *hostile) note(format string, args ...any) {
	h.journal = append(h.journal, fmt.Sprintf("%14s ", time.Since(h.began))+fmt.Sprintf(format, args...))
}

// wire notes a packet that comes from a terminal or goes to it, but for the
// terminal's acknowledgements: paho writes them before or after what it sends at
// the same instant, as it comes.
func (h *hostile) wire(cl *broker.Client, way string, pk packets.Packet) {
	if way == "<-" && pk.FixedHeader.Type == packets.Puback {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n, known := h.clients[cl]
	if !known {
		n = len(h.clients) + 1
		h.clients[cl] = n
	}
	about := ""
	switch strings.TrimPrefix(pk.TopicName, prefix) {
	case "up/records":
		if b, err := chain.ParseBatch(pk.Payload); err == nil {
			about = fmt.Sprintf(" %d-%d", b.First(), b.Last())
		}
	case "down/receipt":
		var r chain.Receipt
		payload, _ := base64.RawURLEncoding.DecodeString(string(parts(pk.Payload)[1]))
		if json.Unmarshal(payload, &r) == nil {
			about = fmt.Sprintf(" %d", r.Seq)
		}
	}
	h.note("%d %s %s %d %s%s", n, way, packets.PacketNames[pk.FixedHeader.Type], pk.PacketID, strings.TrimPrefix(pk.TopicName, prefix), about)
}

// take deals with one batch.
func (h *hostile) take(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	h.mu.Lock()
	b, err := chain.ParseBatch(pk.Payload)
	if !assert.NoError(h.t, err) {
		b.Entries = make([]chain.Entry, 1)
	}
	f, wait := h.draw(b.First())
	h.counts[f]++
	h.batches++
	h.note("%d-%d: %s %s", b.First(), b.Last(), f, wait)
	h.mu.Unlock()

	switch f {
	case drop, stuck: // no acknowledgement; the uplink leaves by itself
		return pk, packets.ErrRejectPacket
	case late:
		time.Sleep(wait)
	}
	h.mu.Lock()
	answers, acknowledge := h.deal(cl, pk.Payload, f, wait)
	h.mu.Unlock()
	for _, receipt := range answers {
		assert.NoError(h.t, h.front.server.Publish(prefix+"down/receipt", receipt, false, 1))
		time.Sleep(apart)
	}
	if !acknowledge {
		return pk, packets.ErrRejectPacket
	}
	return pk, nil
}

// deal stores or does not, and gives what goes back. h.mu is held.
func (h *hostile) deal(cl *broker.Client, payload []byte, f fault, wait time.Duration) (answers [][]byte, acknowledge bool) {
	cut := func() { _ = cl.Net.Conn.Close() }
	switch f {
	case forget:
		return nil, true
	case restart:
		h.held, h.back = nil, time.Now().Add(wait)
		cut()
		return nil, false
	case crashBefore:
		h.crash()
		cut()
		return nil, false
	case afterNext:
		if h.held == nil {
			h.held = slices.Clone(payload)
			return nil, true
		}
	}
	receipts := h.ingest(payload)
	if h.held != nil {
		receipts = append(receipts, h.ingest(h.held)...)
		h.held = nil
	}
	switch f {
	case twice:
		receipts = append(receipts, h.ingest(payload)...)
	case mute:
		return nil, true
	case oldReceipts:
		receipts = append(slices.Clone(h.receipts), receipts...)
		receipts = receipts[max(0, len(receipts)-8):]
	case restartStored:
		h.back = time.Now().Add(wait)
		cut()
		return nil, false
	case crashAfter:
		h.crash()
		cut()
		return nil, false
	}
	return receipts, true
}

func (h *hostile) ingest(payload []byte) [][]byte {
	receipt, err := h.centre.Ingest(context.Background(), queuetest.Terminal, payload)
	assert.NoError(h.t, err)
	h.receipts = append(h.receipts, receipt)
	return [][]byte{receipt}
}

// figures is what a round came to, against the truth.
type figures struct {
	records, batches       int
	lost, doubled, changed int
	alarms                 int
	faults                 map[fault]int
	journal                []string
}

func (f figures) String() string {
	return fmt.Sprintf("%d records in %d batches: %d lost, %d doubled, %d changed or out of order, %d alarms", f.records, f.batches, f.lost, f.doubled, f.changed, f.alarms)
}

// judge compares the centre with the ledger, line by line.
func (h *hostile) judge(l *queue.Ledger) figures {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := figures{batches: h.batches, faults: maps.Clone(h.counts), journal: slices.Clone(h.journal)}
	stored := map[uint64]string{}
	last := uint64(0)
	require.NoError(h.t, h.centre.Records(context.Background(), "", true, func(r reference.Row) error {
		if _, there := stored[r.Seq]; there {
			f.doubled++
		}
		if r.Seq != last+1 {
			f.changed++
		}
		last = r.Seq
		stored[r.Seq] = r.Hash
		return nil
	}))
	require.NoError(h.t, l.Each(func(e chain.Entry) error {
		line, err := e.Line()
		require.NoError(h.t, err)
		f.records++
		switch stored[uint64(e.Seq)] {
		case "":
			f.lost++
		case chain.HashLine(line).String():
		default:
			f.changed++
		}
		return nil
	}))
	alarms, err := h.centre.Alarms(context.Background(), true, 0, 1000)
	require.NoError(h.t, err)
	f.alarms = len(alarms)
	return f
}

// newHostileSite is a ledger and its uplink before a hostile broker.
func newHostileSite(t testing.TB, h *hostile, keys *device.Keys, admission chain.Admission, seed uint64) *site {
	t.Helper()
	trust, err := admission.Trust()
	require.NoError(t, err)
	cfg := queuetest.Config(t.TempDir())
	cfg.Key, cfg.ReceiptKey = keys.Ledger(), trust.Receipt
	s := &site{t: t}
	s.ledger, err = queue.Open(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	s.cfg = mqtt.Config{
		Addresses: []string{"centre.test:8883"}, Admission: admission, Key: keys.Uplink(), SignAlert: queuetest.SignAlert(keys.Ledger()),
		Software: "rollcall test", Now: time.Now,
		Package: func(context.Context, []byte) {}, Command: func(context.Context, []byte) {},
		Up: func() time.Duration { return time.Since(h.began) }, Receipted: func(chain.Receipt, time.Duration, time.Duration) {},
		Report: func(bool, error) {},
	}
	s.connectTo(h, s.ledger, seed)
	return s
}

// connectTo gives the site a new uplink, of its ledger or what stands before it.
// Its pauses are drawn from the seed.
func (s *site) connectTo(h *hostile, ledger mqtt.Ledger, seed uint64) {
	var err error
	s.uplink, err = mqtt.New(s.cfg, ledger, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	s.uplink.SetDial(h.dial)
	s.uplink.SetJitter(pauses(seed))
}

// pauses are an uplink's, drawn from a seed.
func pauses(seed uint64) func(time.Duration) time.Duration {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
}

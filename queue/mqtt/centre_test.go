package mqtt_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
	"rollcall/simulator"
)

const prefix = "rollcall/v1/test/" + string(queuetest.Terminal) + "/"

// centre is a broker and a centre in one that misbehaves by a script.
type centre struct {
	broker.HookBase
	t      testing.TB
	server *broker.Server

	// script says what to do with the n-th batch, from 1; nil is honest.
	script func(n int, b chain.Batch) reply
	// deny refuses subscriptions to topics that end so.
	deny string
	// take deals with batches in place of all that follows.
	take func(*broker.Client, packets.Packet) (packets.Packet, error)
	// wire is told of each packet; nil tells nobody.
	wire func(cl *broker.Client, way string, pk packets.Packet)

	// away has virtual leave it to the test to call back.
	away bool
	back func()

	mu      sync.Mutex // guards what follows
	lines   [][]byte   // stored, from seq 1
	batches [][2]chain.Seq
	states  []string
	alerts  [][]byte
	before  []int   // lines stored when each alert came
	broken  []error // batches that did not verify
}

// reply is what a centre does with a batch. The zero reply is honest.
type reply struct {
	forget bool     // acknowledge, store nothing, send no receipt
	mute   bool     // send no receipt
	cut    bool     // cut the connection instead of the acknowledgement
	stuck  bool     // neither acknowledge nor answer
	first  [][]byte // messages to send before the receipt
	last   [][]byte // and after it
}

// serve starts a centre on a listener.
func serve(t testing.TB, l net.Listener, conf *tls.Config, c *centre) *centre {
	t.Helper()
	capabilities := broker.NewDefaultServerCapabilities()
	capabilities.MaximumMessageExpiryInterval = 0
	c.t = t
	c.server = broker.New(&broker.Options{
		InlineClient: true, Capabilities: capabilities,
		Logger: slog.New(slog.DiscardHandler), SysTopicResendInterval: math.MaxInt32,
	})
	require.NoError(t, c.server.AddHook(c, nil))
	require.NoError(t, c.server.AddListener(listeners.NewNet("test", tls.NewListener(l, conf))))
	require.NoError(t, c.server.Serve())
	return c
}

// stop ends the centre, its clients first: mochi's Close (v2.7.9) takes a read
// lock on the list of clients twice, and a client that leaves between the two
// holds it for ever.
func (c *centre) stop() {
	for range 1000 {
		left := 0
		for _, cl := range c.server.Clients.GetAll() {
			if !cl.Net.Inline {
				cl.Stop(broker.ErrConnectionClosed)
				left++
			}
		}
		if left == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	require.NoError(c.t, c.server.Close())
}

func (c *centre) ID() string { return "test centre" }

func (c *centre) Provides(b byte) bool {
	return bytes.IndexByte([]byte{broker.OnConnectAuthenticate, broker.OnACLCheck, broker.OnPublish, broker.OnWillSent}, b) >= 0 ||
		c.wire != nil && (b == broker.OnPacketRead || b == broker.OnPacketSent)
}

func (c *centre) OnPacketRead(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	c.wire(cl, "<-", pk)
	return pk, nil
}

func (c *centre) OnPacketSent(cl *broker.Client, pk packets.Packet, _ []byte) { c.wire(cl, "->", pk) }

func (c *centre) OnConnectAuthenticate(*broker.Client, packets.Packet) bool { return true }

func (c *centre) OnACLCheck(_ *broker.Client, topic string, write bool) bool {
	return write || c.deny == "" || !strings.HasSuffix(topic, c.deny)
}

func (c *centre) OnWillSent(_ *broker.Client, pk packets.Packet) { c.state(pk.Payload) }

func (c *centre) OnPublish(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.TopicName {
	case prefix + "up/state":
		c.state(pk.Payload)
	case prefix + "up/alert":
		c.mu.Lock()
		defer c.mu.Unlock()
		c.alerts, c.before = append(c.alerts, pk.Payload), append(c.before, len(c.lines))
	case prefix + "up/records":
		if c.take != nil {
			return c.take(cl, pk)
		}
		return c.records(cl, pk)
	}
	return pk, nil
}

func (c *centre) state(payload []byte) {
	var s struct {
		State string `json:"state"`
	}
	_ = json.Unmarshal(payload, &s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, s.State)
}

func (c *centre) records(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	b, err := chain.ParseBatch(pk.Payload)
	if err == nil {
		_, _, err = b.Check(queuetest.Ring(), 0)
	}
	c.mu.Lock()
	if err != nil {
		c.broken = append(c.broken, err)
		c.mu.Unlock()
		return pk, packets.ErrRejectPacket
	}
	c.batches = append(c.batches, [2]chain.Seq{b.First(), b.Last()})
	var r reply
	if c.script != nil {
		r = c.script(len(c.batches), b)
	}
	if have := chain.Seq(len(c.lines)); !r.forget && b.First() <= have+1 && b.Last() > have {
		for _, line := range b.Lines[have+1-b.First():] {
			c.lines = append(c.lines, bytes.Clone(line))
		}
	}
	receipt := c.receipt(b.Log())
	c.mu.Unlock()

	if r.cut || r.stuck {
		if r.cut {
			_ = cl.Net.Conn.Close()
		}
		return pk, packets.ErrRejectPacket
	}
	out := r.first
	if !r.forget && !r.mute {
		out = append(out, receipt)
	}
	for _, message := range append(out, r.last...) {
		assert.NoError(c.t, c.server.Publish(prefix+"down/receipt", message, false, 1))
	}
	return pk, nil
}

// receipt is for what is stored. c.mu is held.
func (c *centre) receipt(log chain.LogID) []byte {
	if len(c.lines) == 0 {
		return []byte("nothing is stored")
	}
	return queuetest.Receipt(c.t, queuetest.CentreKey, log, chain.Seq(len(c.lines)), chain.HashLine(c.lines[len(c.lines)-1]))
}

// truth compares what the centre has with a ledger, to the byte.
func (c *centre) truth(l queuetest.Ledger) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	assert.Empty(c.t, c.broken)
	var entries []chain.Entry
	for _, line := range c.lines {
		e, err := chain.ParseLine(line)
		require.NoError(c.t, err)
		entries = append(entries, e)
	}
	assert.Equal(c.t, queuetest.Read(c.t, l), entries)
}

func (c *centre) seen() (batches [][2]chain.Seq, states []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(batches, c.batches...), append(states, c.states...)
}

func (c *centre) storedAtAlert() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.before...)
}

// certificateAlerts gives the codes of the alerts about the certificate.
func (c *centre) certificateAlerts() (codes []string) {
	for _, a := range c.opened() {
		if a.Kind == chain.AlertCertificate {
			codes = append(codes, a.Code)
		}
	}
	return codes
}

// cutAll ends every connection.
func (c *centre) cutAll() {
	for _, cl := range c.server.Clients.GetAll() {
		if !cl.Net.Inline {
			_ = cl.Net.Conn.Close()
		}
	}
}

// pipes is a listener whose connections are in memory, for virtual time.
type pipes struct {
	way    simulator.Link // how fast they are
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial is an Uplink's way in.
func (p *pipes) dial(ctx context.Context, network, address string) (net.Conn, error) {
	here, there := roomyPipe(&p.way)
	var err error
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		err = errors.New("nobody listens at " + address)
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = here.Close()
	_ = there.Close()
	return nil, &net.OpError{Op: "dial", Net: network, Err: err}
}

// roomyPipe is a [net.Pipe] with room in it, as TCP has: who writes need not
// wait until the other side reads. The way between can be a slow one.
func roomyPipe(way *simulator.Link) (here, there net.Conn) {
	here, near := net.Pipe()
	far, there := net.Pipe()
	relay := func(to, from net.Conn) {
		way.Carry(to, from)
		_ = from.Close()
		_ = to.Close()
	}
	go relay(far, near)
	go relay(near, far)
	return here, there
}

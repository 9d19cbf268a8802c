package centre_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// serve runs a centre's own listener until the test or stop ends it.
func serve(t testing.TB, c *centre.Centre) (address string, stop func()) {
	t.Helper()
	l, err := c.Listen()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = func() {
		cancel()
		if err, first := <-ended; first {
			assert.NoError(t, err)
			close(ended)
		}
	}
	t.Cleanup(stop)
	return l.Address(), stop
}

func loopback(cfg *centre.Config) { cfg.Listen = "127.0.0.1:0" }

func topic(b *box, rest string) string {
	return "rollcall/v1/test/" + string(b.id) + "/" + rest
}

// wire speaks MQTT packet by packet, so that a test sees what comes in which
// order.
type wire struct {
	t    testing.TB
	conn net.Conn
}

// dial opens the TLS connection only.
func dial(t testing.TB, address string, cfg *tls.Config) *wire {
	t.Helper()
	conn, err := tls.Dial("tcp", address, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &wire{t, conn}
}

// connect connects as a terminal and subscribes to what comes down.
func connect(t testing.TB, address string, b *box) *wire {
	t.Helper()
	w := dial(t, address, b.tls(t))
	require.Equal(t, byte(packets.Accepted), w.hello(string(b.id), ""))
	w.listen(b)
	return w
}

// listen subscribes to what is for a terminal.
func (w *wire) listen(b *box) {
	sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	sub.MessageID, sub.Topics, sub.Qoss = 1, []string{topic(b, "down/#")}, []byte{1}
	w.send(sub)
}

// hello sends CONNECT and gives the code of the answer.
func (w *wire) hello(client, will string) byte {
	w.t.Helper()
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession = "MQTT", 4, true
	hello.ClientIdentifier, hello.Keepalive = client, 60
	if will != "" {
		hello.WillFlag, hello.WillRetain, hello.WillTopic, hello.WillMessage = true, true, will, []byte(`{"state":"offline"}`)
	}
	w.send(hello)
	ack, ok := w.read().(*packets.ConnackPacket)
	require.True(w.t, ok)
	return ack.ReturnCode
}

func (w *wire) send(p packets.ControlPacket) {
	w.t.Helper()
	require.NoError(w.t, p.Write(w.conn))
}

func (w *wire) publish(id uint16, topic string, payload []byte) {
	w.t.Helper()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = 1, id, topic, payload
	w.send(p)
}

// read gives the next packet.
func (w *wire) read() packets.ControlPacket {
	w.t.Helper()
	p, err := packets.ReadPacket(w.conn)
	require.NoError(w.t, err)
	return p
}

// next gives the next packet of a kind, and fails at one of another kind,
// SUBACK apart.
func next[P packets.ControlPacket](w *wire) P {
	w.t.Helper()
	for {
		p := w.read()
		if _, ok := p.(*packets.SubackPacket); ok {
			continue
		}
		got, ok := p.(P)
		require.Truef(w.t, ok, "got %T", p)
		return got
	}
}

// A terminal that gives up on a slow store connects again while its batch is
// still being stored, and both go on at the same moment: the end of the old
// connection must not take the new one's subscriptions with it.
func TestListenerComesBackWhileItsBatchIsStored(t *testing.T) {
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	db := database(t, cfg)
	for range 60 {
		old := connect(t, address, b)
		lock, err := db.Begin()
		require.NoError(t, err)
		old.publish(1, topic(b, "up/records"), b.batch(t, b.append(t, checkins(1)...)))
		fresh := dial(t, address, b.tls(t))
		var accepted sync.WaitGroup
		accepted.Go(func() {
			assert.Equal(t, byte(packets.Accepted), fresh.hello(string(b.id), ""))
		})
		require.NoError(t, old.conn.Close())
		require.NoError(t, lock.Rollback())
		accepted.Wait()
		fresh.listen(b)
		fresh.publish(1, topic(b, "up/records"), b.batch(t, b.append(t, checkins(1)...)))
		require.NoError(t, fresh.conn.SetReadDeadline(time.Now().Add(patience)))
		next[*packets.PubackPacket](fresh)
		fresh.acknowledge(next[*packets.PublishPacket](fresh))
		require.NoError(t, fresh.conn.Close())
	}
}

func TestListenerAcknowledgesThenSendsTheReceipt(t *testing.T) {
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	for id := range uint16(3) {
		w.publish(id+10, topic(b, "up/records"), b.batch(t, b.append(t, checkins(2)...)))
		assert.Equal(t, id+10, next[*packets.PubackPacket](w).MessageID)
		assert.Equal(t, int(b.last), count(t, cfg, "records"), "it is in the database when the acknowledgement is here")
		p := next[*packets.PublishPacket](w)
		assert.Equal(t, topic(b, "down/receipt"), p.TopicName)
		assert.False(t, p.Retain)
		assert.Equal(t, b.last, b.receipt(t, p.Payload).Seq)
	}
}

// While another process holds the database no acknowledgement comes; once it
// lets go, acknowledgement and receipt do.
func TestListenerDoesNotAcknowledgeBeforeTheCommit(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	_, ok := w.read().(*packets.SubackPacket)
	require.True(t, ok)

	lock, err := database(t, cfg).Begin()
	require.NoError(t, err)

	w.publish(7, topic(b, "up/records"), b.batch(t, b.append(t, openRecord())))
	require.NoError(t, w.conn.SetDeadline(time.Now().Add(300*time.Millisecond)))
	_, err = w.conn.Read(make([]byte, 1))
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "something was sent before the commit: %v", err)

	require.NoError(t, lock.Rollback())
	require.NoError(t, w.conn.SetDeadline(time.Now().Add(patience)))
	ack, ok := w.read().(*packets.PubackPacket)
	require.True(t, ok)
	assert.Equal(t, uint16(7), ack.MessageID)
	receipt, ok := w.read().(*packets.PublishPacket)
	require.True(t, ok)
	assert.Equal(t, chain.Seq(1), b.receipt(t, receipt.Payload).Seq)
}

// A store that fails gets no acknowledgement sent: the connection ends, and
// the terminal sends again.
func TestListenerDoesNotAcknowledgeWhatTheStoreRefused(t *testing.T) {
	c, cfg, log := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	_, ok := w.read().(*packets.SubackPacket)
	require.True(t, ok)

	behindItsBack(t, cfg, "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'disk full'); END")

	payload := b.batch(t, b.append(t, openRecord()))
	w.publish(7, topic(b, "up/records"), payload)
	p, err := packets.ReadPacket(w.conn)
	require.Errorf(t, err, "got %v", p)
	var timeout net.Error
	assert.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection stays open")
	assert.Contains(t, log.String(), "batch not stored")

	behindItsBack(t, cfg, "DROP TRIGGER full")
	again := connect(t, address, b)
	again.publish(8, topic(b, "up/records"), payload)
	next[*packets.PubackPacket](again)
	assert.Equal(t, chain.Seq(1), b.receipt(t, next[*packets.PublishPacket](again).Payload).Seq)
}

func TestListenerAcknowledgesWhatItRefusesForGood(t *testing.T) {
	c, _, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	w.publish(1, topic(b, "up/records"), []byte("garbage"))
	next[*packets.PubackPacket](w)
	w.publish(2, topic(b, "up/records"), b.batch(t, b.append(t, openRecord())))
	next[*packets.PubackPacket](w)
	assert.Equal(t, chain.Seq(1), b.receipt(t, next[*packets.PublishPacket](w).Payload).Seq)
	w.publish(3, topic(b, "up/records"), []byte("garbage"))
	next[*packets.PubackPacket](w)
	assert.Equal(t, chain.Seq(1), b.receipt(t, next[*packets.PublishPacket](w).Payload).Seq, "the current receipt")
}

func TestListenerTakesABatchOf64KiBAndNoLargerPacket(t *testing.T) {
	c, _, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	fill := attendance.Record{Type: "note", Body: []byte(`{"x":"` + string(slices.Repeat([]byte("x"), 15_000)) + `"}`)}
	payload := b.batch(t, b.append(t, fill, fill, fill, fill))
	require.Greater(t, len(payload), 60_000)
	w.publish(1, topic(b, "up/records"), payload)
	next[*packets.PubackPacket](w)
	assert.Equal(t, chain.Seq(4), b.receipt(t, next[*packets.PublishPacket](w).Payload).Seq)

	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = 1, 2, topic(b, "up/records"), make([]byte, 70_000)
	_ = p.Write(w.conn) // the other side may close half way
	_, err := packets.ReadPacket(w.conn)
	assert.Error(t, err)
}

func TestListenerKeepsATerminalToItsOwnTopics(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	address, _ := serve(t, c)

	subscriptions := []struct {
		name, filter string
		granted      byte
	}{
		{"own receipts", topic(b, "down/receipt"), 1},
		{"own packages", topic(b, "down/package/#"), 1},
		{"another's receipts", topic(other, "down/receipt"), 0x80},
		{"everybody's", "rollcall/v1/test/+/down/#", 0x80},
		{"everything", "#", 0x80},
		{"shared", "$share/g/" + topic(other, "up/records"), 0x80},
		{"the broker's own", "$SYS/#", 0x80},
		{"another tenant's", "rollcall/v1/other/t-1/down/receipt", 0x80},
	}
	for _, tt := range subscriptions {
		t.Run("subscribe to "+tt.name, func(t *testing.T) {
			w := dial(t, address, b.tls(t))
			require.Equal(t, byte(packets.Accepted), w.hello("t-1", ""))
			sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
			sub.MessageID, sub.Topics, sub.Qoss = 1, []string{tt.filter}, []byte{1}
			w.send(sub)
			ack, ok := w.read().(*packets.SubackPacket)
			require.True(t, ok)
			assert.Equal(t, []byte{tt.granted}, ack.ReturnCodes)
		})
	}
	for name, to := range map[string]string{
		"another's records":  topic(other, "up/records"),
		"another's receipts": topic(other, "down/receipt"),
		"own receipts":       topic(b, "down/receipt"),
		"own packages":       topic(b, "down/package/c-1"),
		"what is not known":  topic(b, "up/other"),
		"the broker's own":   "$SYS/x",
	} {
		t.Run("publish to "+name, func(t *testing.T) {
			listening := connect(t, address, other)
			w := connect(t, address, b)
			w.publish(1, to, other.batch(t, other.append(t, openRecord())))
			for {
				p, err := packets.ReadPacket(w.conn)
				if err != nil {
					break // the connection is closed
				}
				_, acknowledged := p.(*packets.PubackPacket)
				require.False(t, acknowledged)
				if _, ping := p.(*packets.SubackPacket); ping && to == "$SYS/x" {
					break // mochi drops these in silence
				}
			}
			assert.Zero(t, count(t, cfg, "records"))
			listening.send(packets.NewControlPacket(packets.Pingreq))
			next[*packets.PingrespPacket](listening)
		})
	}
}

func TestListenerLetsInAdmittedTerminalsOnly(t *testing.T) {
	t.Parallel()
	c, cfg, log := newCentre(t, loopback)
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	address, _ := serve(t, c)

	t.Run("the terminal", func(t *testing.T) {
		w := dial(t, address, b.tls(t))
		assert.Equal(t, byte(packets.Accepted), w.hello("t-1", topic(b, "up/state")))
	})
	t.Run("under another name", func(t *testing.T) {
		w := dial(t, address, b.tls(t))
		assert.NotEqual(t, byte(packets.Accepted), w.hello("t-2", ""))
		assert.Contains(t, log.String(), "the client id is not")
	})
	t.Run("with a last will on another's topic", func(t *testing.T) {
		w := dial(t, address, b.tls(t))
		assert.NotEqual(t, byte(packets.Accepted), w.hello("t-1", topic(other, "up/state")))
	})
	t.Run("with its ledger certificate", func(t *testing.T) {
		cfg := b.tls(t)
		cert, err := chain.ParseCertificate(b.admission.Ledger)
		require.NoError(t, err)
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: b.ledger}}
		refusedByHandshake(t, address, cfg)
	})
	t.Run("without a certificate", func(t *testing.T) {
		cfg := b.tls(t)
		cfg.Certificates = nil
		refusedByHandshake(t, address, cfg)
	})
	t.Run("of another centre", func(t *testing.T) {
		elsewhere, _, _ := newCentre(t)
		stranger := admitted(t, elsewhere, "t-1")
		cfg := stranger.tls(t)
		cfg.RootCAs = b.tls(t).RootCAs
		refusedByHandshake(t, address, cfg)
	})
	t.Run("over TLS 1.2", func(t *testing.T) {
		cfg := b.tls(t)
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		refusedByHandshake(t, address, cfg)
	})
	for _, tt := range []struct{ name, change string }{
		{"that has another key now", "UPDATE terminals SET uplink_key = x'00' WHERE id = 't-2'"},
		{"that was removed", "DELETE FROM terminals WHERE id = 't-2'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			behindItsBack(t, cfg, tt.change)
			w := dial(t, address, other.tls(t))
			assert.NotEqual(t, byte(packets.Accepted), w.hello("t-2", ""))
		})
	}
}

// refusedByHandshake checks that the server ends the connection over TLS. In
// TLS 1.3 the client learns it with its first read.
func refusedByHandshake(t *testing.T, address string, cfg *tls.Config) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Read(make([]byte, 1))
	var alert *net.OpError
	require.ErrorAs(t, err, &alert)
	assert.Equal(t, "remote error", alert.Op)
}

func TestListenerRetainsPackagesAcrossARestart(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	address, stop := serve(t, c)

	// Published while a terminal listens, by another process.
	w := connect(t, address, b)
	beside := open(t, cfg, &logBuffer{})
	first := publish(t, beside, b, "c-1").Package.Serial
	p := next[*packets.PublishPacket](w)
	assert.Equal(t, topic(b, "down/package/c-1"), p.TopicName)
	assert.Equal(t, first, b.open(t, p.Payload).Serial)

	// Replaced, and one for a second class and a second terminal; then the
	// centre is started again: the newest of each is there.
	second, third := publish(t, beside, b, "c-1").Package.Serial, publish(t, beside, b, "c-2").Package.Serial
	publish(t, beside, other, "c-1")
	stop()
	address, _ = serve(t, c)
	w = connect(t, address, b)
	got := map[string]uint64{}
	for range 2 {
		p := next[*packets.PublishPacket](w)
		got[p.TopicName] = b.open(t, p.Payload).Serial
	}
	assert.Equal(t, map[string]uint64{topic(b, "down/package/c-1"): second, topic(b, "down/package/c-2"): third}, got)
}

// A real MQTT library in the role of the terminal.
func TestListenerWithPaho(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	receipts := make(chan []byte, 10)
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + address).SetClientID("t-1").
		SetTLSConfig(b.tls(t)).SetAutoReconnect(false))
	settled(t, client.Connect())
	defer client.Disconnect(100)
	settled(t, client.Subscribe(topic(b, "down/receipt"), 1, func(_ mqtt.Client, m mqtt.Message) { receipts <- m.Payload() }))
	for i := range 5 {
		settled(t, client.Publish(topic(b, "up/records"), 1, false, b.batch(t, b.append(t, checkins(3)...))))
		assert.Equal(t, 3*(i+1), count(t, cfg, "records"))
		assert.Equal(t, b.last, b.receipt(t, receive(t, receipts)).Seq)
	}
	settled(t, client.Publish(topic(b, "up/state"), 1, true, `{"state":"online"}`))
	contiguous(t, c, b, 15)
}

func settled(t testing.TB, token mqtt.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		panic("unreachable")
	}
}

// publish sends a small class to a terminal.
func publish(t testing.TB, c *centre.Centre, b *box, class string) centre.Published {
	t.Helper()
	now := time.Now()
	plan, err := c.ParsePlan(fmt.Appendf(nil, `{"class":{"id":%q,"name":"班"},
		"sessions":[{"id":"s-1","start":%q,"end":%q}],
		"trainees":[{"trainee":"p-1","name":"张小明","card_no":"A12345678"}]}`,
		class, now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)))
	require.NoError(t, err)
	done, err := c.Publish(t.Context(), b.id, plan)
	require.NoError(t, err)
	return done
}

// open checks a class package as a terminal does.
func (b *box) open(t testing.TB, jws []byte) *attendance.Package {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	payload, err := chain.Open(trust.Package, chain.PurposePackage, jws)
	require.NoError(t, err)
	p, err := attendance.ParsePackage(payload)
	require.NoError(t, err)
	return p
}

// Another process revokes a terminal that is connected and silent.
func TestT16RevokedTerminalIsCutOff(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	revoked, honest := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	address, _ := serve(t, c)
	w, other := connect(t, address, revoked), connect(t, address, honest)
	_, ok := w.read().(*packets.SubackPacket)
	require.True(t, ok)
	require.NoError(t, open(t, cfg, &logBuffer{}).Revoke(t.Context(), "t-1", "auditor", "stolen"))
	_, err := packets.ReadPacket(w.conn)
	require.Error(t, err)
	var timeout net.Error
	assert.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection stays open")
	assert.NotEqual(t, byte(packets.Accepted), dial(t, address, revoked.tls(t)).hello("t-1", ""))
	other.publish(9, topic(honest, "up/records"), honest.batch(t, honest.append(t, openRecord())))
	next[*packets.PubackPacket](other)
}

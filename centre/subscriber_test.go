package centre_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue"
	"rollcall/queue/chain"
	uplink "rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// terminalRun is a real ledger and a real uplink.
type terminalRun struct {
	ledger   *queue.Ledger
	packages chan []byte
	online   atomic.Bool
	tries    atomic.Int64 // to connect
}

func runTerminal(t *testing.T, b *box, address string) *terminalRun {
	t.Helper()
	return runTerminalWith(t, b, address, func(*uplink.Config) {})
}

func runTerminalWith(t *testing.T, b *box, address string, change func(*uplink.Config)) *terminalRun {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	began, up := time.Now(), int64(0)
	ledger, err := queue.Open(queue.Config{
		Dir: t.TempDir(), Terminal: b.id, Key: b.ledger, ReceiptKey: trust.Receipt, Software: "test",
		Stamp: func() chain.Stamp {
			up++
			return chain.Stamp{Wall: chain.NewWall(time.Now()), Boot: "b", UpMS: up, Clock: chain.ClockSynced}
		},
	}, discard())
	require.NoError(t, err)
	r := &terminalRun{ledger: ledger, packages: make(chan []byte, 16)}
	config := uplink.Config{
		Addresses: []string{address}, RetryStart: 50 * time.Millisecond, RetryMax: 300 * time.Millisecond, ReceiptTimeout: 2 * time.Second,
		Admission: b.admission, Key: b.uplink, SignAlert: queuetest.SignAlert(b.ledger), Software: "test", Now: time.Now,
		Package:   func(_ context.Context, jws []byte) { r.packages <- bytes.Clone(jws) },
		Command:   func(context.Context, []byte) {},
		Up:        func() time.Duration { return time.Since(began) },
		Receipted: func(chain.Receipt, time.Duration, time.Duration) {},
		Report:    func(online bool, _ error) { r.online.Store(online) },
		Certificate: func() (string, error) {
			r.tries.Add(1)
			return b.admission.Uplink, nil
		},
	}
	change(&config)
	up1, err := uplink.New(config, ledger, discard())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- ledger.Run(ctx) }()
	go func() { ended <- up1.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
		assert.NoError(t, <-ended)
		assert.NoError(t, ledger.Close())
	})
	return r
}

func (r *terminalRun) append(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, err := r.ledger.Append(t.Context(), checkin("p-1"))
		require.NoError(t, err)
	}
}

// receipted waits until the centre has answered for everything.
func (r *terminalRun) receipted(t *testing.T, last chain.Seq) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := r.ledger.Status()
		return s.Last == last && s.Receipted == last
	}, 2*patience, 10*time.Millisecond)
}

func (r *terminalRun) nextPackage(t *testing.T, b *box, serial uint64) {
	t.Helper()
	for b.open(t, receive(t, r.packages)).Serial != serial {
	}
}

// equal compares what is stored with the ledger, line by line.
func (r *terminalRun) equal(t *testing.T, c *centre.Centre, cfg centre.Config) {
	t.Helper()
	rows := stored(t, c)
	i := 0
	require.NoError(t, r.ledger.Each(func(e chain.Entry) error {
		line, err := e.Line()
		require.NoError(t, err)
		require.Less(t, i, len(rows), "record %d is lost", e.Seq)
		assert.Equal(t, uint64(e.Seq), rows[i].Seq)
		assert.Equal(t, chain.HashLine(line).String(), rows[i].Hash)
		i++
		return nil
	}))
	assert.Len(t, rows, i)
	assert.Zero(t, count(t, cfg, "alarms"))
	assert.Zero(t, count(t, cfg, "quarantine"))
}

// publishLarge sends the largest class there may be.
func publishLarge(t *testing.T, c *centre.Centre, b *box) (serial uint64) {
	t.Helper()
	plan, err := c.ParsePlan([]byte(planJSON(time.Now(), "")))
	require.NoError(t, err)
	plan.Trainees, err = centre.ParseRoster(largeRoster(5000))
	require.NoError(t, err)
	made, err := c.Publish(t.Context(), b.id, plan)
	require.NoError(t, err)
	return made.Package.Serial
}

func subscribe(t *testing.T, c *centre.Centre) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Subscriber().Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
}

// A real ledger, a real uplink, a real Mosquitto that is killed and started
// again, and the centre behind it.
func TestThroughMosquitto(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b := admitted(t, c, "t-1")
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	mosquitto.Start()
	subscribe(t, c)
	r := runTerminal(t, b, address)

	r.append(t, 60)
	r.receipted(t, 61)
	sent := publish(t, c, b, "c-1").Package.Serial
	r.nextPackage(t, b, sent)

	mosquitto.Kill()
	r.append(t, 30)
	large := publishLarge(t, c, b)
	mosquitto.Start()
	r.append(t, 30)
	r.receipted(t, 121)
	r.nextPackage(t, b, large)
	r.equal(t, c, cfg)
}

// The same terminal on the centre's own listener, which is started again.
func TestThroughTheListener(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Listen = freeAddress(t) })
	b := admitted(t, c, "t-1")
	address, stop := serve(t, c)
	r := runTerminal(t, b, address)

	r.append(t, 60)
	r.receipted(t, 61)
	sent := publish(t, c, b, "c-1").Package.Serial
	r.nextPackage(t, b, sent)

	stop()
	r.append(t, 30)
	large := publishLarge(t, c, b)
	serve(t, c)
	r.append(t, 30)
	r.receipted(t, 121)
	r.nextPackage(t, b, large)
	r.equal(t, c, cfg)
}

// What Mosquitto lets a terminal do, with the access list that we ship. It
// acknowledges what it drops, so only the database tells.
func TestMosquittoKeepsATerminalToItsOwnTopics(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	centretest.Mosquitto(t, cfg.Dir, address).Start()
	subscribe(t, c)

	heard := make(chan string, 64)
	connect := func(b *box) mqtt.Client {
		client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + address).SetClientID(string(b.id)).
			SetTLSConfig(b.tls(t)).SetAutoReconnect(false))
		settled(t, client.Connect())
		t.Cleanup(func() { client.Disconnect(100) })
		// Mosquitto grants what it will never deliver.
		settled(t, client.Subscribe("rollcall/v1/test/#", 1, func(_ mqtt.Client, m mqtt.Message) {
			heard <- fmt.Sprint(b.id, " ", m.Topic())
		}))
		return client
	}
	intruder := connect(other)
	settled(t, intruder.Publish(topic(b, "up/records"), 1, false, b.batch(t, b.append(t, openRecord()))))
	settled(t, intruder.Publish(topic(other, "down/receipt"), 1, false, "forged"))

	own := connect(b)
	b.newEpoch("e2")
	settled(t, own.Publish(topic(b, "up/records"), 1, false, b.batch(t, b.append(t, openRecord()))))
	assert.Equal(t, "t-1 "+topic(b, "down/receipt"), receive(t, heard), "its own receipt, and before it nothing for anybody")
	rows := stored(t, c)
	require.Len(t, rows, 1)
	assert.Equal(t, "t-1/e2", rows[0].Log)
}

func TestSubscriberSaysWhyThereIsNoBroker(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and says nothing
	require.NoError(t, err)
	defer silent.Close()
	stranger, strange, _ := newCentre(t, loopback)
	strangers, _ := serve(t, stranger)
	for _, tt := range []struct{ name, address, says string }{
		{"nobody there", freeAddress(t), "connection refused"},
		{"with another authority's certificate", strangers, "certificate signed by unknown authority"},
		{"silent", silent.Addr().String(), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, log := newCentre(t, func(cfg *centre.Config) { cfg.Broker = tt.address })
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- c.Subscriber().Run(ctx) }()
			assert.Eventually(t, func() bool { return strings.Contains(log.String(), tt.says) }, patience, 10*time.Millisecond)
			cancel()
			assert.NoError(t, receive(t, ended), "it ends, whatever it waits for")
		})
	}
	assert.Zero(t, count(t, strange, "records"))
}

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/docs/contract"
)

// wiretap is a broker between terminals and centres that keeps a copy of every
// message.
type wiretap struct {
	mochi.HookBase
	server *mochi.Server
	mu     sync.Mutex // guards seen
	seen   []message
}

type message struct {
	topic   string
	payload []byte
}

func (w *wiretap) ID() string { return "wiretap" }

func (w *wiretap) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublish, mochi.OnWillSent}, b) >= 0
}

func (w *wiretap) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

func (w *wiretap) OnACLCheck(*mochi.Client, string, bool) bool { return true }

func (w *wiretap) OnPublish(_ *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	w.keep(pk)
	return pk, nil
}

func (w *wiretap) OnWillSent(_ *mochi.Client, pk packets.Packet) { w.keep(pk) }

func (w *wiretap) keep(pk packets.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, message{pk.TopicName, bytes.Clone(pk.Payload)})
}

func (w *wiretap) messages() []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]message(nil), w.seen...)
}

// serve runs the broker with a centre's certificate.
func (w *wiretap) serve(t *testing.T, keys string) (address string) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(keys, "tls.crt"), filepath.Join(keys, "tls.key"))
	require.NoError(t, err)
	ca, err := os.ReadFile(filepath.Join(keys, "ca.crt"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13,
	})
	require.NoError(t, err)
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler), SysTopicResendInterval: math.MaxInt32, InlineClient: true})
	w.server = server
	server.Options.Capabilities.MaximumMessageExpiryInterval = 0
	require.NoError(t, server.AddHook(w, nil))
	require.NoError(t, server.AddListener(listeners.NewNet("wiretap", l)))
	require.NoError(t, server.Serve())
	t.Cleanup(func() { assert.NoError(t, server.Close()) })
	return l.Addr().String()
}

// TestWireIsAsPublished taps the wire between the real daemon and the real
// centre while a class comes down, commands are obeyed and turned away, trusted
// time arrives, a session opens and the terminal raises an alert: every message is
// as docs/contract says. The control is what it raises the alert for, a message
// that somebody else sends and that the contract refuses. What the demonstration
// sends is held to the contract by itself (cmd/rollcall-sim).
func TestWireIsAsPublished(t *testing.T) {
	t.Parallel()
	dir, tap := t.TempDir(), &wiretap{}
	cfg := centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre"), Listen: "127.0.0.1:0"}
	require.NoError(t, centre.Init(cfg, time.Now()))
	cfg.Broker = tap.serve(t, filepath.Join(cfg.Dir, "keys"))
	cfg.Listen = ""
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	file, state := admittedBy(t, c, dir, cfg.Broker)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Subscriber().Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-ended) })
	sendClass(t, c)
	_, err = c.Order(ctx, "t-1", attendance.Command{Kind: attendance.CommandErase,
		Erase: &attendance.Erase{Trainee: "p-1", Reason: attendance.WithdrawCentre}}, 0)
	require.NoError(t, err)
	_, err = c.Order(ctx, "t-1", attendance.Command{Kind: attendance.CommandRotateKey}, 0)
	require.NoError(t, err)

	stop := start(t, file, state)
	const forged = "rollcall/v1/demo/t-1/down/package/c-9"
	require.NoError(t, tap.server.Publish(forged, []byte(`{"class":"c-9"}`), true, 0))
	answered := func() bool {
		commands, err := c.Commands(ctx, "t-1")
		return err == nil && !slices.ContainsFunc(commands, func(c centre.Command) bool { return c.State == centre.CommandWaiting })
	}
	require.Eventually(t, answered, 60*time.Second, 20*time.Millisecond, "of types %v", tap)
	require.NoError(t, stop())
	stop = start(t, file, state) // which looks at the timetable at once
	require.Eventually(t, func() bool {
		return answered() && tap.count("up/alert") > 0 && tap.hasRecord(`"type":"package"`) && tap.hasRecord(`"type":"session"`) && tap.hasRecord(`"type":"anchor"`)
	}, 60*time.Second, 20*time.Millisecond, "of types %v", tap)
	require.NoError(t, stop())

	published, err := contract.Load()
	require.NoError(t, err)
	kinds := map[string]int{}
	for _, m := range tap.messages() {
		if m.topic == forged {
			assert.ErrorIs(t, published.Check(m.topic, m.payload), contract.ErrMessage, "control: it would be noticed")
			continue
		}
		assert.NoError(t, published.Check(m.topic, m.payload), m.topic)
		kinds[strings.Join(strings.Split(m.topic, "/")[4:6], "/")]++
	}
	for _, kind := range []string{"up/records", "up/state", "up/alert", "down/receipt", "down/package", "down/command"} {
		assert.Positive(t, kinds[kind], "no message of %s was sent", kind)
	}
	t.Logf("messages: %v", kinds)
}

func (w *wiretap) count(kind string) (n int) {
	for _, m := range w.messages() {
		if strings.HasSuffix(m.topic, "/"+kind) {
			n++
		}
	}
	return n
}

func (w *wiretap) hasRecord(part string) bool {
	for _, m := range w.messages() {
		if strings.HasSuffix(m.topic, "/up/records") && bytes.Contains(m.payload, []byte(part)) {
			return true
		}
	}
	return false
}

// String names the topics and their counts.
func (w *wiretap) String() string {
	counts := map[string]int{}
	for _, m := range w.messages() {
		counts[m.topic]++
	}
	return fmt.Sprint(counts)
}

// sendClass sends a class that meets now.
func sendClass(t *testing.T, c *centre.Centre) {
	now := time.Now()
	plan, err := c.ParsePlan(fmt.Appendf(nil, `{"class":{"id":"c-1","name":"n"},"sessions":[{"id":"s-1","start":%q,"end":%q}],
		"officers":[{"id":"o-1","name":"王建国"}],"trainees":[{"trainee":"p-1","name":"张小明","card_no":"A00000001"}]}`,
		now.Add(-time.Minute).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)))
	require.NoError(t, err)
	_, err = c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
}

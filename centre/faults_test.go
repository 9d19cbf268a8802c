package centre_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue/chain"
	uplink "rollcall/queue/mqtt"
)

// Old packets in random order, 1,000 with -long, through the listener: what is stored stays
// as it is, and each is answered.
func TestT13ReplayedThroughTheListener(t *testing.T) {
	t.Parallel()
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	var sent [][]byte
	for range 50 {
		sent = append(sent, b.batch(t, b.append(t, checkins(3)...)))
		w.publish(1, topic(b, "up/records"), sent[len(sent)-1])
		next[*packets.PubackPacket](w)
		w.acknowledge(next[*packets.PublishPacket](w))
	}
	contiguous(t, c, b, 150)
	before := stored(t, c)
	for range rounds(200, 1000) {
		w.publish(2, topic(b, "up/records"), sent[rand.IntN(len(sent))])
		next[*packets.PubackPacket](w)
		receipt := next[*packets.PublishPacket](w)
		w.acknowledge(receipt)
		assert.Equal(t, b.last, b.receipt(t, receipt.Payload).Seq, "the current receipt")
	}
	assert.Equal(t, before, stored(t, c))
	assert.Zero(t, count(t, cfg, "quarantine"))
	assert.Zero(t, count(t, cfg, "alarms"))
}

// acknowledge lets the listener send more: it has at most 64 messages under way.
func (w *wire) acknowledge(p *packets.PublishPacket) {
	w.t.Helper()
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	w.send(ack)
}

// Without its access list Mosquitto passes on what one terminal says in
// another's name; the signature refuses it. With the list it never arrives
// (TestMosquittoKeepsATerminalToItsOwnTopics, and the listener's own).
func TestT14WithoutAnAccessListTheSignatureRefuses(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, log := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	mosquitto.Change(func(conf string) string { return withoutLine(conf, "acl_file") })
	mosquitto.Start()
	subscribe(t, c)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "broker connected") }, patience, time.Millisecond)
	client := dialBroker(t, address, other)
	b2 := newBox(t, "t-1") // whoever forges has not the key of t-1
	forged := b2.batch(t, b2.append(t, openRecord()))
	settled(t, client.Publish(topic(b, "up/records"), 1, false, forged))
	settled(t, client.Publish(topic(b, "up/records"), 1, false, other.batch(t, other.append(t, openRecord()))))
	settled(t, client.Publish(topic(b, "up/alert"), 1, false, other.alert(t, nil)))
	settled(t, client.Publish(topic(b, "up/records"), 1, false, strings.Repeat("x", 1<<20))) // T28: cut on its way in
	require.Eventually(t, func() bool { return strings.Count(log.String(), "not stored") >= 4 }, patience, 10*time.Millisecond, "%s", log)
	assert.Zero(t, count(t, cfg, "records"))
	assert.Equal(t, []string{"batch_refused"}, alarmKinds(t, cfg))

	own := dialBroker(t, address, b)
	settled(t, own.Publish(topic(b, "up/records"), 1, false, b.batch(t, b.append(t, openRecord()))))
	require.Eventually(t, func() bool { return count(t, cfg, "records") == 1 }, patience, 10*time.Millisecond, "the way is open")
}

func dialBroker(t *testing.T, address string, b *box) mqtt.Client {
	t.Helper()
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + address).SetClientID(string(b.id)).
		SetTLSConfig(b.tls(t)).SetAutoReconnect(false))
	settled(t, client.Connect())
	t.Cleanup(func() { client.Disconnect(100) })
	return client
}

func withoutLine(text, prefix string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// The broker is killed: the terminal knows within 10 s and records go on.
func TestF10BrokerKilled(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b := admitted(t, c, "t-1")
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	mosquitto.Start()
	subscribe(t, c)
	r := runTerminal(t, b, address)
	r.append(t, 5)
	r.receipted(t, 6)
	require.True(t, r.online.Load())
	mosquitto.Kill()
	began := time.Now()
	require.Eventually(t, func() bool { return !r.online.Load() }, 10*time.Second, 10*time.Millisecond)
	t.Logf("offline after %s", time.Since(began))
	r.append(t, 5)
	mosquitto.Start()
	r.receipted(t, 11)
	r.equal(t, c, cfg)
}

// A broker with a short queue acknowledges what nobody is there to take, and
// drops it. Nothing is let go, and the centre gets it all when it is back.
func TestF12BrokerDropsQueued(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b := admitted(t, c, "t-1")
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	mosquitto.Change(func(conf string) string {
		return strings.Replace(conf, "max_queued_messages 1000", "max_queued_messages 10", 1)
	})
	mosquitto.Start()
	acknowledged := dialBroker(t, address, b)
	for range 100 { // the control: the broker says yes a hundred times
		settled(t, acknowledged.Publish(topic(b, "up/records"), 1, false, b.batch(t, b.append(t, openRecord()))))
	}
	acknowledged.Disconnect(100)
	b.newEpoch("e2")
	r := runTerminal(t, b, address)
	r.append(t, 300)
	time.Sleep(time.Second) // the uplink may send what it likes
	assert.Zero(t, r.ledger.Status().Receipted, "an acknowledgement lets nothing go")
	subscribe(t, c)
	r.receipted(t, 301)
	assert.Equal(t, 301, count(t, cfg, "records"), "of what was acknowledged before nothing came")
}

// The broker is killed and its persistence is deleted: sessions and what it
// held are gone, and nothing is missing at the centre.
func TestF13BrokerLosesItsSession(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
	b := admitted(t, c, "t-1")
	mosquitto := centretest.Mosquitto(t, cfg.Dir, address)
	kept := t.TempDir()
	mosquitto.Change(func(conf string) string {
		return strings.Replace(conf, "persistence false", "persistence true\npersistence_location "+kept+"/\nautosave_interval 1", 1)
	})
	mosquitto.Start()
	subscribe(t, c)
	r := runTerminal(t, b, address)
	sent := publish(t, c, b, "c-1").Package.Serial
	r.nextPackage(t, b, sent)
	total := chain.Seq(1)
	for range 3 {
		r.append(t, 40)
		mosquitto.Kill()
		files, err := filepath.Glob(filepath.Join(kept, "*"))
		require.NoError(t, err)
		for _, f := range files {
			require.NoError(t, os.Remove(f))
		}
		r.append(t, 40)
		mosquitto.Start()
		total += 80
		r.receipted(t, total)
	}
	r.equal(t, c, cfg)
}

// ownNetwork runs a test again in a process with a network of its own, where
// only loopback is, and reports that it did. The child gets false.
func ownNetwork(t *testing.T) (elsewhere bool) {
	t.Helper()
	if os.Getenv("ROLLCALL_OWN_NETWORK") == t.Name() {
		shell(t, "ip link set lo up")
		return false
	}
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout", "3m")
	cmd.Env = append(os.Environ(), "ROLLCALL_OWN_NETWORK="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Log(string(out))
	require.NoError(t, err)
	return true
}

func shell(t *testing.T, command string) {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	require.NoErrorf(t, err, "%s: %s", command, out)
}

// dropping has the kernel drop packets on loopback, those that match.
func dropping(t *testing.T, match string) {
	t.Helper()
	shell(t, `nft -f - <<'E'
add table inet loss
delete table inet loss
table inet loss {
	chain in {
		type filter hook input priority 0;
		iif lo `+match+` drop
	}
}
E`)
}

// Three packets of ten are lost: records flow, and each counts once.
func TestF14ThreeOfTenPacketsLost(t *testing.T) {
	if ownNetwork(t) {
		return
	}
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	dropping(t, "numgen random mod 100 < 30")
	r := runTerminal(t, b, address)
	r.append(t, 60)
	require.Eventually(t, func() bool { return r.ledger.Status().Receipted == 61 }, 2*time.Minute, 20*time.Millisecond)
	r.equal(t, c, cfg)
	out, err := exec.Command("nft", "list", "ruleset").Output()
	require.NoError(t, err)
	assert.Contains(t, string(out), "< 30 drop", "the control: packets were being lost")
}

// The link goes down, or swallows everything, under a connection: told within
// 10 s, idle or not, and mended by itself.
func TestF16LinkDownAndBlackHole(t *testing.T) {
	swallow := func(t *testing.T) { dropping(t, "") }
	give := func(t *testing.T) { shell(t, "nft delete table inet loss") }
	for _, tt := range []struct {
		name       string
		fail, mend func(t *testing.T)
		underWay   int
	}{
		{"link_down", func(t *testing.T) { shell(t, "ip link set lo down") }, func(t *testing.T) { shell(t, "ip link set lo up") }, 0},
		{"black_hole", swallow, give, 0},
		{"black_hole_under_a_batch", swallow, give, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if ownNetwork(t) {
				return
			}
			c, cfg, _ := newCentre(t, loopback)
			b := admitted(t, c, "t-1")
			address, _ := serve(t, c)
			r := runTerminalWith(t, b, address, func(cfg *uplink.Config) { cfg.ReceiptTimeout = time.Minute })
			r.receipted(t, 1)
			tt.fail(t)
			began := time.Now()
			r.append(t, tt.underWay)
			require.Eventually(t, func() bool { return !r.online.Load() }, time.Minute, 10*time.Millisecond)
			t.Logf("offline after %s", time.Since(began).Round(100*time.Millisecond))
			assert.Less(t, time.Since(began), 20*time.Second, "10 s by the kernel's clock, and a busy machine")
			tt.mend(t)
			r.append(t, 1)
			r.receipted(t, chain.Seq(tt.underWay+2))
			require.Eventually(t, r.online.Load, patience, 10*time.Millisecond)
			r.equal(t, c, cfg)
		})
	}
}

// 1,000 tries without a route or a name server leave nothing open.
func TestF16ThousandRetriesLeakNothing(t *testing.T) {
	if ownNetwork(t) {
		return
	}
	for name, address := range map[string]string{"no route": "192.0.2.1:8883", "name server dead": "centre.invalid:8883"} {
		c, _, _ := newCentre(t, loopback)
		b := admitted(t, c, "t-1")
		r := runTerminalWith(t, b, address, func(u *uplink.Config) { u.RetryStart, u.RetryMax = time.Microsecond, time.Microsecond })
		require.Eventually(t, func() bool { return r.tries.Load() > 20 }, patience, time.Millisecond)
		before := descriptors(t)
		require.Eventually(t, func() bool { return r.tries.Load() > 1020 }, time.Minute, time.Millisecond)
		assert.LessOrEqual(t, descriptors(t), before+3, name)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

package centre_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue/chain"
)

// alert is a terminal's alert, signed by its ledger key unless changed.
func (b *box) alert(t testing.TB, change func(*chain.Alert)) []byte {
	t.Helper()
	at := chain.NewWall(today)
	a := chain.Alert{V: 1, Log: b.log, Seq: 41, Kind: chain.AlertGap, Count: 1, Since: at, At: at}
	if change != nil {
		change(&a)
	}
	jws, err := chain.Sign(b.ledger, chain.PurposeAlert, a)
	require.NoError(t, err)
	return []byte(jws)
}

func TestListenerRaisesAnAlarmForAnAlert(t *testing.T) {
	c, cfg, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	first := b.alert(t, nil)
	for id := range uint16(5) { // sent again, or replayed
		w.publish(id+1, topic(b, "up/alert"), first)
		assert.Equal(t, id+1, next[*packets.PubackPacket](w).MessageID)
		assert.Equal(t, 1, count(t, cfg, "alarms"))
	}
	w.publish(9, topic(b, "up/alert"), b.alert(t, func(a *chain.Alert) { a.Kind, a.Code = "never_heard_of", "x" }))
	next[*packets.PubackPacket](w)
	assert.Equal(t, []string{"terminal_gap", "terminal_never_heard_of"}, alarmKinds(t, cfg))
}

// T28 for this topic: refused in words, acknowledged, and nothing else suffers.
func TestT28AlertsAndStatesThatAreNone(t *testing.T) {
	t.Parallel()
	c, cfg, log := newCentre(t, loopback)
	b, other := admitted(t, c, "t-1"), admitted(t, c, "t-2")
	address, _ := serve(t, c)
	w := connect(t, address, b)
	good := b.alert(t, nil)
	for i, tt := range []struct {
		name, topic string
		payload     []byte
		says        string
	}{
		{"another terminal's", "up/alert", other.alert(t, nil), "signature does not verify"},
		{"its own about another", "up/alert", b.alert(t, func(a *chain.Alert) { a.Log = other.log }), "it is of terminal t-2"},
		{"of a later version", "up/alert", b.alert(t, func(a *chain.Alert) { a.V = 2 }), "version 2, this program knows 1"},
		{"truncated", "up/alert", good[:len(good)-7], "alert"},
		{"empty", "up/alert", nil, "alert"},
		{"huge", "up/alert", []byte(strings.Repeat("x", 60_000)), "at most"},
		{"a batch", "up/alert", b.batch(t, b.append(t, openRecord())), "alert"},
		{"a state of words", "up/state", []byte("online"), "no state"},
		{"a huge state", "up/state", []byte(`{"state":"` + strings.Repeat("x", 60_000) + `"}`), "no state"},
		{"a state with a long run", "up/state", []byte(`{"state":"online","run":"` + strings.Repeat("x", 100) + `"}`), "no state"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(log.String())
			w.publish(uint16(i+1), topic(b, tt.topic), tt.payload)
			assert.Equal(t, uint16(i+1), next[*packets.PubackPacket](w).MessageID)
			assert.Contains(t, log.String()[before:], tt.says)
		})
	}
	assert.Zero(t, count(t, cfg, "alarms"))
	assert.Zero(t, count(t, cfg, "records"))
}

// alarmKinds lists the kinds of the alarms, by name.
func alarmKinds(t testing.TB, cfg centre.Config) (kinds []string) {
	t.Helper()
	rows, err := database(t, cfg).Query("SELECT DISTINCT kind FROM alarms ORDER BY kind")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var kind string
		require.NoError(t, rows.Scan(&kind))
		kinds = append(kinds, kind)
	}
	return kinds
}

// Two boxes with one identity take the connection from each other. The alarm
// comes within a minute, through either way in, and one box that connects again
// and again raises none.
func TestT11TwoBoxesWithOneIdentity(t *testing.T) {
	t.Parallel()
	ways := map[string]func(t *testing.T) (*centre.Centre, centre.Config, string){
		"listener": func(t *testing.T) (*centre.Centre, centre.Config, string) {
			c, cfg, _ := newCentre(t, loopback)
			address, _ := serve(t, c)
			return c, cfg, address
		},
		"Mosquitto": func(t *testing.T) (*centre.Centre, centre.Config, string) {
			address := freeAddress(t)
			c, cfg, _ := newCentre(t, func(cfg *centre.Config) { cfg.Broker = address })
			centretest.Mosquitto(t, cfg.Dir, address).Start()
			subscribe(t, c)
			return c, cfg, address
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			c, cfg, address := way(t)
			b := admitted(t, c, "t-1")
			began := time.Now()
			one := runTerminal(t, b, address)
			one.append(t, 3)
			one.receipted(t, 4)
			two := runTerminal(t, b, address)
			two.append(t, 3)
			require.Eventually(t, func() bool {
				for _, kind := range alarmKinds(t, cfg) {
					if kind == "identity_conflict" {
						return true
					}
				}
				return false
			}, time.Minute, 20*time.Millisecond)
			assert.Less(t, time.Since(began), time.Minute)
			one.receipted(t, 4)
			two.receipted(t, 4)
			assert.Equal(t, 8, count(t, cfg, "records"), "no event of either is lost")
		})
	}
	t.Run("control: one box that connects again", func(t *testing.T) {
		c, cfg, _ := newCentre(t, loopback)
		b := admitted(t, c, "t-1")
		address, _ := serve(t, c)
		for i := range uint16(30) {
			w := connect(t, address, b) // and takes its own old connection over
			run := "first"
			if i >= 15 {
				run = "after a restart"
			}
			state, err := json.Marshal(map[string]any{"state": "online", "run": run})
			require.NoError(t, err)
			w.publish(1, topic(b, "up/state"), state)
			next[*packets.PubackPacket](w)
		}
		assert.Zero(t, count(t, cfg, "alarms"))
	})
}

// Whatever a terminal sends is refused in words, and never as the store's
// fault, which would keep it knocking.
func FuzzTerminalMessages(f *testing.F) {
	c, cfg, _ := newCentre(f)
	b := admitted(f, c, "t-1")
	stranger := newBox(f, "t-1")
	f.Add(stranger.batch(f, stranger.append(f, openRecord())))
	f.Add(stranger.alert(f, nil))
	f.Add([]byte("{}\n.."))
	f.Fuzz(func(t *testing.T, payload []byte) {
		_, err := c.Ingest(t.Context(), b.id, payload)
		require.ErrorIs(t, err, centre.ErrRefused)
		require.ErrorIs(t, c.Alert(t.Context(), b.id, payload), centre.ErrRefused)
		require.Zero(t, count(t, cfg, "records"))
	})
}

package mqtt_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// make proof-offline sets these.
var (
	offlineDays   = flag.Int("offline.days", 1, "virtual days without a network")
	offlineRounds = flag.Int("offline.rounds", 1, "rounds, each with the next seed")
	offlineSeed   = flag.Uint64("offline.seed", 1, "seed of the first round; a seed draws the same faults again")
)

const recordsADay = 500

// weeks plays one round: days offline with so many records each, then the drain. carry brings the
// backlog to the centre and returns when it thinks that all is there.
func weeks(t *testing.T, seed uint64, days, aDay int, carry func(t *testing.T, h *hostile, s *site)) (f figures) {
	synctest.Test(t, func(t *testing.T) {
		h, keys, admission := newHostile(t, seed)
		s := newHostileSite(t, h, keys, admission, seed)
		defer queuetest.Start(t, s.ledger)()
		ctx, offline := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.uplink.Run(ctx) }() // in vain
		for range days {
			s.add(aDay)
			time.Sleep(24 * time.Hour)
		}
		assert.Equal(t, days*aDay+1, s.ledger.Status().Unsent)
		offline()
		require.NoError(t, <-ended)
		h.serve()
		carry(t, h, s)
		f = h.judge(s.ledger)
		h.stop()
	})
	return f
}

// drain runs the uplink until the ledger is receipted, while records come.
func drain(_ *testing.T, h *hostile, s *site) {
	s.connectTo(h, h.seed)
	stop := s.run()
	for range 50 {
		s.add(1)
		time.Sleep(61*time.Second + 7*time.Millisecond)
	}
	s.emptied()
	stop()
	time.Sleep(2 * time.Minute) // what is still under way
	synctest.Wait()
}

func TestOfflineForWeeksThenAHostileBroker(t *testing.T) {
	for i := range *offlineRounds {
		seed := *offlineSeed + uint64(i)
		began := time.Now()
		f := weeks(t, seed, *offlineDays, recordsADay, drain)
		fmt.Printf("seed %d: %d days offline, %s (%s)\n", seed, *offlineDays, f, time.Since(began).Round(100*time.Millisecond))
		for _, fault := range faults[len(faults)-13:] {
			fmt.Printf("  %4d %s\n", f.faults[fault], fault)
		}
		ok := assert.Equal(t, *offlineDays*recordsADay+51, f.records)
		ok = assert.Zero(t, f.lost, "lost") && ok
		ok = assert.Zero(t, f.doubled, "doubled") && ok
		ok = assert.Zero(t, f.changed, "changed or out of order") && ok
		ok = assert.Zero(t, f.alarms, "alarms") && ok
		if !ok {
			t.Log(strings.Join(f.journal, "\n"))
		}
		require.Truef(t, ok, "play it again with -offline.seed %d -offline.rounds 1 -offline.days %d", seed, *offlineDays)
	}
}

// The control: an uplink that lets go on the broker's acknowledgement, before
// the same broker with the same seed, must lose. If it does not, the broker is
// no test.
func TestOfflineControlTrustsThePUBACK(t *testing.T) {
	f := weeks(t, *offlineSeed, *offlineDays, recordsADay, trustPUBACK)
	fmt.Printf("control, seed %d, PUBACK trusted: %s\n", *offlineSeed, f)
	assert.NotZero(t, f.lost, "the control must lose")
}

// trustPUBACK is the uplink as one would write it first.
func trustPUBACK(t *testing.T, h *hostile, s *site) {
	at, end := chain.Seq(0), s.ledger.Status().Last
	for at < end {
		o := paho.NewClientOptions().AddBroker("ssl://centre.test:8883").SetClientID(string(queuetest.Terminal)).
			SetAutoReconnect(false).SetCleanSession(true).SetProtocolVersion(4)
		o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
			return s.uplink.OpenTLS(context.Background(), s.cfg.Addresses[0])
		})
		client := paho.NewClient(o)
		if token := client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			time.Sleep(time.Second)
			continue
		}
		for at < end {
			payload, last, err := s.ledger.Batch(at, 16, chain.MaxBatchBytes)
			require.NoError(t, err)
			token := client.Publish(prefix+"up/records", 1, false, payload)
			if !token.WaitTimeout(30*time.Second) || token.Error() != nil {
				break
			}
			at = last // the broker has it: let it go
		}
		client.Disconnect(250)
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
}

// A seed draws the same faults for the same batches again, and comes to the
// same end.
func TestOfflineSeedReplays(t *testing.T) {
	first, again, other := weeks(t, 7, 1, 200, drain), weeks(t, 7, 1, 200, drain), weeks(t, 8, 1, 200, drain)
	n := min(len(first.drawn), len(again.drawn), len(other.drawn))
	require.Greater(t, n, 10)
	assert.Equal(t, first.drawn[:n], again.drawn[:n])
	assert.NotEqual(t, first.drawn[:n], other.drawn[:n])
	for _, f := range []figures{first, again, other} {
		assert.Zero(t, f.lost+f.doubled+f.changed+f.alarms, strings.Join(f.journal, "\n"))
	}
}

package mqtt_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// make proof-offline sets these.
var (
	offlineDays   = flag.Int("offline.days", 1, "virtual days without a network")
	offlineRounds = flag.Int("offline.rounds", 1, "rounds, each with the next seed")
	offlineSeed   = flag.Uint64("offline.seed", 1, "seed of the first round; a seed plays the same round again")
)

// recordsADay is 500, and less in the short form that the tests run.
func recordsADay() int {
	if *offlineDays == 1 {
		return 150
	}
	return 500
}

// weeks plays one round: days offline with so many records each, then the drain. carry brings the
// backlog to the centre and returns when it thinks that all is there.
func weeks(t *testing.T, seed uint64, days, aDay int, carry func(h *hostile, s *site)) (f figures) {
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
		carry(h, s)
		f = h.judge(s.ledger)
		h.stop()
	})
	return f
}

// honestly carries the backlog with the uplink as it is.
func honestly(h *hostile, s *site) {
	s.connectTo(h, s.ledger, h.seed)
	s.drain(s.ledger)
}

// drain runs the uplink until a ledger has let go of all, while records come.
func (s *site) drain(ledger mqtt.Ledger) {
	stop := s.run()
	for range 50 {
		s.add(1)
		time.Sleep(61*time.Second + 7*time.Millisecond)
	}
	for _, last, gone := ledger.Marks(); gone < last; _, last, gone = ledger.Marks() {
		time.Sleep(time.Second)
	}
	stop()
	time.Sleep(2 * time.Minute) // what is still under way
	synctest.Wait()
}

func TestOfflineForWeeksThenAHostileBroker(t *testing.T) {
	t.Parallel()
	for i := range *offlineRounds {
		seed := *offlineSeed + uint64(i)
		began := time.Now()
		f := weeks(t, seed, *offlineDays, recordsADay(), honestly)
		fmt.Printf("seed %d: %d days offline, %s (%s)\n", seed, *offlineDays, f, time.Since(began).Round(100*time.Millisecond))
		for _, fault := range faults[len(faults)-13:] {
			fmt.Printf("  %4d %s\n", f.faults[fault], fault)
		}
		ok := assert.Equal(t, *offlineDays*recordsADay()+51, f.records)
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

// The control: the same uplink, with one thing changed (it lets records go on
// the broker's acknowledgement), before the same broker with the same seed, must
// lose. If it does not, the broker is no test.
func TestOfflineControlTrustsThePUBACK(t *testing.T) {
	t.Parallel()
	f := weeks(t, *offlineSeed, *offlineDays, recordsADay(), func(h *hostile, s *site) {
		d := &deleting{Ledger: s.ledger}
		s.connectTo(h, d, h.seed)
		s.uplink.TrustPUBACK(d.letGo)
		s.drain(d)
	})
	fmt.Printf("control, seed %d, PUBACK trusted: %s\n", *offlineSeed, f)
	assert.NotZero(t, f.lost, "the control must lose")
}

// deleting is a ledger that has records no more once it let them go.
type deleting struct {
	mqtt.Ledger
	gone atomic.Uint64
}

func (d *deleting) letGo(last chain.Seq) { d.gone.Store(uint64(last)) }

func (d *deleting) Marks() (log chain.LogID, last, gone chain.Seq) {
	log, last, gone = d.Ledger.Marks()
	return log, last, max(gone, chain.Seq(d.gone.Load()))
}

func (d *deleting) Batch(after chain.Seq, maxRecords, maxBytes int) ([]byte, chain.Seq, error) {
	return d.Ledger.Batch(max(after, chain.Seq(d.gone.Load())), maxRecords, maxBytes)
}

// A seed replays: the same journal from its first to its last line, and the same
// figures. Another seed gives another one.
func TestOfflineSeedReplays(t *testing.T) {
	t.Parallel()
	days, seed := max(1, *offlineDays/9), *offlineSeed+6
	first, again, other := weeks(t, seed, days, recordsADay()*2/3, honestly), weeks(t, seed, days, recordsADay()*2/3, honestly), weeks(t, seed+1, days, recordsADay()*2/3, honestly)
	fmt.Printf("seed %d, %d days: %d lines of journal, the same twice\n", seed, days, len(first.journal))
	require.Greater(t, len(first.journal), 100)
	require.Equal(t, strings.Join(first.journal, "\n"), strings.Join(again.journal, "\n"))
	assert.Equal(t, first, again)
	assert.NotEqual(t, first.journal, other.journal)
	for _, f := range []figures{first, again, other} {
		assert.Zero(t, f.lost+f.doubled+f.changed+f.alarms, strings.Join(f.journal, "\n"))
	}
}

package mqtt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// opened gives the alerts that a centre took, with their signatures checked.
func (c *centre) opened() []chain.Alert {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []chain.Alert
	for _, jws := range c.alerts {
		a, _, err := chain.OpenAlert(queuetest.Ring(), jws)
		require.NoError(c.t, err)
		out = append(out, a)
	}
	return out
}

func TestAlertsGoBeforeTheBacklog(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(300)
		s.uplink.Raise(chain.AlertGap, "")
		s.uplink.Raise(chain.AlertEpochBreak, "damaged")
		s.uplink.Raise(chain.AlertDisk, "full")
		s.uplink.Settle(chain.AlertDisk)
		defer s.run()()
		s.emptied()
		alerts := c.opened()
		require.Len(t, alerts, 2)
		assert.Equal(t, chain.AlertEpochBreak, alerts[0].Kind)
		assert.Equal(t, "damaged", alerts[0].Code)
		assert.Equal(t, chain.Seq(301), alerts[0].Seq, "where the ledger stood")
		assert.Equal(t, chain.AlertGap, alerts[1].Kind)
		assert.Equal(t, []int{0, 0}, c.storedAtAlert(), "nothing of the backlog was there yet")
	})
}

func TestAlertsAreRateLimitedAndComeAgain(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		stop := s.run()
		s.emptied()
		for range 1000 { // a flood of forged messages
			s.uplink.Raise(chain.AlertForgedDown, "package")
		}
		s.uplink.Raise(chain.AlertLedger, "warn")
		synctest.Wait()
		counts := func() (forged, ledger []uint64) {
			for _, a := range c.opened() {
				switch a.Kind {
				case chain.AlertForgedDown:
					forged = append(forged, a.Count)
				case chain.AlertLedger:
					ledger = append(ledger, a.Count)
				}
			}
			return forged, ledger
		}
		time.Sleep(2*time.Minute + time.Second)
		forged, ledger := counts()
		assert.LessOrEqual(t, len(forged), 2)
		assert.Equal(t, uint64(1000), forged[len(forged)-1], "all are counted")
		assert.Equal(t, []uint64{1}, ledger)

		time.Sleep(3 * time.Hour)
		forgedLater, ledger := counts()
		assert.Equal(t, forged, forgedLater, "an event that was told is over")
		assert.Len(t, ledger, 4, "what holds is told every hour")

		s.uplink.Raise(chain.AlertLedger, "alarm")
		synctest.Wait()
		alerts := c.opened()
		assert.Equal(t, "alarm", alerts[len(alerts)-1].Code, "another code does not wait")
		stop()
	})
}

// A broker that forgets, or a centre that was away: the next connection tells
// it again.
func TestAlertsComeAgainWithAConnection(t *testing.T) {
	cut := false
	c := &centre{script: func(int, chain.Batch) reply {
		r := reply{cut: !cut, forget: !cut}
		cut = true
		return r
	}}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.uplink.Raise(chain.AlertLedger, "warn")
		defer s.run()()
		s.emptied()
		alerts := c.opened()
		require.Len(t, alerts, 2)
		assert.Equal(t, alerts[0].Since, alerts[1].Since)
		assert.Equal(t, alerts[0].Seq, alerts[1].Seq, "it is the same alert")
	})
}

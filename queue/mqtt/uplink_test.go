package mqtt_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

// site is a ledger with its uplink, and what the uplink said.
type site struct {
	t      testing.TB
	ledger *queue.Ledger
	uplink *mqtt.Uplink
	cfg    mqtt.Config

	onReport func() // called with each report

	mu       sync.Mutex // guards what follows
	reports  []string   // words
	packages []string
	commands []string
	trips    []time.Duration // round trips that tell the time
}

func newSite(t testing.TB, a authority, change func(*mqtt.Config)) *site {
	t.Helper()
	s := &site{t: t}
	began := time.Now()
	var err error
	s.ledger, err = queue.Open(queuetest.Config(t.TempDir()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	admission, key := a.admit(t)
	s.cfg = mqtt.Config{
		Addresses: []string{"centre.test:8883"},
		Admission: admission,
		Key:       key,
		SignAlert: queuetest.SignAlert(queuetest.TerminalKey),
		Software:  "rollcall test",
		Now:       time.Now,
		Package: func(_ context.Context, jws []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.packages = append(s.packages, string(jws))
		},
		Command: func(_ context.Context, jws []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.commands = append(s.commands, string(jws))
		},
		Up: func() time.Duration { return time.Hour + time.Since(began) },
		Receipted: func(_ chain.Receipt, sent, got time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.trips = append(s.trips, got-sent)
		},
		Report: func(online bool, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reports = append(s.reports, word(online, err))
			if s.onReport != nil {
				s.onReport()
			}
		},
	}
	if change != nil {
		change(&s.cfg)
	}
	s.uplink, err = mqtt.New(s.cfg, s.ledger, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s
}

// word is a report in short: online or the codes of what is wrong, or both.
func word(online bool, err error) string {
	var words []string
	if online {
		words = append(words, "online")
	}
	troubles, _ := errors.AsType[mqtt.Troubles](err)
	for _, trouble := range troubles {
		words = append(words, string(trouble.Code))
	}
	if words == nil {
		return "offline"
	}
	return strings.Join(words, " ")
}

// run runs the uplink; stop waits for it.
func (s *site) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.uplink.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(s.t, <-done)
	}
}

func (s *site) add(n int) {
	s.t.Helper()
	for i := range n {
		_, err := s.ledger.Append(context.Background(), queuetest.Record(i))
		require.NoError(s.t, err)
	}
}

// emptied waits until the centre has given receipts for all.
func (s *site) emptied() {
	s.t.Helper()
	for {
		changed := s.ledger.Changed()
		if s.ledger.Status().Unsent == 0 {
			synctest.Wait()
			return
		}
		<-changed
	}
}

func (s *site) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.reports...)
}

// virtual runs a test in virtual time with a site and a centre joined by pipes.
func virtual(t *testing.T, change func(*mqtt.Config), c *centre, test func(t *testing.T, s *site, p *pipes)) {
	a := newAuthority(t)
	server := a.issue(t, chain.RoleCentre, "centre", nil)
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		s := newSite(t, a, change)
		defer queuetest.Start(t, s.ledger)()
		defer func() {
			if p.way.Delay > 0 {
				time.Sleep(2 * time.Minute) // what is under way arrives, though nobody waits for it
			}
		}()
		s.uplink.SetDial(p.dial)
		if c != nil {
			c.back = func() { serve(t, p, a.serverTLS(t, server), c) }
			if !c.away {
				c.back()
			}
			defer c.stop()
		}
		test(t, s, p)
	})
}

func TestRecordsGoUpInOrder(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		stop := s.run()
		s.add(300)
		began := time.Now()
		s.emptied()
		s.add(1)
		s.emptied()
		assert.Zero(t, time.Since(began), "nothing waits for a timer")
		c.truth(s.ledger)
		stop()
		synctest.Wait()
		_, states := c.seen()
		assert.Equal(t, []string{"online", "offline"}, states)
		assert.Equal(t, []string{"online", "offline"}, s.said())
	})
}

// A PUBACK is the broker's word. Records that were acknowledged and forgotten
// are sent again until the centre's receipt comes.
func TestAcknowledgedAndForgotten(t *testing.T) {
	c := &centre{script: func(n int, _ chain.Batch) reply { return reply{forget: n <= 2} }}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(5)
		began := time.Now()
		defer s.run()()
		time.Sleep(time.Minute)
		assert.Equal(t, 6, s.ledger.Status().Unsent, "a PUBACK lets nothing go")
		s.emptied()
		assert.Equal(t, (30+60)*time.Second, time.Since(began))
		c.truth(s.ledger)
		batches, _ := c.seen()
		assert.Equal(t, [][2]chain.Seq{{1, 6}, {1, 6}, {1, 6}}, batches)
		assert.Equal(t, []string{"online", "no_receipt", "online"}, s.said())
	})
}

// A broker that lost the subscription acknowledges for ever and passes on no
// receipt: the third batch ends the connection, and the next one subscribes
// anew.
func TestSubscriptionLost(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		defer s.run()()
		s.emptied()
		c.server.Topics.Unsubscribe(prefix+"down/receipt", string(queuetest.Terminal))
		began := time.Now()
		s.add(5)
		s.emptied()
		c.truth(s.ledger)
		assert.Equal(t, []string{"online", "no_receipt", "online"}, s.said())
		assert.InDelta(t, 30+60+120, time.Since(began).Seconds(), 1.5)
	})
}

// Where the centre behind a broker is away, the pauses grow.
func TestCentreAwayBehindItsBroker(t *testing.T) {
	t.Parallel()
	c := &centre{script: func(int, chain.Batch) reply { return reply{forget: true} }}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		defer s.run()()
		time.Sleep(6 * time.Hour)
		sent, _ := c.seen()
		assert.Less(t, len(sent), 250, "without pauses it would be 308")
		assert.Greater(t, len(sent), 100)
	})
}

func TestConnectionCut(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]reply{
		"before it was stored":         {cut: true, forget: true},
		"stored, acknowledgement lost": {cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := &centre{script: func(n int, _ chain.Batch) reply {
				if n%2 == 1 && n < 8 {
					return r
				}
				return reply{}
			}}
			virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
				s.add(300)
				defer s.run()()
				s.emptied()
				c.truth(s.ledger)
				assert.Contains(t, s.said(), "lost")
				_, states := c.seen()
				assert.Contains(t, states, "offline", "the last will")
			})
		})
	}
}

// A broker that takes a batch and falls silent is left.
func TestNoAcknowledgement(t *testing.T) {
	c := &centre{script: func(n int, _ chain.Batch) reply { return reply{stuck: n == 1, forget: n == 1} }}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(1)
		defer s.run()()
		s.emptied()
		c.truth(s.ledger)
		assert.Equal(t, []string{"online", "silent", "online"}, s.said())
	})
}

func TestReceiptsThatLetNothingGo(t *testing.T) {
	const log chain.LogID = "t-test/other"
	for _, tc := range []struct {
		name    string
		message func(t *testing.T, b chain.Batch) []byte
	}{
		{"forged", func(t *testing.T, b chain.Batch) []byte {
			return queuetest.Receipt(t, queuetest.StrangerKey, b.Log(), b.Last(), b.LastHash())
		}},
		{"of another log", func(t *testing.T, b chain.Batch) []byte {
			return queuetest.Receipt(t, queuetest.CentreKey, log, b.Last(), b.LastHash())
		}},
		{"of other bytes", func(t *testing.T, b chain.Batch) []byte {
			return queuetest.Receipt(t, queuetest.CentreKey, b.Log(), b.Last(), chain.Hash{1})
		}},
		{"of a record to come", func(t *testing.T, b chain.Batch) []byte {
			return queuetest.Receipt(t, queuetest.CentreKey, b.Log(), b.Last()+1, b.LastHash())
		}},
		{"a head, not a receipt", func(_ *testing.T, b chain.Batch) []byte { return b.Head }},
		{"garbage", func(*testing.T, chain.Batch) []byte { return []byte("\xff") }},
		{"empty", func(*testing.T, chain.Batch) []byte { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &centre{script: func(n int, b chain.Batch) reply {
				if n == 1 {
					return reply{forget: true, first: [][]byte{tc.message(t, b)}}
				}
				return reply{}
			}}
			virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
				s.add(2)
				defer s.run()()
				time.Sleep(20 * time.Second)
				assert.Equal(t, 3, s.ledger.Status().Unsent)
				assert.Equal(t, []string{"online", "wrong_receipt"}, s.said())
				s.emptied()
				c.truth(s.ledger)
				assert.Equal(t, "online", s.said()[len(s.said())-1])
			})
		})
	}
}

// Receipts that come twice, late or in another order change nothing.
func TestReceiptsOutOfOrder(t *testing.T) {
	t.Parallel()
	var old [][]byte
	c := &centre{}
	c.script = func(_ int, b chain.Batch) reply {
		r := reply{first: append([][]byte(nil), old...), last: append([][]byte(nil), old...)}
		old = append(old, queuetest.Receipt(t, queuetest.CentreKey, b.Log(), b.Last(), b.LastHash()))
		return r
	}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(500)
		began := time.Now()
		defer s.run()()
		s.emptied()
		assert.Zero(t, time.Since(began))
		c.truth(s.ledger)
		batches, _ := c.seen()
		for i, b := range batches[1:] {
			assert.Equal(t, batches[i][1]+1, b[0], "nothing is sent again")
		}
	})
}

// A centre that came back from an older copy says where it stands; what it
// lost is sent again.
func TestCentreLostRecords(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(300)
		defer s.run()()
		s.emptied()
		c.mu.Lock()
		c.lines = c.lines[:100]
		c.mu.Unlock()
		s.add(1)
		s.emptied()
		c.truth(s.ledger)
	})
}

// slowDisk is a ledger whose disk takes its time, or fails.
type slowDisk struct {
	mqtt.Ledger
	takes  time.Duration
	fails  error
	stored int
}

func (d *slowDisk) Receipt(jws []byte) (chain.Receipt, error) {
	if d.fails != nil {
		return chain.Receipt{}, d.fails
	}
	time.Sleep(d.takes)
	d.stored++
	return d.Ledger.Receipt(jws)
}

// on gives the site's uplink another ledger.
func (s *site) on(l mqtt.Ledger, p *pipes) {
	var err error
	s.uplink, err = mqtt.New(s.cfg, l, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	s.uplink.SetDial(p.dial)
}

// A receipt is stored while the next batch is under way, so that on a long way
// the disk costs nothing; the last one is stored at once.
func TestDiskWorksWhileABatchIsUnderWay(t *testing.T) {
	t.Parallel()
	const rtt, disk = 50 * time.Millisecond, 20 * time.Millisecond
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
		d := &slowDisk{Ledger: s.ledger, takes: disk}
		s.on(d, p)
		p.way.Delay = rtt / 2
		defer s.run()()
		s.emptied() // line 1
		s.add(600)
		before, began := d.stored, time.Now()
		s.emptied()
		batches := d.stored - before
		require.Greater(t, batches, 4)
		assert.Equal(t, time.Duration(batches)*rtt+disk, time.Since(began))
		c.truth(s.ledger)
	})
}

// A disk that does not take receipts lets nothing go, and is said to be the
// trouble; the centre is not called again and again.
func TestReceiptThatCannotBeStored(t *testing.T) {
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
		d := &slowDisk{Ledger: s.ledger, fails: queue.ErrStopped}
		s.on(d, p)
		s.add(2)
		defer s.run()()
		time.Sleep(time.Hour)
		assert.Equal(t, 3, s.ledger.Status().Unsent)
		assert.Equal(t, []string{"online", "ledger"}, s.said()[:2])
		sent, _ := c.seen()
		assert.Less(t, len(sent), 60, "pauses grow")
		assert.Greater(t, len(sent), 10)
	})
}

// A receipt of an older epoch, late, says nothing of the records of this one.
func TestReceiptOfAnOlderEpoch(t *testing.T) {
	var old []byte
	c := &centre{}
	c.script = func(n int, b chain.Batch) reply {
		if n == 1 {
			old = queuetest.Receipt(t, queuetest.CentreKey, "t-test/before", 1000, chain.Hash{})
			return reply{}
		}
		return reply{first: [][]byte{old}, forget: n == 2}
	}
	virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
		s.on(olderEpoch{s.ledger}, p)
		defer s.run()()
		s.emptied()
		s.add(3)
		s.emptied()
		c.truth(s.ledger)
	})
}

// olderEpoch is a ledger that had another before.
type olderEpoch struct{ mqtt.Ledger }

func (o olderEpoch) CheckReceipt(jws []byte) (chain.Receipt, error) {
	r, err := chain.OpenReceipt(queuetest.CentreKey.Public(), jws)
	if err == nil && r.Log == "t-test/before" {
		return r, nil
	}
	return o.Ledger.CheckReceipt(jws)
}

func (o olderEpoch) Receipt(jws []byte) (chain.Receipt, error) {
	if r, err := o.CheckReceipt(jws); err != nil || r.Log == "t-test/before" {
		return r, err
	}
	return o.Ledger.Receipt(jws)
}

func TestBrokerAwayForADay(t *testing.T) {
	t.Parallel()
	c := &centre{away: true}
	addresses := func(cfg *mqtt.Config) { cfg.Addresses = []string{"a.test:1", "b.test:1"} }
	virtual(t, addresses, c, func(t *testing.T, s *site, p *pipes) {
		var mu sync.Mutex
		var asked []string
		back := time.Now().Add(24 * time.Hour)
		s.cfg.ServerName = "centre.test"
		var err error
		s.uplink, err = mqtt.New(s.cfg, s.ledger, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		s.uplink.SetDial(func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			asked = append(asked, address)
			mu.Unlock()
			if time.Now().Before(back) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to host")}
			}
			return p.dial(ctx, network, address)
		})
		defer s.run()()
		for range 24 {
			s.add(5)
			time.Sleep(time.Hour)
		}
		c.back()
		s.emptied()
		assert.Less(t, time.Since(back), 5*time.Minute+time.Second)
		c.truth(s.ledger)
		assert.Equal(t, []string{"no_route", "no_route no_route", "online no_route"}, s.said(), "one report a change, not one for each try")
		assert.Equal(t, []string{"a.test:1", "b.test:1", "a.test:1", "b.test:1"}, asked[:4])
		assert.Less(t, len(asked), 2*24*60, "pauses grow")
		assert.Greater(t, len(asked), 2*24*12/2, "and are bounded")
	})
}

func TestPackagesComeDown(t *testing.T) {
	c := &centre{}
	var slow chan struct{}
	held := func(cfg *mqtt.Config) {
		slow = make(chan struct{}) // of the bubble
		deliver := cfg.Package
		cfg.Package = func(ctx context.Context, jws []byte) {
			<-slow
			deliver(ctx, jws)
		}
	}
	virtual(t, held, c, func(t *testing.T, s *site, _ *pipes) {
		for _, class := range []string{"c-1", "c-2"} {
			require.NoError(t, c.server.Publish(prefix+"down/package/"+class, []byte("package of "+class), true, 1))
		}
		defer s.run()()
		s.add(10)
		s.emptied() // packages that take their time hold up no receipt
		close(slow)
		synctest.Wait()
		require.NoError(t, c.server.Publish(prefix+"down/package/c-1", []byte("changed"), true, 1))
		require.NoError(t, c.server.Publish(prefix+"down/package/c-2", nil, true, 1))
		synctest.Wait()
		assert.ElementsMatch(t, []string{"package of c-1", "package of c-2", "changed"}, s.packages)
	})
}

// A command has a way of its own: packages that take their time do not hold it
// up, and a withdrawn one is passed over.
func TestCommandsComeDown(t *testing.T) {
	c := &centre{}
	var slow chan struct{}
	held := func(cfg *mqtt.Config) {
		slow = make(chan struct{}) // of the bubble
		cfg.Package = func(context.Context, []byte) { <-slow }
	}
	virtual(t, held, c, func(t *testing.T, s *site, _ *pipes) {
		require.NoError(t, c.server.Publish(prefix+"down/package/c-1", []byte("package"), true, 1))
		require.NoError(t, c.server.Publish(prefix+"down/command", []byte("first"), true, 1))
		defer s.run()()
		defer close(slow)
		synctest.Wait()
		require.NoError(t, c.server.Publish(prefix+"down/command", nil, true, 1))
		synctest.Wait()
		require.NoError(t, c.server.Publish(prefix+"down/command", []byte("second"), true, 1))
		synctest.Wait()
		assert.Equal(t, []string{"first", "second"}, s.commands)
	})
}

// The records that a ledger was told to send again go again, in order, and the
// centre, which has them, sends the terminal on.
func TestRecordsGoAgainOnCommand(t *testing.T) {
	t.Parallel()
	c := &centre{}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(300)
		defer s.run()()
		s.emptied()
		before, _ := c.seen()
		c.mu.Lock()
		c.lines = c.lines[:100] // it came back from an older copy, and nothing new goes up
		c.mu.Unlock()
		require.NoError(t, s.ledger.Rewind(s.ledger.Status().Log, 100))
		synctest.Wait()
		after, _ := c.seen()
		require.Greater(t, len(after), len(before))
		assert.Equal(t, chain.Seq(101), after[len(before)][0])
		c.truth(s.ledger)
		assert.Zero(t, s.ledger.Status().Unsent)
		s.add(1)
		s.emptied()
		c.truth(s.ledger)
	})
}

// toldToSendAgain is a ledger that is told to while a receipt is on its way to
// be stored.
type toldToSendAgain struct {
	*queue.Ledger
	after, at chain.Seq
	tell      func()
}

func (l *toldToSendAgain) CheckReceipt(jws []byte) (chain.Receipt, error) {
	r, err := l.Ledger.CheckReceipt(jws)
	if err == nil && r.Seq > l.at && l.tell != nil {
		l.tell()
		l.tell, err = nil, l.Rewind(r.Log, l.after)
	}
	return r, err
}

// A receipt from before the command does not end what the command began, even
// if the connection is cut right after it.
func TestRecordsGoAgainWhileAReceiptIsDue(t *testing.T) {
	t.Parallel()
	c, cut := &centre{}, false
	c.script = func(_ int, b chain.Batch) reply {
		if len(c.lines) == 100 && !cut {
			cut = true
			return reply{cut: true, forget: true}
		}
		return reply{}
	}
	virtual(t, nil, c, func(t *testing.T, s *site, p *pipes) {
		s.add(300)
		s.on(&toldToSendAgain{Ledger: s.ledger, after: 100, at: 300, tell: func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.lines = c.lines[:100]
		}}, p)
		defer s.run()()
		time.Sleep(time.Minute)
		assert.True(t, cut)
		c.truth(s.ledger)
		assert.Zero(t, s.ledger.Status().Unsent)
	})
}

// Only an answer to records that had not gone up before tells the time: one
// that was held back could be a day old.
func TestReceiptsThatTellTheTime(t *testing.T) {
	c := &centre{script: func(n int, _ chain.Batch) reply { return reply{mute: n == 2} }}
	virtual(t, nil, c, func(t *testing.T, s *site, _ *pipes) {
		s.add(3) // before the uplink: another process may have sent them
		defer s.run()()
		s.emptied()
		assert.Empty(t, s.trips)
		s.add(1) // not answered; sent again
		s.emptied()
		require.Len(t, s.trips, 1)
		assert.GreaterOrEqual(t, s.trips[0], mqtt.DefaultReceiptTimeout, "from the first time, not from the second")
		s.add(1)
		s.emptied()
		require.Len(t, s.trips, 2)
		assert.Less(t, s.trips[1], time.Second)
	})
}

func TestEndAtAnyMoment(t *testing.T) {
	for name, tc := range map[string]struct {
		c     *centre
		spoil func(s *site)
		said  string
	}{
		"nothing answers the dial": {spoil: func(s *site) {
			s.uplink.SetDial(func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
			})
		}, said: "no_route"},
		"nothing answers TLS": {spoil: func(s *site) {
			s.uplink.SetDial(func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go func() { _, _ = there.Read(make([]byte, 1<<16)) }()
				return here, nil
			})
		}, said: "silent"},
		"between two batches":      {c: &centre{}, said: "online"},
		"waiting for a receipt":    {c: &centre{script: func(int, chain.Batch) reply { return reply{mute: true} }}, said: "online"},
		"waiting for a PUBACK":     {c: &centre{script: func(int, chain.Batch) reply { return reply{stuck: true} }}, said: "online"},
		"not allowed to listen":    {c: &centre{deny: "down/receipt"}, said: "refused"},
		"no packages for this one": {c: &centre{deny: "down/package/#"}, said: "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, nil, tc.c, func(t *testing.T, s *site, _ *pipes) {
				if tc.spoil != nil {
					tc.spoil(s)
				}
				s.add(3)
				stop := s.run()
				time.Sleep(15 * time.Second)
				assert.Equal(t, []string{tc.said}, s.said())
				began := time.Now()
				stop()
				assert.LessOrEqual(t, time.Since(began), 5*time.Second)
			})
		})
	}
}

func TestNewRefuses(t *testing.T) {
	a := newAuthority(t)
	for _, tc := range []struct {
		name   string
		change func(*mqtt.Config)
		want   string
	}{
		{"no address", func(c *mqtt.Config) { c.Addresses = nil }, "addresses is empty"},
		{"address without port", func(c *mqtt.Config) { c.Addresses = []string{"centre.test"} }, `"centre.test" is not`},
		{"negative pause", func(c *mqtt.Config) { c.RetryStart = -1 }, "retry_start"},
		{"start above the longest", func(c *mqtt.Config) { c.RetryStart = time.Hour }, "retry_max"},
		{"tenant that is no topic", func(c *mqtt.Config) { c.Admission.Tenant = "a/#" }, "topic"},
		{"no authority", func(c *mqtt.Config) { c.Admission.CA = "" }, "authority"},
		{"certificate for another key", func(c *mqtt.Config) { _, c.Key = a.admit(t) }, "another key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t, a, nil)
			defer s.ledger.Close()
			cfg := s.cfg
			tc.change(&cfg)
			_, err := mqtt.New(cfg, s.ledger, slog.New(slog.DiscardHandler))
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

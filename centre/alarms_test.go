package centre_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/queue/chain"
)

// openAlarms lists what a person has to look at.
func openAlarms(t *testing.T, c *centre.Centre) []centre.Alarm {
	t.Helper()
	alarms, err := c.Alarms(t.Context(), false, 0, 1000)
	require.NoError(t, err)
	return alarms
}

func kinds(alarms []centre.Alarm) (out []centre.AlarmKind) {
	for _, a := range alarms {
		out = append(out, a.Kind)
	}
	return out
}

// ingest takes a batch in and gives the receipt.
func ingest(t *testing.T, c *centre.Centre, b *box, batch []byte) chain.Receipt {
	t.Helper()
	jws, err := c.Ingest(t.Context(), b.id, batch)
	require.NoError(t, err)
	return b.receipt(t, jws)
}

func TestAlarmIsClosedOnceByAPersonWithAReason(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		ahead := func(trainee string) {
			lines := b.append(t, openRecord(), checkin(trainee), checkin(trainee))
			ingest(t, c, b, b.batch(t, lines[1:]))
			b.last, b.prev = 0, chain.Hash{}
		}
		ahead("p-1")
		ahead("p-2")
		alarms := openAlarms(t, c)
		require.Equal(t, []centre.AlarmKind{centre.AlarmGap}, kinds(alarms))
		id := alarms[0].ID
		for name, word := range map[string][2]string{
			"without a reason":      {"auditor", "  "},
			"without a name":        {"", "looked into"},
			"with a book":           {"auditor", strings.Repeat("x", 1001)},
			"with what is not text": {"auditor", "a\x00b"},
		} {
			assert.ErrorIs(t, c.CloseAlarm(t.Context(), id, word[0], word[1]), centre.ErrAlarm, name)
		}
		assert.ErrorIs(t, c.CloseAlarm(t.Context(), id+1, "auditor", "looked into"), centre.ErrAlarm)
		require.NoError(t, c.CloseAlarm(t.Context(), id, "auditor", "the disk was exchanged, ticket 7"))
		assert.ErrorIs(t, c.CloseAlarm(t.Context(), id, "another", "another reason"), centre.ErrAlarm, "the first word stands")
		assert.Empty(t, openAlarms(t, c))

		all, err := c.Alarms(t.Context(), true, 0, 10)
		require.NoError(t, err)
		require.Len(t, all, 1)
		assert.Equal(t, "auditor", all[0].Closed.Who)
		assert.Equal(t, "the disk was exchanged, ticket 7", all[0].Closed.Reason)

		ahead("p-1")
		ahead("p-2")
		assert.Empty(t, openAlarms(t, c), "the same bytes again are what was closed")
		ahead("p-3") // it happens again
		again := openAlarms(t, c)
		require.Equal(t, []centre.AlarmKind{centre.AlarmGap}, kinds(again))
		assert.NotEqual(t, id, again[0].ID)
	})
}

// What a person closed stays closed however often the same comes again, by
// whichever process it comes; what happens anew is a new alarm.
func TestClosedAlarmsAreRaisedByNewOccurrencesOnly(t *testing.T) {
	type site struct {
		c    *centre.Centre
		b    *box
		send func(batch []byte) // refused or not
		tell func(change func(*chain.Alert))
	}
	// begun has records 1 to 3 stored, and gives their lines.
	begun := func(t *testing.T, s site) [][]byte {
		lines := s.b.append(t, openRecord(), checkin("p-1"), checkin("p-2"))
		s.send(s.b.batch(t, lines))
		return lines
	}
	since := func(minute int, count uint64) func(*chain.Alert) {
		return func(a *chain.Alert) {
			a.Since, a.Count = chain.NewWall(today.Add(time.Duration(minute)*time.Minute)), count
		}
	}
	for _, tt := range []struct {
		name string
		kind centre.AlarmKind
		// play raises the alarm, and gives what comes again and what is new.
		play func(t *testing.T, s site) (again, anew func())
	}{
		{"an alert", "terminal_gap", func(t *testing.T, s site) (again, anew func()) {
			s.tell(since(0, 1))
			again = func() {
				s.tell(since(0, 1))
				s.tell(func(a *chain.Alert) { since(0, 1)(a); a.At = chain.NewWall(today.Add(time.Hour)) }) // it still holds
			}
			return again, func() { s.tell(since(5, 1)) }
		}},
		{"an alert that counts on", "terminal_gap", func(t *testing.T, s site) (again, anew func()) {
			s.tell(since(0, 1))
			s.tell(since(0, 2))
			return func() { s.tell(since(0, 1)); s.tell(since(0, 2)) }, func() { s.tell(since(0, 3)) }
		}},
		{"an alert that came while one was open", "terminal_gap", func(t *testing.T, s site) (again, anew func()) {
			s.tell(since(0, 1))
			s.tell(since(5, 1))
			return func() { s.tell(since(5, 1)) }, func() { s.tell(since(9, 1)) }
		}},
		{"garbage", centre.AlarmRefused, func(t *testing.T, s site) (again, anew func()) {
			s.send([]byte("garbage"))
			s.send([]byte("more garbage"))
			return func() { s.send([]byte("more garbage")); s.send([]byte("garbage")) }, func() { s.send([]byte("other garbage")) }
		}},
		{"a fork", centre.AlarmFork, func(t *testing.T, s site) (again, anew func()) {
			lines := begun(t, s)
			s.b.rewind(t, lines, 1)
			branch := s.b.append(t, checkin("p-7"), checkin("p-8"))
			s.send(s.b.batch(t, branch))
			again = func() {
				s.send(s.b.batch(t, branch))
				s.send(s.b.batch(t, append([][]byte{lines[0]}, branch...))) // cut in another place
			}
			return again, func() { s.send(s.b.batch(t, append(branch, s.b.append(t, checkin("p-9"))...))) }
		}},
		{"a fork, behind a full quarantine", centre.AlarmFork, func(t *testing.T, s site) (again, anew func()) {
			lines := begun(t, s)
			for i := range 201 {
				s.send([]byte{byte(i), 'x'})
			}
			s.b.rewind(t, lines, 2)
			branch := s.b.append(t, checkin("p-7"))
			s.send(s.b.batch(t, branch))
			return func() { s.send(s.b.batch(t, branch)) }, func() { s.send(s.b.batch(t, append(branch, s.b.append(t, checkin("p-9"))...))) }
		}},
		{"a batch ahead", centre.AlarmGap, func(t *testing.T, s site) (again, anew func()) {
			begun(t, s)
			s.b.append(t, checkin("p-3"))
			behind := s.b.batch(t, s.b.append(t, checkin("p-4")))
			s.send(behind)
			return func() { s.send(behind) }, func() { s.send(s.b.batch(t, s.b.append(t, checkin("p-5")))) }
		}},
		{"two boxes", centre.AlarmIdentity, func(t *testing.T, s site) (again, anew func()) {
			lines := begun(t, s)
			clone := *s.b
			clone.rewind(t, lines, 2)
			branch := clone.append(t, checkin("p-7"))
			s.send(clone.batch(t, branch))
			goOn := func() { s.send(s.b.batch(t, s.b.append(t, checkin("p-1")))) }
			goOn()
			again = func() {
				s.send(clone.batch(t, branch))
				goOn()
				goOn()
			}
			return again, func() {
				s.send(clone.batch(t, append(branch, clone.append(t, checkin("p-9"))...)))
				goOn()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
				c, cfg, _ := newCentre(t, on)
				b := admitted(t, c, "t-1")
				at := c // the process that things come to
				s := site{c, b,
					func(batch []byte) {
						_, err := at.Ingest(t.Context(), "t-1", batch)
						require.True(t, err == nil || errors.Is(err, centre.ErrRefused), "%v", err)
					},
					func(change func(*chain.Alert)) {
						require.NoError(t, at.Alert(t.Context(), "t-1", b.alert(t, change)))
					},
				}
				again, anew := tt.play(t, s)
				require.Contains(t, kinds(openAlarms(t, c)), tt.kind)
				again()
				assert.Equal(t, 1, strings.Count(fmt.Sprint(kinds(openAlarms(t, c))), string(tt.kind)), "once while it is open")
				closed := 0
				for _, a := range openAlarms(t, c) { // a fork that two boxes made stays open
					if a.Kind == tt.kind || tt.kind != centre.AlarmIdentity {
						require.NoError(t, c.CloseAlarm(t.Context(), a.ID, "auditor", "looked into"))
						closed++
					}
				}
				require.NotZero(t, closed)
				again()
				at = open(t, cfg, &logBuffer{}) // another process, or the same after a restart
				again()
				assert.NotContains(t, kinds(openAlarms(t, c)), tt.kind)
				anew()
				assert.Contains(t, kinds(openAlarms(t, c)), tt.kind)
			})
		})
	}
}

// A terminal that raises more than anybody can look at is not taken at its word
// for ever: what somebody closes makes room.
func TestOpenAlarmsOfATerminalAreBounded(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		db := database(t, cfg)
		_, err := db.Exec("INSERT INTO alarms (kind, terminal, log, seq, detail, raised, round) WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 1098) " +
			"SELECT 'terminal_disk', 't-1', 't-1/e1', i, '', 0, 0 FROM n")
		require.NoError(t, err)
		tell := func(seq chain.Seq) {
			require.NoError(t, c.Alert(t.Context(), "t-1", b.alert(t, func(a *chain.Alert) { a.Seq = seq })))
		}
		tell(1)
		require.Equal(t, 1000, count(t, cfg, "alarms"))
		tell(2)
		assert.Equal(t, 1000, count(t, cfg, "alarms"), "one more tells nobody anything")
		_, err = c.Ingest(t.Context(), "t-1", []byte("garbage"))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.Equal(t, 1001, count(t, cfg, "alarms"), "what the centre finds has room of its own")
		require.NoError(t, c.CloseAlarm(t.Context(), openAlarms(t, c)[0].ID, "auditor", "looked into"))
		tell(2)
		assert.Equal(t, 1002, count(t, cfg, "alarms"))
	})
}

// A disk is put back as it was after record 2, and the box goes on from there.
func TestT10RestoredOldDiskRaisesLogForkWithBothHashes(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		lines := b.append(t, openRecord(), checkin("p-1"), checkin("p-2"), checkin("p-3"))
		ingest(t, c, b, b.batch(t, lines))
		require.Empty(t, openAlarms(t, c))
		b.rewind(t, lines, 2)
		branch := b.append(t, checkin("p-8"), checkin("p-9"))
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, branch))
		require.ErrorIs(t, err, centre.ErrRefused)

		alarms := openAlarms(t, c)
		require.Equal(t, []centre.AlarmKind{centre.AlarmFork}, kinds(alarms))
		assert.Equal(t, uint64(3), alarms[0].Seq)
		assert.Contains(t, alarms[0].Detail, chain.HashLine(lines[2]).String())
		assert.Contains(t, alarms[0].Detail, chain.HashLine(branch[0]).String())
		assert.Equal(t, 1, count(t, cfg, "quarantine WHERE payload = $1", b.batch(t, branch)), "the other branch is kept as evidence")
		assert.Equal(t, 4, count(t, cfg, "records"))
	})
}

// One identity is copied into a second box, and both go on. Whichever sends
// first is stored; the batch of the other is kept in quarantine, and gets no
// receipt that would let its box let go of anything. As soon as both have sent
// the alarm is there.
func TestT11TwoBoxesWithOneIdentityRaiseIdentityConflict(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, openRecord(), checkin("p-1"))))
		clone := *b
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-2"))))
		assert.Empty(t, openAlarms(t, c), "one box alone is no conflict")

		cloned := clone.append(t, checkin("p-7"))
		jws, err := c.Ingest(t.Context(), "t-1", clone.batch(t, cloned))
		require.ErrorIs(t, err, centre.ErrRefused)
		assert.NotEqual(t, chain.HashLine(cloned[0]), clone.receipt(t, jws).Hash, "this receipt lets the clone let go of nothing")
		assert.Equal(t, []centre.AlarmKind{centre.AlarmFork}, kinds(openAlarms(t, c)), "so far it may be an older disk")

		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-3"))))
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-4"))))
		assert.Equal(t, []centre.AlarmKind{centre.AlarmFork, centre.AlarmIdentity}, kinds(openAlarms(t, c)), "once, however long they go on")
		assert.Equal(t, 5, count(t, cfg, "records"))
		assert.Equal(t, 1, count(t, cfg, "quarantine WHERE payload = $1", clone.batch(t, cloned)))
	})
}

func TestT13ReplayedBatchesChangeNothing(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		var old [][]byte
		for range 20 {
			old = append(old, b.batch(t, b.append(t, checkins(2)...)))
			ingest(t, c, b, old[len(old)-1])
		}
		tables := []string{"records", "receipts", "watermarks", "alarms", "quarantine"}
		before := map[string][]string{}
		for _, table := range tables {
			before[table] = contents(t, database(t, cfg), table)
		}
		r := rand.New(rand.NewPCG(1, 13))
		for range 1000 {
			got := ingest(t, c, b, old[r.IntN(len(old))])
			require.Equal(t, b.last, got.Seq, "each is answered with where the centre stands")
		}
		for _, table := range tables {
			assert.Equal(t, before[table], contents(t, database(t, cfg), table), table)
		}
		ingest(t, c, b, b.batch(t, b.append(t, checkin("p-1"))))
		assert.Len(t, contents(t, database(t, cfg), "records"), len(before["records"])+1, "the control: what is new does change something")
	})
}

// The broker's access list is off: what one box sends under the topic of
// another meets the signature.
func TestT14ForgedUnderAnotherTopicIsRefused(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		victim, thief := admitted(t, c, "t-1"), admitted(t, c, "t-2")
		forged := victim.append(t, openRecord())
		for name, batch := range map[string][]byte{
			"its own ledger":                     thief.batch(t, thief.append(t, openRecord())),
			"the other's, signed by its own key": chain.FormBatch(forged, head(t, thief.ledger, forged[0])),
		} {
			receipt, err := c.Ingest(t.Context(), "t-1", batch)
			assert.ErrorIs(t, err, centre.ErrRefused, name)
			assert.Nil(t, receipt, name)
		}
		assert.Zero(t, count(t, cfg, "records"))
		assert.Equal(t, victim.last, ingest(t, c, victim, victim.batch(t, forged)).Seq, "the control: its own key opens the door")
	})
}

func TestT16UnknownAndRevokedTerminalsAreRefused(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		stranger := newBox(t, "t-9")
		_, err := c.Ingest(t.Context(), "t-9", stranger.batch(t, stranger.append(t, openRecord())))
		assert.ErrorIs(t, err, centre.ErrUnknownTerminal)

		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, openRecord())))
		other := open(t, cfg, &logBuffer{}) // another process on the same database
		assert.Error(t, c.Revoke(t.Context(), "t-1", "auditor", ""), "nobody says why")
		assert.ErrorIs(t, c.Revoke(t.Context(), "t-9", "auditor", "stolen"), centre.ErrUnknownTerminal)
		require.NoError(t, c.Revoke(t.Context(), "t-1", "auditor", "stolen"))
		for _, process := range []*centre.Centre{c, other} {
			_, err = process.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, checkin("p-1"))))
			assert.ErrorIs(t, err, centre.ErrRefused)
			assert.ErrorIs(t, err, centre.ErrRevoked)
		}
		_, err = c.Admit(t.Context(), b.request(t))
		assert.ErrorIs(t, err, centre.ErrRevoked, "it does not come back by asking again")
		assert.Equal(t, 1, count(t, cfg, "records"), "what it sent before stays")
	})
}

func TestT28MalformedBatchesAreRefusedWithACode(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		good := b.batch(t, b.append(t, openRecord(), checkin("p-1")))
		ingest(t, c, b, good)
		r := rand.New(rand.NewPCG(1, 28))
		refused := 0
		for range 150 {
			bad := append([]byte{}, good...)
			switch r.IntN(4) {
			case 0:
				bad = bad[:r.IntN(len(bad))]
			case 1:
				bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
			case 2:
				at := r.IntN(len(bad))
				bad = append(bad[:at:at], append([]byte{byte(r.IntN(256))}, bad[at:]...)...)
			case 3:
				bad = append(bad, bad[:r.IntN(len(bad))]...)
			}
			receipt, err := c.Ingest(t.Context(), "t-1", bad)
			require.ErrorIs(t, err, centre.ErrRefused)
			require.Equal(t, b.last, b.receipt(t, receipt).Seq)
			refused++
		}
		for _, a := range openAlarms(t, c) {
			assert.Contains(t, []centre.AlarmKind{centre.AlarmRefused, centre.AlarmFork}, a.Kind)
			assert.NotEmpty(t, a.Detail)
		}
		assert.NotZero(t, refused)
		assert.Equal(t, 2, count(t, cfg, "records"))
	})
}

func TestRecordsThatNameAReceiptNeverGivenRaiseAnAlarm(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		for _, tt := range []struct {
			name   string
			ack    func(first, second chain.Receipt) *chain.Ack
			alarms []centre.AlarmKind
		}{
			{"none yet", func(_, _ chain.Receipt) *chain.Ack { return nil }, nil},
			{"the place before line 1", func(_, _ chain.Receipt) *chain.Ack { return &chain.Ack{} }, nil},
			{"the last", func(_, r chain.Receipt) *chain.Ack { return &chain.Ack{Seq: r.Seq, Hash: r.Hash} }, nil},
			{"one before", func(r, _ chain.Receipt) *chain.Ack { return &chain.Ack{Seq: r.Seq, Hash: r.Hash} }, nil},
			{"a stored record without a receipt", func(_, r chain.Receipt) *chain.Ack { return &chain.Ack{Seq: r.Seq - 1, Hash: r.Hash} }, []centre.AlarmKind{centre.AlarmReceipt}},
			{"another hash", func(r, _ chain.Receipt) *chain.Ack { return &chain.Ack{Seq: r.Seq, Hash: chain.Hash{1}} }, []centre.AlarmKind{centre.AlarmReceipt}},
			{"a record not stored", func(_, r chain.Receipt) *chain.Ack { return &chain.Ack{Seq: r.Seq + 1, Hash: r.Hash} }, []centre.AlarmKind{centre.AlarmReceipt}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c, _, _ := newCentre(t, on)
				b := admitted(t, c, "t-1")
				first := ingest(t, c, b, b.batch(t, b.append(t, openRecord(), checkin("p-1"))))
				second := ingest(t, c, b, b.batch(t, b.append(t, checkins(2)...)))
				b.ack = tt.ack(first, second)
				got := ingest(t, c, b, b.batch(t, b.append(t, checkins(3)...)))
				assert.Equal(t, b.last, got.Seq, "it is stored whatever it claims")
				assert.Equal(t, tt.alarms, kinds(openAlarms(t, c)))
			})
		}
	})
}

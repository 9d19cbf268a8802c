package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue"
	"rollcall/queue/chain"
	uplink "rollcall/queue/mqtt"
)

// make proof-offline sets these.
var (
	offlineKills = flag.Int("offline.kills", 5, "times that the centre's process is killed with -9 in each drain")
	offlineSeed  = flag.Uint64("offline.seed", 1, "draws the moments of the kills; what they hit is the machine's")
)

// killedDrain is a backlog on its way into a centre whose process is killed
// again and again.
type killedDrain struct {
	*site
	ready     string // what the process says
	rand      *rand.Rand
	admission chain.Admission
	ledger    *queue.Ledger

	kills     int
	ahead     int // of them, with records stored whose receipt the terminal did not have
	forgotten int // of them, with a receipt at the terminal for records that were not stored
}

// newKilledDrain makes a terminal whose uplink knows one address.
func newKilledDrain(s *site, address, ready string) *killedDrain {
	s.must("init")
	keys, admission := s.admit("t-1")
	d := &killedDrain{site: s, ready: ready, rand: rand.New(rand.NewPCG(*offlineSeed, 3)), admission: admission, ledger: s.ledger(keys, admission)}
	cfg := uplinkConfig(keys, admission, address)
	cfg.ReceiptTimeout = 500 * time.Millisecond
	up, err := uplink.New(cfg, d.ledger, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	s.run(up.Run, func() error { return nil })
	return d
}

// serving starts a process and returns when a receipt of it has come.
func (d *killedDrain) serving() *server {
	process, before := d.serveSaying("centre.toml", d.ready), d.ledger.Status().Receipted
	d.until(func(s queue.Status) bool { return s.Receipted > before })
	return process
}

// killed has a process take records in and kills it at some moment of that.
func (d *killedDrain) killed() {
	d.add(2400 - d.ledger.Status().Unsent) // more than it can take meanwhile
	process := d.serving()
	moment := time.NewTimer(time.Duration(d.rand.Int64N(int64(60 * time.Millisecond))))
	<-moment.C
	process.kill()
	d.kills++
}

// look compares what a killed process left with what the terminal believes.
func (d *killedDrain) look() {
	receipted, db := int(d.ledger.Status().Receipted), d.database()
	stored := rows(d.t, db)
	require.NoError(d.t, db.Close())
	if stored > receipted {
		d.ahead++
	}
	if stored < receipted {
		d.forgotten++
	}
}

// add appends records as many people do.
func (d *killedDrain) add(n int) {
	var writers sync.WaitGroup
	for range 60 {
		writers.Go(func() {
			for range n / 60 {
				_, err := d.ledger.Append(d.t.Context(), attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
					Trainee: "p-1", Class: "c-1", Session: "s-1", Decision: attendance.OnTime,
				}))
				assert.NoError(d.t, err)
			}
		})
	}
	writers.Wait()
}

func (d *killedDrain) until(ok func(queue.Status) bool) {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return ok(d.ledger.Status()) }, patience, time.Millisecond)
}

// finish lets the rest go up, and holds all against the ledger: each record
// once, in order, its own bytes, a chain that a stranger can verify.
func (d *killedDrain) finish() {
	d.t.Helper()
	d.serveSaying("centre.toml", d.ready)
	d.until(func(s queue.Status) bool { return s.Receipted == s.Last })
	var listed []centre.Row
	require.NoError(d.t, json.Unmarshal([]byte(d.must("records", "-all", "-json")), &listed))
	times := map[string]int{}
	order := 0
	for i, r := range listed {
		times[r.Hash]++
		if r.Seq != uint64(i+1) {
			order++
		}
	}
	records, lost, doubled := 0, 0, 0
	require.NoError(d.t, d.ledger.Each(func(e chain.Entry) error {
		line, err := e.Line()
		records++
		n := times[chain.HashLine(line).String()]
		lost, doubled = lost+max(0, 1-n), doubled+max(0, n-1)
		return err
	}))
	fmt.Printf("seed %d: %d records, %d kills -9, %d of them with records stored whose receipt had not come back: %d lost, %d doubled, %d out of order; sealed to %d\n",
		*offlineSeed, records, d.kills, d.ahead, lost, doubled, order, d.sealed())
	assert.Zero(d.t, lost, "lost")
	assert.Zero(d.t, doubled, "doubled")
	assert.Zero(d.t, order, "out of order")
	assert.Len(d.t, listed, records)
	assert.Equal(d.t, uint64(records), d.sealed())
	assert.Equal(d.t, "ID  RAISED  KIND  TERMINAL  LOG  SEQ  DETAIL  CLOSED  BY  REASON\n", d.must("alarms"), "nothing of it looks like an attack")
}

// sealed verifies the ledger's export with public keys alone and gives up to
// where the centre's word covers it.
func (d *killedDrain) sealed() uint64 {
	d.t.Helper()
	cert, err := chain.ParseCertificate(d.admission.Ledger)
	require.NoError(d.t, err)
	trust, err := d.admission.Trust()
	require.NoError(d.t, err)
	var text bytes.Buffer
	require.NoError(d.t, d.ledger.Export(&text, cert))
	v := chain.NewVerifier(&trust, nil)
	for line := range bytes.Lines(text.Bytes()) {
		require.NoError(d.t, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
	}
	epochs, err := v.Report()
	require.NoError(d.t, err)
	require.Len(d.t, epochs, 1)
	require.NotEmpty(d.t, epochs[0].Receipts)
	return uint64(epochs[0].Receipts[len(epochs[0].Receipts)-1].Seq)
}

// The centre's own process is killed with -9 at random moments while it takes a
// backlog in, through its own listener and through Mosquitto, of which it is a
// shared subscriber. What the terminal has a receipt for was on disk, each time.
func TestOfflineCentreKilledWhileItDrains(t *testing.T) {
	for name, drain := range map[string]func(*testing.T) *killedDrain{
		"through its own listener": func(t *testing.T) *killedDrain {
			s := newSite(t)
			return newKilledDrain(s, s.address, "ready: listening on "+s.address+"\n")
		},
		"through Mosquitto": func(t *testing.T) *killedDrain {
			s := newSite(t)
			s.write("centre.toml", fmt.Sprintf("tenant = \"test\"\ndir = %q\nbroker = %q\n", s.path("centre"), s.address))
			d := newKilledDrain(s, s.address, "ready: through the broker at "+s.address+"\n")
			centretest.Mosquitto(t, s.path("centre"), s.address).Start()
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := drain(t)
			for range *offlineKills {
				d.killed()
				d.look()
				require.Zero(t, d.forgotten, "a receipt was given for records that are not on disk")
			}
			d.finish()
		})
	}
}

// The control: each kill takes with it what was stored in its last moments, as
// if the disk had not had it. The terminal then holds receipts for records that
// are not there, and the harness must see it. (In the end nothing is lost all
// the same: the centre says where it stands, and the terminal sends again.)
func TestOfflineControlCentreForgets(t *testing.T) {
	s := newSite(t)
	d := newKilledDrain(s, s.address, "ready: listening on "+s.address+"\n")
	for range max(1, *offlineKills/10) {
		d.add(2400)
		process, db, old := d.serving(), s.database(), s.path("old.db")
		_, err := db.Exec("VACUUM INTO ?", old)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		d.until(func(s queue.Status) bool { return s.Receipted == s.Last })
		process.kill()
		d.kills++
		for _, beside := range []string{"-wal", "-shm"} {
			_ = os.Remove(s.path("centre/centre.db" + beside))
		}
		require.NoError(t, os.Rename(old, s.path("centre/centre.db")))
		d.look()
	}
	fmt.Printf("control, a disk that forgets: %d of %d kills left receipts for records that are not stored\n", d.forgotten, d.kills)
	assert.NotZero(t, d.forgotten, "the harness would not notice")
}

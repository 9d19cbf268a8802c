package centre_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/queue/chain"
)

// database opens the centre's database behind its back.
func database(t testing.TB, cfg centre.Config) *sql.DB {
	t.Helper()
	if cfg.Database != "" {
		return centretest.Database{Address: cfg.Database}.Open(t)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(cfg.Dir, "centre.db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	return db
}

func count(t testing.TB, cfg centre.Config, query string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, database(t, cfg).QueryRow("SELECT count(*) FROM "+query, args...).Scan(&n))
	return n
}

func behindItsBack(t testing.TB, cfg centre.Config, statement string) {
	t.Helper()
	_, err := database(t, cfg).Exec(statement)
	require.NoError(t, err)
}

// A terminal has sent records 1 to 4. Then one batch arrives.
func TestIngest(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		type world struct {
			box   *box
			lines [][]byte // 1 to 4
			other *box     // a second terminal, admitted, with a ledger of its own
		}
		tests := []struct {
			name    string
			batch   func(*testing.T, world) []byte
			refused bool
			upTo    chain.Seq // of the receipt; what is stored is the same
			alarm   string
			kept    int // batches in quarantine
		}{
			{name: "in order", upTo: 7, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.box.append(t, checkins(3)...))
			}},
			{name: "sent again", upTo: 4, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.lines)
			}},
			{name: "part of it sent again", upTo: 4, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.lines[1:3])
			}},
			{name: "overlap", upTo: 6, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, append(w.lines[2:4:4], w.box.append(t, checkins(2)...)...))
			}},
			{name: "gap", upTo: 4, alarm: "gap", batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.box.append(t, checkins(3)...)[1:])
			}},
			{name: "fork within what is stored", refused: true, upTo: 4, alarm: "log_fork", kept: 1, batch: func(t *testing.T, w world) []byte {
				w.box.rewind(t, w.lines, 2)
				return w.box.batch(t, w.box.append(t, checkin("p-9"), checkin("p-9")))
			}},
			{name: "fork at the watermark", refused: true, upTo: 4, alarm: "log_fork", kept: 1, batch: func(t *testing.T, w world) []byte {
				w.box.rewind(t, w.lines, 3)
				return w.box.batch(t, w.box.append(t, checkin("p-9"), checkin("p-9"))[1:])
			}},
			{name: "fork that overlaps and goes on", refused: true, upTo: 4, alarm: "log_fork", kept: 1, batch: func(t *testing.T, w world) []byte {
				w.box.rewind(t, w.lines, 3)
				return w.box.batch(t, w.box.append(t, checkin("p-9"), checkin("p-9")))
			}},
			{name: "signed with another key", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				lines := w.box.append(t, checkins(2)...)
				return chain.FormBatch(lines, head(t, w.other.ledger, lines[1]))
			}},
			{name: "head of an earlier record", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				lines := w.box.append(t, checkins(2)...)
				return chain.FormBatch(lines, head(t, w.box.ledger, lines[0]))
			}},
			{name: "of another terminal", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return w.other.batch(t, w.other.append(t, openRecord()))
			}},
			{name: "a byte changed", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return bytes.Replace(w.box.batch(t, w.box.append(t, checkins(2)...)), []byte("p-1"), []byte("p-2"), 1)
			}},
			{name: "garbage", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return []byte("\x00\xffnot a batch")
			}},
			{name: "nothing", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return nil
			}},
			{name: "over 64 KiB", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return append(w.box.batch(t, w.box.append(t, checkin("p-1"))), bytes.Repeat([]byte(" "), chain.MaxBatchBytes)...)
			}},
			{name: "over 128 records", refused: true, upTo: 4, alarm: "batch_refused", kept: 1, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.box.append(t, checkins(129)...))
			}},
			{name: "a body that does not fit its type", upTo: 5, alarm: "body", batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.box.append(t, attendance.Record{Type: attendance.TypeCheckin, Body: []byte(`{"trainee":7}`)}))
			}},
			{name: "a type of a later version", upTo: 5, batch: func(t *testing.T, w world) []byte {
				return w.box.batch(t, w.box.append(t, attendance.Record{Type: "moved", Body: []byte(`{"to":"room 4"}`)}))
			}},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c, cfg, log := newCentre(t, on)
				w := world{box: admitted(t, c, "t-1"), other: admitted(t, c, "t-2")}
				w.lines = w.box.append(t, append([]attendance.Record{openRecord()}, checkins(3)...)...)
				_, err := c.Ingest(t.Context(), "t-1", w.box.batch(t, w.lines))
				require.NoError(t, err)
				first := w.box.prev
				batch := tt.batch(t, w)

				for range 2 { // a second time changes nothing
					jws, err := c.Ingest(t.Context(), "t-1", batch)
					if tt.refused {
						assert.ErrorIs(t, err, centre.ErrRefused)
					} else {
						assert.NoError(t, err)
					}
					r := w.box.receipt(t, jws)
					assert.Equal(t, chain.NewLogID("t-1", "e1"), r.Log)
					assert.Equal(t, tt.upTo, r.Seq)
					if tt.upTo == 4 {
						assert.Equal(t, first, r.Hash)
					} else {
						assert.Equal(t, w.box.prev, r.Hash)
					}
				}
				assert.Equal(t, int(tt.upTo), count(t, cfg, "records"))
				assert.Equal(t, tt.kept, count(t, cfg, "quarantine"))
				if tt.alarm == "" {
					assert.Zero(t, count(t, cfg, "alarms"))
					return
				}
				assert.Equal(t, 1, count(t, cfg, "alarms"))
				assert.Equal(t, 1, count(t, cfg, "alarms WHERE kind = $1 AND terminal = 't-1'", tt.alarm))
				assert.Contains(t, log.String(), "kind="+tt.alarm)
			})
		}
	})
}

// rewind goes back to just after a record, as an older image of the store does.
func (b *box) rewind(t *testing.T, lines [][]byte, seq int) {
	t.Helper()
	b.last, b.prev = chain.Seq(seq), chain.HashLine(lines[seq-1])
}

func TestIngestOfATerminalThatWasNotAdmitted(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		stranger := newBox(t, "t-9")
		receipt, err := c.Ingest(t.Context(), "t-9", stranger.batch(t, stranger.append(t, openRecord())))
		assert.ErrorIs(t, err, centre.ErrRefused)
		assert.ErrorIs(t, err, centre.ErrUnknownTerminal)
		assert.Nil(t, receipt)
		assert.Zero(t, count(t, cfg, "records"))
	})
}

func TestIngestThatBeginsTooLateSendsTheTerminalBack(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		lines := b.append(t, append([]attendance.Record{openRecord()}, checkins(3)...)...)
		jws, err := c.Ingest(t.Context(), "t-1", b.batch(t, lines[2:]))
		require.NoError(t, err)
		r := b.receipt(t, jws)
		assert.Zero(t, r.Seq, "nothing of this log is stored")
		assert.Zero(t, r.Hash)
		assert.Zero(t, count(t, cfg, "records"))
	})
}

func TestNewEpochOfAKnownTerminalIsStoredAndRaisesAnAlarm(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, log := newCentre(t, on)
		b := admitted(t, c, "t-1")
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord(), checkin("p-1"), checkin("p-2"))))
		require.NoError(t, err)
		assert.Zero(t, count(t, cfg, "alarms"), "the first log of a terminal is expected")

		b.newEpoch("e2")
		opened := attendance.NewRecord(attendance.TypeOpen, attendance.OpenBody{Reason: "store damaged", Terminal: "t-1",
			Last: &attendance.LastKnown{Log: "t-1/e1", Seq: 5, Hash: "h"}})
		jws, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, opened)))
		require.NoError(t, err)
		assert.Equal(t, b.log, b.receipt(t, jws).Log)
		assert.Equal(t, 1, count(t, cfg, `alarms WHERE kind = 'epoch_break' AND log = 't-1/e2'
		AND detail LIKE '%"stored":{"log":"t-1/e1","seq":3}%' AND detail LIKE '%"seq":5%' AND detail LIKE '%store damaged%'`))
		assert.Contains(t, log.String(), "kind=epoch_break")
	})
}

func TestFaceMatchNeedsAnEnrolment(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		match := func(trainee string, enrol uint64, model string) attendance.Record {
			return attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
				Trainee: attendance.TraineeID(trainee), Class: "c-1", Session: "s-1", Decision: attendance.OnTime,
				Face: &attendance.FaceEvidence{Level: attendance.FaceMatch, Score: 0.6, Model: model, Enrol: enrol},
			})
		}
		enrol := attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{Trainee: "p-1", Consent: "k", Officer: "o", Model: "m"})
		withdrawOf := func(trainee attendance.TraineeID) attendance.Record {
			return attendance.NewRecord(attendance.TypeWithdraw, attendance.WithdrawBody{Trainee: trainee, Consent: "k", Reason: attendance.WithdrawConsent})
		}
		withdraw := withdrawOf("p-1")
		erase := attendance.NewRecord(attendance.TypeErase, attendance.EraseBody{Trainee: "p-1", Withdraw: 3})
		tests := []struct {
			name    string
			records []attendance.Record // from 2 on
			alarms  int
		}{
			{"enrolled before", []attendance.Record{enrol, match("p-1", 2, "m")}, 0},
			{"no face claimed", []attendance.Record{checkin("p-1")}, 0},
			{"names no enrolment", []attendance.Record{enrol, match("p-1", 0, "m")}, 1},
			{"names another record", []attendance.Record{checkin("p-1"), match("p-1", 2, "m")}, 1},
			{"names another person's", []attendance.Record{enrol, match("p-2", 2, "m")}, 1},
			{"names another model's", []attendance.Record{enrol, match("p-1", 2, "m2")}, 1},
			{"names a later record", []attendance.Record{match("p-1", 3, "m"), enrol}, 1},
			{"withdrawn before", []attendance.Record{enrol, withdraw, match("p-1", 2, "m")}, 1},
			{"withdrawn and erased before", []attendance.Record{enrol, withdraw, erase, match("p-1", 2, "m")}, 1},
			{"withdrawn after", []attendance.Record{enrol, match("p-1", 2, "m"), withdraw}, 0},
			{"another's withdrawn before", []attendance.Record{enrol, withdrawOf("p-2"), match("p-1", 2, "m")}, 0},
			{"enrolled anew meanwhile", []attendance.Record{enrol, enrol, match("p-1", 2, "m")}, 1},
			{"enrolled anew after the withdrawal", []attendance.Record{enrol, withdraw, erase, enrol, match("p-1", 5, "m")}, 0},
			{"names a record that is not there", []attendance.Record{match("p-1", 400, "m")}, 1},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c, cfg, _ := newCentre(t, on)
				b := admitted(t, c, "t-1")
				lines := b.append(t, append([]attendance.Record{openRecord()}, tt.records...)...)
				jws, err := c.Ingest(t.Context(), "t-1", b.batch(t, lines))
				require.NoError(t, err)
				assert.Equal(t, b.last, b.receipt(t, jws).Seq, "the chain goes on whatever a record claims")
				assert.Equal(t, tt.alarms, count(t, cfg, "alarms WHERE kind = 'face_unfounded'"))
			})
		}
	})
}

func TestQuarantineIsBounded(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		admitted(t, c, "t-1")
		for i := range 210 {
			_, err := c.Ingest(t.Context(), "t-1", []byte{byte(i), byte(i >> 8)})
			require.ErrorIs(t, err, centre.ErrRefused)
		}
		assert.Equal(t, 200, count(t, cfg, "quarantine"))
	})
}

func TestStoredLinesAreTheBytesThatCame(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		lines := b.append(t, openRecord(), checkin("p-1"))
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, lines))
		require.NoError(t, err)
		for _, line := range lines {
			assert.Equal(t, 1, count(t, cfg, "records WHERE line = $1", line))
		}
		rows := stored(t, c)
		require.Len(t, rows, 2)
		assert.Equal(t, "p-1", rows[1].Trainee)
		assert.Equal(t, "on_time", rows[1].Decision)
		assert.Equal(t, chain.HashLine(lines[1]).Short(), rows[1].Code)
	})
}

// The store's fault is not the batch's: the caller must not acknowledge.
func TestIngestWhenTheStoreFails(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		receipt, err := c.Ingest(ctx, "t-1", b.batch(t, b.append(t, openRecord())))
		require.Error(t, err)
		assert.NotErrorIs(t, err, centre.ErrRefused)
		assert.Nil(t, receipt)
	})
}

// A statement with SQLite's own kind of parameter fails on PostgreSQL only
// where a test runs it there.
func TestStatementsAreForBothDatabases(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.NotRegexp(t, `(= |\(|, |[<>] )\?[0-9]*[, )"]`, string(text), "%s: write $1, $2 and so on", file)
	}
	assert.Regexp(t, `(= |\(|, |[<>] )\?[0-9]*[, )"]`, "VALUES (?, ?)")
}

package centre_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue"
	"rollcall/queue/chain"
)

func gapRecord(log chain.LogID, from, to uint64) attendance.Record {
	return attendance.NewRecord(attendance.TypeGap, attendance.GapBody{Log: string(log), From: from, To: to, Reason: "damaged"})
}

// A terminal has sent records 1 to 4, and then lost 5 to 7. 8 to 10 it still
// has; its next record names the gap, if it is honest.
func TestGapThatTheCentreNeverReceived(t *testing.T) {
	for _, tt := range []struct {
		name  string
		says  []attendance.Record
		first chain.Seq // of what it then sends
		upTo  chain.Seq
	}{
		{"named", []attendance.Record{gapRecord("", 5, 7)}, 8, 12},
		{"named in parts", []attendance.Record{gapRecord("", 7, 7), gapRecord("", 5, 6)}, 8, 13},
		{"named with what was received", []attendance.Record{gapRecord("", 2, 7)}, 8, 12},
		{"named, and more left out", []attendance.Record{gapRecord("", 5, 7)}, 9, 4},
		{"not named", []attendance.Record{checkin("p-1")}, 8, 4},
		{"named in part", []attendance.Record{gapRecord("", 6, 7)}, 8, 4},
		{"named the wrong way round", []attendance.Record{gapRecord("", 7, 5)}, 8, 4},
		{"named for another terminal", []attendance.Record{gapRecord("t-2/e1", 5, 7)}, 8, 4},
		{"named for records to come", []attendance.Record{gapRecord("", 5, 70)}, 8, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
				c, _, _ := newCentre(t, on, readable)
				b := admitted(t, c, "t-1")
				ingest(t, c, b, b.batch(t, b.append(t, append([]attendance.Record{openRecord()}, checkins(3)...)...)))
				b.append(t, checkins(3)...) // lost
				behind := b.append(t, checkins(3)...)
				said := b.append(t, tt.says...)
				last := b.append(t, checkin("p-5"))
				behind = behind[tt.first-8:]

				assert.Equal(t, chain.Seq(4), ingest(t, c, b, b.batch(t, behind)).Seq, "nobody has said yet that records are lost")
				assert.Equal(t, chain.Seq(4), ingest(t, c, b, b.batch(t, said)).Seq, "said, and not stored out of order")
				ingest(t, c, b, b.batch(t, behind))
				ingest(t, c, b, b.batch(t, said))
				got := ingest(t, c, b, b.batch(t, last))
				assert.Equal(t, tt.upTo, got.Seq)
				assert.Contains(t, kinds(openAlarms(t, c)), centre.AlarmGap)
				if got.Seq == 4 {
					return
				}
				alarms := openAlarms(t, c)
				require.Contains(t, kinds(alarms), centre.AlarmGap)
				d := newDesk(t, c, b)
				_, text := d.do("GET", "/v1/logs/t-1/e1/bundle", nil)
				trust, err := b.admission.Trust()
				require.NoError(t, err)
				epochs, err := verifyExport(trust, []byte(text))
				require.NoError(t, err)
				assert.Contains(t, epochs[0].String(), "gap 5-7; verified 8-")
			})
		})
	}
}

// A terminal lost a whole ledger before any of it came, and then some of this
// one: it is told where this one stands, and not left without an answer.
func TestGapInALogThatNeverCameIsAnswered(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		b.append(t, openRecord()) // lost
		said := b.append(t, gapRecord("t-1/e0", 1, 9), gapRecord("", 1, 1))
		got := ingest(t, c, b, b.batch(t, said[:1]))
		assert.Equal(t, chain.Receipt{Log: b.log, At: got.At}, got, "nothing of this log is stored yet")
		assert.Equal(t, chain.Seq(3), ingest(t, c, b, b.batch(t, said)).Seq)
	})
}

// A gap record that no verifier takes is stored as what the terminal said, with
// an alarm.
func TestGapRecordThatNamesNothingRaisesAnAlarm(t *testing.T) {
	for name, gap := range map[string]attendance.Record{
		"records to come": gapRecord("", 1, 7), "the wrong way round": gapRecord("", 1, 0), "another terminal's": gapRecord("t-2/e1", 1, 1),
	} {
		c, _, _ := newCentre(t)
		b := admitted(t, c, "t-1")
		assert.Equal(t, chain.Seq(2), ingest(t, c, b, b.batch(t, b.append(t, openRecord(), gap))).Seq, name)
		assert.Equal(t, []centre.AlarmKind{centre.AlarmBody}, kinds(openAlarms(t, c)), name)
	}
}

// What a terminal said was lost cannot come back: one of the two is not true.
func TestLostRecordsThatComeBackAreSetAside(t *testing.T) {
	c, cfg, _ := newCentre(t)
	b := admitted(t, c, "t-1")
	ingest(t, c, b, b.batch(t, b.append(t, openRecord())))
	lost := b.append(t, checkins(2)...)
	ingest(t, c, b, b.batch(t, b.append(t, gapRecord("", 2, 3))))
	_, err := c.Ingest(t.Context(), "t-1", b.batch(t, lost))
	assert.ErrorIs(t, err, centre.ErrRefused)
	assert.Equal(t, 2, count(t, cfg, "records"))
	assert.Equal(t, 1, count(t, cfg, "quarantine"))
}

// A real ledger loses a file that the centre never had. The centre gets what
// stands before it, the word that it is lost, and what stands after it.
func TestF25CentreGoesOnBehindADamagedFile(t *testing.T) {
	t.Parallel()
	for _, lost := range []int{0, 1, 2} { // which of four files
		t.Run(fmt.Sprint("file ", lost), func(t *testing.T) {
			c, _, _ := newCentre(t, readable)
			b := admitted(t, c, "t-1")
			state := t.TempDir()
			for day := range 4 {
				fillDay(t, b, state, day)
			}
			files, err := filepath.Glob(filepath.Join(state, "ledger", "*", "*.db"))
			require.NoError(t, err)
			require.Len(t, files, 4)
			require.NoError(t, os.WriteFile(files[lost], make([]byte, 4096), 0o600))

			mend(t, b, state)
			ledger, stop := openDay(t, b, state, 4)
			sendAll(t, c, b, ledger)
			assert.Zero(t, ledger.Status().Unsent)
			stop()
			_, log, _ := chainOf(ledger)
			assert.Contains(t, kinds(openAlarms(t, c)), centre.AlarmGap)
			assert.NotContains(t, kinds(openAlarms(t, c)), centre.AlarmFork)
			d := newDesk(t, c, b)
			_, text := d.do("GET", "/v1/logs/"+log+"/bundle", nil)
			trust, err := b.admission.Trust()
			require.NoError(t, err)
			epochs, err := verifyExport(trust, []byte(text))
			require.NoError(t, err)
			assert.Contains(t, epochs[0].String(), "gap ")
		})
	}
}

func chainOf(l *queue.Ledger) (chain.Seq, string, chain.Seq) {
	log, last, received := l.Marks()
	return last, string(log), received
}

// openDay opens a ledger on a day and runs it.
func openDay(t *testing.T, b *box, state string, day int) (*queue.Ledger, func()) {
	t.Helper()
	ledger := openLedger(t, b, state, day)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ledger.Run(ctx) }()
	return ledger, func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, ledger.Close())
	}
}

// mend reads a ledger as the daemon does at its start: where it finds damage it
// ends, and the next start mends.
func mend(t *testing.T, b *box, state string) {
	t.Helper()
	for range 3 {
		ledger := openLedger(t, b, state, 4)
		err := ledger.Each(func(chain.Entry) error { return nil })
		require.NoError(t, ledger.Close())
		if err == nil {
			return
		}
		require.ErrorIs(t, err, queue.ErrDamaged)
	}
	require.Fail(t, "it does not mend")
}

func openLedger(t *testing.T, b *box, state string, day int) *queue.Ledger {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	up := int64(0)
	ledger, err := queue.Open(queue.Config{
		Dir: state, Terminal: b.id, Key: b.ledger, ReceiptKey: trust.Receipt, Software: "test",
		Stamp: func() chain.Stamp {
			up++
			return chain.Stamp{Wall: chain.NewWall(today.AddDate(0, 0, day)), Boot: "b", UpMS: up, Clock: chain.ClockSynced}
		},
	}, discard())
	require.NoError(t, err)
	return ledger
}

// fillDay writes a day's records: a day is a file.
func fillDay(t *testing.T, b *box, state string, day int) {
	t.Helper()
	ledger, stop := openDay(t, b, state, day)
	defer stop()
	for range 20 {
		_, err := ledger.Append(t.Context(), attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{Part: "reader", Code: "removed", Tapped: "t", Reader: "r"}))
		require.NoError(t, err)
	}
}

// sendAll is the uplink: one batch at a time, the same or the next after each
// answer.
func sendAll(t *testing.T, c *centre.Centre, b *box, ledger *queue.Ledger) {
	t.Helper()
	for range 50 {
		_, _, at := ledger.Marks()
		payload, _, err := ledger.Batch(at, chain.MaxBatchRecords, chain.MaxBatchBytes)
		require.NoError(t, err)
		if payload == nil {
			return
		}
		receipt, err := c.Ingest(t.Context(), b.id, payload)
		require.NoError(t, err)
		if receipt != nil {
			_, err = ledger.Receipt(receipt)
			require.NoError(t, err)
		}
	}
	require.Fail(t, "the ledger does not get through")
}

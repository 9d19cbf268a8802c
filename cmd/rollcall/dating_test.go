package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// truth is when the first boot of the tests really began.
var truth = time.Date(2026, 11, 21, 8, 0, 0, 0, time.FixedZone("", 8*3600))

// stamp is a record of a boot, formed so long after it began, with a wall clock
// that says what it likes.
type stamp struct {
	boot   string
	up     time.Duration
	wall   time.Time
	clock  chain.ClockLevel
	err    time.Duration
	anchor *attendance.AnchorBody
	ack    chain.Seq // the receipt that it knew
}

// receipt is the centre's for a record, so long after the truth.
type receipt struct {
	seq  chain.Seq
	when time.Duration
}

func entries(all []stamp) (out []chain.Entry) {
	for i, a := range all {
		e := chain.Entry{
			V: 1, Log: "t-1/e1", Seq: chain.Seq(i + 1), Type: string(attendance.TypeFault), Body: []byte(`{}`),
			At: chain.Stamp{Wall: chain.NewWall(a.wall), Boot: a.boot, UpMS: a.up.Milliseconds(), Clock: a.clock, ErrMS: a.err.Milliseconds()},
		}
		if a.anchor != nil {
			e.Type, e.Body = string(attendance.TypeAnchor), attendance.NewRecord(attendance.TypeAnchor, *a.anchor).Body
		}
		if a.ack > 0 {
			e.Ack = &chain.Ack{Seq: a.ack}
		}
		out = append(out, e)
	}
	return out
}

// anchored is an anchor that says the time of a moment of the first boot, off by
// so much.
func anchored(source attendance.TimeSource, up, off time.Duration) *attendance.AnchorBody {
	return &attendance.AnchorBody{Source: source, Wall: truth.Add(up + off).Format(attendance.TimeLayout), UpMS: up.Milliseconds(), ErrMS: 100}
}

// clockCase is a ledger whose clock was wrong, and what a report makes of one of
// its records.
type clockCase struct {
	name     string
	records  []stamp
	receipts []receipt
	of       int           // the record that is asked about, by its index
	from, to time.Duration // after the truth's beginning; -1: not known
	by       dating
	amiss    bool
}

const unknown = time.Duration(-1)

func (tc clockCase) test(t *testing.T) {
	t.Helper()
	receipts := received{}
	for _, r := range tc.receipts {
		receipts["t-1/e1"] = append(receipts["t-1/e1"], chain.Receipt{Log: "t-1/e1", Seq: r.seq, At: chain.NewWall(truth.Add(r.when))})
	}
	h := newHistory(receipts.bounds)
	all := entries(tc.records)
	for _, e := range all {
		h.observe(e)
	}
	got := h.date(all[tc.of])
	assert.Equal(t, tc.by, got.by, "%s", got)
	assert.Equal(t, tc.amiss, got.amiss(all[tc.of]), "%s", got)
	for _, end := range []struct {
		name string
		want time.Duration
		got  time.Time
	}{{"earliest", tc.from, got.from}, {"latest", tc.to, got.to}} {
		if end.want == unknown {
			assert.True(t, end.got.IsZero(), "%s %s", end.name, end.got)
			continue
		}
		assert.WithinDuration(t, truth.Add(end.want), end.got, 2*time.Millisecond, end.name)
	}
}

// wrong is a wall clock that was never set: it began in 1970 with the boot.
func wrong(up time.Duration) time.Time { return time.Unix(0, 0).Add(up) }

// right is a wall clock that is right.
func right(up time.Duration) time.Time { return truth.Add(up) }

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
)

func TestT12AnchorsDateEarlierRecords(t *testing.T) {
	for _, tc := range []clockCase{
		{
			name: "unsynced, and the boot learns the time later",
			records: []stamp{
				{boot: "b1", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
				{boot: "b1", up: 61 * minute, wall: right(61 * minute), clock: chain.ClockSynced, err: second, anchor: anchored(attendance.TimeKernel, 61*minute, 0)},
			},
			// 100 ms of the anchor, and 50 ppm of an hour
			from: minute - 280*time.Millisecond, to: minute + 280*time.Millisecond, by: byAnchor, amiss: true,
		},
		{
			name: "the nearest of two anchors",
			records: []stamp{
				{boot: "b1", up: minute, wall: right(minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, minute, 0)},
				{boot: "b1", up: 100 * minute, wall: wrong(0), clock: chain.ClockSuspect},
				{boot: "b1", up: 101 * minute, wall: right(101 * minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, 101*minute, 0)},
			},
			of: 1, from: 100*minute - 103*time.Millisecond, to: 100*minute + 103*time.Millisecond, by: byAnchor, amiss: true,
		},
		{
			name: "an older boot that never saw time lies between its neighbours",
			records: []stamp{
				{boot: "b1", up: 10 * minute, wall: right(10 * minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, 10*minute, 0)},
				{boot: "b2", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
				{boot: "b2", up: 3 * minute, wall: wrong(3 * minute), clock: chain.ClockUnsynced},
				// began an hour after b1, and knew it two minutes later
				{boot: "b3", up: 2 * minute, wall: right(62 * minute), clock: chain.ClockSynced, anchor: &attendance.AnchorBody{
					Source: attendance.TimeKernel, Wall: right(62 * minute).Format(attendance.TimeLayout), UpMS: (2 * minute).Milliseconds(), ErrMS: 100}},
			},
			// After b1's last record and a minute of its own; two minutes and more
			// before b3. Off by the anchor's error and the drift of each way.
			of: 1, from: 11*minute - 100*time.Millisecond - 2*30*time.Millisecond - 9*time.Millisecond,
			to: 58*minute + 100*time.Millisecond + 6*time.Millisecond + 9*time.Millisecond + 9*time.Millisecond, by: byBoots, amiss: true,
		},
		{
			name: "two boots without time share what is known around them",
			records: []stamp{
				{boot: "b1", up: 10 * minute, wall: right(10 * minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, 10*minute, 0)},
				{boot: "b2", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
				{boot: "b3", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
			},
			// b1's ten minutes, b2's one and its own one
			of: 2, from: 12*minute - 100*time.Millisecond - 2*30*time.Millisecond - 6*time.Millisecond, to: unknown, by: byBoots, amiss: true,
		},
		{
			name:    "the first boot, and nothing came after",
			records: []stamp{{boot: "b1", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced}},
			from:    unknown, to: unknown, by: byNothing, amiss: true,
		},
		{
			name: "receipts bound what no anchor dates",
			records: []stamp{
				{boot: "b1", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
				{boot: "b1", up: 5 * minute, wall: wrong(5 * minute), clock: chain.ClockUnsynced, ack: 1},
			},
			receipts: []receipt{{1, 2 * minute}, {2, 30 * minute}},
			of:       1, from: 2 * minute, to: 6*minute + 15*time.Millisecond, by: byBoots, amiss: true,
		},
		{
			name:    "synced all the time",
			records: []stamp{{boot: "b1", up: minute, wall: right(minute), clock: chain.ClockSynced, err: second}},
			from:    59 * second, to: 61 * second, by: byClock,
		},
	} {
		t.Run(tc.name, tc.test)
	}
}

func TestF28WallClockJumpsAreUndone(t *testing.T) {
	jump := func(name string, to func(time.Time) time.Time) clockCase {
		return clockCase{
			name: name,
			records: []stamp{
				{boot: "b1", up: minute, wall: right(minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, minute, 0)},
				{boot: "b1", up: 2 * minute, wall: to(right(2 * minute)), clock: chain.ClockSuspect},
			},
			of: 1, from: 2*minute - 103*time.Millisecond, to: 2*minute + 103*time.Millisecond, by: byAnchor, amiss: true,
		}
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, tc := range []clockCase{
		jump("to 1970", func(time.Time) time.Time { return time.Unix(7, 0) }),
		jump("a day back", func(w time.Time) time.Time { return w.AddDate(0, 0, -1) }),
		jump("ten years on", func(w time.Time) time.Time { return w.AddDate(10, 0, 0) }),
		{
			name: "a leap second is within what holdover allows",
			records: []stamp{
				{boot: "b1", up: minute, wall: right(minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, minute, 0)},
				{boot: "b1", up: 2 * minute, wall: right(2 * minute).Add(-time.Second), clock: chain.ClockHoldover, err: 1100 * time.Millisecond},
			},
			of: 1, from: 2*minute - 103*time.Millisecond, to: 2*minute + 103*time.Millisecond, by: byAnchor,
		},
		{
			name: "a change of zone changes no instant",
			records: []stamp{
				{boot: "b1", up: minute, wall: right(minute), clock: chain.ClockSynced, anchor: anchored(attendance.TimeKernel, minute, 0)},
				{boot: "b1", up: 2 * minute, wall: right(2 * minute).In(berlin), clock: chain.ClockSynced, err: 5 * time.Millisecond},
			},
			of: 1, from: 2*minute - 103*time.Millisecond, to: 2*minute + 103*time.Millisecond, by: byAnchor,
		},
	} {
		t.Run(tc.name, tc.test)
	}
}

// A time server that is off by an hour: the kernel calls it synchronised, so do
// the records, and only the centre's receipts tell.
func TestF30LyingTimeSourceIsSeenByReceipts(t *testing.T) {
	lying := func(up time.Duration) time.Time { return right(up + hour) }
	liar := stamp{boot: "b1", up: minute, wall: lying(minute), clock: chain.ClockSynced, err: 10 * time.Millisecond, anchor: anchored(attendance.TimeKernel, minute, hour)}
	next := stamp{boot: "b1", up: 2 * minute, wall: lying(2 * minute), clock: chain.ClockSynced, err: 10 * time.Millisecond}
	back := func(up time.Duration) time.Time { return right(up - hour) }
	for _, tc := range []clockCase{
		{
			name: "an hour ahead, and the centre had it before", records: []stamp{liar, next}, receipts: []receipt{{2, 2*minute + second}},
			of: 1, from: unknown, to: 2*minute + second, by: byReceipt, amiss: true,
		},
		{
			name: "an hour behind a receipt that it knew",
			records: []stamp{
				{boot: "b1", up: minute, wall: back(minute), clock: chain.ClockSynced, err: 10 * time.Millisecond, anchor: anchored(attendance.TimeKernel, minute, -hour)},
				{boot: "b1", up: 2 * minute, wall: back(2 * minute), clock: chain.ClockSynced, err: 10 * time.Millisecond, ack: 1},
			},
			receipts: []receipt{{1, minute + second}, {2, 3 * minute}},
			of:       1, from: minute + second, to: 3 * minute, by: byReceipt, amiss: true,
		},
		{
			name: "and the centre's time in this boot counts before the kernel's",
			records: []stamp{liar, next,
				{boot: "b1", up: 3 * minute, wall: lying(3 * minute), clock: chain.ClockSuspect, anchor: anchored(attendance.TimeReceipt, 3*minute, 0)}},
			of: 1, from: 2*minute - 103*time.Millisecond, to: 2*minute + 103*time.Millisecond, by: byAnchor, amiss: true,
		},
		{
			name: "control: no receipt, and the liar is believed", records: []stamp{liar, next},
			of: 1, from: 2*minute + hour - 103*time.Millisecond, to: 2*minute + hour + 103*time.Millisecond, by: byAnchor,
		},
	} {
		t.Run(tc.name, tc.test)
	}
}

// TestT12ReportsDateRecords runs a real ledger under a clock that begins in 1970
// and learns the time from a receipt, and reads all three reports.
func TestT12ReportsDateRecords(t *testing.T) {
	dir := t.TempDir()
	cfg := centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre")}
	now := time.Now().Truncate(time.Second)
	up := time.Duration(0)
	require.NoError(t, centre.Init(cfg, now))
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), func() time.Time { return now.Add(up) })
	require.NoError(t, err)
	defer c.Close()
	state := filepath.Join(dir, "terminal")
	admission, err := c.Admit(t.Context(), []byte(said(t, "terminal", "request", "-state", state, "-id", "t-1")))
	require.NoError(t, err)
	require.NoError(t, device.SaveAdmission(filepath.Join(state, "keys"), admission))
	keys, err := device.OpenKeys(filepath.Join(state, "keys"))
	require.NoError(t, err)
	trust, err := admission.Trust()
	require.NoError(t, err)

	wall := time.Unix(0, 0).UTC()
	clock := device.NewClock(device.ClockSource{
		BootID: "b-1", Wall: func() time.Time { return wall }, Boot: func() time.Duration { return up },
		Kernel: func() (bool, time.Duration) { return false, 0 },
	})
	pass := func(d time.Duration) { wall, up = wall.Add(d), up+d }
	l, err := queue.Open(queue.Config{Dir: state, Terminal: "t-1", Key: keys.Ledger(), ReceiptKey: trust.Receipt, Stamp: clock.Stamp, Software: "test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ended := runLedger(t, l)
	add := func(r attendance.Record) {
		_, err := l.Append(t.Context(), r)
		require.NoError(t, err)
	}
	fault := attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{Part: "reader", Code: "removed", Tapped: "t", Reader: "r"})
	pass(10 * minute)
	add(fault)
	pass(20 * minute)
	sent := up
	payload, _, err := l.Batch(0, 128, 64<<10)
	require.NoError(t, err)
	jws, err := c.Ingest(t.Context(), "t-1", payload)
	require.NoError(t, err)
	pass(second)
	r, err := l.Receipt(jws)
	require.NoError(t, err)
	clock.Witness(r, sent, up)
	for _, a := range clock.Anchors() {
		add(attendance.NewRecord(attendance.TypeAnchor, a))
	}
	ended()

	formed := now.Add(10 * minute).UTC().Format(time.DateTime)
	list := said(t, "ledger", "show", state)
	assert.Contains(t, list, "1970-01-01 00:10:00  +20 min", "its own time, and how late the centre had it")
	assert.Regexp(t, `clock unsynced: formed at `+formed[:17]+`\d\d, give or take .* by the anchor in record 3`, list)
	one := said(t, "ledger", "show", "-seq", "2", state)
	assert.Contains(t, one, "formed 1970-01-01T00:10:00.000Z by its own clock (unsynced)")
	assert.Contains(t, one, "by the anchor in record 3")
	assert.Contains(t, one, "received by the centre at ")
	verdict := said(t, "ledger", "verify", state)
	assert.Regexp(t, `time: records 1-2, clock unsynced: the first formed at .* by the anchor in record 3; the last at .* by the anchor in record 3\n`, verdict)

	rows, err := csv.NewReader(strings.NewReader(said(t, "ledger", "export", "-csv", state))).ReadAll()
	require.NoError(t, err)
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	row := rows[2]
	assert.Equal(t, "unsynced", row[column["clock"]])
	assert.Equal(t, "1970-01-01T00:10:00.000Z", row[column["time"]], "the line is not changed")
	assert.Equal(t, "anchor", row[column["dated_by"]])
	earliest, err := time.Parse(chain.WallLayout, row[column["earliest"]])
	require.NoError(t, err)
	latest, err := time.Parse(chain.WallLayout, row[column["latest"]])
	require.NoError(t, err)
	assert.True(t, !earliest.After(now.Add(10*minute)) && !latest.Before(now.Add(10*minute)), "%s to %s", earliest, latest)
	assert.Less(t, latest.Sub(earliest), 3*second)
	assert.Equal(t, "20", row[column["lag_min"]])

	export := filepath.Join(dir, "export")
	require.NoError(t, os.WriteFile(export, []byte(said(t, "ledger", "export", state)), 0o600))
	assert.Contains(t, said(t, "ledger", "show", export), fmt.Sprintf("%-8s", "own word"), "without the centre's key receipts count for nothing")
	assert.Equal(t, list, said(t, "ledger", "show", "-trust", filepath.Join(state, "keys", "admission.json"), export))
}

// Whatever lines say, each record is dated, and no span ends before it begins
// unless the receipts alone say so.
func FuzzHistory(f *testing.F) {
	var seed []byte
	for _, e := range entries([]stamp{
		{boot: "b1", up: minute, wall: wrong(minute), clock: chain.ClockUnsynced},
		{boot: "b1", up: 2 * minute, wall: right(2 * minute), clock: chain.ClockSynced, err: second, anchor: anchored(attendance.TimeReceipt, 2*minute, 0), ack: 1},
		{boot: "b2", up: minute, wall: wrong(minute), clock: chain.ClockSuspect, ack: 2},
		{boot: "b3", up: minute, wall: right(hour), clock: chain.ClockHoldover, err: minute, anchor: anchored(attendance.TimeKernel, minute, hour)},
	}) {
		line, err := e.Line()
		require.NoError(f, err)
		seed = append(append(seed, line...), '\n')
	}
	f.Add(seed, int64(90), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, after int64, covers uint64) {
		receipts := received{"t-1/e1": {{Seq: chain.Seq(covers), At: chain.NewWall(truth.Add(bounded(after)))}}}
		h := newHistory(receipts.bounds)
		var all []chain.Entry
		for line := range bytes.Lines(text) {
			if e, err := chain.ParseLine(bytes.TrimSuffix(line, []byte("\n"))); err == nil {
				h.observe(e)
				all = append(all, e)
			}
		}
		for _, e := range all {
			d := h.date(e)
			_ = d.in(e).String()
			if !d.against && !d.from.IsZero() && !d.to.IsZero() {
				assert.False(t, d.from.After(d.to), "%s", d)
			}
		}
	})
}

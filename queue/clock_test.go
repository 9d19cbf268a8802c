package queue_test

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

// TestT12ClockJumps sets the wall clock about while records are made (F28): back
// by a day, on by ten years, to 1970, over the change to summer time. No record
// is refused, their order is as they were made, durations by the boot clock are
// right to a second, and each record after a jump says that its wall time is
// not to be trusted. A change of zone is no jump: the instant stays.
func TestT12ClockJumps(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	dayBefore := time.Date(2026, 3, 29, 1, 59, 30, 0, berlin) // half a minute before the clocks go to 3:00
	for _, tc := range []struct {
		name   string
		jump   func(wall time.Time) time.Time
		synced bool
		want   chain.ClockLevel // after the jump
	}{
		{"a day back, synced before", func(w time.Time) time.Time { return w.AddDate(0, 0, -1) }, true, chain.ClockSuspect},
		{"a day back, never synced", func(w time.Time) time.Time { return w.AddDate(0, 0, -1) }, false, chain.ClockSuspect},
		{"ten years on, synced before", func(w time.Time) time.Time { return w.AddDate(10, 0, 0) }, true, chain.ClockSuspect},
		{"ten years on, never synced", func(w time.Time) time.Time { return w.AddDate(10, 0, 0) }, false, chain.ClockSuspect},
		{"to 1970", func(time.Time) time.Time { return time.Unix(0, 0).In(berlin) }, true, chain.ClockSuspect},
		{"a leap second", func(w time.Time) time.Time { return w.Add(-time.Second) }, true, chain.ClockHoldover},
		{"to summer time", func(w time.Time) time.Time { return w }, true, chain.ClockHoldover},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wall, boot, synced := dayBefore, time.Minute, tc.synced
			clock := device.NewClock(device.ClockSource{
				BootID: "boot-1", Wall: func() time.Time { return wall }, Boot: func() time.Duration { return boot },
				Kernel: func() (bool, time.Duration) { return synced, time.Millisecond },
			})
			cfg := queuetest.Config(t.TempDir())
			cfg.Stamp = clock.Stamp
			l, err := queue.Open(cfg, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer queuetest.Start(t, l)()
			const each = 20 * time.Second
			add := func(n int) {
				for i := range n {
					wall, boot = wall.Add(each), boot+each
					_, err := l.Append(t.Context(), queuetest.Record(i))
					require.NoError(t, err)
				}
			}
			add(5)
			synced = false // no time server from here on
			wall = tc.jump(wall)
			add(5)

			entries := queuetest.Read(t, l)
			require.Len(t, entries, 11)
			for i, e := range entries[1:] {
				before := entries[i]
				assert.Equal(t, before.Seq+1, e.Seq)
				assert.InDelta(t, each.Milliseconds(), e.At.UpMS-before.At.UpMS, 1000)
				if i >= 5 {
					assert.Equal(t, tc.want, e.At.Clock, "record %d", e.Seq)
				}
			}
			cert, trust := certificate(t)
			var export bytes.Buffer
			require.NoError(t, l.Export(&export, cert))
			v := chain.NewVerifier(trust, nil)
			for line := range bytes.Lines(export.Bytes()) {
				require.NoError(t, v.Line(bytes.TrimSuffix(line, []byte("\n"))))
			}
			epochs, err := v.Report()
			require.NoError(t, err)
			assert.Equal(t, chain.Seq(11), epochs[0].Last)
		})
	}
}

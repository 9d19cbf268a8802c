package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/device"
)

// TestF28DeadClockReachesTheCentre runs a daemon whose clock says 1970 against a
// real centre over TLS: a receipt or the build says that it is later, so that
// the centre's certificate is good; and one that ended before the last receipt
// is refused, whatever the clock says.
func TestF28DeadClockReachesTheCentre(t *testing.T) {
	t.Parallel()
	atDawn := time.Unix(1000, 0)
	for _, tc := range []struct {
		name    string
		wall    time.Time
		receipt time.Time // zero: the centre never answered
		built   time.Time
		want    device.PartState
	}{
		{"control: 1970, and nothing is known", atDawn, time.Time{}, time.Time{}, device.StateDegraded},
		{"1970, a receipt of today", atDawn, time.Now(), time.Time{}, device.StateOK},
		{"1970, built today", atDawn, time.Time{}, time.Now(), device.StateOK},
		{"today", time.Now(), time.Now(), time.Time{}, device.StateOK},
		{"1970, ended before a receipt", atDawn, time.Now().AddDate(90, 0, 0), time.Time{}, device.StateDegraded},
		{"today, ended before a receipt", time.Now(), time.Now().AddDate(90, 0, 0), time.Time{}, device.StateDegraded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newTown(t)
			s := v.admit("t-1")
			if !tc.receipt.IsZero() {
				honest := v.centre
				var err error
				v.centre, err = centre.Open(t.Context(), v.cfg, slog.New(slog.DiscardHandler), func() time.Time { return tc.receipt })
				require.NoError(t, err)
				s.fill()
				require.NoError(t, v.centre.Close())
				v.centre = honest
			}
			v.serve()
			cfg, zone, err := loadConfig(s.file)
			require.NoError(t, err)
			d, err := wire(cfg, zone, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			began := time.Now()
			d.built, d.clock = tc.built, device.NewClock(device.ClockSource{
				BootID: "boot-1", Wall: func() time.Time { return tc.wall.Add(time.Since(began)) },
				Boot:   func() time.Duration { return time.Minute + time.Since(began) },
				Kernel: func() (bool, time.Duration) { return false, 0 },
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- d.run(ctx) }()
			defer func() { cancel(); assert.NoError(t, <-ended) }()
			ready(t, s.state)
			require.Eventually(t, func() bool {
				part, _ := d.health.Snapshot().Part(device.PartUplink)
				return part.State == tc.want && (tc.want == device.StateOK || strings.Contains(part.Sentence.En, "is not valid now"))
			}, 30*time.Second, 10*time.Millisecond)
		})
	}
}

//go:build cgo

package pcsc_test

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// soak is set by `make soak`: such tests run for minutes, or measure what a busy
// machine spoils.
var soak = flag.Bool("soak", false, "run the soak tests in full")

// used is what a process holds.
type used struct{ goroutines, descriptors, residentKB int }

func usage(t *testing.T) (u used) {
	t.Helper()
	debug.FreeOSMemory()
	u.goroutines = runtime.NumGoroutine()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	u.descriptors = len(files)
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	u.residentKB, err = strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return u
}

// assertFlat allows for what is under way at any moment.
func assertFlat(t *testing.T, before, after used) {
	t.Helper()
	t.Logf("before %+v, after %+v", before, after)
	assert.LessOrEqual(t, after.goroutines, before.goroutines+4)
	assert.LessOrEqual(t, after.descriptors, before.descriptors+4)
	if *soak {
		assert.LessOrEqual(t, after.residentKB, before.residentKB+8<<10)
	}
}

// In full 1,000 insertions on 8 slots at once; the short form keeps it alive.
func TestSoakInsertionsOnEightSlots(t *testing.T) {
	rounds := 2
	if *soak {
		rounds = 125
	}
	taps := make(chan attendance.Tap)
	d, err := pcsc.New(pcsc.Config{}, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, taps) }()

	bySlot := map[string]chan attendance.Tap{}
	var slots []*simulator.Slot
	for i := range 8 {
		slot := daemon.Slot(i/2, i%2)
		slots = append(slots, slot)
		bySlot[slot.Name] = make(chan attendance.Tap, 4)
	}
	go func() {
		for {
			select {
			case tap := <-taps:
				bySlot[tap.Reader] <- tap
			case <-ctx.Done():
				return
			}
		}
	}()
	play := func(first, rounds int) {
		var all sync.WaitGroup
		for i, slot := range slots {
			all.Go(func() {
				for n := range rounds {
					remove, err := slot.Insert(simulator.NewCard(simulator.InventHolder(first + 8*n + i)))
					if !assert.NoError(t, err) {
						return
					}
					for _, want := range []attendance.TapKind{attendance.CardSeen, attendance.CardRead, attendance.CardGone} {
						if want == attendance.CardGone {
							remove()
						}
						select {
						case tap := <-bySlot[slot.Name]:
							assert.Equal(t, want.String(), tap.Kind.String())
						case <-time.After(patience):
							t.Errorf("no tap %v came", want)
							remove()
							return
						}
					}
				}
			})
		}
		all.Wait()
	}
	play(1000, 1+rounds/25) // what grows once may
	before := usage(t)
	play(2000, rounds)
	assertFlat(t, before, usage(t))
	assert.Zero(t, d.Hung())
	cancel()
	require.NoError(t, <-ended)
}

// F1: in full fifty times, each time reading again within 5 s after pcscd is
// back. The short form has no stopwatch: a busy machine would spoil it.
func TestSoakF1ServiceKilledAgainAndAgain(t *testing.T) {
	kills := 2
	if *soak {
		kills = 50
	}
	r := start(t, pcsc.Config{})
	slot := daemon.Slot(3, 1)
	var before used
	var slowest time.Duration
	for i := range kills {
		require.NoError(t, daemon.Kill())
		r.awaitReport("", reader.ErrServiceDown)
		require.NoError(t, daemon.Start())
		back := time.Now()
		remove, err := slot.Insert(simulator.NewCard(simulator.InventHolder(3000 + i)))
		require.NoError(t, err)
		r.expect(slot, attendance.CardSeen, attendance.CardRead)
		slowest = max(slowest, time.Since(back))
		remove()
		r.expect(slot, attendance.CardGone)
		if i == kills/10 {
			before = usage(t)
		}
	}
	t.Logf("reading again after at most %v", slowest)
	assertFlat(t, before, usage(t))
	if *soak {
		assert.LessOrEqual(t, slowest, 5*time.Second)
	}
}

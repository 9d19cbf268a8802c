package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

var errUnplugged = errors.New("unplugged")

func TestReopenWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var waits []time.Duration
		cfg := ReopenConfig{First: time.Second, Max: 8 * time.Second, Lost: func(err error, wait time.Duration) {
			assert.ErrorIs(t, err, errUnplugged)
			if waits = append(waits, wait); len(waits) == 6 {
				cancel()
			}
		}}
		err := Reopen(ctx, cfg, func(context.Context) error { return errUnplugged })
		assert.NoError(t, err)
		for i, most := range []time.Duration{1, 2, 4, 8, 8, 8} {
			assert.LessOrEqual(t, waits[i], most*time.Second, "wait %d", i+1)
			assert.GreaterOrEqual(t, waits[i], most*time.Second/2, "wait %d", i+1)
		}
	})
}

func TestReopenStartsAnewAfterWorkingWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		uses, waits := 0, []time.Duration{}
		cfg := ReopenConfig{First: time.Second, Max: time.Hour, Well: time.Minute, Lost: func(_ error, wait time.Duration) {
			waits = append(waits, wait)
		}}
		_ = Reopen(ctx, cfg, func(context.Context) error {
			uses++
			switch uses {
			case 10:
				time.Sleep(time.Minute) // virtual
			case 11:
				cancel()
			}
			return errUnplugged
		})
		assert.Greater(t, waits[8], 2*time.Minute)
		assert.LessOrEqual(t, waits[9], time.Second)
	})
}

func TestReopenGivesUpOnWhatNeverHeals(t *testing.T) {
	for name, cause := range map[string]error{
		"said so":       fmt.Errorf("reader of another make: %w", ErrPermanent),
		"no permission": &fs.PathError{Op: "open", Path: "/dev/video0", Err: fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			lost := 0
			cfg := ReopenConfig{Lost: func(err error, wait time.Duration) {
				lost++
				assert.Zero(t, wait)
			}}
			err := Reopen(t.Context(), cfg, func(context.Context) error { return cause })
			assert.ErrorIs(t, err, cause)
			assert.Equal(t, 1, lost)
		})
	}
}

func TestReopenEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err := Reopen(ctx, ReopenConfig{}, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		assert.NoError(t, err, "in use when it ended")
		assert.Equal(t, time.Hour, time.Since(began))

		ctx, cancel = context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		assert.NoError(t, Reopen(ctx, ReopenConfig{}, func(context.Context) error { return nil }), "waiting when it ended")
	})
}

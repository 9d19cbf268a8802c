package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"
)

// ErrPermanent marks what waiting cannot heal; wrap it to make [Reopen] stop.
var ErrPermanent = errors.New("does not heal by itself")

// ReopenConfig says how a lost device is awaited. Zero fields take their
// defaults.
type ReopenConfig struct {
	First time.Duration // wait after the first loss; 500 ms. Shorter finds a device sooner and keeps the machine busier
	Max   time.Duration // longest wait; 30 s. A device that was away for long is found within this
	Well  time.Duration // use of at least this long counts as working and starts the waits anew; 10 s

	// Lost, if not nil, is told of each loss and of the wait that follows;
	// wait is 0 if it is the last. The one who opens says that it works.
	Lost func(err error, wait time.Duration)
}

func (c ReopenConfig) withDefaults() ReopenConfig {
	if c.First <= 0 {
		c.First = 500 * time.Millisecond
	}
	if c.Max <= 0 {
		c.Max = 30 * time.Second
	}
	if c.Well <= 0 {
		c.Well = 10 * time.Second
	}
	if c.Lost == nil {
		c.Lost = func(error, time.Duration) {}
	}
	return c
}

// errEnded stands in for a use that ended without saying why.
var errEnded = errors.New("ended without an error")

// Reopen keeps a device in use until ctx ends: it calls use, which opens the
// device, works with it, closes it and returns why it was lost; then it waits
// and calls use again. Waits double from First to Max, each shortened by a
// random part of up to a half, so that devices lost together do not return
// together.
//
// It returns nil when ctx ended, and at once the error of what never heals:
// [ErrPermanent] and missing permission.
func Reopen(ctx context.Context, cfg ReopenConfig, use func(ctx context.Context) error) error {
	cfg = cfg.withDefaults()
	wait := cfg.First
	for ctx.Err() == nil {
		began := time.Now()
		err := use(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errEnded
		}
		if errors.Is(err, ErrPermanent) || errors.Is(err, fs.ErrPermission) {
			cfg.Lost(err, 0)
			return fmt.Errorf("given up: %w", err)
		}
		if time.Since(began) >= cfg.Well {
			wait = cfg.First
		}
		pause := wait - rand.N(wait/2+1)
		cfg.Lost(err, pause)
		sleep(ctx, pause)
		wait = min(2*wait, cfg.Max)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

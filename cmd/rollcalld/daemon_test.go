package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPartsStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stopped []string
		named := func(name string) part {
			return part{name, func(ctx context.Context) error {
				<-ctx.Done()
				mu.Lock()
				defer mu.Unlock()
				stopped = append(stopped, name)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- runParts(ctx, []part{named("readers"), named("terminal"), named("ledger")}) }()
		synctest.Wait()
		cancel()
		require.NoError(t, <-ended)
		assert.Equal(t, []string{"readers", "terminal", "ledger"}, stopped)
	})
}

func TestPartThatFailsEndsTheDaemon(t *testing.T) {
	broken := errors.New("disk")
	waits := part{"waits", func(ctx context.Context) error { <-ctx.Done(); return nil }}
	err := runParts(t.Context(), []part{waits, {"ledger", func(context.Context) error { return broken }}})
	require.ErrorIs(t, err, broken)
	assert.ErrorContains(t, err, "ledger: disk")

	err = runParts(t.Context(), []part{waits, {"panel", func(context.Context) error { return nil }}})
	assert.ErrorContains(t, err, "panel ended by itself")
}

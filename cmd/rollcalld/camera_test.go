package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// TestT6ASuspectCameraIsRecorded: once for each time that it begins.
func TestT6ASuspectCameraIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var records []attendance.Record
		var full error
		faults := newCameraFaults(slog.New(slog.DiscardHandler))
		faults.append = func(_ context.Context, r attendance.Record) (attendance.Stored, error) {
			records = append(records, r)
			return attendance.Stored{}, full
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- faults.run(ctx) }()
		synctest.Wait()
		assert.Empty(t, records)

		faults.suspect(noon)
		synctest.Wait()
		require.Len(t, records, 1)
		assert.Equal(t, attendance.TypeFault, records[0].Type)
		assert.JSONEq(t, `{"part":"camera","code":"camera_suspect","tapped":"2026-11-23T12:00:00.000Z"}`, string(records[0].Body))

		full = errors.New("disk full")
		faults.suspect(noon)
		synctest.Wait()
		faults.suspect(noon)
		synctest.Wait()
		assert.Len(t, records, 3, "a full disk ends nothing")
		cancel()
		require.NoError(t, <-ended)
		faults.suspect(noon)
		faults.suspect(noon) // nobody takes them any more: does not block
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/simulator"
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

// TestT6ASuspectCameraReachesTheCentre: the picture freezes while somebody is
// looked at, lives again, and freezes again. Each time is one alarm, also after
// a person closed the one before, and one line of the ledger; a check-in's worth
// of live picture is the control.
func TestT6ASuspectCameraReachesTheCentre(t *testing.T) {
	o := newOffice(t)
	dir := filepath.Dir(o.state)
	v := townIn(t, dir)
	v.serve()
	o.change(o.file, `"127.0.0.1:1"`, fmt.Sprintf("%q", v.cfg.Listen))
	o.change(filepath.Join(dir, "vision.toml"), "camera =", "suspect_seconds = 1\ncamera =")
	stop := o.start()
	alarms := func(all bool) (ids []int64) {
		found, err := v.centre.Alarms(t.Context(), all, 0, 100)
		require.NoError(t, err)
		for _, a := range found {
			require.Equal(t, centre.AlarmKind("terminal_camera_suspect"), a.Kind)
			ids = append(ids, a.ID)
		}
		return ids
	}
	looked, look := make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(looked)
		_, _ = o.client.Enrol(ctx, control.EnrolRequest{Trainee: "T1", Consent: "K1"}, func(s control.EnrolStep) {
			switch s.Step {
			case "officer":
				o.module.Place(simulator.InventIDCard(officer))
			case "look":
				select {
				case look <- struct{}{}:
				default:
				}
			}
		})
	}()
	o.camera.Show(o.people[0], simulator.Variation{Size: 30}) // too far: a look without end
	<-look
	log := func() bool { return len(o.records(`"type":"fault"`, `"camera_suspect"`)) > 0 }
	assert.Empty(t, alarms(true))
	assert.False(t, log())

	o.camera.Freeze()
	require.Eventually(t, func() bool { return len(alarms(false)) == 1 && log() }, 30*time.Second, 20*time.Millisecond)
	first := alarms(false)[0]
	require.NoError(t, v.centre.CloseAlarm(t.Context(), first, "auditor", "switched off and on"))
	o.camera.Loop(0)
	require.Eventually(t, func() bool {
		status, err := o.client.Status(t.Context())
		camera, _ := status.Health.Part(device.PartCamera)
		return err == nil && camera.State == device.StateOK
	}, 30*time.Second, 20*time.Millisecond)
	assert.Empty(t, alarms(false))
	o.camera.Freeze()
	require.Eventually(t, func() bool { return len(alarms(false)) == 1 }, 30*time.Second, 20*time.Millisecond)
	assert.Len(t, alarms(true), 2, "one for each time that it froze")
	assert.NotEqual(t, first, alarms(false)[0])
	require.Eventually(t, func() bool { return len(o.records(`"type":"fault"`, `"camera_suspect"`)) == 2 }, 10*time.Second, 20*time.Millisecond)
	cancel()
	<-looked
	require.NoError(t, stop())
}

// change replaces what stands once in a file.
func (o *office) change(path, from, to string) {
	o.Helper()
	text, err := os.ReadFile(path)
	require.NoError(o, err)
	require.Equal(o, 1, strings.Count(string(text), from), path)
	require.NoError(o, os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600))
}

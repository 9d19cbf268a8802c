package vision_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/vision"
)

// TestT2BorrowedCardsLeaveAMismatch presents everybody's card with everybody
// else's face. It proves the path, not a rate: n is small.
func TestT2BorrowedCardsLeaveAMismatch(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	pairs := 0
	for a := range h.people {
		for b := range h.people {
			if a == b {
				continue
			}
			h.show(h.people[b].checkIn, 1)
			got := h.tap(name(a))
			require.Equal(t, attendance.Unconfirmed, got.Decision, "card %d, face %d", a, b)
			require.Equal(t, attendance.ReasonNotMatched, got.Reason)
			require.NotNil(t, got.Face)
			assert.Equal(t, attendance.FaceNone, got.Face.Level)
			assert.Less(t, got.Face.Score, got.Face.Threshold)
			assert.Equal(t, 3, got.Face.Tries)
			assert.NotZero(t, got.Face.Enrol)
			pairs++
		}
	}
	t.Logf("%d impostor pairs, none accepted", pairs)
	// The control: the owners pass, so the path can say yes.
	for a := range h.people {
		h.show(h.people[a].checkIn, 1)
		got := h.tap(name(a))
		require.Equal(t, attendance.OnTime, got.Decision, "card and face %d", a)
		assert.GreaterOrEqual(t, got.Face.Score, got.Face.Threshold)
	}
}

// TestT3PrintedPhotoIsAdviceOnly: what the liveness net says goes into the
// record and decides nothing, since nobody measured it; and it says something.
func TestT3PrintedPhotoIsAdviceOnly(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	for i, live := range []float64{0, 0.03, 1} {
		h.show(h.people[i].checkIn, live)
		got := h.tap(name(i))
		assert.Equal(t, attendance.OnTime, got.Decision)
		assert.Equal(t, attendance.FaceMatch, got.Face.Level)
		require.NotNil(t, got.Face.Liveness)
		assert.InDelta(t, live, *got.Face.Liveness, 1e-4)
	}
	var sum, squares float64
	for _, p := range h.people {
		sum, squares = sum+p.live, squares+p.live*p.live
	}
	n := float64(len(h.people))
	assert.Greater(t, math.Sqrt(max(0, squares/n-sum*sum/n/n)), 0.001, "a score that never varies tells nothing")
}

// TestT4ReplaySaysMatchOnly: a replay that the nets take for its subject comes
// to a match and never to more, as no challenge is asked and no check of what
// is alive was measured.
func TestT4ReplaySaysMatchOnly(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	for i := range h.people {
		h.show(h.people[i].checkIn, 1) // the liveness net is fooled too
		got := h.tap(name(i))
		require.Equal(t, attendance.OnTime, got.Decision)
		assert.Equal(t, attendance.FaceMatch, got.Face.Level)
	}
}

// TestT6SuspectCameraProvesNothing: the worker suspects the camera, the look
// ends unconfirmed at once, whoever is seen; when the camera is well again, so
// are check-ins.
func TestT6SuspectCameraProvesNothing(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.scene.Code = vision.CodeSuspect
	h.show(h.people[0].checkIn, 1)
	for range 2 {
		got := h.tap(name(0))
		assert.Equal(t, attendance.Unconfirmed, got.Decision)
		assert.Equal(t, attendance.ReasonSuspect, got.Reason)
		assert.Equal(t, []attendance.Signal{attendance.SignalCamera}, got.Signals)
		assert.Equal(t, attendance.FaceNone, got.Face.Level)
	}
	told := func(want ...bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		assert.Equal(t, want, h.suspects, "each change once")
	}
	told(true)
	h.scene.Code = vision.CodeBlack
	h.show(h.people[0].checkIn, 1)
	h.look = 5 * time.Second // one look a second that sees nothing, until the deadline
	h.tap(name(0))
	h.look = 800 * time.Millisecond
	told(true) // a cover on the lens makes nothing well
	h.scene.Code = ""
	h.show(h.people[0].checkIn, 1)
	assert.Equal(t, attendance.OnTime, h.tap(name(0)).Decision)
	told(true, false)
	h.scene.Code = vision.CodeSuspect
	h.show(h.people[0].checkIn, 1)
	h.tap(name(1))
	told(true, false, true)
}

// TestT7OneFaceWithTwoCardsIsFlagged lets everybody check in, and the first
// person again with a second card: flagged with the check-in that it resembles,
// recorded all the same, and nobody else is. The next session remembers nothing.
func TestT7OneFaceWithTwoCardsIsFlagged(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	first := map[attendance.TraineeID]uint64{}
	for i := range h.people {
		h.show(h.people[i].checkIn, 1)
		got := h.tap(name(i))
		require.Equal(t, attendance.OnTime, got.Decision)
		assert.Equal(t, []attendance.Signal{attendance.SignalFirstUse}, got.Signals, "person %d", i)
		assert.Nil(t, got.Face.Like)
		first[name(i)] = h.seq
	}
	h.show(h.people[0].checkIn, 1)
	got := h.tap(twin)
	assert.Equal(t, attendance.OnTime, got.Decision, "never blocked")
	assert.Equal(t, []attendance.Signal{attendance.SignalFirstUse, attendance.SignalSameFace}, got.Signals)
	require.NotNil(t, got.Face.Like)
	assert.Equal(t, first[name(0)], got.Face.Like.Checkin)
	assert.Greater(t, got.Face.Like.Score, 0.6)

	h.now = h.now.Add(5 * time.Hour) // of the morning's faces nothing is left
	got = h.tap(twin)
	require.Equal(t, attendance.OnTime, got.Decision)
	assert.Equal(t, attendance.SessionID("s-2"), got.Session)
	assert.Empty(t, got.Signals)
}

// TestAThresholdIsTheCalibrationsOfThisEmbedder, and of no other.
func TestAThresholdIsTheCalibrationsOfThisEmbedder(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		embedder   string
		calibrated bool
	}{
		"this embedder's":    {vision.DefaultManifest().Sums()[vision.RoleEmbed], true},
		"another embedder's": {vision.DefaultManifest().Sums()[vision.RoleDetect], false},
	} {
		t.Run(what, func(t *testing.T) {
			point := vision.OperatingPoint{
				Threshold: 0.97, People: 20, Genuine: 20, Impostor: 400, TargetFMR: 0.01,
				FMR: [2]float64{0, 0.0092}, FNMR: [2]float64{0, 0.17},
			}
			text, err := vision.Calibration{
				V: 1, Embedder: c.embedder, Data: "test", Tool: "test", Made: time.Unix(1, 0).UTC(), Verify: &point,
			}.Encode()
			require.NoError(t, err)
			path := filepath.Join(t.TempDir(), "calibration.json")
			require.NoError(t, os.WriteFile(path, text, 0o600))
			h := newHall(t, func(config *vision.Config) { config.Calibration = path })
			h.show(h.people[1].checkIn, 1) // far above the rules' threshold, below the calibrated one
			got := h.tap(name(1))
			if !c.calibrated {
				assert.Equal(t, attendance.OnTime, got.Decision)
				assert.True(t, got.Face.Uncalibrated)
				assert.Empty(t, got.Face.Calibration)
				assert.Equal(t, threshold, got.Face.Threshold)
				return
			}
			assert.Equal(t, attendance.ReasonNotMatched, got.Reason)
			assert.False(t, got.Face.Uncalibrated)
			assert.Len(t, got.Face.Calibration, 64)
			assert.Equal(t, 0.97, got.Face.Threshold)
		})
	}
}

// TestFramesAreLookedAtOnlyForAnEnrolledTrainee reads what the worker is told:
// the camera opens with every card, and looks at nobody whom the roster does
// not name or who never gave their face.
func TestFramesAreLookedAtOnlyForAnEnrolledTrainee(t *testing.T) {
	h := newHall(t, nil)
	h.show(h.people[0].checkIn, 1)
	h.tap(name(0))
	assert.Contains(t, h.orders(), "look", "the control: an enrolled trainee")
	for _, card := range []attendance.TraineeID{"stranger", unenrolled, name(0)} { // the last is here already
		h.tap(card)
		assert.NotContains(t, h.orders(), "look", "%s", card)
	}
}

// TestNothingIsLookedAtOutsideASession, nor opened, as wipe_test.go shows.
func TestNothingIsLookedAtOutsideASession(t *testing.T) {
	h := newHall(t, nil)
	h.now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) // between two sessions
	h.show(h.people[0].checkIn, 1)
	assert.Equal(t, attendance.NoSession, h.tap(name(0)).Decision)
	assert.NotContains(t, h.orders(), "look")
	enrolment, ok := h.book.Enrolment(name(0))
	require.True(t, ok)
	for range h.checker.Verify(t.Context(), name(0), enrolment) {
		assert.Fail(t, "a look outside a session")
	}
	assert.Contains(t, h.log.String(), "not in a session that is open")
	assert.NotContains(t, h.log.String(), string(name(0)))
}

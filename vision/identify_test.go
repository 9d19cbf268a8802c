package vision_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/vision"
)

// identified reads the check-in that a touch came to.
func (h *hall) identified() attendance.CheckinBody {
	h.t.Helper()
	r := h.touch()
	require.Equal(h.t, attendance.TypeCheckin, r.Type, "%s", r.Body)
	body, err := attendance.ReadBody[attendance.CheckinBody](r.Body)
	require.NoError(h.t, err)
	return body
}

// unidentified reads the record of a touch that nobody was named by.
func (h *hall) unidentified() attendance.UnknownBody {
	h.t.Helper()
	r := h.touch()
	require.Equal(h.t, attendance.TypeUnknown, r.Type, "%s", r.Body)
	for i := range h.people {
		require.NotContains(h.t, string(r.Body), name(i), "nobody is guessed")
	}
	body, err := attendance.ReadBody[attendance.UnknownBody](r.Body)
	require.NoError(h.t, err)
	return body
}

func (h *hall) withdraw(id attendance.TraineeID) {
	h.observe(attendance.NewRecord(attendance.TypeWithdraw, attendance.WithdrawBody{Trainee: id, Reason: attendance.WithdrawOperator}))
}

// TestAFaceAloneNamesItsOwner lets everybody check in without a card, by another
// picture than they were enrolled by.
func TestAFaceAloneNamesItsOwner(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.withdraw(twin)
	for i := range h.people {
		h.show(h.people[i].checkIn, 1)
		got := h.identified()
		require.Equal(t, name(i), got.Trainee, "person %d", i)
		assert.Equal(t, attendance.OnTime, got.Decision)
		assert.Zero(t, got.Card, "no card was there")
		f := got.Face
		assert.Equal(t, attendance.FaceIdentified, f.Mode)
		assert.Equal(t, attendance.FaceMatch, f.Level)
		assert.Equal(t, 0.45, f.Threshold)
		assert.GreaterOrEqual(t, f.Score, f.Threshold)
		assert.GreaterOrEqual(t, f.Margin, 0.05)
		assert.GreaterOrEqual(t, f.Frames, 3)
		assert.True(t, f.Uncalibrated)
		assert.Equal(t, []attendance.Signal{attendance.SignalFirstUse}, got.Signals, "a face that was accepted is compared with its own")
	}
	h.show(h.people[0].checkIn, 1)
	assert.Equal(t, attendance.Duplicate, h.identified().Decision)
	assert.Equal(t, attendance.Duplicate, h.tap(name(0)).Decision, "the card after the face")
}

// TestAFaceOfNoCandidateNamesNobody takes one template after the other out: its
// owner, alone before the camera, is like nobody of the rest. It proves the path,
// not a rate: n is small. The control is that the same face was named before.
func TestAFaceOfNoCandidateNamesNobody(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.withdraw(twin)
	for i := range h.people[1:] {
		h.show(h.people[i].checkIn, 1)
		require.Equal(t, name(i), h.identified().Trainee, "the control")
		h.withdraw(name(i))
		got := h.unidentified()
		assert.Equal(t, attendance.ReasonNotIdentified, got.Reason, "person %d", i)
		assert.Zero(t, got.Face.Enrol)
		assert.Equal(t, attendance.FaceNone, got.Face.Level)
	}
	h.withdraw(name(len(h.people) - 1))
	assert.Equal(t, attendance.ReasonNoEnrolment, h.unidentified().Reason)
}

// TestTwoAlikeNameNobody stands one person before two templates of theirs, under
// two names: both far over the threshold, neither clear of the other.
func TestTwoAlikeNameNobody(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	between := make(vision.Embedding, len(h.people[0].checkIn))
	for i := range between {
		between[i] = h.people[0].checkIn[i] + h.people[0].enrolled[i]
	}
	h.show(between.Unit(), 1)
	got := h.unidentified()
	assert.Equal(t, attendance.ReasonNotIdentified, got.Reason)
	assert.Greater(t, got.Face.Score, got.Face.Threshold)
	assert.Less(t, got.Face.Margin, got.Face.LeastMargin)
	h.withdraw(twin) // the control: with one of the two the same face is named
	assert.Equal(t, name(0), h.identified().Trainee)
}

func TestASuspectCameraIdentifiesNobody(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.scene.Code = vision.CodeSuspect
	h.show(h.people[1].checkIn, 1)
	got := h.unidentified()
	assert.Equal(t, attendance.ReasonSuspect, got.Reason)
	assert.Equal(t, []attendance.Signal{attendance.SignalCamera}, got.Signals)
	h.scene.Code = ""
	h.show(h.people[1].checkIn, 1)
	assert.Equal(t, name(1), h.identified().Trainee)
}

// TestTheCalibrationsIdentifyEntryCounts: threshold and margin of a calibration
// of this embedder, and not those for a card's holder.
func TestTheCalibrationsIdentifyEntryCounts(t *testing.T) {
	t.Parallel()
	for name, margin := range map[string]float64{"within reach": 0.07, "out of reach": 0.99} {
		t.Run(name, func(t *testing.T) {
			point := vision.OperatingPoint{Threshold: 0.47, Margin: margin, Gallery: 20, People: 20, Genuine: 100, Impostor: 100, TargetFMR: 0.05, FMR: [2]float64{0, 0.05}, FNMR: [2]float64{0, 0.05}}
			other := point
			other.Threshold = 0.6
			text, err := vision.Calibration{
				V: 1, Embedder: vision.DefaultManifest().Sums()[vision.RoleEmbed], Data: "d", Made: time.Now(), Tool: "test", Identify: &point, Verify: &other,
			}.Encode()
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "calibration.json")
			require.NoError(t, os.WriteFile(file, text, 0o600))
			h := newHall(t, func(c *vision.Config) { c.Calibration = file })
			h.show(h.people[1].checkIn, 1)
			var face *attendance.FaceEvidence
			if margin < 0.5 {
				face = h.identified().Face
			} else {
				face = h.unidentified().Face
			}
			assert.Equal(t, 0.47, face.Threshold)
			assert.Equal(t, margin, face.LeastMargin)
			assert.NotEmpty(t, face.Calibration)
			assert.False(t, face.Uncalibrated)
		})
	}
}

package vision

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"rollcall/attendance"
)

// sitter is somebody who sits for an enrolment: one frame every 100 ms.
type sitter struct {
	series series
	now    time.Time
	said   []attendance.Advice
	turned float64 // yaw in degrees
	angle  float64 // of the vector: who it is
	shut   bool    // eyes
	dark   bool
	width  float64
}

func newSitter() *sitter {
	s := &sitter{width: 150, now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	quality, err := Quality{}.complete()
	if err != nil {
		panic(err)
	}
	s.series = series{now: func() time.Time { return s.now }, gate: gate{quality: quality}}
	s.series.progress = func(c CaptureStep) { s.said = append(s.said, c.Advice) }
	return s
}

// sit gives so many frames.
func (s *sitter) sit(frames int) {
	for range frames {
		m := Measures{Luminance: 120, Sharpness: 1, Yaw: s.turned, EyesOpen: 1, Covered: 0}
		if s.shut {
			m.EyesOpen = 0
		}
		if s.dark {
			m.Luminance = 5
		}
		face := Embedding{float32(math.Cos(s.angle)), float32(math.Sin(s.angle))}
		s.series.frame(Answer{Width: 640, Faces: []Face{{Box: Box{W: s.width, H: s.width}, Score: 0.9, Embedding: face, Mirrored: Embedding{face[0], -face[1]}, Measures: &m}}}, "m")
		s.now = s.now.Add(100 * time.Millisecond)
		if s.series.complete() {
			return
		}
	}
}

// obey turns as the last advice says.
func (s *sitter) obey() {
	switch s.said[len(s.said)-1] {
	case attendance.AdviceLeft:
		s.turned += 20
	case attendance.AdviceRight:
		s.turned -= 40
	case attendance.AdviceTurnTo:
		s.turned += 20
	}
}

func (s *sitter) poses() (poses []attendance.Pose) {
	for _, t := range s.series.taken {
		poses = append(poses, t.pose)
	}
	return poses
}

var allPoses = []attendance.Pose{"front", "left", "right", "front", "front"}

func TestASittingTakesEveryPose(t *testing.T) {
	for name, began := range map[string]float64{"looks straight": 0, "seems to look aside": 15} {
		t.Run(name, func(t *testing.T) {
			s := newSitter()
			s.turned = began
			for range 8 {
				s.sit(6)
				if s.series.complete() {
					break
				}
				s.obey()
			}
			assert.Equal(t, allPoses, s.poses())
			c := s.series.capture()
			assert.InDelta(t, 1, c.Likeness, 1e-6)
			assert.InDelta(t, 0.9, c.Quality, 1e-6)
			assert.Equal(t, "m", c.Template.Model)
		})
	}
}

func TestWhoCannotTurnIsEnrolledFromTheFront(t *testing.T) {
	s := newSitter()
	s.sit(200)
	assert.Equal(t, []attendance.Pose{"front", "front", "front"}, s.poses())
	assert.Contains(t, s.said, attendance.AdviceLeft)
	assert.Contains(t, s.said, attendance.AdviceRight)
}

func TestAMeasureThatIsWrongAboutAFaceKeepsNobodyOut(t *testing.T) {
	s := newSitter()
	s.shut = true
	s.sit(10)
	assert.Empty(t, s.poses(), "it is asked first")
	assert.Equal(t, []attendance.Advice{attendance.AdviceEyes}, s.said)
	s.sit(200)
	assert.True(t, s.series.complete())

	s = newSitter()
	s.dark = true
	s.sit(50)
	assert.Empty(t, s.poses(), "light can mostly be mended, and is asked for longer")
	assert.Equal(t, []attendance.Advice{attendance.AdviceBrighter}, s.said)
	s.sit(200)
	assert.True(t, s.series.complete())

	s = newSitter()
	s.width = 50
	s.sit(400)
	assert.Empty(t, s.poses(), "anybody can come closer")
	assert.Equal(t, []attendance.Advice{attendance.AdviceCloser}, s.said)
}

func TestAnotherFaceBeginsTheSittingAnew(t *testing.T) {
	s := newSitter()
	s.sit(3)
	s.obey()
	s.sit(3)
	assert.Equal(t, []attendance.Pose{"front", "left"}, s.poses())
	s.turned, s.angle = 0, math.Pi/2
	s.sit(200)
	assert.Equal(t, []attendance.Pose{"front", "front", "front"}, s.poses())
	for _, taken := range s.series.taken {
		assert.InDelta(t, 1, taken.face[1], 1e-6, "the second person's frames alone")
	}
}

func TestFramesOfAPoseArePartedAndWiped(t *testing.T) {
	s := newSitter()
	s.series.restart("m", s.now)
	s.series.next = 3 // two from the front are left
	s.sit(4)
	assert.Len(t, s.poses(), 1, "100 ms apart they would be one picture")
	s.sit(4)
	assert.Len(t, s.poses(), 2)
	kept := s.series.taken
	s.series.wipe()
	for _, taken := range kept {
		assert.Equal(t, Embedding{0, 0}, taken.face)
		assert.Equal(t, Embedding{0, 0}, taken.mirrored)
	}
}

// TestATemplateIsTheMeanOfFramesAndMirrors: the mirrors of these frames cancel
// what is not symmetrical.
func TestATemplateIsTheMeanOfFramesAndMirrors(t *testing.T) {
	s := newSitter()
	s.angle = 0.5
	s.sit(200)
	c := s.series.capture()
	assert.InDelta(t, 1, c.Template.Embedding[0], 1e-6)
	assert.InDelta(t, 0, c.Template.Embedding[1], 1e-6)
	assert.InDelta(t, math.Cos(0.5), c.Likeness, 1e-4)
}

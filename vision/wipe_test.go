package vision

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
)

// disguise keeps the test's own copy of a canary from being found: its first
// half is in clear, by which it is looked for, its second is not.
const (
	disguise = 0x5A
	half     = 32
)

func disguised(b []byte) []byte {
	for i := range b {
		b[i] ^= disguise
	}
	return b
}

// largestMapping leaves out the race detector's own memory, which is thousands of
// gigabytes wide and holds no data of ours.
const largestMapping = 1 << 28

// inMemory looks for a canary in all of this process's writable
// memory, and says how often it stands there in clear.
func inMemory(t *testing.T, canary []byte) (found int) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	require.NoError(t, err)
	defer maps.Close()
	memory, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer memory.Close()
	chunk := make([]byte, 1<<20)
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil || !strings.HasPrefix(rights, "rw") {
			continue
		}
		if to-from > largestMapping {
			continue
		}
		for at := from; at < to; at += int64(len(chunk) - len(canary)) {
			n, err := memory.ReadAt(chunk[:min(int64(len(chunk)), to-at)], at)
			if err != nil && !errors.Is(err, io.EOF) && n == 0 {
				break // a page that cannot be read
			}
			for rest := chunk[:n]; ; {
				i := bytes.Index(rest, canary[:half])
				if i < 0 || len(rest) < i+2*half {
					break
				}
				rest = rest[i+half:]
				if bytes.Equal(disguised(bytes.Clone(rest[:half])), canary[half:]) {
					found++
				}
			}
		}
	}
	return found
}

// canaryTemplate gives a template that is like nothing else, sealed and on
// record, and a disguised part of its bytes. Nothing of it is left in clear.
func canaryTemplate(t *testing.T, g *Gallery, id attendance.TraineeID) (attendance.Enrolment, []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	face := randomFace(r, 512)
	whole := face.bytes()
	canary := bytes.Clone(whole[800 : 800+2*half])
	disguised(canary[half:])
	pending, err := g.Prepare(id, Template{"m", face})
	require.NoError(t, err)
	require.NoError(t, pending.Commit())
	clear(whole)
	clear(face)
	return attendance.Enrolment{Seq: 7, Model: "m", Salt: pending.Salt, Hash: pending.Hash}, canary
}

// TestNoTemplateIsLeftInMemory looks through the process's own memory: a
// template is there in clear while its owner is looked at, and at no other time.
func TestNoTemplateIsLeftInMemory(t *testing.T) {
	state, keyDir := t.TempDir(), t.TempDir()
	keys, err := device.OpenSubjectKeys(keyDir, filepath.Join(state, "subjects"))
	require.NoError(t, err)
	gallery, err := OpenGallery(filepath.Join(state, "templates"), keys)
	require.NoError(t, err)
	checker, err := New(Config{Worker: "w", WorkerConfig: "c", Now: time.Now, Log: slog.New(slog.DiscardHandler)}, gallery)
	require.NoError(t, err)
	enrolment, canary := canaryTemplate(t, gallery, "t1")
	require.Zero(t, inMemory(t, canary), "the test itself must leave nothing")

	// Outside a session nothing is opened, whoever asks.
	_, open := <-checker.Verify(t.Context(), "t1", enrolment)
	require.False(t, open)
	require.Zero(t, inMemory(t, canary), "outside a session")

	checker.Seat(map[attendance.TraineeID]attendance.Seat{"t1": {Session: "s-1", Enrolment: enrolment}})
	require.Zero(t, inMemory(t, canary), "a session alone opens nothing")
	looks := checker.Verify(t.Context(), "t1", enrolment)
	require.Positive(t, inMemory(t, canary), "the control: while its owner is looked at")

	checker.setModel("m")
	frame := Face{Box: Box{W: 150, H: 180}, Embedding: randomFace(rand.New(rand.NewPCG(1, 2)), 512)}
	checker.frame(Answer{Kind: KindFrame, ID: checker.ordered().ID, Faces: []Face{frame}})
	look := <-looks
	require.NotNil(t, look.Match)
	assert.Equal(t, make(Embedding, 512), frame.Embedding, "the frame's own vector")
	checker.Accept("t1")
	accepted := checker.sitting.accepted["t1"].face
	require.NotEqual(t, make(Embedding, 512), accepted)
	checker.Close()
	require.Zero(t, inMemory(t, canary), "after the look")

	// The accepted face stays for the session and is wiped with it.
	checker.Seat(map[attendance.TraineeID]attendance.Seat{"t1": {Session: "s-1", Enrolment: enrolment}, "t2": {Session: "s-1"}})
	require.NotEqual(t, make(Embedding, 512), accepted)
	checker.Seat(nil)
	assert.Equal(t, make(Embedding, 512), accepted)
	assert.Empty(t, checker.sitting.accepted)
	require.Zero(t, inMemory(t, canary), "after the session")
}

// TestNoCandidatesTemplateIsLeftInMemory is the same of an identification, which
// opens the templates of all candidates who are seated, and of nobody else.
func TestNoCandidatesTemplateIsLeftInMemory(t *testing.T) {
	state, keyDir := t.TempDir(), t.TempDir()
	keys, err := device.OpenSubjectKeys(keyDir, filepath.Join(state, "subjects"))
	require.NoError(t, err)
	gallery, err := OpenGallery(filepath.Join(state, "templates"), keys)
	require.NoError(t, err)
	checker, err := New(Config{Worker: "w", WorkerConfig: "c", Now: time.Now, Log: slog.New(slog.DiscardHandler)}, gallery)
	require.NoError(t, err)
	checker.setModel("m")
	candidates, seats := map[attendance.TraineeID]attendance.Enrolment{}, map[attendance.TraineeID]attendance.Seat{}
	canaries := map[attendance.TraineeID][]byte{}
	for _, id := range []attendance.TraineeID{"t1", "t2", "absent"} {
		candidates[id], canaries[id] = canaryTemplate(t, gallery, id)
		if id != "absent" {
			seats[id] = attendance.Seat{Session: "s-1", Enrolment: candidates[id]}
		}
	}
	none := func(when string) {
		t.Helper()
		for id, canary := range canaries {
			require.Zero(t, inMemory(t, canary), "%s: %s", when, id)
		}
	}
	_, open := <-checker.Identify(t.Context(), candidates)
	require.False(t, open, "nobody is seated")
	none("outside a session")

	checker.Seat(seats)
	looks := checker.Identify(t.Context(), candidates)
	checker.frame(Answer{Kind: KindFrame, ID: checker.ordered().ID})
	require.Nil(t, (<-looks).Match)
	none("before a face is seen")

	frame := Face{Box: Box{W: 150, H: 180}, Embedding: randomFace(rand.New(rand.NewPCG(1, 2)), 512)}
	checker.frame(Answer{Kind: KindFrame, ID: checker.ordered().ID, Faces: []Face{frame}})
	require.NotNil(t, (<-looks).Match)
	require.Positive(t, inMemory(t, canaries["t1"]), "the control: while somebody is looked for")
	require.Positive(t, inMemory(t, canaries["t2"]), "the control: while somebody is looked for")
	require.Zero(t, inMemory(t, canaries["absent"]), "of no open session")
	checker.Close()
	none("after the look")
}

// TestAcceptedFacesBelongToTheirSession: the next session of the same class,
// and a trainee who left the roster, leave no face behind.
func TestAcceptedFacesBelongToTheirSession(t *testing.T) {
	seat := func(session attendance.SessionID) attendance.Seat { return attendance.Seat{Session: session} }
	face := Embedding{0.6, 0.8}
	var s sitting
	s.accept("nobody", face, "m")
	assert.Empty(t, s.accepted, "not seated")
	s.seat(map[attendance.TraineeID]attendance.Seat{"a": seat("s-1"), "b": seat("s-1"), "c": seat("s-2")})
	s.accept("a", face, "m")
	for name, c := range map[string]struct {
		id    attendance.TraineeID
		model string
		found bool
	}{
		"another of the session": {"b", "m", true},
		"the same trainee":       {"a", "m", false},
		"another session":        {"c", "m", false},
		"another embedder":       {"b", "n", false},
	} {
		assert.Equal(t, c.found, s.like(c.id, face, c.model, 0.6) != nil, name)
	}
	assert.Nil(t, s.like("b", Embedding{-0.8, 0.6}, "m", 0.6), "another face")
	kept := s.accepted["a"].face
	s.accept("b", face, "n")
	assert.Equal(t, Embedding{0, 0}, kept, "faces of the former embedder")
	kept = s.accepted["b"].face
	s.seat(map[attendance.TraineeID]attendance.Seat{"a": seat("s-1"), "b": seat("s-3")})
	assert.Equal(t, Embedding{0, 0}, kept, "the next session")
	assert.Equal(t, Embedding{0.6, 0.8}, face, "the caller's own")
}

package vision

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
)

// TestASchoolIsStoredAndASessionSearched keeps 20,000 templates and searches the
// 2,000 who are seated: each of them is found, and nobody else is named, though
// their templates stand in the same directory. The vectors are random: it proves
// the path and its size, no accuracy.
func TestASchoolIsStoredAndASessionSearched(t *testing.T) {
	t.Parallel()
	const stored, seated, shown = 20_000, 2000, 20
	state, keyDir := t.TempDir(), t.TempDir()
	list, templates := filepath.Join(state, "subjects"), filepath.Join(state, "templates")
	keys, err := device.OpenSubjectKeys(keyDir, list)
	require.NoError(t, err)
	gallery, err := OpenGallery(templates, keys)
	require.NoError(t, err)
	face := func(i int) Embedding { return randomFace(rand.New(rand.NewPCG(uint64(i), 11)), 512) }
	name := func(i int) attendance.TraineeID { return attendance.TraineeID(fmt.Sprint("t", i)) }
	ids, err := keys.New(stored) // one by one would sync as many times
	require.NoError(t, err)
	enrolments := map[attendance.TraineeID]attendance.Enrolment{}
	for i, key := range ids {
		sealed, err := gallery.seal(kindSealed, key, face(i).bytes(), binding(kindSealed, name(i), "m"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(gallery.path(name(i)), sealed, 0o600))
		salt := sha256.Sum256([]byte(name(i)))
		enrolments[name(i)] = attendance.Enrolment{
			Seq: uint64(i + 1), Model: "m", Salt: base64.RawURLEncoding.EncodeToString(salt[:]), Hash: saltedHash(salt[:], sealed),
		}
	}

	began := time.Now()
	keys, err = device.OpenSubjectKeys(keyDir, list) // a start
	require.NoError(t, err)
	gallery, err = OpenGallery(templates, keys)
	require.NoError(t, err)
	require.NoError(t, gallery.TakeUp(enrolments))
	t.Logf("started with %d templates in %s", stored, time.Since(began))

	checker, err := New(Config{Worker: "w", WorkerConfig: "c", Now: time.Now, Log: slog.New(slog.DiscardHandler)}, gallery)
	require.NoError(t, err)
	checker.setModel("m")
	seats, candidates := map[attendance.TraineeID]attendance.Seat{}, map[attendance.TraineeID]attendance.Enrolment{}
	for i := range seated {
		seats[name(i)] = attendance.Seat{Session: "s-1", Enrolment: enrolments[name(i)]}
		candidates[name(i)] = enrolments[name(i)]
	}
	checker.Seat(seats)
	looks := checker.Identify(t.Context(), candidates)
	look := func(i int) attendance.Match {
		seen := face(i)
		for d, x := range randomFace(rand.New(rand.NewPCG(uint64(i), 12)), 512) {
			seen[d] += x / 2
		}
		checker.frame(Answer{Kind: KindFrame, ID: checker.ordered().ID, Faces: []Face{{Box: Box{W: 150, H: 180}, Embedding: seen}}})
		return *(<-looks).Match
	}
	began = time.Now()
	look(0)
	t.Logf("first look, which opens %d templates, in %s", seated, time.Since(began))
	began = time.Now()
	for i := range shown {
		of := i * (seated / shown)
		m := look(of)
		assert.Equal(t, name(of), m.Trainee)
		assert.Greater(t, m.Score, 0.8)
		assert.Greater(t, m.Margin, 0.5)
	}
	t.Logf("%d looks in %s", shown, time.Since(began))
	for i := range shown {
		assert.Less(t, look(seated+i*(stored-seated)/shown).Score, 0.45, "stored, and not seated")
	}
	checker.Close()
}

package attendance

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A session is opened and closed once, by the timetable of its class, over
// restarts; one that the terminal slept through is neither.
func TestSessionsAreOpenedAndClosedOnce(t *testing.T) {
	begin := time.Date(2026, 11, 23, 9, 0, 0, 0, time.FixedZone("", 8*3600))
	p := &Package{Serial: 4, Class: ClassInfo{ID: "c-1"}, Profile: Profile{EarlyWindowMin: 30}, Sessions: []Session{
		{ID: "s-1", Start: begin, End: begin.Add(2 * time.Hour)},
		{ID: "s-2", Start: begin.Add(4 * time.Hour), End: begin.Add(6 * time.Hour)},
	}}
	roster := NewRoster(nil).With(p, nil)
	book, seq := NewBook(), uint64(0)
	var said []string
	look := func(at time.Time) {
		for _, r := range roster.Due(book, at) {
			seq++
			require.NoError(t, book.Observe(seq, r.Type, r.Body))
			said = append(said, at.Format("15:04 ")+string(r.Body))
		}
	}
	for at := begin.Add(-time.Hour); at.Before(begin.Add(3 * time.Hour)); at = at.Add(10 * time.Minute) {
		look(at)
		if at.Equal(begin) {
			_ = book.Observe(99, TypeCheckin, NewRecord(TypeCheckin, CheckinBody{Trainee: "p-1", Session: "s-1", Decision: OnTime}).Body)
		}
		text, err := book.Memory() // the daemon is killed
		require.NoError(t, err)
		book, err = RecallBook(text)
		require.NoError(t, err)
	}
	look(begin.Add(24 * time.Hour)) // it was off through s-2
	const plan = `"start":"2026-11-23T09:00:00.000+08:00","end":"2026-11-23T11:00:00.000+08:00","serial":4`
	assert.Equal(t, []string{
		`08:30 {"class":"c-1","session":"s-1","event":"opened",` + plan + `}`,
		`11:00 {"class":"c-1","session":"s-1","event":"closed",` + plan + `,"present":1}`,
	}, said)
	assert.NotContains(t, strings.Join(said, ""), "s-2")
}

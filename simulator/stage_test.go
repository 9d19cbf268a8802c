package simulator

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

func TestBuiltInScenariosLoad(t *testing.T) {
	for _, name := range []string{"class", "control", "bench"} {
		s, err := BuiltIn(name)
		require.NoError(t, err, name)
		assert.NotEmpty(t, s.Steps, name)
	}
	class, err := BuiltIn("class")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(class.People), 12)
}

// TestClassBringsEveryCase: the demonstration is worth what its scenario asks.
func TestClassBringsEveryCase(t *testing.T) {
	class, err := BuiltIn("class")
	require.NoError(t, err)
	truths, cards, faults := map[Truth]bool{}, map[Wear]bool{}, map[Fault]bool{}
	for _, step := range class.Steps {
		truths[step.Truth], cards[step.Card], faults[step.Fault] = true, true, true
	}
	for _, want := range []Truth{
		{Record: "checkin", Decision: "on_time", Screen: "recorded"},
		{Record: "checkin", Decision: "late", Screen: "late"},
		{Record: "checkin", Decision: "duplicate", Screen: "already"},
		{Record: "unknown", Screen: "unknown"},
		{Record: "checkin", Decision: "unconfirmed", Reason: "not_matched", Screen: "noted"},
		{Record: "checkin", Decision: "unconfirmed", Reason: "no_face", Screen: "noted"},
		{Record: "fault", Screen: "card_fault"},
	} {
		assert.True(t, truths[want], "%+v", want)
	}
	for _, want := range []Wear{CardPulled, CardUnreadable, CardIdentOnly} {
		assert.True(t, cards[want], want)
	}
	for _, want := range []Fault{FaultLinkCut, FaultLinkMended, FaultCentreKilled, FaultWorkerKilled, FaultDaemonKilled} {
		assert.True(t, faults[want], want)
	}
}

func TestWrongScenariosAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "nmae = \"x\"", "unknown key nmae"},
		{"no such class", "[[person]]\nid = \"T1\"\nclass = \"c-9\"", `no class "c-9"`},
		{"no such person", "[[step]]\nwho = \"T9\"", `no person "T9"`},
		{"tap without truth", "[[person]]\nid = \"T1\"\n[[step]]\nwho = \"T1\"", "needs its truth"},
		{"bad duration", "[[class]]\nid = \"c\"\nbegan = \"soon\"", "soon"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := LoadScenario(fstest.MapFS{"s.toml": {Data: []byte(tc.text)}}, "s.toml")
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestLinkCutsAndMends(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		for {
			conn, err := far.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	defer far.Close()
	link, err := NewLink(far.Addr().String())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- link.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()

	echo := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", link.Addr())
		require.NoError(t, err)
		_, _ = conn.Write([]byte("x"))
		_, err = conn.Read(make([]byte, 1))
		return conn, err
	}
	conn, err := echo()
	require.NoError(t, err)
	defer conn.Close()

	link.Cut()
	_, err = conn.Read(make([]byte, 1))
	assert.Error(t, err, "the connection that stood is cut")
	refused, err := echo()
	assert.Error(t, err, "no new one comes through")
	refused.Close()

	link.Mend()
	mended, err := echo()
	assert.NoError(t, err)
	mended.Close()
}

func TestViewerSeesScreensAndLooksAgain(t *testing.T) {
	var visits atomic.Int32
	panel := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if visits.Add(1) == 1 {
			fmt.Fprint(w, "event: snapshot\ndata: {\"screen\":{\"state\":\"idle\"}}\n\nevent: screen\ndata: {\"state\":\"reading\"}\n\n")
			return // the terminal goes away
		}
		fmt.Fprint(w, "event: snapshot\ndata: {\"screen\":{\"state\":\"recorded\",\"code\":\"AB\"}}\n\nevent: ping\ndata: {}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer panel.Close()
	v := NewViewer(strings.TrimPrefix(panel.URL, "http://"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan error)
	go func() { ended <- v.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()
	_, err := v.Await(ctx, 0, func(s attendance.Screen) bool { return s.State == attendance.ScreenReading })
	require.NoError(t, err)
	sight, err := v.Await(ctx, 0, answered)
	require.NoError(t, err)
	assert.Equal(t, "AB", sight.Screen.Code)
}

// TestJudgeFindsWhatIsWrong: one tap, spoilt in every way a terminal or a
// centre could spoil it.
func TestJudgeFindsWhatIsWrong(t *testing.T) {
	scenario := &Scenario{
		Classes: []Class{{ID: "c", Began: duration{2 * time.Minute}, Lasts: duration{time.Hour}}},
		People:  []Trainee{{ID: "T1", Class: "c"}},
	}
	began := time.Now()
	tap := func() TapSeen {
		return TapSeen{
			Step:     Step{Who: "T1", Truth: Truth{Record: "checkin", Decision: "on_time", Screen: "recorded"}},
			Inserted: began,
			Answer:   Sight{At: began.Add(time.Second), Screen: attendance.Screen{State: "recorded", Code: "AB"}},
		}
	}
	kept := func(change func(*attendance.CheckinBody)) Kept {
		body := attendance.CheckinBody{Trainee: "T1", Session: "s-c-1", Decision: "on_time", Tapped: began.Format(attendance.TimeLayout)}
		change(&body)
		k := Kept{Seq: 1, Type: "checkin", Code: "AB", body: attendance.NewRecord("checkin", body).Body}
		require.NoError(t, k.fill())
		return k
	}
	sound := func(*attendance.CheckinBody) {}
	for _, tc := range []struct {
		name string
		tap  func(*TapSeen)
		kept []Kept
		want string
	}{
		{"as it should be", func(*TapSeen) {}, []Kept{kept(sound)}, ""},
		{"no record", func(*TapSeen) {}, nil, "its record is missing"},
		{"another decision", func(*TapSeen) {}, []Kept{kept(func(b *attendance.CheckinBody) { b.Decision = "late" })}, "the truth is"},
		{"another trainee", func(*TapSeen) {}, []Kept{kept(func(b *attendance.CheckinBody) { b.Trainee = "T2" })}, "the record says T2"},
		{"another session", func(*TapSeen) {}, []Kept{kept(func(b *attendance.CheckinBody) { b.Session = "s-x-1" })}, "the truth is"},
		{"green for nothing", func(s *TapSeen) { s.Answer.Screen.Code = "CD" }, []Kept{kept(sound)}, "the screen gave the code CD"},
		{"another screen", func(s *TapSeen) { s.Answer.Screen.State = "noted" }, []Kept{kept(sound)}, `the screen said "noted"`},
		{"back-dated", func(*TapSeen) {}, []Kept{kept(func(b *attendance.CheckinBody) {
			b.Tapped = began.Add(-time.Minute).Format(attendance.TimeLayout)
		})}, "the record says it was tapped at"},
		{"no answer", func(s *TapSeen) { s.Err = context.DeadlineExceeded }, []Kept{kept(sound)}, "deadline"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := tap()
			tc.tap(&seen)
			j := judge{left: tc.kept}
			row := j.row(&Round{Number: 1, Scenario: scenario, Began: began}, seen)
			if tc.want == "" {
				assert.Empty(t, row.Wrong)
				assert.Empty(t, j.left)
				return
			}
			assert.Contains(t, strings.Join(row.Wrong, "; "), tc.want)
		})
	}
}

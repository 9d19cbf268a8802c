package centre_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// classed is a centre with the sample class published to t-1.
func classed(t testing.TB, now time.Time) (*centre.Centre, *box) {
	t.Helper()
	c, b := clocked(t, now)
	plan, err := c.ParsePlan([]byte(planJSON(today, "")))
	require.NoError(t, err)
	plan.Trainees, err = centre.ParseRoster([]byte(roster))
	require.NoError(t, err)
	_, err = c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
	return c, b
}

func TestClassCodeIsWhatATerminalOpens(t *testing.T) {
	c, b := classed(t, today)
	text, err := c.Code(t.Context(), centre.CodeRequest{Terminal: "t-1", Class: "c-1", Session: "s-1", Trainee: "p-2"})
	require.NoError(t, err)
	key, err := chain.ParsePublicKey(b.admission.PackageKey)
	require.NoError(t, err)
	payload, err := chain.Open(key, chain.PurposeCode, []byte(text))
	require.NoError(t, err)
	code, err := attendance.ParseClassCode(payload)
	require.NoError(t, err)
	assert.Equal(t, "t-1", code.Terminal)
	assert.Equal(t, attendance.TraineeID("p-2"), code.Trainee)
	assert.Equal(t, attendance.SessionID("s-1"), code.Session)
	assert.True(t, code.ValidAt(today))
	assert.False(t, code.ValidAt(today.Add(7*time.Minute)))
	assert.NotContains(t, string(payload), "欧阳", "no name leaves")

	_, err = chain.Open(key, chain.PurposePackage, []byte(text))
	assert.ErrorIs(t, err, chain.ErrSignature, "a code never serves as a package")
	again, err := c.Code(t.Context(), centre.CodeRequest{Terminal: "t-1", Class: "c-1", Session: "s-1", Trainee: "p-2"})
	require.NoError(t, err)
	assert.NotEqual(t, text, again, "each code is one of a kind")
}

func TestCodeRefuses(t *testing.T) {
	t.Parallel()
	good := centre.CodeRequest{Terminal: "t-1", Class: "c-1", Session: "s-1", Trainee: "p-1"}
	for _, tt := range []struct {
		name   string
		now    time.Time
		change func(*centre.CodeRequest)
		says   string
	}{
		{"another terminal", today, func(r *centre.CodeRequest) { r.Terminal = "t-9" }, "was never sent this class"},
		{"a class not published", today, func(r *centre.CodeRequest) { r.Class = "c-9" }, "was never sent this class"},
		{"nobody of the class", today, func(r *centre.CodeRequest) { r.Trainee = "p-9" }, "not in class c-1"},
		{"no session of the class", today, func(r *centre.CodeRequest) { r.Session = "s-9" }, "not of class c-1"},
		{"a session of this afternoon", today, func(r *centre.CodeRequest) { r.Session = "s-2" }, "make it later"},
		{"a session that is over", today.Add(3 * time.Hour), func(*centre.CodeRequest) {}, "ended at"},
		{"valid for hours", today, func(r *centre.CodeRequest) { r.Life = time.Hour }, "at most 15m"},
		{"valid for less than nothing", today, func(r *centre.CodeRequest) { r.Life = -time.Minute }, "more than nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := classed(t, tt.now)
			r := good
			tt.change(&r)
			_, err := c.Code(t.Context(), r)
			require.ErrorIs(t, err, centre.ErrCode)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

func TestCodeThatNoScannerWouldReadIsRefused(t *testing.T) {
	c, _ := clocked(t, today)
	long := strings.Repeat("x", 64)
	plan, err := c.ParsePlan([]byte(strings.NewReplacer("c-1", long, "s-1", long).Replace(planJSON(today, ""))))
	require.NoError(t, err)
	plan.Trainees, err = centre.ParseRoster([]byte(strings.ReplaceAll(roster, "p-1", long)))
	require.NoError(t, err)
	_, err = c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
	_, err = c.Code(t.Context(), centre.CodeRequest{
		Terminal: "t-1", Class: attendance.ClassID(long), Session: attendance.SessionID(long), Trainee: attendance.TraineeID(long),
	})
	require.ErrorIs(t, err, centre.ErrCode)
	assert.ErrorContains(t, err, "too long")
}

// FuzzCode asks for codes for anybody and any time: what is given a terminal
// opens, and finds good for a while.
func FuzzCode(f *testing.F) {
	c, b := classed(f, today)
	key, err := chain.ParsePublicKey(b.admission.PackageKey)
	require.NoError(f, err)
	f.Add("t-1", "c-1", "s-1", "p-1", int64(0))
	f.Add("t-1", "c-1", "s-1", "p-2", int64(time.Hour))
	f.Add("t-1", "c-1", "s-1", "p-2", int64(-1))
	f.Add("t-9", "c-\xff", "", strings.Repeat("p", 1000), int64(1)<<62)
	f.Fuzz(func(t *testing.T, terminal, class, session, trainee string, life int64) {
		text, err := c.Code(t.Context(), centre.CodeRequest{
			Terminal: chain.TerminalID(terminal), Class: attendance.ClassID(class), Session: attendance.SessionID(session),
			Trainee: attendance.TraineeID(trainee), Life: time.Duration(life),
		})
		if err != nil {
			require.ErrorIs(t, err, centre.ErrCode)
			return
		}
		require.LessOrEqual(t, len(text), attendance.MaxCodeText)
		payload, err := chain.Open(key, chain.PurposeCode, []byte(text))
		require.NoError(t, err)
		code, err := attendance.ParseClassCode(payload)
		require.NoError(t, err)
		require.Equal(t, terminal, code.Terminal)
		require.True(t, code.ValidAt(today))
	})
}

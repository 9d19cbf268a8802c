package main

import (
	"bytes"
	"encoding/csv"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

func (b books) lines() []string {
	return strings.Split(strings.TrimSpace(string(b.text)), "\n")
}

// cut is the export cut after record 1 and signed there, as the holder of the
// key can.
func (b books) cut(t *testing.T) []string {
	keys, err := device.OpenKeys(filepath.Join(b.state, "keys"))
	require.NoError(t, err)
	lines := b.lines()[:2]
	e, err := chain.ParseLine([]byte(lines[1]))
	require.NoError(t, err)
	head, err := chain.Sign(keys.Ledger(), chain.PurposeHead, chain.Head{Log: e.Log, Seq: 1, Hash: chain.HashLine([]byte(lines[1])), Wall: e.At.Wall})
	require.NoError(t, err)
	return append(lines, head)
}

func written(t *testing.T, lines ...string) string {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return file
}

// A cut tail and a ledger put back from an older copy verify by themselves; what
// the auditor kept from before shows them.
func TestExpectFindsACutTail(t *testing.T) {
	b := newBooks(t)
	all := b.lines()
	heads := slices.DeleteFunc(slices.Clone(all), func(l string) bool { return strings.HasPrefix(l, "{") })
	require.Len(t, heads, 2, "a head for all and a receipt for four")
	receipt := heads[1]
	short := written(t, b.cut(t)...)

	for _, tc := range []struct {
		name   string
		file   string
		expect string
		want   string
		status int
	}{
		{"whole, receipt", written(t, all...), written(t, receipt), "", 0},
		{"whole, earlier export", written(t, all...), short, "", 0},
		{"cut, no expectation", short, "", "", 0},
		{"cut, later receipt", short, written(t, receipt), "record 2 of", 1},
		{"cut, later head", short, written(t, heads[0]), "record 2 of", 1},
		{"cut, earlier export", short, written(t, all...), "record 2 of", 1},
		{"expectation is not sound", written(t, all...), written(t, all[:3]...), "no sound export", 2},
		{"expectation is empty", written(t, all...), written(t), "is empty", 2},
		{"no such expectation", written(t, all...), filepath.Join(t.TempDir(), "none"), "no such file", 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := []string{"ledger", "verify", "-trust", b.trust}
			if tc.expect != "" {
				args = append(args, "-expect", tc.expect)
			}
			err := run(t.Context(), append(args, tc.file), &bytes.Buffer{})
			assert.Equal(t, tc.status, exitStatus(err), "%v", err)
			if tc.want != "" {
				assert.ErrorContains(t, err, tc.want)
			}
		})
	}
}

func TestVerifyTakesSeveralFiles(t *testing.T) {
	b := newBooks(t)
	file := written(t, b.lines()...)
	assert.Equal(t, 2, strings.Count(said(t, "ledger", "verify", "-trust", b.trust, file, b.state), "verified 1-6"))
	other := newBooks(t)
	assert.Contains(t, said(t, "ledger", "verify", b.state, other.state), "verified 1-6", "two ledgers that have nothing to do with one another")
}

func TestShow(t *testing.T) {
	b := newBooks(t)
	assert.Equal(t, 1+6, strings.Count(said(t, "ledger", "show", b.state), "\n"), "the log and its records")
	text := said(t, "ledger", "show", "-seq", "2", b.state)
	assert.Contains(t, text, "record 2 of t-1/")
	assert.Contains(t, text, `"code": "removed"`)
	err := run(t.Context(), []string{"ledger", "show", "-seq", "7", b.state}, &bytes.Buffer{})
	assert.ErrorContains(t, err, "no such record")
}

// A correction stands beside what it corrects, and is shown with it.
func TestT18ShowGivesBothVersions(t *testing.T) {
	b := newBooks(t)
	keys, err := device.OpenKeys(filepath.Join(b.state, "keys"))
	require.NoError(t, err)
	clock, err := device.SystemClock(time.UTC)
	require.NoError(t, err)
	l, err := queue.Open(queue.Config{Dir: b.state, Terminal: "t-1", Key: keys.Ledger(), ReceiptKey: keys.Ledger().Public(), Stamp: clock.Stamp, Software: "test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	stop := runLedger(t, l)
	checkin, err := l.Append(t.Context(), attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
		Trainee: "p-1", Class: "c-1", Session: "s-1", Decision: attendance.OnTime, Card: attendance.CardEvidence{Level: attendance.LevelFile}}))
	require.NoError(t, err)
	line, err := l.Line(l.Status().Log, chain.Seq(checkin.Seq))
	require.NoError(t, err)
	_, err = l.Append(t.Context(), attendance.NewRecord(attendance.TypeCorrection, attendance.CorrectionBody{Serial: 9, Correct: attendance.Correct{
		Log: string(l.Status().Log), Seq: checkin.Seq, Hash: chain.HashLine(line).String(), Decision: attendance.Void, Operator: "op-1", Reason: "tapped for another"}}))
	require.NoError(t, err)
	stop()

	list := said(t, "ledger", "show", b.state)
	assert.Regexp(t, `(?m)^ +7 .* checkin +p-1 c-1 s-1, on_time, card file`, list)
	assert.Regexp(t, `(?m)^ +8 .* correction +of record 7: void, by op-1: tapped for another`, list)
	one := said(t, "ledger", "show", "-seq", "7", b.state)
	assert.Contains(t, one, `"decision": "on_time"`)
	assert.Contains(t, one, "\ncorrected by record 8: void, by op-1: tapped for another\n")
	rows, err := csv.NewReader(strings.NewReader(said(t, "ledger", "export", "-csv", b.state))).ReadAll()
	require.NoError(t, err)
	assert.Equal(t, []string{"void", "t-1"}, []string{rows[8][4], strings.Split(rows[8][len(rows[8])-1], "/")[0]})
}

func TestACheckInByFaceAloneIsListedWithoutACard(t *testing.T) {
	for want, card := range map[string]string{"T1 c-1 s-1, on_time, face match, no card": "", "T1 c-1 s-1, on_time, face match, card file": `"card":{"kind":"id","level":"file","reader":"r"},`} {
		body := `{"trainee":"T1","class":"c-1","session":"s-1","decision":"on_time",` + card + `"face":{"level":"match","tries":1}}`
		assert.Equal(t, want, inShort(chain.Entry{Type: string(attendance.TypeCheckin), Body: []byte(body)}))
	}
}

func TestExportCSV(t *testing.T) {
	b := newBooks(t)
	rows, err := csv.NewReader(strings.NewReader(said(t, "ledger", "export", "-csv", b.state))).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 7)
	for i, word := range []string{"word", "sealed", "sealed", "sealed", "sealed", "own word", "own word"} {
		assert.Equal(t, word, rows[i][9], "row %d", i)
		assert.Equal(t, word == "sealed", i > 0 && rows[i][10] != "", "row %d says when the centre had it", i)
		assert.Equal(t, word == "sealed", i > 0 && rows[i][11] == "0", "row %d: the receipt came at once", i)
	}
	assert.Equal(t, "open", rows[1][3])

	lines := b.lines()
	lines[2] = strings.Replace(lines[2], "removed", "blocked", 1)
	var out bytes.Buffer
	err = run(t.Context(), []string{"ledger", "export", "-csv", "-trust", b.trust, written(t, lines...)}, &out)
	assert.Equal(t, 1, exitStatus(err), "%v", err)
	assert.Empty(t, out.String(), "no table of a ledger that is not sound")
}

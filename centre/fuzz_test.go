package centre_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// play reads what a fuzzer says a terminal does, and gives the batches, each with
// a good head. A line is a record (type, blank, body) or begins with a sign:
//
//	>      what came before is a batch, and the next goes on behind it
//	+      as >, but a record is left out
//	<      as >, but the next goes on one record before: another branch
//	=      as >, and is sent twice
//	!TEXT  this line stands in the ledger as it is
//	@N     the records that follow name a receipt for record N
func play(t testing.TB, b *box, story []byte) (batches [][]byte) {
	var lines [][]byte
	send := func() {
		if len(lines) == 0 {
			return
		}
		last := lines[len(lines)-1]
		jws, err := chain.Sign(b.ledger, chain.PurposeHead, chain.Head{Log: b.log, Seq: b.last, Hash: chain.HashLine(last), Wall: chain.NewWall(today)})
		require.NoError(t, err)
		batches = append(batches, chain.FormBatch(lines, []byte(jws)))
		lines = nil
	}
	for line := range bytes.Lines(story) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		switch line[0] {
		case '>':
			send()
		case '+':
			send()
			b.append(t, checkin("p-1"))
		case '<':
			send()
			b.last = max(b.last, 1) - 1
		case '=':
			if send(); len(batches) > 0 {
				batches = append(batches, batches[len(batches)-1])
			}
		case '@':
			seq, _ := strconv.ParseUint(string(line[1:]), 10, 64)
			b.ack = &chain.Ack{Seq: chain.Seq(seq)}
		case '!':
			lines = append(lines, line[1:])
			b.last, b.prev = b.last+1, chain.HashLine(line[1:])
		default:
			typ, body, _ := strings.Cut(string(line), " ")
			e := chain.Entry{V: chain.Version, Log: b.log, Seq: b.last + 1, Prev: b.prev, Type: typ, Body: []byte(body), Ack: b.ack,
				At: chain.Stamp{Wall: chain.NewWall(today), Boot: "b", UpMS: int64(b.last), Clock: chain.ClockSynced}}
			if text, err := e.Line(); err == nil {
				lines = append(lines, text)
				b.last, b.prev = e.Seq, chain.HashLine(text)
			}
		}
	}
	send()
	return batches
}

// FuzzIngest is a terminal that the centre knows, and that signs whatever it
// likes. Each batch is answered, by a receipt for bytes that are stored or in
// words; the store never fails by it; and what is stored verifies, or an alarm
// says what of it no verifier takes. On both databases.
func FuzzIngest(f *testing.F) {
	type site struct {
		c    *centre.Centre
		b    *box
		seen map[chain.LogID]bool
	}
	var sites []site
	for _, on := range []func(*centre.Config){func(*centre.Config) {}, onPostgres(f)} {
		c, _, _ := newCentre(f, on)
		sites = append(sites, site{c, admitted(f, c, "t-1"), map[chain.LogID]bool{}})
	}
	body := func(r attendance.Record) string { return string(r.Type) + " " + string(r.Body) + "\n" }
	open, tap := body(openRecord()), body(checkin("p-1"))
	for _, seed := range []string{
		open + tap + ">" + "\n" + tap, open + ">\n" + tap + "=\n" + tap, open + tap + "<\n" + tap + "<\n" + tap, open + "+\n" + tap,
		open + tap + ">\n+\n" + body(gapRecord("", 3, 3)) + ">\n" + tap,
		body(gapRecord("", 1, 1)) + "+\n" + body(gapRecord("", 2, 2)) + tap, body(gapRecord("t-1/zz", 1, 9)) + "+\n" + body(gapRecord("t-1/zz", 1, 9)),
		open + "checkin {}\ncheckin {\"trainee\":\"\\u0000\",\"class\":\"\\ud800\",\"decision\":\"x\"}\n",
		open + `admin {"serial":18446744073709551615,"kind":"erase","sha256":"` + "\\u0000" + `","result":"done","reason":"` + "\\u0000" + `"}` + "\n",
		open + `admin {"serial":1,"kind":"erase","sha256":"\u0000","result":"done"}` + "\n",
		open + `gap {"log":"t-1/\u0000","from":1,"to":18446744073709551615,"reason":""}` + "\n", open + "gap {\"from\":0,\"to\":0}\n",
		open + `fault {"part":"\u0000","code":"\u0000","tapped":""}` + "\n" + `correction {"log":"\u0000","seq":1,"decision":"void","operator":"a","reason":"b"}` + "\n",
		open + `enrol {"trainee":"\u0000"}` + "\n" + `package {"class":"\u0000"}` + "\n" + `note {"trainee":"\u0000"}` + "\n",
		open + `enrol {"trainee":"p-1","consent":"k","officer":"o","model":"m","salt":"AA==","hash":"AA=="}` + "\n" +
			`checkin {"trainee":"p-1","class":"c","session":"s","decision":"on_time","face":{"level":"match","enrol":2,"model":"m"}}` + "\n",
		open + "@1\n" + tap + "=\n" + tap, open + tap + ">\n@7\n" + tap, open + "@18446744073709551615\n" + tap,
		open + "key {\"old\":\"\",\"new\":\"\",\"handover\":\"x\"}\n", "!{}\n", "!\n", open + "!{\"v\":1}\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, story []byte) {
		sum := sha256.Sum256(story)
		for _, s := range sites {
			s.b.newEpoch(hex.EncodeToString(sum[:6]))
			s.b.ack = nil
			for _, batch := range append(play(t, s.b, story), story) {
				answered(t, s.c, s.b, batch)
			}
			claims := closeAll(t, s.c, s.b.log)
			text, err := s.c.ExportLog(t.Context(), s.b.log)
			require.NoError(t, err)
			if len(text) == 0 {
				continue
			}
			trust, err := s.b.admission.Trust()
			require.NoError(t, err)
			cert, err := chain.ParseCertificate(s.b.admission.Ledger)
			require.NoError(t, err)
			if _, err = verifyExport(trust, append(append(chain.CertificateLine(cert), '\n'), text...)); err != nil && !s.seen[s.b.log] {
				require.True(t, claims, "%v", err)
			}
			s.seen[s.b.log] = true // the alarm of a story that is told again stays closed
		}
	})
}

// closeAll closes what is open, so that there is room for more, and reports
// whether anything was about what the records of a log claim.
func closeAll(t *testing.T, c *centre.Centre, log chain.LogID) (claims bool) {
	t.Helper()
	for _, a := range openAlarms(t, c) {
		claims = claims || a.Log == string(log) && (a.Kind == centre.AlarmBody || a.Kind == centre.AlarmReceipt)
		require.NoError(t, c.CloseAlarm(t.Context(), a.ID, "auditor", "fuzzed"))
	}
	return claims
}

// answered has the centre take in a batch, and looks at the answer.
func answered(t *testing.T, c *centre.Centre, b *box, batch []byte) {
	t.Helper()
	jws, err := c.Ingest(t.Context(), b.id, batch)
	if err != nil {
		require.ErrorIs(t, err, centre.ErrRefused)
		require.True(t, utf8.ValidString(err.Error()))
	}
	if err != nil && jws == nil {
		return // it has no receipt of anything
	}
	require.NotNil(t, jws, "neither refused nor answered")
	receipt := b.receipt(t, jws)
	if receipt.Seq == 0 {
		require.Zero(t, receipt.Hash)
		return
	}
	hash, err := c.StoredHash(t.Context(), receipt.Log, receipt.Seq)
	require.NoError(t, err)
	require.Equal(t, hash, receipt.Hash, "a receipt for what is not stored")
}

// FuzzAlert is a terminal that the centre knows and that alerts it of anything.
// It is taken in or refused in words, and never in a person's way who lists the
// alarms.
func FuzzAlert(f *testing.F) {
	type site struct {
		c *centre.Centre
		b *box
	}
	var sites []site
	for _, on := range []func(*centre.Config){func(*centre.Config) {}, onPostgres(f)} {
		c, _, _ := newCentre(f, on)
		sites = append(sites, site{c, admitted(f, c, "t-1")})
	}
	f.Add("gap", "", "e1", uint64(1), uint64(1), int64(0))
	f.Add("never_heard_of", "x", "e1", ^uint64(0), ^uint64(0), int64(1)<<62)
	f.Add("disk", "\x00", "\x00", uint64(1)<<63, uint64(0), int64(-1)<<62)
	f.Fuzz(func(t *testing.T, kind, code, epoch string, seq, count uint64, since int64) {
		for _, s := range sites {
			jws, err := chain.Sign(s.b.ledger, chain.PurposeAlert, chain.Alert{
				V: 1, Log: chain.LogID("t-1/" + epoch), Seq: chain.Seq(seq), Kind: chain.AlertKind(kind), Code: code, Count: count,
				Since: chain.NewWall(time.UnixMilli(since)), At: chain.NewWall(today),
			})
			if err != nil {
				return // no terminal can say that
			}
			if err := s.c.Alert(t.Context(), s.b.id, []byte(jws)); err != nil {
				require.ErrorIs(t, err, centre.ErrRefused)
			}
			closeAll(t, s.c, "")
		}
	})
}

// patientRecorder is an answer that may be waited for.
type patientRecorder struct{ *httptest.ResponseRecorder }

func (patientRecorder) SetWriteDeadline(time.Time) error { return nil }

// FuzzReadingParameters asks for anything: it is answered by what was asked for
// and no more, or refused in a sentence; the centre's database never fails.
func FuzzReadingParameters(f *testing.F) {
	type site struct {
		handler http.Handler
		token   string
	}
	var sites []site
	for _, on := range []func(*centre.Config){func(*centre.Config) {}, onPostgres(f)} {
		c, _, _ := newCentre(f, on, readable)
		for _, id := range []chain.TerminalID{"t-1", "t-2"} {
			b := admitted(f, c, id)
			for minute := range 3 {
				b.wall = today.Add(time.Duration(minute-1) * time.Minute)
				_, err := c.Ingest(f.Context(), id, b.batch(f, b.append(f, inClass("p-1", "c-1"), inClass("p-2", "c-2"))))
				require.NoError(f, err)
			}
		}
		token, err := c.AddReader(f.Context(), "fuzz")
		require.NoError(f, err)
		reading, err := c.Reading()
		require.NoError(f, err)
		sites = append(sites, site{reading.Handler(), token})
	}
	now := url.QueryEscape(today.Format(time.RFC3339))
	for _, seed := range []string{
		"/v1/records?terminal=t-1&limit=3", "/v1/records?class=c-1&trainee=p-1&after=2", "/v1/records?from=" + now, "/v1/records?to=" + now + "&after=4",
		"/v1/records?from=" + now + "&to=" + now, "/v1/records?from=0000-01-01T00:00:00Z", "/v1/records?to=9999-12-31T23:59:59Z&limit=1000", "/v1/records?class=%00&limit=0",
		"/v1/records?terminal=%ff&from=x", "/v1/records?class=%27%20OR%201=1%20--", "/v1/records?after=9223372036854775807&class=c-1", "/v1/records?after=99999999999999999999",
		"/v1/feed?after=3&limit=2", "/v1/feed?after=11&wait=1", "/v1/alarms?all=true", "/v1/logs?terminal=t-1&after=t-1%2Fe0", "/v1/logs/t-1/e1/bundle",
		"/v1/logs/%00/e1/bundle", "/v1/logs/t-1/%ff/bundle", "/v1/logs/..%2f/e1/bundle", "/v2", "/v1/records?limit=1;limit=2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		at, err := url.ParseRequestURI(target)
		if err != nil || at.Host != "" || at.Path == "*" { // net/http answers that one itself
			return
		}
		for _, s := range sites {
			ctx, cancel := t.Context(), func() {}
			if at.Query().Has("wait") {
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
			}
			req := (&http.Request{Method: "GET", URL: at, Host: "localhost", Header: http.Header{"Authorization": {"Bearer " + s.token}}, RequestURI: target}).WithContext(ctx)
			w := patientRecorder{httptest.NewRecorder()}
			s.handler.ServeHTTP(w, req)
			over := ctx.Err() != nil
			cancel()
			if over {
				continue // nothing came while it waited
			}
			switch w.Code {
			case http.StatusOK:
				asked(t, at, w.Body.Bytes())
			case http.StatusMovedPermanently, http.StatusTemporaryRedirect: // to the same path, cleaned
			case http.StatusBadRequest, http.StatusNotFound:
				var said struct{ Error string }
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &said), "%s", w.Body)
				require.NotEmpty(t, said.Error)
			default:
				require.Fail(t, "status", "%d: %s", w.Code, w.Body)
			}
		}
	})
}

// asked checks that an answer holds nothing that was not asked for.
func asked(t *testing.T, at *url.URL, body []byte) {
	t.Helper()
	if at.Path != "/v1/records" {
		return
	}
	var got recordsAnswer
	require.NoError(t, json.Unmarshal(body, &got), "%s", body)
	q := at.Query()
	for _, r := range got.Records {
		for of, value := range map[string]string{"terminal": r.Terminal, "class": r.Class, "trainee": r.Trainee} {
			if q.Get(of) != "" {
				require.Equal(t, q.Get(of), value)
			}
		}
		wall, err := time.Parse(time.RFC3339, r.At)
		require.NoError(t, err)
		if from, err := time.Parse(time.RFC3339, q.Get("from")); err == nil {
			assert.False(t, wall.Before(from.Truncate(time.Millisecond)))
		}
		if to, err := time.Parse(time.RFC3339, q.Get("to")); err == nil {
			assert.True(t, wall.Before(to))
		}
	}
}

// The control for FuzzIngest: what verifies is told from what does not.
func TestExportedLogThatWasChangedDoesNotVerify(t *testing.T) {
	c, _, _ := newCentre(t)
	b := admitted(t, c, "t-1")
	for _, batch := range play(t, b, fmt.Appendf(nil, "open %s\ncheckin %s\n", openRecord().Body, checkin("p-1").Body)) {
		answered(t, c, b, batch)
	}
	text, err := c.ExportLog(t.Context(), b.log)
	require.NoError(t, err)
	require.Equal(t, 4, bytes.Count(text, []byte("\n")), "two lines, head and receipt")
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	cert, err := chain.ParseCertificate(b.admission.Ledger)
	require.NoError(t, err)
	whole := append(append(chain.CertificateLine(cert), '\n'), text...)
	_, err = verifyExport(trust, whole)
	require.NoError(t, err)
	_, err = verifyExport(trust, bytes.Replace(whole, []byte(`"p-1"`), []byte(`"p-2"`), 1))
	require.Error(t, err)
}

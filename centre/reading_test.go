package centre_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

func readable(cfg *centre.Config) { cfg.Read = "127.0.0.1:0" }

// desk is a reader's side of the read API.
type desk struct {
	t        *testing.T
	reading  *centre.Reading
	client   *http.Client
	token    string
	patterns []string
}

// newDesk serves the read API of a centre until the test ends.
func newDesk(t *testing.T, c *centre.Centre, b *box) *desk {
	t.Helper()
	reading, err := c.Reading()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- reading.Run(ctx) }()
	token, err := c.AddReader(t.Context(), "statistics")
	require.NoError(t, err)
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(trust.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		assert.NoError(t, <-ended)
	})
	return &desk{t, reading, &http.Client{Transport: transport, Timeout: patience}, token, reading.Patterns()}
}

// do sends a request, changed as a test likes, and gives status and body.
func (d *desk) do(method, path string, change func(*http.Request)) (int, string) {
	d.t.Helper()
	req, err := http.NewRequest(method, "https://"+d.reading.Address()+path, nil)
	require.NoError(d.t, err)
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	if change != nil {
		change(req)
	}
	resp, err := d.client.Do(req)
	require.NoError(d.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return resp.StatusCode, string(body)
}

func (d *desk) get(path string, into any) {
	d.t.Helper()
	status, body := d.do("GET", path, nil)
	require.Equal(d.t, http.StatusOK, status, body)
	require.NoError(d.t, json.Unmarshal([]byte(body), into), body)
}

// paths gives a path for each pattern.
func (d *desk) paths() []string {
	var out []string
	for _, p := range d.patterns {
		_, path, _ := strings.Cut(p, " ")
		out = append(out, strings.NewReplacer("{terminal}", "t-1", "{epoch}", "e1").Replace(path))
	}
	return out
}

type recordsAnswer struct {
	Records []centre.Row `json:"records"`
	Next    int64        `json:"next"`
}

func inClass(trainee, class string) attendance.Record {
	return attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
		Trainee: attendance.TraineeID(trainee), Class: attendance.ClassID(class), Session: "s-1", Decision: attendance.OnTime,
	})
}

func TestReadingFindsRecords(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, log := newCentre(t, on, readable)
		one, two := admitted(t, c, "t-1"), admitted(t, c, "t-2")
		for _, b := range []*box{one, two} {
			_, err := c.Ingest(t.Context(), b.id, b.batch(t, b.append(t, openRecord(), inClass("p-1", "c-1"), inClass("p-2", "c-1"), inClass("p-1", "c-2"))))
			require.NoError(t, err)
		}
		d := newDesk(t, c, one)
		early, late := today.Add(-time.Minute).Format(time.RFC3339), today.Add(time.Minute).Format(time.RFC3339)
		for _, tt := range []struct {
			name, query string
			found       int
		}{
			{"of a terminal", "terminal=t-1", 4},
			{"of a class", "class=c-1", 4},
			{"of a trainee", "trainee=p-1", 4},
			{"of a trainee in a class at a terminal", "trainee=p-1&class=c-2&terminal=t-2", 1},
			{"since before", "class=c-1&from=" + url.QueryEscape(early), 4},
			{"since later", "class=c-1&from=" + url.QueryEscape(late), 0},
			{"until before", "class=c-1&to=" + url.QueryEscape(early), 0},
			{"from the minute itself", "class=c-1&from=" + url.QueryEscape(today.Format(time.RFC3339)), 4},
			{"until the minute itself", "class=c-1&to=" + url.QueryEscape(today.Format(time.RFC3339)), 0},
			{"since before, of all", "from=" + url.QueryEscape(early), 8},
			{"since later, of all", "from=" + url.QueryEscape(late), 0},
			{"until later, of all", "to=" + url.QueryEscape(late), 8},
			{"until the minute itself, of all", "to=" + url.QueryEscape(today.Format(time.RFC3339)), 0},
			{"of a class that is not there", "class=c-9", 0},
			{"with what a database would read as its own", "class=" + url.QueryEscape("' OR 1=1 --"), 0},
		} {
			t.Run(tt.name, func(t *testing.T) {
				var got recordsAnswer
				d.get("/v1/records?"+tt.query, &got)
				assert.Len(t, got.Records, tt.found)
				assert.NotNil(t, got.Records)
			})
		}
		t.Run("page by page", func(t *testing.T) {
			var ids []int64
			for after := int64(0); ; {
				var got recordsAnswer
				d.get(fmt.Sprintf("/v1/records?trainee=p-1&limit=3&after=%d", after), &got)
				for _, r := range got.Records {
					ids = append(ids, r.ID)
				}
				if after = got.Next; after == 0 {
					break
				}
			}
			assert.Len(t, ids, 4)
			assert.IsIncreasing(t, ids)
		})
		for _, query := range []string{"", "after=3", "from=" + url.QueryEscape(early) + "&after=99", "class=c-1&limit=0", "class=c-1&limit=1001", "class=c-1&after=-1", "class=c-1&from=yesterday", "class=%00", "class=" + strings.Repeat("c", 201)} {
			status, body := d.do("GET", "/v1/records?"+query, nil)
			assert.Equal(t, http.StatusBadRequest, status, query)
			assert.Contains(t, body, "error")
		}
		assert.Contains(t, log.String(), `msg=read reader=statistics route="GET /v1/records" by=class count=4`)
		assert.NotContains(t, log.String(), "p-1", "no person stands in the log")
	})
}

// Boxes that were offline send old times late, and many records have one time.
// What was stored when the first page was asked for comes once, in the order
// of time, whatever arrives between the pages.
func TestReadingByTimeAloneLosesNothingBetweenPages(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on, readable)
		one, two := admitted(t, c, "t-1"), admitted(t, c, "t-2")
		send := func(b *box, minute, n int) {
			b.wall = today.Add(time.Duration(minute) * time.Minute)
			ingest(t, c, b, b.batch(t, b.append(t, checkins(n)...)))
		}
		for _, minute := range []int{9, 5, 5, 7, 0, 5, 20} { // 20 is past the time that is asked for
			send(one, minute, 2)
			send(two, minute, 1)
		}
		var want []int64
		before, err := c.Find(t.Context(), centre.Query{Limit: 1000})
		require.NoError(t, err)
		slices.SortStableFunc(before, func(a, b centre.Row) int { return strings.Compare(a.At, b.At) })
		for _, r := range before[:18] {
			want = append(want, r.ID)
		}
		d := newDesk(t, c, one)
		span := "from=" + url.QueryEscape(today.Format(time.RFC3339)) + "&to=" + url.QueryEscape(today.Add(10*time.Minute).Format(time.RFC3339))
		for _, limit := range []int{1, 2, 5, 18, 1000} {
			var got []int64
			for after, pages := int64(0), 0; ; pages++ {
				var page recordsAnswer
				d.get(fmt.Sprintf("/v1/records?%s&limit=%d&after=%d", span, limit, after), &page)
				for _, r := range page.Records {
					if slices.Contains(want, r.ID) { // the rest arrived since
						got = append(got, r.ID)
					}
				}
				if pages < 5 {
					send(two, 5, 1)
				}
				if after = page.Next; after == 0 {
					break
				}
			}
			assert.Equal(t, want, got, "in pages of %d", limit)
		}
	})
}

// An index serves a time alone, on the first page and on those behind it; the
// control: without it the table is read from end to end.
func TestReadingByTimeAloneHasAnIndex(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		ingest(t, c, b, b.batch(t, b.append(t, checkins(3)...)))
		db := database(t, cfg)
		numbers, ready := "(WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) SELECT i FROM n) n", "ANALYZE records"
		_, err := db.Exec("INSERT INTO records (terminal, log, seq, hash, type, line, received, wall) SELECT 't-1', 't-1/e2', i, r.hash, r.type, r.line, 0, i FROM records r, " +
			numbers + " WHERE r.seq = 1")
		require.NoError(t, err)
		_, err = db.Exec(ready)
		require.NoError(t, err)
		plan := func(q centre.Query) string {
			q.Limit = 200
			text, args, err := c.FindStatement(t.Context(), q)
			require.NoError(t, err)
			explain := "EXPLAIN QUERY PLAN "
			if cfg.Database != "" {
				explain = "EXPLAIN "
			}
			rows, err := db.Query(explain+text, args...)
			require.NoError(t, err)
			defer rows.Close()
			return fmt.Sprint(values(t, rows))
		}
		queries := []centre.Query{
			{From: time.UnixMilli(500)}, {To: time.UnixMilli(500)}, {From: time.UnixMilli(300), To: time.UnixMilli(500)},
			{From: time.UnixMilli(300), After: 5000}, {From: time.UnixMilli(300), To: time.UnixMilli(5100), After: 5000},
		}
		for _, q := range queries {
			got := plan(q)
			assert.Contains(t, got, "records_of_time")
			assert.NotContains(t, got, "Sort")
			assert.NotContains(t, got, "TEMP B-TREE")
		}
		_, err = db.Exec("DROP INDEX records_of_time")
		require.NoError(t, err)
		for _, q := range queries {
			assert.NotContains(t, plan(q), "records_of_time")
		}
	})
}

func TestReadingFeedIsWholeAndInOrderOfArrival(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		lines := b.append(t, append([]attendance.Record{openRecord()}, checkins(6)...)...)
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, lines[:5]))
		require.NoError(t, err)
		d := newDesk(t, c, b)
		type fed struct {
			ID   int64
			Hash string
			Line string
		}
		read := func(after int64, wait int) (out []fed) {
			status, body := d.do("GET", fmt.Sprintf("/v1/feed?limit=2&after=%d&wait=%d", after, wait), nil)
			require.Equal(t, http.StatusOK, status, body)
			scan := bufio.NewScanner(strings.NewReader(body))
			for scan.Scan() {
				var f fed
				require.NoError(t, json.Unmarshal(scan.Bytes(), &f))
				out = append(out, f)
			}
			return out
		}
		var got []string
		cursor := int64(0)
		take := func(fresh []fed) {
			for _, f := range fresh {
				assert.Greater(t, f.ID, cursor)
				assert.Equal(t, chain.HashLine([]byte(f.Line)).String(), f.Hash)
				got, cursor = append(got, f.Line), f.ID
			}
		}
		for range 3 {
			take(read(cursor, 0))
		}
		assert.Equal(t, []string(nil), func() (out []string) {
			for _, f := range read(cursor, 0) {
				out = append(out, f.Line)
			}
			return out
		}(), "nothing is new")

		waited := make(chan []fed)
		go func() { waited <- read(cursor, 30) }()
		_, err = c.Ingest(t.Context(), "t-1", b.batch(t, lines[5:]))
		require.NoError(t, err)
		take(<-waited)
		var want []string
		for _, line := range lines {
			want = append(want, string(line))
		}
		assert.Equal(t, want, got)
		assert.Equal(t, got[:2], func() []string { again := read(0, 0); return []string{again[0].Line, again[1].Line} }(), "ids stay")
	})
}

func TestReadingBundleIsVerifiedWithoutTheCentre(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on, readable)
		b := admitted(t, c, "t-1")
		for range 3 {
			_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, checkins(2)...)))
			require.NoError(t, err)
		}
		d := newDesk(t, c, b)
		status, text := d.do("GET", "/v1/logs/t-1/e1/bundle", nil)
		require.Equal(t, http.StatusOK, status)
		trust, err := b.admission.Trust()
		require.NoError(t, err)
		epochs, err := verifyExport(trust, []byte(text))
		require.NoError(t, err)
		require.Len(t, epochs, 1)
		assert.Contains(t, epochs[0].String(), "verified 1-6; sealed to 6 at")

		dir := t.TempDir()
		admission, err := json.Marshal(b.admission)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "admission.json"), admission, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "bundle.ndjson"), []byte(text), 0o600))
		said, err := exec.Command("python3", "../docs/verify.py", "-trust", filepath.Join(dir, "admission.json"), filepath.Join(dir, "bundle.ndjson")).CombinedOutput()
		assert.NoError(t, err)
		assert.Contains(t, string(said), "1-6, signed to 6, sealed to 6", "the other verifier agrees")

		_, err = verifyExport(trust, bytes.Replace([]byte(text), []byte(`"p-1"`), []byte(`"p-2"`), 1))
		assert.Error(t, err, "the control: a changed bundle is found")

		var logs struct {
			Logs []struct{ Log, Receipt, Head, Hash string }
		}
		d.get("/v1/logs?terminal=t-1", &logs)
		require.Len(t, logs.Logs, 1)
		r, err := chain.OpenReceipt(trust.Receipt, []byte(logs.Logs[0].Receipt))
		require.NoError(t, err)
		assert.Equal(t, b.prev, r.Hash)
		assert.Equal(t, b.prev.String(), logs.Logs[0].Hash)

		for _, path := range []string{"/v1/logs/t-1/e9/bundle", "/v1/logs/t-9/e1/bundle", "/v1/nothing"} {
			status, body := d.do("GET", path, nil)
			assert.Equal(t, http.StatusNotFound, status, path)
			assert.Contains(t, body, "error")
		}
	})
}

// verifyExport is what rollcall ledger verify does with an export.
func verifyExport(trust chain.Trust, text []byte) ([]chain.Epoch, error) {
	v := chain.NewVerifier(&trust, nil)
	for line := range bytes.Lines(text) {
		if err := v.Line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, err
		}
	}
	return v.Report()
}

// Nothing can be changed over the network, by any method on any path.
func TestT18ReadingOffersNoUpdateOrDelete(t *testing.T) {
	c, cfg, _ := newCentre(t, readable)
	b := admitted(t, c, "t-1")
	_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord(), checkin("p-1"))))
	require.NoError(t, err)
	d := newDesk(t, c, b)
	for _, pattern := range d.patterns {
		assert.True(t, strings.HasPrefix(pattern, "GET /v1/"), "%s can do more than read", pattern)
	}
	before := contents(t, database(t, cfg), "records")
	for _, path := range d.paths() {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			status, _ := d.do(method, path, nil)
			assert.NotEqual(t, http.StatusOK, status, "%s %s", method, path)
		}
	}
	assert.Equal(t, before, contents(t, database(t, cfg), "records"))
}

// Every route is behind every door.
func TestReadingDoors(t *testing.T) {
	t.Parallel()
	c, _, log := newCentre(t, readable)
	b := admitted(t, c, "t-1")
	_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord())))
	require.NoError(t, err)
	d := newDesk(t, c, b)
	doors := []struct {
		name   string
		method string
		change func(*http.Request)
		status int
	}{
		{"no token", "GET", func(r *http.Request) { r.Header.Del("Authorization") }, http.StatusUnauthorized},
		{"another token", "GET", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+d.token+"x") }, http.StatusUnauthorized},
		{"the token as a password", "GET", func(r *http.Request) { r.SetBasicAuth("statistics", d.token) }, http.StatusUnauthorized},
		{"another host", "GET", func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
		{"another host with a port", "GET", func(r *http.Request) { r.Host = "evil.example:443" }, http.StatusMisdirectedRequest},
		{"from another site's page", "POST", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden},
		{"by a name it has", "GET", func(r *http.Request) { r.Host = "localhost"; r.URL.RawQuery = "class=c" }, http.StatusOK},
	}
	for _, path := range append(d.paths(), "/", "/v2") {
		for _, door := range doors {
			if door.status == http.StatusOK && !strings.HasPrefix(path, "/v1") {
				continue
			}
			status, _ := d.do(door.method, path, door.change)
			assert.Equal(t, door.status, status, "%s %s", door.name, path)
		}
	}
	assert.NotContains(t, log.String(), d.token)

	require.NoError(t, c.RemoveReader(t.Context(), "statistics"))
	status, _ := d.do("GET", "/v1/alarms", nil)
	assert.Equal(t, http.StatusUnauthorized, status, "a token that was taken back")
}

func TestReadersAreNamed(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		token, err := c.AddReader(t.Context(), "statistics")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(token), 43)
		_, err = c.AddReader(t.Context(), "statistics")
		assert.ErrorIs(t, err, centre.ErrReader)
		_, err = c.AddReader(t.Context(), "")
		assert.ErrorIs(t, err, centre.ErrReader)
		assert.NotContains(t, fmt.Sprint(contents(t, database(t, cfg), "readers")), token, "only its hash is kept")
		require.NoError(t, c.RemoveReader(t.Context(), "statistics"))
		assert.ErrorIs(t, c.RemoveReader(t.Context(), "statistics"), centre.ErrReader)
	})
}

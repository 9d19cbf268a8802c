package centre

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"rollcall/queue/chain"
)

// Query says which records a reader asks for. Empty fields ask for all.
type Query struct {
	Terminal, Class, Trainee string
	From, To                 time.Time // the terminal's wall time, From included and To not
	After                    int64     // the id of the last record of the page before; 0: from the beginning
	Limit                    int
}

// byTime reports whether nothing but a time is asked for.
func (q Query) byTime() bool {
	return q.Terminal == "" && q.Class == "" && q.Trainee == "" && !(q.From.IsZero() && q.To.IsZero())
}

// Find gives records in the order they arrived; if nothing but a time is asked
// for, in the order of their wall times, and of their arrival where these are
// the same. It returns an error that wraps [ErrQuery] if After is no record's.
func (c *Centre) Find(ctx context.Context, q Query) ([]Row, error) {
	text, args, err := c.findStatement(ctx, q)
	if err != nil {
		return nil, err
	}
	rows, err := c.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	defer rows.Close()
	out := []Row{}
	for rows.Next() {
		row, err := c.scanRow(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// findStatement is one that an index serves, page after page: by time a page
// begins where the one before ended, however many records the time has.
func (c *Centre) findStatement(ctx context.Context, q Query) (text string, args []any, err error) {
	var where []string
	add := func(condition string, value any) {
		args = append(args, value)
		where = append(where, condition+" $"+strconv.Itoa(len(args)))
	}
	order := "id"
	if q.byTime() {
		wall, id, err := c.startOfPage(ctx, q)
		if err != nil {
			return "", nil, err
		}
		args, where = []any{wall, id}, []string{"(wall, id) > ($1, $2)"}
		order = "wall, id"
	} else {
		add("id >", q.After)
		if !q.From.IsZero() {
			add("wall >=", millis(q.From))
		}
	}
	for _, f := range []struct{ column, value string }{{"terminal", q.Terminal}, {"class", q.Class}, {"trainee", q.Trainee}} {
		if f.value != "" {
			add(f.column+" =", f.value)
		}
	}
	if !q.To.IsZero() {
		add("wall <", millis(q.To))
	}
	args = append(args, q.Limit)
	return "SELECT " + rowColumns + " FROM records WHERE " + strings.Join(where, " AND ") + " ORDER BY " + order + " LIMIT $" + strconv.Itoa(len(args)), args, nil
}

// startOfPage gives the place by wall time and id behind which a page begins.
func (c *Centre) startOfPage(ctx context.Context, q Query) (wall, id int64, err error) {
	wall = math.MinInt64
	if !q.From.IsZero() {
		wall = millis(q.From)
	}
	if q.After == 0 {
		return wall, 0, nil
	}
	var last int64
	err = c.db.QueryRowContext(ctx, "SELECT wall FROM records WHERE id = $1", q.After).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, fmt.Errorf("%w: after must be the next of the page before", ErrQuery)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("reading records: %w", err)
	}
	if last < wall {
		return wall, 0, nil
	}
	return last, q.After, nil
}

func (r *Reading) records(w http.ResponseWriter, req *http.Request) (int, error) {
	p := parameters{values: req.URL.Query()}
	q := Query{
		Terminal: p.text("terminal"), Class: p.text("class"), Trainee: p.text("trainee"),
		From: p.time("from"), To: p.time("to"), After: p.number("after", 0), Limit: p.limit(),
	}
	if q.Terminal == "" && q.Class == "" && q.Trainee == "" && !q.byTime() {
		p.refuse("name a terminal, class or trainee, or a time with from or to; /v1/feed gives everything")
	}
	if p.err != nil {
		return 0, p.err
	}
	rows, err := r.centre.Find(req.Context(), q)
	if err != nil {
		return 0, err
	}
	answer := struct {
		Records []Row `json:"records"`
		Next    int64 `json:"next,omitempty"`
	}{Records: rows}
	if len(rows) == q.Limit {
		answer.Next = rows[len(rows)-1].ID
	}
	return len(rows), write(w, answer)
}

// fed is a record in the feed. Line is the line to the byte: its SHA-256 is
// Hash.
type fed struct {
	ID       int64     `json:"id"`
	Received time.Time `json:"received"`
	Hash     string    `json:"hash"`
	Line     string    `json:"line"`
}

// feed gives records of all terminals in the order they arrived, one to a line.
// If there are none it waits as long as it may.
func (r *Reading) feed(w http.ResponseWriter, req *http.Request) (int, error) {
	p := parameters{values: req.URL.Query()}
	q := Query{After: p.number("after", 0), Limit: p.limit()}
	wait := time.Duration(p.number("wait", 0)) * time.Second
	if wait > readWait {
		p.refuse("wait is at most %d, in seconds", int(readWait/time.Second))
	}
	if p.err != nil {
		return 0, p.err
	}
	rows, err := r.await(req.Context(), q, wait)
	if err != nil {
		return 0, err
	}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, row := range rows {
		if err := lines.Encode(fed{row.ID, row.Received, row.Hash, string(row.line)}); err != nil {
			return 0, err
		}
	}
	return len(rows), send(w, "application/x-ndjson", text.Bytes())
}

func (r *Reading) await(ctx context.Context, q Query, wait time.Duration) ([]Row, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	look := time.NewTicker(readLook)
	defer look.Stop()
	for {
		rows, err := r.centre.Find(ctx, q)
		if err != nil || len(rows) > 0 || wait == 0 {
			return rows, err
		}
		select {
		case <-look.C:
		case <-over.C:
			wait = 0
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Reading) alarms(w http.ResponseWriter, req *http.Request) (int, error) {
	p := parameters{values: req.URL.Query()}
	all, after, limit := p.text("all") == "true", p.number("after", 0), p.limit()
	if p.err != nil {
		return 0, p.err
	}
	found, err := r.centre.Alarms(req.Context(), all, after, limit)
	if err != nil {
		return 0, err
	}
	answer := struct {
		Alarms []Alarm `json:"alarms"`
		Next   int64   `json:"next,omitempty"`
	}{Alarms: found}
	if len(found) == limit {
		answer.Next = found[len(found)-1].ID
	}
	return len(found), write(w, answer)
}

// logState is where a log stands, with what proves it: the terminal's word and the
// centre's.
type logState struct {
	Terminal string    `json:"terminal"`
	Log      string    `json:"log"`
	Seq      uint64    `json:"seq"`
	Hash     string    `json:"hash"`
	Started  time.Time `json:"started"`
	Head     string    `json:"head"`
	Receipt  string    `json:"receipt"`
}

func (r *Reading) logs(w http.ResponseWriter, req *http.Request) (int, error) {
	p := parameters{values: req.URL.Query()}
	terminal, after, limit := p.text("terminal"), p.text("after"), p.limit()
	if p.err != nil {
		return 0, p.err
	}
	rows, err := r.centre.db.QueryContext(req.Context(), `SELECT w.terminal, w.log, w.seq, w.hash, w.started, g.head, g.receipt
		FROM watermarks w JOIN receipts g ON g.log = w.log AND g.seq = w.seq
		WHERE w.log > $1 AND ($2 = '' OR w.terminal = $2) ORDER BY w.log LIMIT $3`, after, terminal, limit)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	answer := struct {
		Logs []logState `json:"logs"`
		Next string     `json:"next,omitempty"`
	}{Logs: []logState{}}
	for rows.Next() {
		var l logState
		var hash, head, receipt []byte
		var started int64
		if err := rows.Scan(&l.Terminal, &l.Log, &l.Seq, &hash, &started, &head, &receipt); err != nil {
			return 0, err
		}
		l.Hash, l.Started, l.Head, l.Receipt = chain.Hash(hash).String(), r.centre.at(started), string(head), string(receipt)
		answer.Logs = append(answer.Logs, l)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if len(answer.Logs) == limit {
		answer.Next = answer.Logs[limit-1].Log
	}
	return len(answer.Logs), write(w, answer)
}

// bundle gives a whole log as an export (docs/record.md 5): certificate, handovers, lines,
// heads, receipts. Whoever has the centre's keys verifies it without the centre.
func (r *Reading) bundle(w http.ResponseWriter, req *http.Request) (int, error) {
	log := chain.NewLogID(chain.TerminalID(req.PathValue("terminal")), req.PathValue("epoch"))
	known, err := recallTerminal(req.Context(), r.centre.db, log.Terminal())
	if err != nil {
		return 0, fmt.Errorf("%w: %w", sql.ErrNoRows, err)
	}
	cert, err := chain.ParseCertificate(known.Ledger)
	if err != nil {
		return 0, err
	}
	keys, err := r.centre.ledgerKeys(req.Context(), r.centre.db, known)
	if err != nil {
		return 0, err
	}
	text := append(chain.CertificateLine(cert), '\n')
	for _, jws := range keys.ring.Handovers() {
		text = append(text, jws+"\n"...)
	}
	count := 0
	for after := chain.Seq(0); ; {
		page, last, n, err := r.centre.exportPage(req.Context(), log, after)
		if err != nil {
			return count, err
		}
		if n == 0 && count == 0 {
			return 0, sql.ErrNoRows
		}
		if err := send(w, "application/x-ndjson", append(text, page...)); err != nil || n == 0 {
			return count, err
		}
		text, after, count = nil, last, count+n
	}
}

// exportPage gives some lines of a log after a record, each head behind the
// line it covers and the receipt behind the head.
func (c *Centre) exportPage(ctx context.Context, log chain.LogID, after chain.Seq) (text []byte, last chain.Seq, n int, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT r.seq, r.line, g.head, g.receipt FROM records r LEFT JOIN receipts g ON g.log = r.log AND g.seq = r.seq
		WHERE r.log = $1 AND r.seq > $2 ORDER BY r.seq LIMIT $3`, string(log), int64(after), readPage)
	if err != nil {
		return nil, 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var line, head, receipt []byte
		if err := rows.Scan(&last, &line, &head, &receipt); err != nil {
			return nil, 0, 0, err
		}
		n++
		for _, piece := range [][]byte{line, head, receipt} {
			if piece != nil {
				text = append(append(text, piece...), '\n')
			}
		}
	}
	return text, last, n, rows.Err()
}

// parameters reads what is asked for; err is the first that cannot be read.
type parameters struct {
	values url.Values
	err    error
}

func (p *parameters) refuse(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", ErrQuery, fmt.Sprintf(format, args...))
	}
}

func (p *parameters) text(name string) string {
	text := p.values.Get(name)
	if len(text) > 200 || !storable(text) {
		p.refuse("%s is not a name", name)
	}
	return text
}

func (p *parameters) number(name string, usual int64) int64 {
	if !p.values.Has(name) {
		return usual
	}
	n, err := strconv.ParseInt(p.values.Get(name), 10, 64)
	if err != nil || n < 0 {
		p.refuse("%s must be a whole number, 0 or more", name)
	}
	return n
}

func (p *parameters) limit() int {
	n := p.number("limit", readPageHere)
	if n < 1 || n > readPage {
		p.refuse("limit must be 1 to %d", readPage)
	}
	return int(n)
}

func (p *parameters) time(name string) time.Time {
	if !p.values.Has(name) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, p.values.Get(name))
	if err != nil {
		p.refuse("%s must be a time such as 2026-11-21T08:00:00+08:00 (in an address, + is written %%2B)", name)
	}
	return t
}

func write(w http.ResponseWriter, answer any) error {
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return send(w, "application/json", append(text, '\n'))
}

// send gives one page its time to go out.
func send(w http.ResponseWriter, kind string, text []byte) error {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(readTime)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	_, err := w.Write(text)
	return err
}

package centre

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// Row is one stored record in a report. Fields that a record of its type does
// not have are empty.
type Row struct {
	ID       int64     `json:"id"` // order of arrival; stays the same for good
	Terminal string    `json:"terminal"`
	Log      string    `json:"log"`
	Seq      uint64    `json:"seq"`
	Type     string    `json:"type"`
	Trainee  string    `json:"trainee,omitempty"`
	Class    string    `json:"class,omitempty"`
	Session  string    `json:"session,omitempty"`
	Decision string    `json:"decision,omitempty"`
	Reason   string    `json:"reason,omitempty"` // with fault: its code
	At       string    `json:"at"`               // the terminal's wall time
	Hash     string    `json:"hash"`             // base64url, as in the next record's prev
	Code     string    `json:"code"`             // the short code the trainee saw
	Received time.Time `json:"received"`

	line []byte
}

// Records gives the stored records, in order of log and sequence number, each
// to visit: those of one terminal, or of all if it is empty; only what happened to
// people at the terminal, or all types if all is set. An error of visit ends it.
func (c *Centre) Records(ctx context.Context, of chain.TerminalID, all bool, visit func(Row) error) error {
	kinds := []string{string(attendance.TypeCheckin), string(attendance.TypeUnknown), string(attendance.TypeFault), string(attendance.TypePending)}
	rows, err := c.db.QueryContext(ctx, "SELECT "+rowColumns+" FROM records WHERE ($1 = '' OR terminal = $1) AND ($2 = 1 OR "+c.db.among("type", 3)+
		") ORDER BY terminal, log, seq", string(of), flag(all), c.db.list(kinds))
	if err != nil {
		return fmt.Errorf("reading records: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := c.scanRow(rows)
		if err != nil {
			return err
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

const rowColumns = `id, terminal, log, seq, hash, type, line, received,
	coalesce(trainee, ''), coalesce(class, ''), coalesce(session, ''), coalesce(decision, ''), coalesce(reason, '')`

// scanRow reads a row of rowColumns.
func (c *Centre) scanRow(rows *sql.Rows) (Row, error) {
	var r Row
	var hash []byte
	var received int64
	if err := rows.Scan(&r.ID, &r.Terminal, &r.Log, &r.Seq, &hash, &r.Type, &r.line, &received,
		&r.Trainee, &r.Class, &r.Session, &r.Decision, &r.Reason); err != nil {
		return r, fmt.Errorf("reading records: %w", err)
	}
	var stamp struct {
		At struct {
			Wall string `json:"wall"`
		} `json:"at"`
	}
	if err := json.Unmarshal(r.line, &stamp); err != nil {
		return r, fmt.Errorf("reading record %d of %s: %w", r.Seq, r.Log, err)
	}
	r.At, r.Hash, r.Code = stamp.At.Wall, chain.Hash(hash).String(), chain.Hash(hash).Short()
	r.Received = c.at(received)
	return r, nil
}

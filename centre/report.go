package centre

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// Row is one stored record in a report. Fields that a record of its type does
// not have are empty.
type Row struct {
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
}

// Records gives the stored records, in order of log and sequence number, each
// to visit: those of one terminal, or of all if it is empty; only what happened to
// people at the terminal, or all types if all is set. An error of visit ends it.
func (c *Centre) Records(ctx context.Context, of chain.TerminalID, all bool, visit func(Row) error) error {
	rows, err := c.db.QueryContext(ctx, `SELECT terminal, log, seq, hash, type, line, received,
			coalesce(trainee, ''), coalesce(class, ''), coalesce(session, ''), coalesce(decision, ''), coalesce(reason, '')
		FROM records WHERE (?1 = '' OR terminal = ?1) AND (?2 OR type IN (?3, ?4, ?5, ?6))
		ORDER BY terminal, log, seq`,
		string(of), all, string(attendance.TypeCheckin), string(attendance.TypeUnknown), string(attendance.TypeFault), string(attendance.TypePending))
	if err != nil {
		return fmt.Errorf("reading records: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r Row
		var hash, line []byte
		var received int64
		if err := rows.Scan(&r.Terminal, &r.Log, &r.Seq, &hash, &r.Type, &line, &received,
			&r.Trainee, &r.Class, &r.Session, &r.Decision, &r.Reason); err != nil {
			return fmt.Errorf("reading records: %w", err)
		}
		var stamp struct {
			At struct {
				Wall string `json:"wall"`
			} `json:"at"`
		}
		if err := json.Unmarshal(line, &stamp); err != nil {
			return fmt.Errorf("reading record %d of %s: %w", r.Seq, r.Log, err)
		}
		r.At, r.Hash, r.Code = stamp.At.Wall, chain.Hash(hash).String(), chain.Hash(hash).Short()
		r.Received = time.UnixMilli(received).In(c.zone)
		if err := visit(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

package centre

import (
	"context"
	"net/http"

	"rollcall/queue/chain"
)

// FindStatement gives the statement behind Find.
func (c *Centre) FindStatement(ctx context.Context, q Query) (text string, args []any, err error) {
	return c.findStatement(ctx, q)
}

// ExportLog gives what is stored of a log, as a bundle does.
func (c *Centre) ExportLog(ctx context.Context, log chain.LogID) (text []byte, err error) {
	text, _, _, err = c.exportPage(ctx, log, 0)
	return text, err
}

// StoredHash gives the hash of a stored record.
func (c *Centre) StoredHash(ctx context.Context, log chain.LogID, seq chain.Seq) (chain.Hash, error) {
	var hash []byte
	err := c.db.QueryRowContext(ctx, "SELECT hash FROM records WHERE log = $1 AND seq = $2", string(log), int64(seq)).Scan(&hash)
	if err != nil {
		return chain.Hash{}, err
	}
	return chain.Hash(hash), nil
}

// Handler gives the read API without its connection.
func (r *Reading) Handler() http.Handler { return r.handler() }

// Patterns gives what can be asked of the read API.
func (r *Reading) Patterns() []string {
	var out []string
	for _, route := range r.routes() {
		out = append(out, route.pattern)
	}
	return out
}

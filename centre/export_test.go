package centre

import "context"

// FindStatement gives the statement behind Find.
func (c *Centre) FindStatement(ctx context.Context, q Query) (text string, args []any, err error) {
	return c.findStatement(ctx, q)
}

// Patterns gives what can be asked of the read API.
func (r *Reading) Patterns() []string {
	var out []string
	for _, route := range r.routes() {
		out = append(out, route.pattern)
	}
	return out
}

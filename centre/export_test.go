package centre

// Patterns gives what can be asked of the read API.
func (r *Reading) Patterns() []string {
	var out []string
	for _, route := range r.routes() {
		out = append(out, route.pattern)
	}
	return out
}

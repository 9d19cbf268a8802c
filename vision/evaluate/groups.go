package evaluate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Groups says which group a picture belongs to.
type Groups struct{ rules []groupRule }

type groupRule struct{ prefix, group string }

const mostGroupRules = 100_000

var errGroups = errors.New("not a groups file")

// ReadGroups reads a CSV file with the header prefix,group: pictures whose path
// begins with the prefix belong to the group; the longest prefix decides.
func ReadGroups(r io.Reader) (Groups, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = 2
	if !hasHead(rows, "prefix", "group") {
		return Groups{}, fmt.Errorf("%w: its first line must be prefix,group", errGroups)
	}
	var g Groups
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Groups{}, fmt.Errorf("%w: %w", errGroups, err)
		}
		if row[1] == "" {
			line, _ := rows.FieldPos(0)
			return Groups{}, fmt.Errorf("%w: line %d: group must not be empty", errGroups, line)
		}
		if g.rules = append(g.rules, groupRule{row[0], row[1]}); len(g.rules) > mostGroupRules {
			return Groups{}, fmt.Errorf("%w: more than %d lines", errGroups, mostGroupRules)
		}
	}
	slices.SortStableFunc(g.rules, func(a, b groupRule) int { return len(b.prefix) - len(a.prefix) })
	return g, nil
}

// Of is the group of a picture; empty if no line fits.
func (g Groups) Of(picture string) string {
	for _, r := range g.rules {
		if strings.HasPrefix(picture, r.prefix) {
			return r.group
		}
	}
	return ""
}

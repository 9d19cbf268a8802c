package evaluate

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Pair is one comparison of a protocol, as in LFW's view 2.
type Pair struct {
	Fold int // 1 and up
	Same bool
	A, B string // pictures, slashed paths below the evaluated folder
}

// mostPairs bounds what a pairs file may ask for.
const mostPairs = 5_000_000

var errPairs = errors.New("not a pairs file")

// ReadPairs reads a CSV file with the header fold,same,a,b.
func ReadPairs(r io.Reader) ([]Pair, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = 4
	rows.ReuseRecord = true
	if !hasHead(rows, "fold", "same", "a", "b") {
		return nil, fmt.Errorf("%w: its first line must be fold,same,a,b", errPairs)
	}
	var pairs []Pair
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPairs, err)
		}
		line, _ := rows.FieldPos(0)
		p, err := pairOf(row)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errPairs, line, err)
		}
		if pairs = append(pairs, p); len(pairs) > mostPairs {
			return nil, fmt.Errorf("%w: more than %d pairs", errPairs, mostPairs)
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%w: it has no pairs", errPairs)
	}
	return pairs, nil
}

// hasHead reports whether the first line has these names. Spreadsheets put a
// byte order mark before it.
func hasHead(rows *csv.Reader, names ...string) bool {
	head, err := rows.Read()
	if err != nil {
		return false
	}
	head[0] = strings.TrimPrefix(head[0], "\ufeff")
	return slices.Equal(head, names)
}

func pairOf(row []string) (Pair, error) {
	fold, err := strconv.Atoi(row[0])
	if err != nil || fold < 1 {
		return Pair{}, errors.New("fold must be 1 or more")
	}
	if row[1] != "0" && row[1] != "1" {
		return Pair{}, errors.New("same must be 0 or 1")
	}
	for _, name := range row[2:] {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return Pair{}, errors.New("a and b must be paths below the evaluated folder")
		}
	}
	return Pair{fold, row[1] == "1", path.Clean(row[2]), path.Clean(row[3])}, nil
}

// Person is whose picture a path is, for what goes beyond the pairs: the
// folder it lies in.
func Person(picture string) string { return path.Dir(picture) }

// Pictures gives the pictures of all pairs, each once, in the order of their
// names.
func Pictures(pairs []Pair) []string {
	seen := map[string]bool{}
	for _, p := range pairs {
		seen[p.A], seen[p.B] = true, true
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

const (
	mostFolds = 10
	pairsEach = 300 // of either kind in a fold, as in LFW's view 2
	mostOfOne = 25  // pictures of one person that are paired: 300 pairs
)

// Seeds of what is drawn at random.
const (
	seedPairs  = 1
	seedPeople = 2
	seedRank   = 3
	seedSearch = 4
)

// DrawPairs makes the pairs of a set that has none: up to ten folds of up to
// 300 mated and as many non-mated pairs each, drawn with a fixed seed, no
// person in two folds. With fewer than four people, or none with two pictures,
// there is nothing to compare across folds, and none come.
func DrawPairs(pictures []string) []Pair {
	people := map[string][]string{}
	for _, name := range slices.Sorted(slices.Values(pictures)) {
		people[Person(name)] = append(people[Person(name)], name)
	}
	var names, several []string
	for _, name := range slices.Sorted(maps.Keys(people)) {
		if names = append(names, name); len(people[name]) > 1 {
			several = append(several, name)
		}
	}
	count := min(mostFolds, len(names)/2, len(several))
	if count < 2 {
		return nil
	}
	random := rand.New(rand.NewPCG(seedPairs, 0))
	folds := make([][][]string, count)
	// Those with several pictures are dealt out first, so every fold has some.
	shuffle(random, several)
	shuffle(random, names)
	names = append(several, slices.DeleteFunc(names, func(n string) bool { return len(people[n]) > 1 })...)
	for i, name := range names {
		folds[i%count] = append(folds[i%count], people[name])
	}
	var pairs []Pair
	for i, fold := range folds {
		pairs = append(pairs, drawFold(random, i+1, fold)...)
	}
	return pairs
}

func drawFold(random *rand.Rand, fold int, people [][]string) []Pair {
	var pairs []Pair
	for _, pictures := range people {
		pictures = slices.Clone(pictures)
		shuffle(random, pictures)
		pictures = pictures[:min(len(pictures), mostOfOne)]
		for i, a := range pictures {
			for _, b := range pictures[:i] {
				pairs = append(pairs, Pair{fold, true, b, a})
			}
		}
	}
	shuffle(random, pairs)
	pairs = pairs[:min(len(pairs), pairsEach)]
	seen := map[Pair]bool{}
	// In a small fold there are not so many different pairs: the attempts end.
	for range 64 * len(pairs) {
		if len(seen) == len(pairs) {
			break
		}
		i, j := random.IntN(len(people)), random.IntN(len(people))
		if i < j {
			a, b := people[i], people[j]
			seen[Pair{fold, false, a[random.IntN(len(a))], b[random.IntN(len(b))]}] = true
		}
	}
	return append(pairs, slices.SortedFunc(maps.Keys(seen), comparePairs)...)
}

func comparePairs(a, b Pair) int { return cmp.Or(cmp.Compare(a.A, b.A), cmp.Compare(a.B, b.B)) }

func shuffle[T any](random *rand.Rand, list []T) {
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

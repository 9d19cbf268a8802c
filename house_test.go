// Package rollcall_test holds the rules of the house that no single room can
// hold.
package rollcall_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// arrows says which rooms a room may import; docs/design.md draws it. A room
// that is not named here may not exist. "*" is every room.
var arrows = map[string][]string{
	"attendance":      {},
	"queue/chain":     {},
	"device":          {"attendance", "queue/chain"},
	"device/panel":    {"attendance", "queue/chain", "device"},
	"queue":           {"attendance", "queue/chain"},
	"queue/queuetest": {"attendance", "queue/chain", "queue"},
	"queue/mqtt":      {"attendance", "queue/chain", "queue"},
	"reader":          {"attendance", "device"},
	"reader/pcsc":     {"attendance", "device", "reader"},
	"reader/serial":   {"attendance", "device", "reader"},
	"vision":          {"attendance", "device"},
	"vision/opencv":   {"attendance", "device", "vision"},
	"vision/evaluate": {"vision"},
	"centre":          {"attendance", "queue/chain"},
	"docs/contract":   {},
	"simulator":       {"attendance", "device", "device/panel", "reader", "reader/pcsc", "reader/serial", "vision", "vision/opencv", "queue", "queue/chain", "queue/mqtt", "centre"},

	"centre/centretest": {},

	"cmd/internal/tomlfile": {},
	"cmd/internal/control":  {"attendance", "device"},
	"cmd/internal/probe":    {"queue"},

	"cmd/rollcalld":       {"cmd/internal/tomlfile", "cmd/internal/control", "cmd/internal/probe", "attendance", "device", "device/panel", "reader", "reader/pcsc", "reader/serial", "vision", "queue", "queue/chain", "queue/mqtt"},
	"cmd/rollcall-vision": {"cmd/internal/tomlfile", "vision", "vision/opencv"},
	"cmd/rollcall":        {"cmd/internal/tomlfile", "cmd/internal/control", "cmd/internal/probe", "attendance", "device", "reader", "reader/pcsc", "vision", "vision/evaluate", "queue", "queue/chain"},
	"cmd/rollcall-centre": {"cmd/internal/tomlfile", "attendance", "queue/chain", "centre"},
	"cmd/rollcall-sim":    {"attendance", "device", "queue", "queue/chain", "centre", "simulator", "docs/contract"},
}

// outside says which rooms alone may import a library that binds to hardware
// or to C.
var outside = map[string][]string{
	"github.com/ebfe/scard":               {"reader/pcsc", "simulator"},
	"go.bug.st/serial":                    {"reader/serial"},
	"github.com/creack/pty":               {"simulator"},
	"gocv.io/x/gocv":                      {"vision/opencv"},
	"go.etcd.io/bbolt":                    {"queue"},
	"github.com/eclipse/paho.mqtt.golang": {"queue/mqtt", "centre"},
}

// TestArrows parses the files itself: a test that asks the go command can pass
// from the test cache after an arrow was broken.
func TestArrows(t *testing.T) {
	rooms := map[string]bool{}
	eachGoFile(t, func(room, file string, f *ast.File) {
		rooms[room] = true
		outer := strings.HasSuffix(f.Name.Name, "_test")
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			assert.Empty(t, broken(room, imported, strings.HasSuffix(file, "_test.go"), outer), file)
		}
	})
	for room := range arrows {
		assert.True(t, rooms[room], "room %s stands in the table and not in the tree", room)
	}
}

// broken says which rule an import breaks, or "". Tests in the outer package may
// import any room, and so may those of a program, which nobody imports.
func broken(room, imported string, test, outer bool) string {
	target, inHouse := strings.CutPrefix(imported, "rollcall/")
	allowed, known := arrows[room]
	switch {
	case !known && room != ".":
		return "room " + room + " has no arrows: name it in the table and in docs/design.md"
	case !inHouse:
		if rooms, ok := outside[imported]; ok && !test && !contains(rooms, room) {
			return imported + " may be imported only by " + strings.Join(rooms, ", ")
		}
		return ""
	case test && (outer || strings.HasPrefix(room, "cmd/")), target == room, contains(allowed, target):
		return ""
	case test && target == "queue/queuetest":
		return ""
	}
	return room + " may not import " + target
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// TestArrowsControl shows that the table refuses what it should.
func TestArrowsControl(t *testing.T) {
	assert.NotEmpty(t, broken("attendance", "rollcall/device", false, false))
	assert.NotEmpty(t, broken("vision", "rollcall/queue", false, false))
	assert.NotEmpty(t, broken("cmd/rollcalld", "rollcall/simulator", false, false))
	assert.NotEmpty(t, broken("cmd/rollcalld", "rollcall/centre", false, false))
	assert.NotEmpty(t, broken("cmd/rollcalld", "rollcall/vision/opencv", false, false))
	assert.NotEmpty(t, broken("reader", "rollcall/simulator", true, false), "only outer tests may import simulator")
	assert.NotEmpty(t, broken("reader", "github.com/ebfe/scard", false, false))
	assert.NotEmpty(t, broken("util", "fmt", false, false))
	assert.Empty(t, broken("reader", "rollcall/simulator", true, true))
	assert.Empty(t, broken("vision", "rollcall/attendance", false, false))
}

// TestEveryRoomSaysWhatItIs: one package comment a room.
func TestEveryRoomSaysWhatItIs(t *testing.T) {
	comments := map[string]int{}
	eachGoFile(t, func(room, file string, f *ast.File) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		comments[room] += 0
		if f.Doc != nil && !strings.HasPrefix(f.Doc.Text(), "go:build") {
			comments[room]++
		}
	})
	for room, n := range comments {
		assert.Equal(t, 1, n, "package comments in %s", room)
	}
}

// TestNoVagueNames: a name that says nothing finds nothing.
func TestNoVagueNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "service", "misc"}
	eachGoFile(t, func(room, file string, _ *ast.File) {
		assert.NotContains(t, vague, strings.TrimSuffix(path.Base(file), ".go"), file)
		assert.NotContains(t, vague, path.Base(room), file)
	})
}

func eachGoFile(t *testing.T, visit func(room, file string, f *ast.File)) {
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "build" || base == "bin" || base == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(filepath.Dir(name)), name, f)
		return nil
	})
	require.NoError(t, err)
}

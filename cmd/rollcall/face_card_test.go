package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/vision"
)

// TestT5TheModelCardSaysWhatIsNotCovered: what a camera without depth cannot
// see is said openly, in both languages, and no program claims a level that it
// would take.
func TestT5TheModelCardSaysWhatIsNotCovered(t *testing.T) {
	for file, words := range map[string]struct {
		notCovered string
		cases      []string
		notTested  string
	}{
		"../../docs/faces.md":    {"**not covered**", []string{"twins", "3D masks", "make-up", "replay", "deepfake"}, "Not tested to ISO/IEC 30107-3"},
		"../../docs/faces_zh.md": {"**不覆盖**", []string{"双胞胎", "三维面具", "化妆", "翻拍", "深度伪造"}, "未按 ISO/IEC 30107-3 检测"},
	} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Contains(t, string(text), words.notTested, file)
		for _, c := range words.cases {
			row := regexp.MustCompile(`(?m)^\|.*` + c + `.*$`).FindString(string(text))
			assert.Contains(t, row, words.notCovered, "%s: %s", file, c)
		}
		for _, m := range vision.DefaultManifest().Models {
			assert.Contains(t, string(text), m.File, file)
		}
	}
	assert.Empty(t, claims(t, "../..", "FacePAD", "FaceChallenge"))
	assert.NotEmpty(t, claims(t, "../..", "FaceMatch"), "the level that is claimed is found")
}

// claims lists the files outside tests that use one of attendance's names, but
// for the file that says what they mean.
func claims(t *testing.T, root string, names ...string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && filepath.Base(path) != "look.go" {
				for _, name := range names {
					if id.Name == name {
						files = append(files, path)
					}
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	return files
}

package panel

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
)

// wordsOfAttendance gives the values of attendance's typed string constants by
// type, read from its source, so that a new word cannot be forgotten here.
func wordsOfAttendance(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../../attendance/*.go")
	require.NoError(t, err)
	words := map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			typ, ok1 := spec.Type.(*ast.Ident)
			lit, ok2 := spec.Values[0].(*ast.BasicLit)
			if ok1 && ok2 && lit.Kind == token.STRING {
				value, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				words[typ.Name] = append(words[typ.Name], value)
			}
			return true
		})
	}
	return words
}

func TestEveryWordHasItsText(t *testing.T) {
	words := wordsOfAttendance(t)
	for typ, one := range map[string]string{
		"ScreenState": string(attendance.ScreenRecorded), "Advice": string(attendance.AdviceCloser),
		"Reason": string(attendance.ReasonNoFace), "CardFault": string(attendance.FaultMute), "EnrolFault": string(attendance.EnrolNoFace),
	} {
		require.Contains(t, words[typ], one, "the source was not understood")
	}
	require.Len(t, words["ScreenState"], len(attendance.ScreenStates))
	for _, lang := range []string{"zh", "en"} {
		texts := readTexts(t, lang)
		for _, state := range words["ScreenState"] {
			assert.NotEmpty(t, texts.State[state].Headline, "%s: state %s", lang, state)
		}
		for _, advice := range words["Advice"] {
			assert.NotEmpty(t, texts.Advice[advice], "%s: advice %q", lang, advice)
		}
		for _, reason := range append(words["Reason"], string(attendance.NoSession)) {
			assert.NotEmpty(t, texts.Noted[reason], "%s: reason %q", lang, reason)
		}
		for _, fault := range words["EnrolFault"] {
			assert.NotEmpty(t, texts.Enrol[fault], "%s: enrolment: %s", lang, fault)
		}
		for _, fault := range words["CardFault"] {
			assert.NotEmpty(t, texts.Fault[fault].Headline, "%s: fault %s", lang, fault)
			assert.NotEmpty(t, texts.Fault[fault].Advice, "%s: fault %s", lang, fault)
		}
	}
}

func TestBothLanguagesSayTheSame(t *testing.T) {
	zh, en := flatten(t, "zh"), flatten(t, "en")
	placeholder := regexp.MustCompile(`\{\w+\}`)
	for key, text := range zh {
		other, ok := en[key]
		if !assert.True(t, ok, "en.json lacks %s", key) {
			continue
		}
		assert.Equal(t, text == "", other == "", key)
		a, b := placeholder.FindAllString(text, -1), placeholder.FindAllString(other, -1)
		slices.Sort(a)
		slices.Sort(b)
		assert.Equal(t, a, b, key)
		assert.NotContains(t, text, "非本人")
	}
	assert.Len(t, en, len(zh), "zh.json lacks a key")
}

func TestTheDocumentSaysWhatThePageSays(t *testing.T) {
	doc, err := os.ReadFile("../../docs/panel.md")
	require.NoError(t, err)
	for _, lang := range []string{"zh", "en"} {
		for state, text := range readTexts(t, lang).State {
			row := regexp.MustCompile("(?m)^\\| `" + state + "` \\|.*$").Find(doc)
			assert.Contains(t, string(row), strings.ReplaceAll(text.Headline, "\u200b", ""), "docs/panel.md, state %s", state)
		}
	}
}

func flatten(t *testing.T, lang string) map[string]string {
	t.Helper()
	raw, err := pageFiles.ReadFile("page/" + lang + ".json")
	require.NoError(t, err)
	var tree map[string]any
	require.NoError(t, json.Unmarshal(raw, &tree))
	flat := map[string]string{}
	var walk func(prefix string, node any)
	walk = func(prefix string, node any) {
		switch node := node.(type) {
		case map[string]any:
			for key, child := range node {
				walk(prefix+"/"+key, child)
			}
		case string:
			flat[prefix] = node
		default:
			t.Fatalf("%s.json: %s is no text", lang, prefix)
		}
	}
	walk("", tree)
	return flat
}

func TestThePageIsSmallAndWhole(t *testing.T) {
	p, err := newPage(Config{}.withDefaults())
	require.NoError(t, err)
	size := 0
	for _, f := range p.files {
		size += len(f.body)
		assert.NotRegexp(t, `https?://(?:[^w]|w[^w])`, strings.ReplaceAll(string(f.body), "http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere")
	}
	assert.LessOrEqual(t, size, 60<<10)
	html := string(p.files[0].body)
	assert.NotRegexp(t, `<style|\sstyle=|\son\w+=|<script>`, html, "nothing inline that the policy forbids")
	for _, state := range attendance.ScreenStates {
		assert.Contains(t, html, `data-icon="`+string(state)+`"`)
		assert.Contains(t, string(p.files[1].body), `body[data-state="`+string(state)+`"] [data-icon="`+string(state)+`"]`)
	}
}

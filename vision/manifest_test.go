package vision

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func manifestText(t testing.TB, name string) string {
	t.Helper()
	b, err := manifestFiles.ReadFile("manifests/" + name + ".json")
	require.NoError(t, err)
	return string(b)
}

func TestShippedManifests(t *testing.T) {
	roles := map[string][]Role{}
	for _, m := range Shipped() {
		for _, model := range m.Models {
			roles[m.Name] = append(roles[m.Name], model.Role)
			assert.NotEmpty(t, model.Licence, model.File)
			assert.NotEmpty(t, model.Source, model.File)
		}
	}
	assert.Equal(t, map[string][]Role{
		"default":       {RoleDetect, RolePoints, RoleEmbed, RoleLiveness, RoleEyes},
		"default+pose":  {RoleDetect, RolePoints, RoleEmbed, RoleLiveness, RoleEyes, RolePose},
		"yunet+minifas": {RoleDetect, RolePoints, RoleEmbed, RoleLiveness, RoleLiveness, RoleEyes},
		"opencv-zoo":    {RoleDetect, RoleEmbed},
	}, roles)
	more, _ := shipped("default+pose")
	assert.Equal(t, DefaultManifest().Models, more.Models[:5], "what make models fetches holds the default set")
	assert.Equal(t, DefaultManifest().Package, more.Package)
}

func TestEveryKindHasARole(t *testing.T) {
	for name, k := range kinds {
		assert.True(t, knownRole(k.role), name)
		assert.Positive(t, k.outputs, name)
	}
	sums := Shipped()
	i := slices.IndexFunc(sums, func(m Manifest) bool { return m.Name == "yunet+minifas" })
	assert.Contains(t, sums[i].Sums()[RoleLiveness], "+", "both nets of the pair")
}

// TestEveryKindIsDocumented holds docs/models.md to the code.
func TestEveryKindIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/models.md")
	require.NoError(t, err)
	for name, k := range kinds {
		assert.Contains(t, string(text), "| `"+name+"` | "+string(k.role)+" |")
	}
	for _, m := range Shipped() {
		assert.Contains(t, string(text), "| `"+m.Name+"` |")
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"unknown field":        {`"licence"`, `"license"`, "unknown field"},
		"unknown role":         {`"role": "points"`, `"role": "ears"`, "unknown role"},
		"unknown kind":         {`"ultraface"`, `"retina"`, `known are ultraface, yunet2023`},
		"a kind of other role": {`"ultraface"`, `"arc112"`, `known are ultraface, yunet2023`},
		"a role twice":         {`"role": "eyes", "kind": "eye"`, `"role": "points", "kind": "points68"`, "stands twice"},
		"a path":               {`"fr_detect.onnx",`, `"../fr_detect.onnx",`, "without a folder"},
		"a hidden file":        {`"fr_detect.onnx",`, `".onnx",`, "without a folder"},
		"one file, two sums":   {`"file": "fr_eye.onnx"`, `"file": "fr_detect.onnx"`, "different sums"},
		"short sum":            {"6c0256cc", "6c0256", "64 lower-case"},
		"upper-case sum":       {"6c0256cc", "6C0256CC", "64 lower-case"},
		"no input":             {`"width": 320`, `"width": 0`, "sides must be"},
		"an embedder's input":  {`"width": 112`, `"width": 96`, "must be 112x112"},
		"unknown colour":       {`"grey"`, `"yuv"`, "must be rgb"},
		"scale of zero":        {`"scale": 1,`, `"scale": 0,`, "above 0"},
		"scale of two":         {`"scale": 1,`, `"scale": [1, 2],`, "a list of three"},
		"mean in words":        {`"mean": 127,`, `"mean": "grey",`, "a number"},
		"an output too few":    {`["scores", "boxes"]`, `["scores"]`, "1 named, ultraface has 2"},
		"an output no name":    {`["scores", "boxes"]`, `["scores", ""]`, "ultraface has 2"},
		"no crop":              {`"crop": 1.2`, `"crop": 0.5`, "crop 0.5"},
		"unknown template":     {`"arcface-112"`, `"dlib-150"`, "known are"},
		"unknown metric":       {`"cosine"`, `"l2"`, "known are"},
		"no live class":        {`, "live_class": 0`, ``, "live_class"},
		"live class of eyes":   {`"crop": 1.6`, `"crop": 1.6, "live_class": 1`, "liveness only"},
		"no name":              {`"name": "default"`, `"name": ""`, "name"},
		"a name with a slash":  {`"name": "default"`, `"name": "../x"`, "name"},
		"package without sum":  {`"sha256": "7ea06031`, `"sha256": "7ea`, "package"},
		"text after it":        {"  ]\n}\n", "  ]\n}\n{}", "after its end"},
		"not JSON":             {"{\n", "[", "reading model manifest"},
		"no points":            {`"role": "points", "kind": "points68"`, `"role": "eyes", "kind": "eye"`, "stands twice"},
	} {
		t.Run(name, func(t *testing.T) {
			whole := manifestText(t, "default")
			text := strings.Replace(whole, c.old, c.new, 1)
			require.NotEqual(t, whole, text)
			_, err := ParseManifest([]byte(text))
			assert.ErrorContains(t, err, c.says)
		})
	}
	_, err := ParseManifest([]byte(`{"name": "x", "models": []}`))
	assert.ErrorContains(t, err, "no model for role")
	_, err = ParseManifest(make([]byte, LargestManifest+1))
	assert.ErrorContains(t, err, "are more than")
	_, err = ParseManifest([]byte(strings.Replace(manifestText(t, "yunet+minifas"), `"height": 256`, `"height": 250`, 1)))
	assert.ErrorContains(t, err, "multiples of 32")

	whole := DefaultManifest()
	whole.Models = slices.DeleteFunc(whole.Models, func(m Model) bool { return m.Role == RolePoints })
	assert.ErrorContains(t, whole.check(), "gives no points")
}

func TestVerifySaysWhichFileAndWhatToDo(t *testing.T) {
	m := DefaultManifest()
	dir := t.TempDir()
	err := m.Verify(dir)
	require.ErrorIs(t, err, ErrModel)
	assert.ErrorContains(t, err, "fr_detect.onnx is missing in "+dir+": run make models")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "fr_detect.onnx"), []byte("not the net"), 0o600))
	err = m.Verify(dir)
	require.ErrorIs(t, err, ErrModel)
	assert.ErrorContains(t, err, "has SHA-256")
	assert.ErrorContains(t, err, "delete it and run make models")
}

func TestUsableLeavesOutAdviceOnly(t *testing.T) {
	dir := t.TempDir()
	m, _ := shipped("default+pose")
	got := m.Usable(dir)
	assert.Len(t, got.Models, 4)
	assert.Empty(t, got.Of(RoleEyes))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fr_eye.onnx"), nil, 0o600))
	assert.Len(t, m.Usable(dir).Models, 5)
	assert.Len(t, m.Models, 6, "the manifest itself stays")
}

func TestFindSet(t *testing.T) {
	models := t.TempDir()
	own := strings.Replace(manifestText(t, "opencv-zoo"), `"name": "opencv-zoo"`, `"name": "own"`, 1)
	put := func(path, text string) string {
		path = filepath.Join(models, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	put("own/manifest.json", own)
	put("other/manifest.json", own)
	put("broken/manifest.json", "{}")
	put("empty/x", "")
	single := put("single.json", own)

	s, err := FindSet(models, "own")
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(models, "own"), s.Dir)
	assert.Equal(t, "own", s.Name)
	s, err = FindSet(models, DefaultSet)
	require.NoError(t, err)
	assert.Equal(t, Set{DefaultManifest(), models}, s)
	s, err = FindSet(models, single)
	require.NoError(t, err)
	assert.Equal(t, models, s.Dir)

	for name, says := range map[string]string{
		"none":              "rollcall models list",
		"other":             `is of the set "own"`,
		"broken":            "manifest.json",
		"../own":            "no such file",
		"a b":               "no name of a set",
		models + "/no.json": "no such file",
	} {
		_, err := FindSet(models, name)
		assert.ErrorIs(t, err, ErrModel, name)
		assert.ErrorContains(t, err, says, name)
	}

	put("default/manifest.json", manifestText(t, "default"))
	sets, err := Sets(models)
	require.NoError(t, err)
	var where []string
	for _, s := range sets {
		rel, err := filepath.Rel(models, s.Dir)
		require.NoError(t, err)
		where = append(where, s.Name+" "+rel)
	}
	assert.Equal(t, []string{"default default", "default+pose .", "opencv-zoo .", "own own", "yunet+minifas ."}, where)
	_, err = Sets(filepath.Join(models, "none"))
	assert.NoError(t, err, "nothing is imported yet")
}

func FuzzParseManifest(f *testing.F) {
	for _, m := range Shipped() {
		f.Add([]byte(manifestText(f, m.Name)))
	}
	f.Add([]byte(`{"models":[{"role":"detect"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, role := range []Role{RoleDetect, RoleEmbed} {
			assert.Len(t, m.Of(role), 1)
		}
		for _, model := range m.Models {
			assert.Equal(t, filepath.Base(model.File), model.File)
		}
	})
}

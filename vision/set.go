package vision

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrModel is wrapped by every error about a model set that is missing, or a
// file that is not the one that its manifest names.
var ErrModel = errors.New("model set not usable")

// ErrModelAbsent is the [ErrModel] of a file that is not there at all.
var ErrModelAbsent = fmt.Errorf("%w", ErrModel)

//go:embed manifests
var manifestFiles embed.FS

// DefaultSet is the name of the set that "make models" fetches.
const DefaultSet = "default"

// manifestFile is the manifest's name in the directory of an imported set.
const manifestFile = "manifest.json"

// DefaultManifest is the set that "make models" fetches.
func DefaultManifest() Manifest {
	m, ok := shipped(DefaultSet)
	if !ok {
		panic("vision: no manifest " + DefaultSet)
	}
	return m
}

// Shipped gives the manifests that come with the program, by name.
func Shipped() []Manifest {
	files, err := manifestFiles.ReadDir("manifests")
	if err != nil {
		panic("vision: embedded manifests: " + err.Error())
	}
	var all []Manifest
	for _, f := range files {
		m, _ := shipped(strings.TrimSuffix(f.Name(), ".json"))
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Manifest) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func shipped(name string) (Manifest, bool) {
	b, err := manifestFiles.ReadFile("manifests/" + name + ".json")
	if err != nil {
		return Manifest{}, false
	}
	m, err := ParseManifest(b)
	if err != nil {
		panic("vision: embedded manifest: " + err.Error())
	}
	return m, true
}

// Set is a manifest and the directory of its files.
type Set struct {
	Manifest
	Dir string
}

// FindSet gives the set of a name in the directory of the models: one that was
// imported (in a directory of its name), or one that is shipped (its files lie
// in the directory itself). A name with a slash or the ending .json is the
// path of a manifest; its files too lie in the directory itself. Whether the
// files are right is [Manifest.Verify]'s to say.
func FindSet(models, name string) (Set, error) {
	if strings.Contains(name, "/") || strings.HasSuffix(name, ".json") {
		m, err := readManifest(name)
		return Set{m, models}, err
	}
	if !names.MatchString(name) {
		return Set{}, fmt.Errorf("%w: %q is no name of a set", ErrModel, name)
	}
	dir := filepath.Join(models, name)
	m, err := readManifest(filepath.Join(dir, manifestFile))
	switch {
	case err == nil && m.Name != name:
		return Set{}, fmt.Errorf("%w: the manifest in %s is of the set %q: import it again", ErrModel, dir, m.Name)
	case err == nil:
		return Set{m, dir}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return Set{}, err
	}
	if m, ok := shipped(name); ok {
		return Set{m, models}, nil
	}
	return Set{}, fmt.Errorf("%w: no set %q in %s: rollcall models list shows what there is", ErrModel, name, models)
}

func readManifest(path string) (Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrModel, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, LargestManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrModel, err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %s: %w", ErrModel, path, err)
	}
	return m, nil
}

// Sets gives what is imported in the directory of the models and what is
// shipped, by name.
func Sets(models string) ([]Set, error) {
	var all []Set
	for _, m := range Shipped() {
		all = append(all, Set{m, models})
	}
	entries, err := os.ReadDir(models)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	for _, e := range entries {
		if !e.IsDir() || !names.MatchString(e.Name()) {
			continue
		}
		s, err := FindSet(models, e.Name())
		if err != nil || s.Dir == models {
			continue // not a set's directory, or one that "check" explains
		}
		all = slices.DeleteFunc(all, func(o Set) bool { return o.Name == s.Name })
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Usable is the set without the nets that only advise on a capture (eyes,
// pose) and whose files are not in dir: a box whose program was brought up to
// date goes on with the models that it has.
func (m Manifest) Usable(dir string) Manifest {
	m.Models = slices.DeleteFunc(slices.Clone(m.Models), func(model Model) bool {
		_, err := os.Stat(filepath.Join(dir, model.File))
		return (model.Role == RoleEyes || model.Role == RolePose) && errors.Is(err, fs.ErrNotExist)
	})
	return m
}

// Verify reads every file of the set in dir and compares its sum, so that
// nothing unknown is ever parsed by OpenCV. The error says what to do.
func (m Manifest) Verify(dir string) error {
	for _, model := range m.Models {
		sum, err := sumOf(filepath.Join(dir, model.File))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is missing in %s: run make models in the sources or rollcall models import on a box, or set the models directory",
				ErrModelAbsent, model.File, dir)
		case err != nil:
			return fmt.Errorf("%w: %w: correct the rights, or import the set again", ErrModel, err)
		case sum != model.SHA256:
			return fmt.Errorf("%w: %s in %s has SHA-256 %s, the manifest says %s: delete it and run make models in the sources or rollcall models import on a box",
				ErrModel, model.File, dir, sum, model.SHA256)
		}
	}
	return nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

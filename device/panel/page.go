package panel

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
)

//go:embed page
var pageFiles embed.FS

// page is what a browser loads, ready to send. Texts and icons stand in the
// HTML itself, so that the page can still speak when the daemon is gone.
type page struct {
	version string // of all bytes together
	files   []pageFile
}

type pageFile struct {
	path, mime string
	body       []byte
}

func (f pageFile) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", f.mime)
	_, _ = w.Write(f.body)
}

// icon is a drawing of this package, trusted as it stands.
type icon struct {
	Name string
	SVG  template.HTML
}

func newPage(cfg Config) (page, error) {
	html, err := renderHTML(cfg)
	if err != nil {
		return page{}, err
	}
	css, err := pageFiles.ReadFile("page/kiosk.css")
	if err != nil {
		return page{}, err
	}
	js, err := pageFiles.ReadFile("page/kiosk.js")
	if err != nil {
		return page{}, err
	}
	tab, err := pageFiles.ReadFile("page/icons/already.svg")
	if err != nil {
		return page{}, err
	}
	p := page{files: []pageFile{
		{"/{$}", "text/html; charset=utf-8", html},
		{"/kiosk.css", "text/css; charset=utf-8", css},
		{"/kiosk.js", "text/javascript; charset=utf-8", js},
		{"/icon.svg", "image/svg+xml", tab},
	}}
	sum := sha256.New()
	for _, f := range p.files {
		sum.Write(f.body)
	}
	p.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return p, nil
}

func renderHTML(cfg Config) ([]byte, error) {
	tmpl, err := template.ParseFS(pageFiles, "page/kiosk.html")
	if err != nil {
		return nil, err
	}
	texts := map[string]json.RawMessage{}
	for _, lang := range []string{"zh", "en"} {
		if texts[lang], err = pageFiles.ReadFile("page/" + lang + ".json"); err != nil {
			return nil, err
		}
	}
	icons, err := readIcons("page/icons")
	if err != nil {
		return nil, err
	}
	badges, err := readIcons("page/badges")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, map[string]any{
		"Language": cfg.Language, "Quiet": cfg.Quiet, "Zone": zoneName(cfg.Zone), "Texts": texts, "Icons": icons, "Badges": badges,
	})
	if err != nil {
		return nil, fmt.Errorf("rendering the page: %w", err)
	}
	return out.Bytes(), nil
}

func readIcons(dir string) ([]icon, error) {
	names, err := fs.Glob(pageFiles, dir+"/*.svg")
	if err != nil {
		return nil, err
	}
	var icons []icon
	for _, name := range names {
		svg, err := pageFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		icons = append(icons, icon{
			Name: strings.TrimSuffix(path.Base(name), ".svg"),
			SVG:  template.HTML(bytes.TrimSpace(svg)),
		})
	}
	return icons, nil
}

const maxName = 32 // characters; a masked name has three

// tidy makes a name safe to lay out: no control characters, none that turn the
// direction of writing, at most two marks on a letter, not too long. The page
// sets it as text, so nothing needs to be escaped.
func tidy(name string) string {
	var b strings.Builder
	length, marks := 0, 0
	for _, r := range name {
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
			length++
		}
		if marks > 2 || !unicode.IsGraphic(r) {
			continue
		}
		if length > maxName {
			return b.String() + "…"
		}
		b.WriteRune(r)
	}
	return b.String()
}

// zoneName names a zone as browsers know it; "" is the browser's own.
func zoneName(zone *time.Location) string {
	if zone == nil || zone == time.Local {
		return ""
	}
	return zone.String()
}

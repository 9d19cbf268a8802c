package simulator

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"rollcall/attendance"
)

// Sight is a screen as somebody in the room saw it.
type Sight struct {
	At     time.Time
	Screen attendance.Screen
}

// Viewer looks at a terminal's panel as the people in the room do, over the
// same event stream as the browser, and looks again when it went dark.
type Viewer struct {
	url string

	mu      sync.Mutex // guards what follows
	seen    []Sight
	changed chan struct{} // closed at the next sight
}

// NewViewer makes a viewer of the panel at an address; Run looks.
func NewViewer(panel string) *Viewer {
	return &Viewer{url: "http://" + panel + "/events", changed: make(chan struct{})}
}

// Run looks until ctx ends.
func (v *Viewer) Run(ctx context.Context) error {
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		_ = v.look(ctx) // the terminal is away: look again
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
	return nil
}

func (v *Viewer) look(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	event := ""
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "event":
			event = value
		case name == "data" && event == "screen":
			var s attendance.Screen
			if err := json.Unmarshal([]byte(value), &s); err != nil {
				return err
			}
			v.note(s)
		case name == "data" && event == "snapshot":
			var s struct{ Screen attendance.Screen }
			if err := json.Unmarshal([]byte(value), &s); err != nil {
				return err
			}
			v.note(s.Screen)
		}
	}
	return lines.Err()
}

func (v *Viewer) note(s attendance.Screen) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = append(v.seen, Sight{At: time.Now(), Screen: s})
	close(v.changed)
	v.changed = make(chan struct{})
}

// Mark is where the sights to come begin.
func (v *Viewer) Mark() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen)
}

// after is where the sights after one begin.
func (v *Viewer) after(s Sight) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, seen := range v.seen {
		if seen == s {
			return i + 1
		}
	}
	return len(v.seen)
}

// Await gives the first sight from a mark on that is wanted.
func (v *Viewer) Await(ctx context.Context, mark int, wanted func(attendance.Screen) bool) (Sight, error) {
	for {
		v.mu.Lock()
		news, changed := v.seen[mark:], v.changed
		v.mu.Unlock()
		for _, sight := range news {
			if wanted(sight.Screen) {
				return sight, nil
			}
		}
		mark += len(news)
		select {
		case <-changed:
		case <-ctx.Done():
			return Sight{}, fmt.Errorf("the screen did not answer: %w", errors.Join(ctx.Err(), context.Cause(ctx)))
		}
	}
}

package simulator

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Figures are durations by name, in the order in which they were first noted.
type Figures struct {
	names  []string
	values map[string][]time.Duration
	notes  []string
}

func (f *Figures) add(name string, d time.Duration) {
	if f.values == nil {
		f.values = map[string][]time.Duration{}
	}
	if _, ok := f.values[name]; !ok {
		f.names = append(f.names, name)
	}
	f.values[name] = append(f.values[name], d)
}

// String is a table of count, median, 95th percentile and maximum in
// milliseconds.
func (f Figures) String() string {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ms\tn\tmedian\tp95\tmax\t")
	for _, name := range f.names {
		sorted := slices.Sorted(slices.Values(f.values[name]))
		at := func(share float64) float64 {
			return float64(sorted[int(share*float64(len(sorted)-1)+0.5)].Microseconds()) / 1000
		}
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%.1f\t%.1f\t\n", name, len(sorted), at(0.5), at(0.95), at(1))
	}
	_ = table.Flush()
	for _, note := range f.notes {
		fmt.Fprintln(&b, note)
	}
	return b.String()
}

// restarts is how often Measure starts the daemon anew to time its start.
const restarts = 5

// Measure gathers where the time of taps went: what the room saw, the daemon's
// own stages, and the starts and sizes of the programs. It starts the daemon
// anew several times.
func (s *Stage) Measure(ctx context.Context, taps []TapSeen) (Figures, error) {
	var f Figures
	for _, tap := range taps {
		if tap.Err != nil {
			return f, tap.Err
		}
		if !tap.Broken.IsZero() {
			f.add("worker killed to answer", tap.Answer.At.Sub(tap.Broken))
			continue
		}
		f.add("card in the reader to answer on the screen (the virtual reader polls every 400 ms)", tap.Answer.At.Sub(tap.Inserted))
	}
	if err := s.stages(&f, taps); err != nil {
		return f, err
	}
	if err := s.sizes(ctx, &f); err != nil {
		return f, err
	}
	for range restarts {
		s.daemon.Stop()
		began := time.Now()
		if err := s.StartTerminal(ctx); err != nil {
			return f, err
		}
		f.add("daemon start to ready", time.Since(began))
		err := s.awaitStatus(ctx, "the camera worker", 20*time.Second, func(t terminalStatus) bool { return t.part("camera") == "ok" })
		if err != nil {
			return f, err
		}
		f.add("daemon start to worker's first answer (polled every 50 ms)", time.Since(began))
	}
	return f, nil
}

// stages reads the daemon's own account of each check-in, which come in the
// order of the taps.
func (s *Stage) stages(f *Figures, taps []TapSeen) error {
	text, err := os.ReadFile(s.path("daemon.log"))
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var line struct {
			Type   string           `json:"type"`
			Stages map[string]int64 `json:"stages"`
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Stages == nil || line.Type != "checkin" || len(taps) == 0 {
			continue
		}
		tap := taps[0]
		taps = taps[1:]
		if !tap.Broken.IsZero() {
			continue
		}
		for _, stage := range []struct{ key, name string }{
			{"total_us", "tap to record on disk (from the reader's event)"},
			{"card_us", "  of it: card"},
			{"face_us", "  of it: camera and nets"},
			{"store_us", "  of it: ledger"},
			{"ours_us", "  of it: all else"},
		} {
			f.add(stage.name, time.Duration(line.Stages[stage.key])*time.Microsecond)
		}
	}
	return lines.Err()
}

func (s *Stage) sizes(ctx context.Context, f *Figures) error {
	status, err := s.status(ctx)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		pid  int
	}{{"daemon", s.daemon.PID()}, {"worker", status.Worker.PID}, {"centre", s.centre.PID()}} {
		memory, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		if err != nil {
			return err
		}
		note := p.name + ":"
		for line := range strings.SplitSeq(string(memory), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && (name == "VmRSS" || name == "VmHWM") {
				note += " " + name + " " + strings.Join(strings.Fields(value), " ")
			}
		}
		f.notes = append(f.notes, note)
	}
	return nil
}

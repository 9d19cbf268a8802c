package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// errGaps is wrapped by the answer "sound as far as it goes": exit status 3.
var errGaps = errors.New("sound, but not whole")

// ledgerVerify checks exports, or ledgers in state directories: each by itself,
// then that they do not contradict one another, then that what -expect names is
// there. Of a directory the terminal's own admission is believed unless -trust
// names another file; an export without -trust is checked against itself only,
// and the answer says so.
func ledgerVerify(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger verify", flag.ContinueOnError)
	trustFile := flags.String("trust", "", "admission file of any terminal of the centre to believe")
	progress := flags.Bool("progress", isTerminal(os.Stderr), "tell on standard error how far it is")
	var expected []string
	flags.Func("expect", "file of what the ledger must hold: a later head or receipt, or an earlier export", func(name string) error {
		expected = append(expected, name)
		return nil
	})
	if err := parseSome(flags, args); err != nil {
		return err
	}
	a := &audit{stdout: stdout}
	if *progress {
		a.progress = os.Stderr
	}
	for _, name := range flags.Args() {
		if err := a.read(ctx, name, *trustFile, expected); err != nil {
			return err
		}
	}
	return a.judge()
}

// audit is what verify found so far.
type audit struct {
	stdout   io.Writer
	progress io.Writer // nil: say nothing
	sound    []*chain.Verifier
	epochs   []chain.Epoch
	unsigned bool // no centre's key was given
}

// read checks one ledger, with what is expected of it.
func (a *audit) read(ctx context.Context, name, trustFile string, expected []string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("ledger verify: %w", err)
	}
	trust, err := trustOf(name, info.IsDir(), trustFile)
	if err != nil {
		return err
	}
	var marks [][]byte
	var earlier []*chain.Verifier
	for _, name := range expected {
		m, e, err := readExpected(name, trust)
		if err != nil {
			return err
		}
		marks = append(marks, m...)
		if e != nil {
			earlier = append(earlier, e)
		}
	}
	text, writer := io.Pipe()
	go func() { writer.CloseWithError(openLedger(ctx, name, info.IsDir(), writer)) }()
	defer text.Close()
	v, epochs, err := verify(a.watch(text, name), trust, marks)
	for _, e := range epochs {
		fmt.Fprintf(a.stdout, "%s: %s\n", e.Log, e)
		for _, note := range e.Notes {
			fmt.Fprintf(a.stdout, "%s: note: %s\n", e.Log, note)
		}
	}
	if err != nil {
		return err
	}
	for _, e := range earlier {
		if err := v.Holds(e); err != nil {
			return fmt.Errorf("%w: %w", errFound, err)
		}
	}
	if err := a.tellTimes(ctx, name, epochs); err != nil {
		return err
	}
	a.unsigned = a.unsigned || trust == nil
	a.sound, a.epochs = append(a.sound, v), append(a.epochs, epochs...)
	return nil
}

// tellTimes says of records whose own time is not to be believed when they were
// formed, a line for each run of them in one boot.
func (a *audit) tellTimes(ctx context.Context, name string, epochs []chain.Epoch) error {
	times, err := readTimes(ctx, name, sealedBounds(epochs))
	if err != nil {
		return err
	}
	var first, last *chain.Entry
	tell := func() {
		if first != nil {
			fmt.Fprintln(a.stdout, untimed(times, *first, *last))
		}
		first = nil
	}
	err = eachRecord(ctx, name, func(e chain.Entry, _ chain.Hash) error {
		e.Body = nil // it is the reader's
		switch {
		case !times.date(e).amiss(e):
			tell()
		case first == nil || first.Log != e.Log || first.At.Boot != e.At.Boot || first.At.Clock != e.At.Clock:
			tell()
			first, last = &e, &e
		default:
			last = &e
		}
		return nil
	})
	tell()
	return err
}

func untimed(times *history, first, last chain.Entry) string {
	what := fmt.Sprintf("record %d, clock %s: formed %s", first.Seq, first.At.Clock, times.date(first).in(first))
	if last.Seq > first.Seq {
		what = fmt.Sprintf("records %d-%d, clock %s: the first formed %s; the last %s", first.Seq, last.Seq, first.At.Clock,
			times.date(first).in(first), times.date(last).in(last))
	}
	return fmt.Sprintf("%s: time: %s", first.Log, what)
}

// judge compares the ledgers with one another and says what none can say alone.
func (a *audit) judge() error {
	for i, v := range a.sound {
		for _, other := range a.sound[:i] {
			if err := other.Agree(v); err != nil {
				return fmt.Errorf("%w: %w", errFound, err)
			}
		}
	}
	if a.unsigned {
		fmt.Fprintln(a.stdout, "no centre's key was given, so receipts count for nothing: give the centre's admission file with -trust")
	}
	whole := true
	for _, e := range a.epochs {
		whole = whole && e.Whole()
		if e.Before == nil {
			continue
		}
		here := slices.ContainsFunc(a.epochs, func(o chain.Epoch) bool { return o.Log == e.Before.Log })
		whole = whole && here
		if here {
			fmt.Fprintf(a.stdout, "%s: goes on from %s, record %d\n", e.Log, e.Before.Log, e.Before.Seq)
		} else {
			fmt.Fprintf(a.stdout, "%s: the epoch before it, %s up to %d or more, is not in these files\n", e.Log, e.Before.Log, e.Before.Seq)
		}
	}
	if !whole {
		return fmt.Errorf("%w: records are missing, and the ledger says which", errGaps)
	}
	return nil
}

// readExpected reads what a ledger must hold: heads and receipts, which are
// judged after it, or an export, which must be sound itself.
func readExpected(name string, trust *chain.Trust) (marks [][]byte, earlier *chain.Verifier, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("expect: %w", err)
	}
	if bytes.HasPrefix(text, []byte("{")) {
		if earlier, _, err = verify(bytes.NewReader(text), trust, nil); err != nil {
			return nil, nil, fmt.Errorf("expect: %s is no sound export itself: %v", name, err) // no finding about the ledger
		}
		return nil, earlier, nil
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			marks = append(marks, line)
		}
	}
	if len(marks) == 0 {
		return nil, nil, fmt.Errorf("expect: %s is empty", name)
	}
	if trust == nil {
		return nil, nil, fmt.Errorf("expect: %s: without -trust nobody can check a receipt or head", name)
	}
	return marks, nil, nil
}

// watch tells how much of a ledger was read, once for every 8 MiB.
func (a *audit) watch(r io.Reader, name string) io.Reader {
	if a.progress == nil {
		return r
	}
	return &meter{Reader: r, out: a.progress, name: name}
}

type meter struct {
	io.Reader
	out  io.Writer
	name string
	read int64
}

func (m *meter) Read(p []byte) (int, error) {
	const step = 8 << 20
	n, err := m.Reader.Read(p)
	if (m.read+int64(n))/step > m.read/step {
		fmt.Fprintf(m.out, "%s: %d MiB read\n", m.name, (m.read+int64(n))>>20)
	}
	m.read += int64(n)
	return n, err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func openLedger(ctx context.Context, name string, isDir bool, w io.Writer) error {
	if isDir {
		return export(ctx, name, w)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

func readTrust(name string) (*chain.Trust, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	var a chain.Admission
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("trust: %s is not an admission file: %w", name, err)
	}
	trust, err := a.Trust()
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", name, err)
	}
	return &trust, nil
}

// verify reads lines to the end or to the first that is wrong, then marks. Each
// epoch's bodies are judged against the records before them in the same epoch.
func verify(r io.Reader, trust *chain.Trust, marks [][]byte) (*chain.Verifier, []chain.Epoch, error) {
	book, log := attendance.NewBook(), chain.LogID("")
	v := chain.NewVerifier(trust, func(e chain.Entry) error {
		if e.Log != log {
			book, log = attendance.NewBook(), e.Log
		}
		return book.Observe(uint64(e.Seq), attendance.RecordType(e.Type), e.Body)
	})
	take := func(line []byte) error {
		if err := v.Line(line); err != nil {
			return fmt.Errorf("%w: %w", errFound, err)
		}
		return nil
	}
	if err := eachLine(r, take); err != nil {
		return nil, nil, err
	}
	for _, mark := range marks {
		if err := take(mark); err != nil {
			return nil, nil, err
		}
	}
	epochs, err := v.Report()
	if err != nil {
		err = fmt.Errorf("%w: %w", errFound, err)
	}
	return v, epochs, err
}

// eachLine calls f with every line.
func eachLine(r io.Reader, f func([]byte) error) error {
	lines := bufio.NewReaderSize(r, 2*chain.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: a line longer than any record: this is no ledger", errFound)
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("reading the ledger: %w", err)
		}
		if err := f(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
}

// export writes the ledger of a state directory: through the daemon while it
// runs, else from the file.
func export(ctx context.Context, state string, w io.Writer) error {
	err := control.NewClient(state).Export(ctx, w)
	if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	keys, err := device.OpenKeys(filepath.Join(state, "keys"))
	if err != nil {
		return err
	}
	admission, err := device.LoadAdmission(filepath.Join(state, "keys"))
	if err != nil {
		return err
	}
	cert, err := chain.ParseCertificate(admission.Ledger)
	if err != nil {
		return err
	}
	store, err := queue.OpenReadOnly(state)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s holds no ledger: %w", state, err)
		}
		return err
	}
	defer store.Close()
	return store.Export(w, cert, keys.Handovers()...)
}

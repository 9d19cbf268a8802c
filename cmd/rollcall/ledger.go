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

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// ledgerVerify checks an export, or the ledger in a state directory. Of a
// directory the terminal's own admission is believed unless -trust names
// another file; an export without -trust is checked against itself only, and
// the answer says so.
func ledgerVerify(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger verify", flag.ContinueOnError)
	trustFile := flags.String("trust", "", "admission file of any terminal of the centre to believe")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	name := flags.Arg(0)
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("ledger verify: %w", err)
	}
	if info.IsDir() && *trustFile == "" {
		*trustFile = filepath.Join(name, "keys", "admission.json")
	}
	trust, err := readTrust(*trustFile)
	if err != nil {
		return err
	}
	text, writer := io.Pipe()
	go func() { writer.CloseWithError(openLedger(ctx, name, info.IsDir(), writer)) }()
	defer text.Close()
	epochs, err := verify(text, trust)
	for _, e := range epochs {
		fmt.Fprintf(stdout, "%s: %s\n", e.Log, e)
	}
	if trust == nil && err == nil {
		fmt.Fprintln(stdout, "no centre's key was given, so receipts count for nothing: give the centre's admission file with -trust")
	}
	return err
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

// verify reads lines to the end or to the first that is wrong. Each epoch's
// bodies are judged against the records before them in the same epoch.
func verify(r io.Reader, trust *chain.Trust) ([]chain.Epoch, error) {
	book := attendance.NewBook()
	v := chain.NewVerifier(trust, func(e chain.Entry) error {
		if e.Seq == 1 {
			book = attendance.NewBook()
		}
		return book.Observe(uint64(e.Seq), attendance.RecordType(e.Type), e.Body)
	})
	lines := bufio.NewReaderSize(r, 2*chain.MaxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w: a line longer than any record: this is no ledger", errFound)
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("reading the ledger: %w", err)
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			if err := v.Line(line); err != nil {
				return nil, fmt.Errorf("%w: %w", errFound, err)
			}
		}
		if err != nil {
			return report(v)
		}
	}
}

func report(v *chain.Verifier) ([]chain.Epoch, error) {
	epochs, err := v.Report()
	if err != nil {
		err = fmt.Errorf("%w: %w", errFound, err)
	}
	return epochs, err
}

func ledgerExport(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger export", flag.ContinueOnError)
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	return export(ctx, flags.Arg(0), stdout)
}

// export writes the ledger of a state directory: through the daemon while it
// runs, else from the file.
func export(ctx context.Context, state string, w io.Writer) error {
	err := control.NewClient(state).Export(ctx, w)
	if !errors.Is(err, control.ErrNotRunning) {
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
	return store.Export(w, cert)
}

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"rollcall/cmd/internal/probe"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// ledgerSalvage does what rollcalld does when it starts: it opens the ledger,
// mends what is damaged, and reads every record. It ends with status 1 if
// files were set aside, now or before.
func ledgerSalvage(_ context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger salvage", flag.ContinueOnError)
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	cfg, err := ledgerConfig(flags.Arg(0))
	if err != nil {
		return err
	}
	// A damaged file that is found while all are read is mended by the next
	// opening.
	var status queue.Status
	records := 0
	for tries := 0; ; tries++ {
		status, records, err = readLedger(cfg)
		if err == nil {
			break
		}
		if tries == maxSalvage {
			return err
		}
	}
	fmt.Fprintf(stdout, "%s: %d records can be read, the last is %d\n", status.Log, records, status.Last)
	if status.SetAside == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d damaged files were set aside; %d records can be read neither here nor at the centre. "+
		"Keep the files that end in .bad for support, and move them away when told", errFound, status.SetAside, status.Lost)
}

const maxSalvage = 64

func readLedger(cfg queue.Config) (status queue.Status, records int, err error) {
	ledger, err := queue.Open(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return status, 0, err
	}
	defer ledger.Close()
	err = ledger.Each(func(chain.Entry) error {
		records++
		return nil
	})
	return ledger.Status(), records, err
}

// ledgerConfig is the ledger's of a terminal's state directory.
func ledgerConfig(state string) (queue.Config, error) {
	keyDir := filepath.Join(state, "keys")
	keys, err := device.OpenKeys(keyDir)
	if err != nil {
		return queue.Config{}, err
	}
	admission, err := device.LoadAdmission(keyDir)
	if err != nil {
		return queue.Config{}, err
	}
	trust, err := admission.Trust()
	if err != nil {
		return queue.Config{}, err
	}
	clock, err := device.SystemClock(time.Local)
	if err != nil {
		return queue.Config{}, err
	}
	ring, err := keys.Ring(admission)
	if err != nil {
		return queue.Config{}, err
	}
	return queue.Config{
		Dir: state, Terminal: admission.Terminal, Key: keys.Ledger(), Ring: ring, Keys: keys, ReceiptKey: trust.Receipt,
		Stamp: clock.Stamp, Software: "rollcall ledger salvage", Probe: probe.File,
	}, nil
}

// ledgerDiskCheck measures what one durable write costs and says what it
// means. A disk that answers faster than any that keeps its word does not.
func ledgerDiskCheck(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ledger disk-check", flag.ContinueOnError)
	limit := flags.Duration("time", 3*time.Second, "how long to write")
	if err := parse(flags, args, 1); err != nil {
		return err
	}
	check, err := queue.CheckDisk(ctx, flags.Arg(0), *limit)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d durable writes: median %s, p99 %s, worst %s; %d MiB free\n",
		check.Writes, check.Median, check.P99, check.Worst, check.Free>>20)
	if check.Free < queue.FreeNeeded {
		return fmt.Errorf("%w: less than %d MiB free: the ledger would refuse records", errFound, queue.FreeNeeded>>20)
	}
	if check.Median < queue.FastestDisk {
		return fmt.Errorf("%w: a durable write in %s is faster than storage can be: this disk, or the machine under it, "+
			"says done before it is, and a power cut would lose records. Turn its volatile write cache off, or use another", errFound, check.Median)
	}
	return nil
}

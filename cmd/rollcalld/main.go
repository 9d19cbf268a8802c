// Command rollcalld is the terminal: it reads cards, has the camera worker look
// at faces, keeps every record in the ledger, shows the panel and sends records
// to the centre. Its configuration is one TOML file, deploy/rollcalld.toml.
//
// It never opens a camera itself (cmd/rollcall-vision does) and needs no
// network to serve a class.
//
// Exit status: 0 after SIGTERM or SIGINT, 1 if it cannot go on, 2 for a wrong
// call or configuration. A supervisor may start it again after 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rollcall/cmd/internal/probe"
	"rollcall/queue"
)

// software names this program in records and state messages; the build sets it.
var software = "rollcalld/dev"

// built is the time of this program's sources (RFC 3339); the build sets it.
var built string

// builtAt reads built: zero if it was not set.
func builtAt() time.Time {
	at, _ := time.Parse(time.RFC3339, built)
	return at
}

// errUsage is wrapped by every error that a person at the keyboard can mend by
// another call or another configuration.
var errUsage = errors.New("rollcalld cannot start")

func main() {
	probe.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "rollcalld:", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("rollcalld", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/rollcall/rollcalld.toml", "configuration `file`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	cfg, zone, err := loadConfig(*file)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
	d, err := wire(cfg, zone, log)
	if errors.Is(err, queue.ErrInUse) {
		return err // by the daemon that runs already
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return d.run(ctx)
}

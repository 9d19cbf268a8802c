//go:build !cgo

package pcsc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"rollcall/attendance"
)

// Driver is a stand-in: this program was built without PC/SC.
type Driver struct{}

// New checks the configuration, as the real driver does.
func New(cfg Config, _ func() time.Time, _ *slog.Logger, _ Report) (*Driver, error) {
	if _, err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	return &Driver{}, nil
}

// Run says how to build the driver.
func (d *Driver) Run(context.Context, chan<- attendance.Tap) error {
	return errors.New("this program was built without PC/SC: install libpcsclite-dev and build it with CGO_ENABLED=1")
}

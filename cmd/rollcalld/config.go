package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	_ "time/tzdata" // boxes without a zone database

	"rollcall/cmd/internal/tomlfile"
	"rollcall/device/panel"
	"rollcall/queue"
	"rollcall/queue/mqtt"
	"rollcall/reader/pcsc"
	"rollcall/reader/serial"
	"rollcall/vision"
)

// config is the daemon's configuration file; deploy/rollcalld.toml explains it.
type config struct {
	// State is the directory of keys, ledger, templates and class packages. It
	// must be set, and made by `rollcall terminal request` and `admit`.
	State string `toml:"state"`
	// Zone is the time zone of screens and records. Default Asia/Shanghai.
	Zone string `toml:"zone"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel slog.Level `toml:"log_level"`

	Cards  pcsc.Config     `toml:"cards"`
	Serial []serial.Config `toml:"serial"`
	Vision vision.Config   `toml:"vision"`
	Ledger queue.Config    `toml:"ledger"`
	Uplink mqtt.Config     `toml:"uplink"`
	Panel  panel.Config    `toml:"panel"`
}

func loadConfig(path string) (config, *time.Location, error) {
	c := config{Zone: "Asia/Shanghai", Uplink: mqtt.Config{StartSpread: time.Minute}}
	if err := tomlfile.Load(path, &c); err != nil {
		return c, nil, err
	}
	if c.State == "" {
		return c, nil, fmt.Errorf("configuration %s: %w", path, errors.New(`state = "": name the directory that rollcall terminal request made`))
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return c, nil, fmt.Errorf("configuration %s: zone = %q: not a time zone, write it like Asia/Shanghai", path, c.Zone)
	}
	return c, zone, nil
}

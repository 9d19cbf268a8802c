package centre

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Centre is the reference central system on one database. Open makes one.
type Centre struct {
	cfg    Config
	keys   *authority
	served *serverCertificate
	db     *database
	log    *slog.Logger
	now    func() time.Time
	zone   *time.Location

	arriving arrivals
	runs     runs
}

// Open reads the keys and opens the database, creating its tables if they are
// not there. The caller closes it.
func Open(ctx context.Context, cfg Config, log *slog.Logger, now func() time.Time) (*Centre, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	keys, err := loadAuthority(cfg)
	if err != nil {
		return nil, err
	}
	served, err := newServerCertificate(cfg, keys.ca, log, now)
	if err != nil {
		return nil, err
	}
	zone, err := cfg.zone()
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the centre's database: %w", err)
	}
	return &Centre{cfg: cfg, keys: keys, served: served, db: db, log: log, now: now, zone: zone}, nil
}

// Close closes the database.
func (c *Centre) Close() error { return c.db.Close() }

func millis(t time.Time) int64 { return t.UnixMilli() }

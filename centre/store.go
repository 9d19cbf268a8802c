package centre

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", without cgo

	"rollcall/queue/chain"
)

// schemaVersion is the database's user_version.
const schemaVersion = 1

// Times are milliseconds since 1970 UTC. line, head, receipt and payload are
// the bytes as they came or went.
const schema = `
CREATE TABLE terminals (
	id         TEXT PRIMARY KEY,
	ledger     TEXT NOT NULL,    -- PEM certificate, judges heads
	uplink_key BLOB NOT NULL,    -- SubjectPublicKeyInfo of the TLS client key
	sealing    BLOB NOT NULL,    -- X25519 public key
	admitted   INTEGER NOT NULL
) STRICT;
CREATE TABLE watermarks (
	log      TEXT PRIMARY KEY,
	terminal TEXT NOT NULL REFERENCES terminals,
	seq      INTEGER NOT NULL,
	hash     BLOB NOT NULL,
	started  INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
	id       INTEGER PRIMARY KEY, -- order of arrival
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	seq      INTEGER NOT NULL,
	hash     BLOB NOT NULL,
	type     TEXT NOT NULL,
	line     BLOB NOT NULL,
	received INTEGER NOT NULL,
	trainee  TEXT, class TEXT, session TEXT, decision TEXT, reason TEXT, -- out of the body, for reports
	UNIQUE (log, seq)
) STRICT;
CREATE TABLE receipts (
	id       INTEGER PRIMARY KEY,
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	seq      INTEGER NOT NULL,
	head     BLOB NOT NULL,
	receipt  BLOB NOT NULL,
	UNIQUE (log, seq)
) STRICT;
CREATE INDEX receipts_of_terminal ON receipts (terminal, id);
CREATE TABLE quarantine (
	id       INTEGER PRIMARY KEY,
	terminal TEXT NOT NULL,
	sha256   BLOB NOT NULL,
	payload  BLOB NOT NULL,
	reason   TEXT NOT NULL,
	received INTEGER NOT NULL,
	UNIQUE (terminal, sha256)
) STRICT;
CREATE TABLE alarms (
	id       INTEGER PRIMARY KEY,
	kind     TEXT NOT NULL,
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	seq      INTEGER NOT NULL,
	detail   TEXT NOT NULL,
	raised   INTEGER NOT NULL,
	UNIQUE (terminal, kind, log, seq)
) STRICT;
CREATE TABLE packages (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	terminal TEXT NOT NULL REFERENCES terminals,
	class    TEXT NOT NULL,
	serial   INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	jws      BLOB NOT NULL,
	UNIQUE (terminal, serial)
) STRICT;
`

// Centre is the reference central system on one database. Open makes one.
type Centre struct {
	cfg  Config
	keys *authority
	db   *sql.DB
	log  *slog.Logger
	now  func() time.Time
	zone *time.Location
}

// Open reads the keys and opens the database in cfg.Dir, creating it if it is
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
	zone, err := cfg.zone()
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, filepath.Join(cfg.Dir, "centre.db"))
	if err != nil {
		return nil, fmt.Errorf("opening the centre's database: %w", err)
	}
	return &Centre{cfg: cfg, keys: keys, db: db, log: log, now: now, zone: zone}, nil
}

// Close closes the database.
func (c *Centre) Close() error { return c.db.Close() }

// openDatabase opens SQLite so that a commit is on disk when it returns
// (synchronous FULL syncs the write-ahead log at each), with one connection:
// writers wait in this process, and up to busy_timeout for another process.
func openDatabase(ctx context.Context, path string) (*sql.DB, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would take the umask's mode
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	params := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+params.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version == schemaVersion {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch version {
	case schemaVersion: // another process was faster
		return nil
	case 0:
		if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
			return err
		}
		return tx.Commit()
	}
	return fmt.Errorf("it has version %d and this program knows %d: use the program that wrote it, or a newer one", version, schemaVersion)
}

// terminal is what the centre knows of a terminal.
type terminal struct {
	ID        chain.TerminalID
	Ledger    string // PEM
	UplinkKey []byte
	Sealing   []byte
}

// ErrUnknownTerminal says that a terminal was never admitted here.
var ErrUnknownTerminal = errors.New("terminal is not admitted")

// querier is a database or a transaction on it.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func findTerminal(ctx context.Context, q querier, id chain.TerminalID) (terminal, error) {
	t := terminal{ID: id}
	err := q.QueryRowContext(ctx, "SELECT ledger, uplink_key, sealing FROM terminals WHERE id = ?", string(id)).
		Scan(&t.Ledger, &t.UplinkKey, &t.Sealing)
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("%q: %w", string(id), ErrUnknownTerminal)
	}
	return t, err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

package centre

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite", without cgo
)

// database is SQLite or PostgreSQL. Statements are the same for both: write
// parameters as $1, and nothing that only one of them knows.
type database struct {
	*sql.DB
	dialect
}

// dialect is what differs.
type dialect struct {
	words *strings.Replacer // turns SQLite's words in a migration into its own
	fix   string            // makes the table {} refuse changes and deletions
	// forUpdate ends a query whose rows nobody else may change until the
	// transaction ends.
	forUpdate string
	// version reads which migrations were made, and holds off other processes
	// until the transaction ends.
	version    func(ctx context.Context, tx *sql.Tx) (int, error)
	setVersion func(ctx context.Context, tx *sql.Tx, version int) error
	// inOrder makes rows that get an id after it visible in the order of their
	// ids: others who call it wait until the transaction ends.
	inOrder func(ctx context.Context, tx *sql.Tx) error
	// among gives a condition that column is in the list of parameter n, and
	// list the parameter.
	among func(column string, n int) string
	list  func(values any) any
	// insert adds many rows at once.
	insert func(ctx context.Context, tx *sql.Tx, r rows) error
}

// rows are to be inserted. Each column's values are a slice, all of one length.
type rows struct {
	table   string
	columns []column
	clash   string // what to do with a row that is there already; nothing: it is an error
}

type column struct {
	name   string
	kind   string // PostgreSQL's name of the type
	values any
}

func (r rows) names() string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// openDatabase opens the database that cfg names, and brings it up to date.
func openDatabase(ctx context.Context, cfg Config) (*database, error) {
	open := openSQLite
	if cfg.Database != sqliteName {
		open = openPostgres
	}
	db, err := open(cfg)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openSQLite opens SQLite so that a commit is on disk when it returns
// (synchronous FULL syncs the write-ahead log at each), with one connection:
// writers wait in this process, and up to busy_timeout for another process.
func openSQLite(cfg Config) (*database, error) {
	path := filepath.Join(cfg.Dir, "centre.db")
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
	return &database{db, sqlite}, nil
}

const fixSQLite = `
CREATE TRIGGER {}_stay BEFORE DELETE ON {} BEGIN SELECT RAISE(ABORT, 'rows of {} are never deleted'); END;
CREATE TRIGGER {}_same BEFORE UPDATE ON {} BEGIN SELECT RAISE(ABORT, 'rows of {} are never changed'); END;`

// sqlite holds the database's one write lock from the start of a transaction.
var sqlite = dialect{
	words: strings.NewReplacer(),
	fix:   fixSQLite,
	version: func(ctx context.Context, tx *sql.Tx) (version int, err error) {
		err = tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
		return version, err
	},
	setVersion: func(ctx context.Context, tx *sql.Tx, version int) error {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	},
	inOrder: func(context.Context, *sql.Tx) error { return nil },
	among: func(column string, n int) string {
		return fmt.Sprintf("%s IN (SELECT value FROM json_each($%d))", column, n)
	},
	list: func(values any) any {
		text, err := json.Marshal(values)
		if err != nil {
			panic("centre: " + err.Error())
		}
		return string(text)
	},
	insert: insertOneByOne,
}

// insertOneByOne is for a database in this process.
func insertOneByOne(ctx context.Context, tx *sql.Tx, r rows) error {
	marks := make([]string, len(r.columns))
	for i := range marks {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	insert, err := tx.PrepareContext(ctx, "INSERT INTO "+r.table+" ("+r.names()+") VALUES ("+strings.Join(marks, ", ")+") "+r.clash)
	if err != nil {
		return err
	}
	defer insert.Close()
	args := make([]any, len(r.columns))
	for row := range reflect.ValueOf(r.columns[0].values).Len() {
		for i, c := range r.columns {
			args[i] = reflect.ValueOf(c.values).Index(row).Interface()
		}
		if _, err := insert.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// postgresConns bounds the connections of one process. Few are needed: a
// transaction takes in many batches.
const postgresConns = 16

// openPostgres opens PostgreSQL so that a commit is on disk when it returns,
// whatever the server's default is.
func openPostgres(cfg Config) (*database, error) {
	conf, err := pgx.ParseConfig(cfg.Database)
	if err != nil {
		return nil, errors.New("database: it is not an address of PostgreSQL, write postgres://user@host:port/name") // the error may quote a password
	}
	if cfg.DatabasePassword != "" {
		text, err := os.ReadFile(cfg.DatabasePassword)
		if err != nil {
			return nil, fmt.Errorf("database_password: %w", err)
		}
		conf.Password = strings.TrimRight(string(text), "\r\n")
	}
	conf.RuntimeParams["synchronous_commit"] = "on"
	conf.RuntimeParams["application_name"] = "rollcall-centre"
	db := stdlib.OpenDB(*conf)
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	return &database{db, postgres}, nil
}

// Advisory locks of PostgreSQL, by number.
const (
	lockSchema = 0x726f6c01
	lockOrder  = 0x726f6c02
)

var postgres = dialect{
	words: strings.NewReplacer(
		"INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
		"INTEGER PRIMARY KEY", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
		"INTEGER", "BIGINT", "BLOB", "BYTEA", ") STRICT", ")"),
	fix: `
CREATE OR REPLACE FUNCTION rollcall_never() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME; END $$;
CREATE TRIGGER {}_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {} EXECUTE FUNCTION rollcall_never();`,
	forUpdate: " FOR UPDATE",
	version: func(ctx context.Context, tx *sql.Tx) (version int, err error) {
		if err := lock(ctx, tx, lockSchema); err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)"); err != nil {
			return 0, err
		}
		err = tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM schema_version").Scan(&version)
		return version, err
	},
	setVersion: func(ctx context.Context, tx *sql.Tx, version int) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO schema_version (version) VALUES ($1)", version)
		return err
	},
	inOrder: func(ctx context.Context, tx *sql.Tx) error { return lock(ctx, tx, lockOrder) },
	among:   func(column string, n int) string { return fmt.Sprintf("%s = ANY($%d)", column, n) },
	list:    func(values any) any { return values },
	insert:  insertArrays,
}

func lock(ctx context.Context, tx *sql.Tx, number int64) error {
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", number)
	return err
}

// insertArrays is one statement however many rows there are.
func insertArrays(ctx context.Context, tx *sql.Tx, r rows) error {
	arrays, args := make([]string, len(r.columns)), make([]any, len(r.columns))
	for i, c := range r.columns {
		arrays[i], args[i] = fmt.Sprintf("$%d::%s[]", i+1, c.kind), c.values
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO "+r.table+" ("+r.names()+") SELECT * FROM unnest("+strings.Join(arrays, ", ")+") "+r.clash, args...)
	return err
}

// querier is a database or a transaction on it.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

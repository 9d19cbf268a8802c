package centre

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// migrations make the schema, step by step; a database's version is how many
// of them it has. They are written in SQLite's words; PostgreSQL's dialect
// translates them. Only add at the end.
//
// Times are milliseconds since 1970 UTC. line, head, receipt and payload are
// the bytes as they came or went.
var migrations = []migration{
	{both: schema1},
	{both: schema2, sqlite: fillWall},
	{fixed: []string{"records", "receipts", "alarms", "closings", "gaps"}},
	{both: schema4, fixed: []string{"revocations"}},
	{both: schema5, fixed: []string{"commands", "answers", "handovers"}},
	{both: schema6},
	{both: schema7},
	{both: schema8, fixed: []string{"occurrences"}},
	{both: schema9},
}

// migration is one step. Its parts are run in the order of the fields.
type migration struct {
	both   string
	sqlite string   // for what only SQLite can hold: databases from before PostgreSQL was served
	fixed  []string // tables whose rows the database will neither change nor delete from now on
}

const schema1 = `
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

// schema2: the read API looks up by terminal, class, trainee and wall time; an
// alarm is closed by a person and may be raised again; gaps are taken over.
const schema2 = `
ALTER TABLE records ADD COLUMN wall INTEGER NOT NULL DEFAULT 0; -- the terminal's word
CREATE INDEX records_of_terminal ON records (terminal, id);
CREATE INDEX records_of_class ON records (class, id) WHERE class IS NOT NULL;
CREATE INDEX records_of_trainee ON records (trainee, id) WHERE trainee IS NOT NULL;
CREATE INDEX records_of_enrolment ON records (trainee, log) WHERE type IN ('enrol', 'withdraw', 'erase');
CREATE TABLE alarms_now (
	id       INTEGER PRIMARY KEY,
	kind     TEXT NOT NULL,
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	seq      INTEGER NOT NULL,
	detail   TEXT NOT NULL,
	raised   INTEGER NOT NULL,
	round    INTEGER NOT NULL, -- how often it was closed before
	UNIQUE (terminal, kind, log, seq, round)
) STRICT;
INSERT INTO alarms_now SELECT id, kind, terminal, log, seq, detail, raised, 0 FROM alarms;
DROP TABLE alarms;
ALTER TABLE alarms_now RENAME TO alarms;
CREATE TABLE closings (
	alarm  INTEGER NOT NULL UNIQUE REFERENCES alarms,
	who    TEXT NOT NULL,
	reason TEXT NOT NULL,
	closed INTEGER NOT NULL
) STRICT;
CREATE TABLE gaps ( -- the terminal's signed word that it lost records
	id       INTEGER PRIMARY KEY,
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	told     INTEGER NOT NULL,
	UNIQUE (log, first, last)
) STRICT;
CREATE TABLE readers ( -- who may read over HTTP
	name  TEXT PRIMARY KEY,
	token BLOB NOT NULL UNIQUE, -- its SHA-256
	added INTEGER NOT NULL
) STRICT;
`

const schema4 = `
CREATE TABLE revocations (
	terminal TEXT NOT NULL UNIQUE REFERENCES terminals,
	who      TEXT NOT NULL,
	reason   TEXT NOT NULL,
	revoked  INTEGER NOT NULL
) STRICT;
`

// schema5: commands and the terminals' answers; the keys that a ledger went
// through, in order: those that a log began with stand at seq 0.
const schema5 = `
CREATE TABLE commands (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	terminal TEXT NOT NULL REFERENCES terminals,
	serial   INTEGER NOT NULL,
	kind     TEXT NOT NULL,
	issued   INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	sha256   TEXT NOT NULL, -- of jws, lower-case hex
	jws      BLOB NOT NULL,
	UNIQUE (terminal, serial)
) STRICT;
CREATE TABLE answers (
	terminal TEXT NOT NULL,
	serial   INTEGER NOT NULL,
	result   TEXT NOT NULL,
	reason   TEXT NOT NULL,
	log      TEXT NOT NULL, -- of the admin record
	seq      INTEGER NOT NULL,
	told     INTEGER NOT NULL,
	UNIQUE (terminal, serial)
) STRICT;
CREATE TABLE handovers (
	id       INTEGER PRIMARY KEY,
	terminal TEXT NOT NULL,
	log      TEXT NOT NULL,
	seq      INTEGER NOT NULL,
	jws      TEXT NOT NULL,
	UNIQUE (log, seq, jws)
) STRICT;
`

// schema6: the read API looks up by wall time alone.
const schema6 = `
CREATE INDEX records_of_time ON records (wall, id);
`

// schema7: a reader has a token or a certificate.
const schema7 = `
CREATE TABLE readers_now (
	name  TEXT PRIMARY KEY,
	token BLOB UNIQUE, -- its SHA-256
	key   BLOB UNIQUE, -- SubjectPublicKeyInfo of the TLS client key
	added INTEGER NOT NULL,
	until INTEGER,     -- end of the last certificate that was given
	CHECK ((token IS NULL) <> (key IS NULL))
) STRICT;
INSERT INTO readers_now (name, token, added) SELECT name, token, added FROM readers;
DROP TABLE readers;
ALTER TABLE readers_now RENAME TO readers;
`

// schema8: what raised an alarm raises none again, not after it was closed either.
const schema8 = `
CREATE TABLE occurrences (
	alarm    INTEGER NOT NULL REFERENCES alarms, -- the one that it raised, or that was open
	terminal TEXT NOT NULL,
	sha256   BLOB NOT NULL, -- of the alarm's kind, log and seq, and what tells it from others of these
	UNIQUE (terminal, sha256)
) STRICT;
CREATE INDEX occurrences_of_alarm ON occurrences (alarm);
`

// schema9: every batch asks for its terminal's handovers.
const schema9 = `
CREATE INDEX handovers_of_terminal ON handovers (terminal, id);
`

const fillWall = `UPDATE records SET wall =
	CAST(round(unixepoch(json_extract(CAST(line AS TEXT), '$.at.wall'), 'subsec') * 1000) AS INTEGER)`

// migrate brings a database to the version this program knows, one process at
// a time and in one transaction.
func migrate(ctx context.Context, db *database) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	version, err := db.version(ctx, tx)
	if err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("it has version %d and this program knows %d: use the program that wrote it, or a newer one", version, len(migrations))
	}
	if version == len(migrations) {
		return nil
	}
	for _, m := range migrations[version:] {
		if err := db.apply(ctx, tx, m); err != nil {
			return err
		}
	}
	if err := db.setVersion(ctx, tx, len(migrations)); err != nil {
		return err
	}
	return tx.Commit()
}

func (db *database) apply(ctx context.Context, tx *sql.Tx, m migration) error {
	steps := []string{db.words.Replace(m.both)}
	if db.fix == fixSQLite {
		steps = append(steps, m.sqlite)
	}
	for _, table := range m.fixed {
		steps = append(steps, strings.ReplaceAll(db.fix, "{}", table))
	}
	for _, step := range steps {
		if step == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

-- A database as the first version of the centre made it, with a record and an alarm.
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
INSERT INTO terminals VALUES ('t-1', 'pem', x'01', x'02', 1);
INSERT INTO watermarks VALUES ('t-1/e1', 't-1', 1, zeroblob(32), 1);
INSERT INTO records (terminal, log, seq, hash, type, line, received, trainee) VALUES ('t-1', 't-1/e1', 1, zeroblob(32), 'checkin',
	CAST('{"v":1,"log":"t-1/e1","seq":1,"at":{"wall":"2026-11-21T08:58:03.120+08:00","boot":"b"}}' AS BLOB), 5, 'p-1');
INSERT INTO alarms (kind, terminal, log, seq, detail, raised) VALUES ('gap', 't-1', 't-1/e1', 2, 'why', 7);
PRAGMA user_version = 1;

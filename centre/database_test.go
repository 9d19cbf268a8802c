package centre_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/centre/centretest"
)

func TestDatabaseOfTheFirstVersionIsTakenOver(t *testing.T) {
	cfg := centre.Config{Tenant: "test", Dir: filepath.Join(t.TempDir(), "centre")}
	require.NoError(t, centre.Init(cfg, time.Now()))
	old, err := os.ReadFile("testdata/database-1.sql")
	require.NoError(t, err)
	behindItsBack(t, cfg, string(old))

	c := open(t, cfg, &logBuffer{})
	rows := stored(t, c)
	require.Len(t, rows, 1)
	assert.Equal(t, "p-1", rows[0].Trainee)
	at := time.Date(2026, 11, 21, 0, 58, 3, 120e6, time.UTC)
	assert.Equal(t, 1, count(t, cfg, "records WHERE wall = $1", at.UnixMilli()))
	alarms, err := c.Alarms(t.Context(), false, 0, 10)
	require.NoError(t, err)
	require.Len(t, alarms, 1)
	assert.Equal(t, "why", alarms[0].Detail)

	open(t, cfg, &logBuffer{}) // and only once
	behindItsBack(t, cfg, "PRAGMA user_version = 99")
	_, err = centre.Open(t.Context(), cfg, discard(), time.Now)
	assert.ErrorContains(t, err, "version 99")
}

// Several processes may be the first to open an empty database.
func TestDatabaseIsMadeOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		cfg := centre.Config{Tenant: "test", Dir: filepath.Join(t.TempDir(), "centre")}
		on(&cfg)
		require.NoError(t, centre.Init(cfg, time.Now()))
		var openers sync.WaitGroup
		for range 4 {
			openers.Go(func() {
				c, err := centre.Open(context.Background(), cfg, discard(), time.Now)
				if assert.NoError(t, err) {
					assert.NoError(t, c.Close())
				}
			})
		}
		openers.Wait()
		assert.Zero(t, count(t, cfg, "records"))
	})
}

// The store offers no way to change a record, and the database refuses whoever
// tries without it.
func TestT18RowsCannotBeChangedOrDeleted(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, cfg, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord(), checkin("p-1"))))
		require.NoError(t, err)
		lines := b.append(t, checkins(3)...)
		_, err = c.Ingest(t.Context(), "t-1", b.batch(t, lines[1:]))
		require.NoError(t, err)
		require.NoError(t, c.CloseAlarm(t.Context(), 1, "auditor", "looked into"))

		db := database(t, cfg)
		for table, column := range map[string]string{"records": "line", "receipts": "receipt", "alarms": "detail", "closings": "reason"} {
			before := contents(t, db, table)
			require.NotEmpty(t, before)
			for _, statement := range []string{
				fmt.Sprintf("UPDATE %s SET %s = %s", table, column, column),
				"DELETE FROM " + table,
				"DELETE FROM " + table + " WHERE 1 = 0 OR true",
			} {
				_, err := db.Exec(statement)
				assert.ErrorContains(t, err, "never", statement)
			}
			if cfg.Database != "" {
				_, err := db.Exec("TRUNCATE " + table + " CASCADE")
				assert.ErrorContains(t, err, "never")
			}
			assert.Equal(t, before, contents(t, db, table))
		}
		_, err = db.Exec("DELETE FROM terminals WHERE id = 't-9'")
		assert.NoError(t, err, "what may be changed can be")
	})
}

func contents(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.Query("SELECT * FROM " + table)
	require.NoError(t, err)
	defer rows.Close()
	return values(t, rows)
}

// values gives each row as a text.
func values(t *testing.T, rows *sql.Rows) []string {
	t.Helper()
	columns, err := rows.Columns()
	require.NoError(t, err)
	var out []string
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		require.NoError(t, rows.Scan(into...))
		out = append(out, fmt.Sprint(row...))
	}
	require.NoError(t, rows.Err())
	return out
}

func TestDatabaseConfiguration(t *testing.T) {
	good := centretest.Postgres(t)
	for name, tt := range map[string]struct{ address, password, says string }{
		"a file name":                {"centre.db", "", "must be sqlite, or an address"},
		"another database":           {"mysql://u@h/d", "", "must be sqlite, or an address"},
		"a password in it":           {"postgres://u:hunter2@h/d", "", "put it into a file"},
		"a password behind it":       {"postgres://u@h/d?password=hunter2", "", "put it into a file"},
		"not an address":             {"postgres://u@h:no/d hunter2", "", "database"},
		"a password for a file":      {"sqlite", "x", "remove one"},
		"a password that is nowhere": {good.Address, "/nowhere/hunter1", "no such file"},
		"no password":                {good.Address, "", "password"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := centre.Config{Tenant: "test", Dir: filepath.Join(t.TempDir(), "centre")}
			require.NoError(t, centre.Init(cfg, time.Now()))
			cfg.Database, cfg.DatabasePassword = tt.address, tt.password
			_, err := centre.Open(t.Context(), cfg, discard(), time.Now)
			require.ErrorContains(t, err, tt.says)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

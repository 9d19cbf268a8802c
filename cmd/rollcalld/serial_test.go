package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/simulator"
)

// TestCodesAndIdentityCardsThroughTheDaemon: a scanner and an identity card
// module on their lines, no network. A class code names its trainee by the
// centre's word alone, an identity card by the roster, and a stranger's code
// names nobody.
func TestCodesAndIdentityCardsThroughTheDaemon(t *testing.T) {
	t.Parallel()
	file, state := admitted(t)
	dir := filepath.Dir(state)
	scanner, module := &simulator.GM65{End: "\r"}, &simulator.IDCardModule{}
	for path, twin := range map[string]simulator.SerialTwin{"scanner": scanner, "module": module} {
		line, err := simulator.PlugSerial(filepath.Join(dir, path), 115200, twin)
		require.NoError(t, err)
		t.Cleanup(line.Unplug)
	}
	holder := simulator.InventHolder(7)
	code := publish(t, dir, state, holder)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, fmt.Appendf(text, "[[serial]]\nkind = \"qr-gm65\"\npath = %q\n[[serial]]\nkind = \"id-card\"\npath = %q\n",
		filepath.Join(dir, "scanner"), filepath.Join(dir, "module")), 0o600))
	stop := start(t, file, state)
	client := control.NewClient(state)
	require.Eventually(t, func() bool {
		status, err := client.Status(t.Context())
		reader, spoke := status.Health.Part(device.PartReader)
		return err == nil && spoke && reader.State == device.StateDegraded && scanner.Looking()
	}, 20*time.Second, 10*time.Millisecond, "no card reader, and not without a reader")

	lines := func() []string {
		var out strings.Builder
		require.NoError(t, client.Export(t.Context(), &out))
		return strings.Split(out.String(), "\n")
	}
	wait := func(parts ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			for _, line := range lines() {
				all := true
				for _, part := range parts {
					all = all && strings.Contains(line, part)
				}
				if all {
					return true
				}
			}
			return false
		}, 20*time.Second, 20*time.Millisecond, "a record with %q", parts)
	}
	scanner.Show(code)
	wait(`"type":"checkin"`, `"trainee":"p-7"`, `"reason":"no_enrolment"`, `"kind":"qr","level":"signed","reader":"qr-gm65"`, `"code":"`)
	scanner.Show("86013245012345678901")
	wait(`"type":"pending"`, `"reader":"qr-gm65"`)
	scanner.Show(code[:len(code)-6] + "AAAAAA")
	wait(`"type":"fault"`, `"code":"bad_code"`)
	module.Place(simulator.InventIDCard(holder))
	wait(`"type":"checkin"`, `"trainee":"p-7"`, `"kind":"id","level":"file","reader":"id-card"`)
	for _, line := range lines() {
		assert.NotContains(t, line, holder.PersonNo)
		assert.NotContains(t, line, "86013245012345678901")
	}
	require.NoError(t, stop())
}

// publish gives the terminal its class, by file as if it had come down, and
// makes a class code for its one trainee.
func publish(t *testing.T, dir, state string, holder simulator.Holder) (code string) {
	t.Helper()
	publishClass(t, dir, state, map[string]any{
		"trainees": []any{map[string]any{"trainee": "p-7", "name": holder.Name, "person_no": holder.PersonNo}},
	}, func(c *centre.Centre) {
		var err error
		code, err = c.Code(t.Context(), centre.CodeRequest{Terminal: "t-1", Class: "c-1", Session: "s-1", Trainee: attendance.TraineeID("p-7")})
		require.NoError(t, err)
	})
	return code
}

// publishClass gives the terminal a class that meets now, with these people, by
// file as if it had come down.
func publishClass(t *testing.T, dir, state string, people map[string]any, more func(*centre.Centre)) {
	t.Helper()
	cfg := centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre")}
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(t, err)
	defer c.Close()
	now := time.Now()
	file := map[string]any{
		"class":    map[string]any{"id": "c-1", "name": "班"},
		"sessions": []any{map[string]any{"id": "s-1", "start": now.Add(-time.Minute).Format(time.RFC3339), "end": now.Add(time.Hour).Format(time.RFC3339)}},
	}
	maps.Copy(file, people)
	class, err := json.Marshal(file)
	require.NoError(t, err)
	plan, err := c.ParsePlan(class)
	require.NoError(t, err)
	_, err = c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
	if more != nil {
		more(c)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(cfg.Dir, "centre.db"))
	require.NoError(t, err)
	defer db.Close()
	var jws []byte
	require.NoError(t, db.QueryRow("SELECT jws FROM packages").Scan(&jws))
	require.NoError(t, os.MkdirAll(filepath.Join(state, "packages"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(state, "packages", "c-1.jws"), jws, 0o600))
}

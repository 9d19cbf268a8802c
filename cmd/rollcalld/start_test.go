package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/centre"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// admitted makes a terminal that a centre has admitted, and its configuration.
func admitted(t testing.TB) (file, state string) {
	dir := t.TempDir()
	cfg := centre.Config{Tenant: "demo", Dir: filepath.Join(dir, "centre"), Listen: "127.0.0.1:0"}
	require.NoError(t, centre.Init(cfg, time.Now()))
	c, err := centre.Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(t, err)
	defer c.Close()
	return admittedBy(t, c, dir, "127.0.0.1:1")
}

// admittedBy makes the terminal t-1 of a centre that is reached at an address.
func admittedBy(t testing.TB, c *centre.Centre, dir, address string) (file, state string) {
	return admittedAs(t, c, dir, "t-1", address)
}

func admittedAs(t testing.TB, c *centre.Centre, dir string, id chain.TerminalID, address string) (file, state string) {
	state = filepath.Join(dir, "terminal")
	require.NoError(t, os.Mkdir(state, 0o700))
	keys, err := device.CreateKeys(filepath.Join(state, "keys"))
	require.NoError(t, err)
	request, err := keys.Request(id)
	require.NoError(t, err)
	text, err := json.Marshal(request)
	require.NoError(t, err)
	admission, err := c.Admit(t.Context(), text)
	require.NoError(t, err)
	require.NoError(t, device.SaveAdmission(filepath.Join(state, "keys"), admission))

	file = filepath.Join(dir, "rollcalld.toml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `state = %q
[vision]
worker = "/nonexistent/rollcall-vision"
worker_config = "/nonexistent/vision.toml"
[uplink]
addresses = [%q]
start_spread = "0s"
[panel]
listen = "127.0.0.1:0"
`, state, address), 0o600))
	return file, state
}

// start runs the daemon until it can store a check-in, and gives how to stop it.
func start(t *testing.T, file, state string) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-config", file}, t.Output()) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() }) // of a test that failed before
	ready(t, state)
	return stop
}

// ready waits until the daemon of a state directory can store a check-in.
func ready(t *testing.T, state string) {
	t.Helper()
	client := control.NewClient(state)
	require.Eventually(t, func() bool {
		status, err := client.Status(t.Context())
		return err == nil && status.Health.Ready
	}, 20*time.Second, 10*time.Millisecond)
}

// TestTerminalIsReadyWithoutDevicesOrNetwork: no pcscd, no worker, no centre,
// and still it can store a check-in, say what is wrong, and be stopped.
func TestTerminalIsReadyWithoutDevicesOrNetwork(t *testing.T) {
	t.Parallel()
	file, state := admitted(t)
	stop := start(t, file, state)
	client := control.NewClient(state)
	require.Eventually(t, func() bool {
		status, err := client.Status(t.Context())
		if err != nil {
			return false
		}
		for _, part := range []device.Part{device.PartReader, device.PartCamera, device.PartUplink} {
			health, ok := status.Health.Part(part)
			if !ok || health.State == device.StateOK || health.Sentence.Zh == "" || health.Sentence.En == "" {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond, "each missing part says so in both languages")

	status, err := client.Status(t.Context())
	require.NoError(t, err)
	response, err := http.Get(status.Panel + "/readyz")
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusOK, response.StatusCode, "offline is ready")

	err = run(t.Context(), []string{"-config", file}, t.Output())
	require.ErrorIs(t, err, queue.ErrInUse, "a second daemon on one state directory is refused")
	_, err = client.Status(t.Context())
	assert.NoError(t, err, "and takes nothing from the first")
	require.NoError(t, stop())
}

func TestDamagedLedgerIsSetAsideAndTheTerminalStarts(t *testing.T) {
	t.Parallel()
	file, state := admitted(t)
	require.NoError(t, start(t, file, state)())

	files, err := filepath.Glob(filepath.Join(state, "ledger", "*", "*.db"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	at := bytes.Index(text, []byte(`"type":"open"`))
	require.Positive(t, at)
	text[at+9] ^= 1
	require.NoError(t, os.WriteFile(files[0], text, 0o600))

	stop := start(t, file, state)
	status, err := control.NewClient(state).Status(t.Context())
	require.NoError(t, err)
	health, ok := status.Health.Part(device.PartLedger)
	require.True(t, ok)
	assert.Equal(t, device.StateDegraded, health.State)
	assert.Contains(t, health.Sentence.En, "Ledger files were damaged: 1 set aside")
	require.NoError(t, stop())
	kept, err := os.ReadFile(files[0] + ".bad")
	require.NoError(t, err)
	assert.Equal(t, text, kept, "the damaged file is kept as it was")
}

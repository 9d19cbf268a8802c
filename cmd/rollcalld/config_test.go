package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader/serial"
)

const sample = "../../deploy/rollcalld.toml"

func TestSampleLoads(t *testing.T) {
	c, zone, err := loadConfig(sample)
	require.NoError(t, err)
	assert.Equal(t, "/var/lib/rollcall", c.State)
	assert.Equal(t, "Asia/Shanghai", zone.String())
	assert.Equal(t, []string{"centre.example:8883"}, c.Uplink.Addresses)
}

// TestSampleNamesRealKeys takes the comment marks off the sample's settings:
// every key it offers must exist.
func TestSampleNamesRealKeys(t *testing.T) {
	text, err := os.ReadFile(sample)
	require.NoError(t, err)
	offered := regexp.MustCompile(`(?m)^# ([a-z_]+ = |\[\[)`).ReplaceAllString(string(text), "$1")
	require.Greater(t, strings.Count(offered, " = "), strings.Count(regexp.MustCompile(`(?m)^# .*\n`).ReplaceAllString(string(text), ""), " = "))
	file := filepath.Join(t.TempDir(), "offered.toml")
	require.NoError(t, os.WriteFile(file, []byte(offered), 0o600))
	c, _, err := loadConfig(file)
	require.NoError(t, err)
	assert.Equal(t, 5*time.Second, c.Cards.ReadLimit)
	assert.Equal(t, 30*time.Second, c.Uplink.ReceiptTimeout)
	require.Len(t, c.Serial, 2)
	for _, cfg := range c.Serial {
		_, err := serial.New(cfg, time.Now, slog.New(slog.DiscardHandler), nil)
		assert.NoError(t, err)
	}
}

func TestWrongConfigurationSaysCauseAndCure(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no state", "", "name the directory that rollcall terminal request made"},
		{"no such zone", "state = \"s\"\nzone = \"Mars/North\"\n", `zone = "Mars/North"`},
		{"slip in a key", "state = \"s\"\n[panel]\nlisten_on = \"x\"\n", "unknown key panel.listen_on"},
		{"wrong kind", "state = \"s\"\n[ledger]\ncapacity = \"many\"\n", "ledger.capacity"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.toml")
			require.NoError(t, os.WriteFile(file, []byte(tc.text), 0o600))
			err := run(t.Context(), []string{"-config", file}, t.Output())
			require.ErrorIs(t, err, errUsage)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	err := run(t.Context(), []string{"-config", filepath.Join(t.TempDir(), "none.toml")}, t.Output())
	require.ErrorIs(t, err, errUsage)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestStartWithoutKeysSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.toml")
	require.NoError(t, os.WriteFile(file, []byte("state = \""+t.TempDir()+"\"\n"), 0o600))
	err := run(t.Context(), []string{"-config", file}, t.Output())
	require.ErrorIs(t, err, errUsage)
	t.Log(err)
	assert.ErrorContains(t, err, "rollcall terminal request")
}

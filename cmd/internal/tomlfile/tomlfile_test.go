package tomlfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	type inner struct {
		Port int `toml:"port"`
	}
	type config struct {
		State string `toml:"state"`
		Panel inner  `toml:"panel"`
	}
	for _, tc := range []struct{ name, text, want string }{
		{"given and default", "state = \"s\"\n", ""},
		{"unknown key", "stat = \"s\"\n", "unknown key stat"},
		{"unknown key in a table", "[panel]\nprot = 1\n", "unknown key panel.prot"},
		{"wrong kind of value", "[panel]\nport = \"x\"\n", "panel.port"},
		{"not TOML", "state\n", "configuration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.toml")
			require.NoError(t, os.WriteFile(file, []byte(tc.text), 0o600))
			c := config{Panel: inner{Port: 7}}
			err := Load(file, &c)
			if tc.want == "" {
				require.NoError(t, err)
				assert.Equal(t, config{State: "s", Panel: inner{Port: 7}}, c)
				return
			}
			assert.ErrorContains(t, err, tc.want)
		})
	}
	assert.ErrorIs(t, Load(filepath.Join(t.TempDir(), "none.toml"), &config{}), os.ErrNotExist)
}

func TestLoadTable(t *testing.T) {
	type panel struct {
		Port int `toml:"port"`
		In   struct {
			Deep int `toml:"deep"`
		} `toml:"in"`
	}
	for _, tc := range []struct {
		name, text, refused string
		port                int
	}{
		{"one of several", "state = \"s\"\n[panel]\nport = 1\n[panel.in]\ndeep = 2\n[other]\nport = 3\n", "", 1},
		{"not there", "[other]\nport = 3\n", "", 7},
		{"unknown key", "[panel]\nprot = 1\n", "unknown key panel.prot", 7},
		{"unknown key deep down", "[panel.in]\ndep = 1\n", "unknown key panel.in.dep", 7},
		{"wrong kind of value", "[panel]\nport = \"x\"\n", "configuration", 7},
		{"no table", "panel = 3\n", "configuration", 7},
		{"not TOML", "state\n", "configuration", 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.toml")
			require.NoError(t, os.WriteFile(file, []byte(tc.text), 0o600))
			p := panel{Port: 7}
			err := LoadTable(file, "panel", &p)
			if tc.refused == "" {
				require.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, tc.refused)
			}
			assert.Equal(t, tc.port, p.Port)
		})
	}
}

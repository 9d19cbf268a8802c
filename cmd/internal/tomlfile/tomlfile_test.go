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

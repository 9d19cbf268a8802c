package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWrongCallsSayWhatToDo(t *testing.T) {
	empty := t.TempDir()
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "precious"), nil, 0o600))
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "run, demo or bench"},
		{"no such thing", []string{"dmo"}, "run, demo or bench"},
		{"no such scenario", []string{"demo", "-scenario", "clas"}, "scenario"},
		{"no such file", []string{"demo", "-scenario", filepath.Join(empty, "x.toml")}, "x.toml"},
		{"somebody's directory", []string{"demo", "-dir", full}, "holds something else"},
		{"no pictures", []string{"demo", "-dir", filepath.Join(empty, "stage"), "-people", empty}, "make models"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), tc.args, &bytes.Buffer{})
			require.Error(t, err)
			assert.NotErrorIs(t, err, errUntrue)
			assert.ErrorContains(t, err, tc.want)
		})
	}
	assert.FileExists(t, filepath.Join(full, "precious"))
}

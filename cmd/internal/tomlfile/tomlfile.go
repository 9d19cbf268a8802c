// Package tomlfile reads the one TOML file a program is configured by. A key
// that the program does not know is refused: a setting with a slip in its name
// must not be passed over in silence.
package tomlfile

import (
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load decodes the file at path into the struct that into points to; what the
// file does not name keeps its value. Errors say file, place and cure.
func Load(path string, into any) error {
	meta, err := toml.DecodeFile(path, into)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		keys := make([]string, len(unknown))
		for i, key := range unknown {
			keys[i] = key.String()
		}
		return fmt.Errorf("configuration %s: unknown key %s: remove it, or see the sample in deploy for its right name", path, strings.Join(keys, ", "))
	}
	return nil
}

// Package tomlfile reads the one TOML file a program is configured by. A key
// that the program does not know is refused: a setting with a slip in its name
// must not be passed over in silence.
package tomlfile

import (
	"fmt"
	"slices"
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
	return refuse(path, meta.Undecoded())
}

// LoadTable decodes one table of the file and leaves out the others. A file
// without that table changes nothing.
func LoadTable(path, table string, into any) error {
	var whole map[string]toml.Primitive
	meta, err := toml.DecodeFile(path, &whole)
	if err == nil {
		if found, ok := whole[table]; ok {
			err = meta.PrimitiveDecode(found, into)
		}
	}
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return refuse(path, slices.DeleteFunc(meta.Undecoded(), func(key toml.Key) bool { return key[0] != table }))
}

// refuse names the keys that a file has and nobody knows.
func refuse(path string, unknown []toml.Key) error {
	if len(unknown) == 0 {
		return nil
	}
	keys := make([]string, len(unknown))
	for i, key := range unknown {
		keys[i] = key.String()
	}
	return fmt.Errorf("configuration %s: unknown key %s: remove it, or see the sample in deploy for its right name", path, strings.Join(keys, ", "))
}

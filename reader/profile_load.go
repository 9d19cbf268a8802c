package reader

import (
	"fmt"
	"os"
)

// LoadProfile gives a built-in profile by its name, "" for cn-ssc, or reads the
// file of that name.
func LoadProfile(name string) (*Profile, error) {
	switch name {
	case "", "cn-ssc":
		return SocialSecurityCard(), nil
	case "cn-ssc-short":
		return SocialSecurityCardShort(), nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("card profile: %w: name a file, cn-ssc or cn-ssc-short", err)
	}
	return ParseProfile(text)
}

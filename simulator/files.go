package simulator

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfig writes the configuration files of the stage's programs, as an
// institution and a centre would.
func (s *Stage) writeConfig() error {
	files := map[string]string{
		"centre.toml": settings(
			"tenant", stageTenant,
			"dir", s.path("centre"),
			"listen", s.listen,
		),
		"vision.toml": settings(
			"camera", s.video,
			"models", s.Models,
		),
		"rollcalld.toml": settings("state", s.path("terminal")) +
			"[vision]\n" + settings(
			"worker", filepath.Join(s.Bin, "rollcall-vision"),
			"worker_config", s.path("vision.toml"),
		) +
			"[uplink]\n" + fmt.Sprintf("addresses = [%q]\nretry_max = \"3s\"\nstart_spread = \"0s\"\n", s.link.Addr()) +
			"[panel]\n" + settings("listen", s.Panel),
	}
	for name, text := range files {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// settings writes pairs of key and text.
func settings(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "%s = %q\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

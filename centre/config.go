package centre

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
	_ "time/tzdata" // class files are read in their own zone on machines without a zone database

	"rollcall/queue/chain"
)

// Config is the centre's configuration.
type Config struct {
	// Tenant names the authority that this centre serves. It stands in every
	// topic and admission: letters, digits and hyphens, at most 64. Terminals
	// admitted under one tenant cannot speak under another.
	Tenant string `toml:"tenant"`
	// Dir holds keys/ and centre.db. Default /var/lib/rollcall-centre. Whoever
	// can read keys/ can speak for the centre.
	Dir string `toml:"dir"`
	// Names are the host names and addresses that terminals dial; init writes
	// them into the TLS server certificate, and a later change has no effect.
	// Default localhost, 127.0.0.1, ::1: good for terminals on the same machine
	// only.
	Names []string `toml:"names"`
	// Zone is the time zone of times without one in class files. Default
	// Asia/Shanghai.
	Zone string `toml:"zone"`
	// Listen is the address of the centre's own MQTT listener (TLS 1.3 only),
	// host:port; port 0 takes a free one. Either Listen or Broker is needed to
	// serve. Default none.
	Listen string `toml:"listen"`
	// Broker is the address of a broker to serve through instead, host:port.
	// It must accept TLS 1.3 with certificates of this centre's authority
	// (deploy/mosquitto.conf). Default none.
	Broker string `toml:"broker"`
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = "/var/lib/rollcall-centre"
	}
	if len(c.Names) == 0 {
		c.Names = []string{"localhost", "127.0.0.1", "::1"}
	}
	if c.Zone == "" {
		c.Zone = "Asia/Shanghai"
	}
	return c
}

func (c Config) check() error {
	if !chain.ValidTenant(c.Tenant) {
		return fmt.Errorf("tenant = %q: must be 1 to 64 letters, digits or hyphens", c.Tenant)
	}
	if _, err := c.zone(); err != nil {
		return err
	}
	if c.Listen != "" && c.Broker != "" {
		return errors.New("listen and broker are both set: the centre serves on its own listener or through a broker, remove one")
	}
	for key, address := range map[string]string{"listen": c.Listen, "broker": c.Broker} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s = %q: must be host:port, such as 127.0.0.1:8883", key, address)
		}
	}
	return nil
}

func (c Config) zone() (*time.Location, error) {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return nil, fmt.Errorf("zone = %q: not a time zone, write it like Asia/Shanghai", c.Zone)
	}
	return zone, nil
}

func (c Config) keyFile(name string) string { return filepath.Join(c.Dir, "keys", name) }

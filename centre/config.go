package centre

import (
	"errors"
	"fmt"
	"net"
	"net/url"
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
	// Dir holds keys/ and, with SQLite, centre.db. Default /var/lib/rollcall-centre. Whoever
	// can read keys/ can speak for the centre.
	Dir string `toml:"dir"`
	// Database is where records are kept: "sqlite" (centre.db in Dir; for one
	// machine) or the address of a PostgreSQL database, such as
	// postgres://rollcall@db.example:5432/rollcall?sslmode=verify-full, which any
	// number of centres with copies of one Dir may serve from. Default sqlite.
	Database string `toml:"database"`
	// DatabasePassword is the path of a file with the password of the user that
	// Database names; the address itself may hold none. Default none, for
	// servers that know the user by other means.
	DatabasePassword string `toml:"database_password"`
	// Names are the host names and addresses that terminals dial; init writes
	// them into the TLS server certificate, and renew does after a change.
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
	// Read is the address where other systems read records, feed and alarms
	// (HTTP over TLS 1.3, each with a token or certificate), host:port; port 0 takes a free one.
	// docs/centre.md describes it. Default none: nothing can be read over the
	// network.
	Read string `toml:"read"`
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = "/var/lib/rollcall-centre"
	}
	if c.Database == "" {
		c.Database = sqliteName
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
	if err := c.checkDatabase(); err != nil {
		return err
	}
	if c.Listen != "" && c.Broker != "" {
		return errors.New("listen and broker are both set: the centre serves on its own listener or through a broker, remove one")
	}
	for key, address := range map[string]string{"listen": c.Listen, "broker": c.Broker, "read": c.Read} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s = %q: must be host:port, such as 127.0.0.1:8883", key, address)
		}
	}
	return nil
}

// sqliteName is the database in a file of this machine.
const sqliteName = "sqlite"

func (c Config) checkDatabase() error {
	if c.Database == sqliteName {
		if c.DatabasePassword != "" {
			return errors.New("database_password is set and database is sqlite, which has none: remove one")
		}
		return nil
	}
	address, err := url.Parse(c.Database)
	if err != nil || address.Scheme != "postgres" && address.Scheme != "postgresql" {
		return errors.New("database: must be sqlite, or an address such as postgres://user@host:5432/name") // it is not quoted: it may hold a password
	}
	if _, has := address.User.Password(); has || address.Query().Has("password") {
		return errors.New("database holds a password, which others can read here: put it into a file and name that with database_password")
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

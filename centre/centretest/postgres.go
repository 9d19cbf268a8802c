// Package centretest starts the servers that a centre's tests need, as
// processes that end with the test process, however that ends: Mosquitto as we
// ship it, a broker for each test that asks ([Mosquitto]), and PostgreSQL from
// Debian's package postgresql ([Postgres]): of its own directory, under the
// package's unprivileged user if the test runs as root, on a Unix socket only,
// with a password. One server of it serves the tests of a package, each with a
// database of its own.
package centretest

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
)

// server is the one of this process; nil before the first test that needs it.
var (
	mu     sync.Mutex
	server *postgres
	made   int
)

const password = "only for tests"

type postgres struct {
	dir string
	cmd *exec.Cmd
	log bytes.Buffer
}

// Main runs the tests of a package and ends the server after them. It is what
// TestMain gives to os.Exit.
func Main(m *testing.M) int {
	code := m.Run()
	mu.Lock()
	defer mu.Unlock()
	if server != nil {
		server.stop()
	}
	return code
}

// Database is an empty schema of the server's one database, which takes a tenth
// of the time of a database, and the file with the password for it.
type Database struct {
	Address      string
	PasswordFile string
}

// Postgres makes an empty schema. TestMain must call [Main].
func Postgres(t testing.TB) Database {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if server == nil {
		_, durable := t.(*testing.B)
		started, err := start(durable)
		require.NoError(t, err)
		server = started
	}
	made++
	name := "test" + strconv.Itoa(made)
	server.do(t, "CREATE SCHEMA "+name)
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	return Database{Address: server.address(name), PasswordFile: file}
}

// Open opens a database behind the back of who has it. The test closes it.
func (d Database) Open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", strings.Replace(d.Address, "rollcall@", url.UserPassword("rollcall", password).String()+"@", 1))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func (p *postgres) do(t testing.TB, statement string) {
	t.Helper()
	_, err := Database{Address: p.address("public")}.Open(t).Exec(statement)
	require.NoError(t, err)
}

func (p *postgres) address(schema string) string {
	return "postgres://rollcall@/postgres?host=" + url.QueryEscape(p.dir) + "&search_path=" + schema
}

// start makes a server and waits until it takes connections. It need not survive
// a power cut unless it is measured.
func start(durable bool) (*postgres, error) {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		return nil, errors.New("PostgreSQL is not installed: make setup-test installs it")
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "rollcall-pg") // the path of a socket may have 107 bytes
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir}
	as, err := p.unprivileged()
	if err != nil {
		return nil, err
	}
	pw := filepath.Join(dir, "password")
	if err := os.WriteFile(pw, []byte(password), 0o644); err != nil {
		return nil, err
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "rollcall", "--auth=scram-sha-256", "--pwfile="+pw,
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making a PostgreSQL cluster: %w: %s", err, out)
	}
	return p, p.run(bin, as, durable)
}

// unprivileged gives the directory to the package's user, if this is root.
func (p *postgres) unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(p.dir, uid, gid)
}

func (p *postgres) run(bin string, as *syscall.Credential, durable bool) error {
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-k", p.dir,
		"-c", "listen_addresses=", "-c", "max_connections=100", "-c", fmt.Sprintf("fsync=%t", durable))
	p.cmd.Dir = p.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGQUIT}
	said, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		p.log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "ready to accept connections") {
			go func() { // ends with the server, which stop waits for
				for lines.Scan() {
				}
			}()
			return nil
		}
	}
	return fmt.Errorf("PostgreSQL did not start: %w: %s", p.cmd.Wait(), &p.log)
}

// stop ends the server at once and removes what it wrote.
func (p *postgres) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	_ = p.cmd.Wait()
	_ = os.RemoveAll(p.dir)
}

package centretest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Broker is a real Mosquitto with the configuration that we ship. It ends with
// the test.
type Broker struct {
	t       testing.TB
	dir     string
	address string
	cmd     *exec.Cmd
}

// Mosquitto prepares deploy/mosquitto.conf for tenant test, the keys in a
// centre's directory and an address on loopback. Start starts it.
func Mosquitto(t testing.TB, centre, address string) *Broker {
	t.Helper()
	b := &Broker{t: t, dir: t.TempDir(), address: address}
	sample, err := os.ReadFile(filepath.Join(repository(t), "deploy", "mosquitto.conf"))
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	conf := strings.NewReplacer(
		"listener 8884", "listener "+port,
		"/etc/mosquitto/certs", filepath.Join(centre, "keys"),
		"/etc/mosquitto/rollcall.acl", b.path("acl"),
	).Replace(string(sample)) + "\nuser root\n"
	require.NoError(t, os.WriteFile(b.path("mosquitto.conf"), []byte(conf), 0o600))
	require.NoError(t, os.WriteFile(b.path("acl"), []byte(sampleACL(t, string(sample))), 0o600))
	return b
}

func (b *Broker) path(name string) string { return filepath.Join(b.dir, name) }

// repository is the directory of go.mod, above that of the test.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	return dir
}

// sampleACL takes the access list out of the comment that holds it.
func sampleACL(t testing.TB, sample string) string {
	t.Helper()
	_, after, ok := strings.Cut(sample, "# rollcall.acl holds:\n")
	require.True(t, ok)
	var acl strings.Builder
	for line := range strings.Lines(after) {
		rule, ok := strings.CutPrefix(line, "#   ")
		if !ok {
			break
		}
		acl.WriteString(strings.ReplaceAll(rule, "/example/", "/test/"))
	}
	return acl.String()
}

// Change rewrites the configuration before the broker starts.
func (b *Broker) Change(change func(string) string) {
	b.t.Helper()
	text, err := os.ReadFile(b.path("mosquitto.conf"))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(b.path("mosquitto.conf"), []byte(change(string(text))), 0o600))
}

// Start starts the broker and returns when it takes connections.
func (b *Broker) Start() {
	b.t.Helper()
	output, err := os.Create(b.path("output"))
	require.NoError(b.t, err)
	defer output.Close() // the broker has its own
	b.cmd = exec.Command("/usr/sbin/mosquitto", "-c", b.path("mosquitto.conf"))
	b.cmd.Stdout, b.cmd.Stderr = output, output
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(b.t, b.cmd.Start(), "mosquitto is not installed: make setup-test installs it")
	b.t.Cleanup(b.Kill)
	require.Eventually(b.t, func() bool {
		conn, err := net.Dial("tcp", b.address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, 30*time.Second, 10*time.Millisecond, "mosquitto says why in %s", output.Name())
}

// Kill ends the broker without a chance to say anything.
func (b *Broker) Kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	b.cmd = nil
}

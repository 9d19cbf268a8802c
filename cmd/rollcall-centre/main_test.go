package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/centre/centretest"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	uplink "rollcall/queue/mqtt"
	"rollcall/queue/queuetest"
)

const patience = 30 * time.Second

// site is a centre's directory and configuration, and one terminal's.
type site struct {
	t       *testing.T
	dir     string
	address string
}

func newSite(t *testing.T) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	s := &site{t: t, dir: t.TempDir(), address: l.Addr().String()}
	s.write("centre.toml", fmt.Sprintf("tenant = \"test\"\ndir = %q\nlisten = %q\n", s.path("centre"), s.address))
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) string {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.path(name), []byte(text), 0o600))
	return s.path(name)
}

// program is the program with arguments, not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "ROLLCALL_CENTRE_IS_THE_PROGRAM=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// tool runs a command to its end with this site's configuration.
func (s *site) tool(command string, args ...string) (string, error) {
	s.t.Helper()
	cmd := program(s.t, append([]string{command, "-config", s.path("centre.toml")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, &stderr)
	}
	return stdout.String(), nil
}

func (s *site) must(command string, args ...string) string {
	s.t.Helper()
	out, err := s.tool(command, args...)
	require.NoError(s.t, err)
	return out
}

// admit makes a terminal's keys and has the centre admit it, by the files that
// people carry.
func (s *site) admit(id chain.TerminalID) (*device.Keys, chain.Admission) {
	s.t.Helper()
	keys, err := device.CreateKeys(s.path(string(id)))
	require.NoError(s.t, err)
	request, err := keys.Request(id)
	require.NoError(s.t, err)
	text, err := json.Marshal(request)
	require.NoError(s.t, err)
	s.write("request.json", string(text))
	out := s.must("admit", "-out", s.path("admission.json"), s.path("request.json"))
	assert.Contains(s.t, out, string(id)+" is admitted")
	text, err = os.ReadFile(s.path("admission.json"))
	require.NoError(s.t, err)
	var admission chain.Admission
	require.NoError(s.t, json.Unmarshal(text, &admission))
	require.NoError(s.t, device.SaveAdmission(s.path(string(id)), admission), "the terminal takes it")
	return keys, admission
}

// server is a serving process.
type server struct {
	t   *testing.T
	cmd *exec.Cmd
}

func (s *site) serve() *server {
	s.t.Helper()
	return s.serveAt("centre.toml", s.address)
}

// serveAt serves by one of several configurations.
func (s *site) serveAt(config, address string) *server {
	s.t.Helper()
	return s.serveSaying(config, "ready: listening on "+address+"\n")
}

// serveSaying serves and returns when the process says that it is ready.
func (s *site) serveSaying(config, ready string) *server {
	s.t.Helper()
	cmd := program(s.t, "serve", "-config", s.path(config))
	stdout, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	v := &server{s.t, cmd}
	s.t.Cleanup(v.kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(s.t, err)
	require.Equal(s.t, ready, line)
	return v
}

func (v *server) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

func (s *site) ledger(keys *device.Keys, admission chain.Admission) *queue.Ledger {
	s.t.Helper()
	trust, err := admission.Trust()
	require.NoError(s.t, err)
	ledger, err := queue.Open(queue.Config{
		Dir: s.t.TempDir(), Terminal: admission.Terminal, Key: keys.Ledger(), ReceiptKey: trust.Receipt, Software: "test",
		Stamp: func() chain.Stamp {
			return chain.Stamp{Wall: chain.NewWall(time.Now()), Boot: "b", Clock: chain.ClockSynced}
		},
	}, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	s.run(ledger.Run, ledger.Close)
	return ledger
}

// run runs a part until the test ends.
func (s *site) run(part func(context.Context) error, after func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		assert.NoError(s.t, <-ended)
		assert.NoError(s.t, after())
	})
}

func appendCheckins(t *testing.T, ledger *queue.Ledger, n int) {
	t.Helper()
	for range n {
		_, err := ledger.Append(t.Context(), attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
			Trainee: "p-1", Class: "c-1", Session: "s-1", Decision: attendance.OnTime,
		}))
		require.NoError(t, err)
	}
}

// database opens the centre's database behind its back.
func (s *site) database() *sql.DB {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+s.path("centre/centre.db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	require.NoError(s.t, err)
	s.t.Cleanup(func() { assert.NoError(s.t, db.Close()) })
	return db
}

func rows(t *testing.T, db *sql.DB) int {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM records").Scan(&n))
	return n
}

// equal compares what the centre lists with the ledgers.
func (s *site) equal(ledgers ...*queue.Ledger) {
	s.t.Helper()
	var listed []centre.Row
	require.NoError(s.t, json.Unmarshal([]byte(s.must("records", "-all", "-json")), &listed))
	var want []string
	for _, ledger := range ledgers {
		require.NoError(s.t, ledger.Each(func(e chain.Entry) error {
			line, err := e.Line()
			want = append(want, fmt.Sprint(e.Log, " ", e.Seq, " ", chain.HashLine(line)))
			return err
		}))
	}
	var got []string
	for _, r := range listed {
		got = append(got, fmt.Sprint(r.Log, " ", r.Seq, " ", r.Hash))
	}
	assert.Equal(s.t, want, got)
}

// send runs a real uplink to one of several addresses.
func (s *site) send(keys *device.Keys, admission chain.Admission, ledger *queue.Ledger, addresses ...string) {
	s.t.Helper()
	link, err := uplink.New(uplinkConfig(keys, admission, addresses...), ledger, slog.New(slog.DiscardHandler))
	require.NoError(s.t, err)
	s.run(link.Run, func() error { return nil })
}

func uplinkConfig(keys *device.Keys, admission chain.Admission, addresses ...string) uplink.Config {
	return uplink.Config{
		Addresses: addresses, RetryStart: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, ReceiptTimeout: 2 * time.Second,
		Admission: admission, Key: keys.Uplink(), SignAlert: queuetest.SignAlert(keys.Ledger()), Software: "test", Now: time.Now,
		Package: func(context.Context, []byte) {}, Command: func(context.Context, []byte) {}, Report: func(bool, error) {},
		Up: func() time.Duration { return time.Hour }, Receipted: func(chain.Receipt, time.Duration, time.Duration) {},
	}
}

// The server is killed again and again while a real terminal uploads.
func TestKilledWhileItStores(t *testing.T) {
	s := newSite(t)
	s.must("init")
	keys, admission := s.admit("t-1")
	ledger := s.ledger(keys, admission)
	s.send(keys, admission, ledger, s.address)

	for range 6 {
		server := s.serve()
		before := ledger.Status().Receipted
		appendCheckins(t, ledger, 20)
		require.Eventually(t, func() bool { return ledger.Status().Receipted > before }, patience, time.Millisecond)
		appendCheckins(t, ledger, 1+rand.IntN(20)) // where in the next batch the kill falls is chance
		server.kill()
	}
	s.serve()
	require.Eventually(t, func() bool {
		status := ledger.Status()
		return status.Receipted == status.Last
	}, patience, 10*time.Millisecond)
	s.equal(ledger)
}

// Two processes share nothing but a PostgreSQL database and the keys. Terminals
// know both; one of the two is killed again and again, wherever it stands.
func TestKilledOneOfTwoOnOneDatabase(t *testing.T) {
	s := newSite(t)
	db := centretest.Postgres(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, other.Close())
	addresses := []string{s.address, other.Addr().String()}
	configs := []string{"centre.toml", "centre-2.toml"}
	for i, name := range configs {
		s.write(name, fmt.Sprintf("tenant = \"test\"\ndir = %q\nlisten = %q\ndatabase = %q\ndatabase_password = %q\n",
			s.path("centre"), addresses[i], db.Address, db.PasswordFile))
	}
	s.must("init")
	behind := db.Open(t)
	var ledgers []*queue.Ledger
	for i := range 4 {
		keys, admission := s.admit(chain.TerminalID(fmt.Sprint("t-", i+1)))
		ledger := s.ledger(keys, admission)
		s.send(keys, admission, ledger, addresses[i%2], addresses[1-i%2])
		ledgers = append(ledgers, ledger)
	}
	servers := []*server{s.serveAt(configs[0], addresses[0]), s.serveAt(configs[1], addresses[1])}
	for round := range 6 {
		before := rows(t, behind)
		for _, ledger := range ledgers {
			appendCheckins(t, ledger, 10+rand.IntN(40))
		}
		require.Eventually(t, func() bool { return rows(t, behind) > before }, patience, 10*time.Millisecond)
		servers[round%2].kill()
		servers[round%2] = s.serveAt(configs[round%2], addresses[round%2])
	}
	for _, ledger := range ledgers {
		require.Eventually(t, func() bool { status := ledger.Status(); return status.Receipted == status.Last }, patience, 10*time.Millisecond)
	}
	s.equal(ledgers...)
	assert.Equal(t, "ID  RAISED  KIND  TERMINAL  LOG  SEQ  DETAIL  CLOSED  BY  REASON\n", s.must("alarms"), "nothing of it looks like an attack")
}

// terminal is an MQTT client in the role of the terminal, which sends what a
// test says.
func (s *site) terminal(keys *device.Keys, admission chain.Admission, receipts chan<- []byte) mqtt.Client {
	s.t.Helper()
	trust, err := admission.Trust()
	require.NoError(s.t, err)
	cert, err := chain.ParseCertificate(admission.Uplink)
	require.NoError(s.t, err)
	roots := x509.NewCertPool()
	roots.AddCert(trust.CA)
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("ssl://" + s.address).SetClientID(string(admission.Terminal)).SetAutoReconnect(false).
		SetTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: keys.Uplink()}}}))
	settled(s.t, client.Connect())
	settled(s.t, client.Subscribe("rollcall/v1/test/"+string(admission.Terminal)+"/down/receipt", 1, func(_ mqtt.Client, m mqtt.Message) {
		receipts <- m.Payload()
	}))
	s.t.Cleanup(func() { client.Disconnect(0) })
	return client
}

func settled(t *testing.T, token mqtt.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

const recordsTopic = "rollcall/v1/test/t-1/up/records"

func TestKilledBeforeTheCommit(t *testing.T) {
	s := newSite(t)
	s.must("init")
	keys, admission := s.admit("t-1")
	ledger := s.ledger(keys, admission)
	appendCheckins(t, ledger, 5)
	payload, _, err := ledger.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	db, receipts := s.database(), make(chan []byte, 10)

	server := s.serve()
	client := s.terminal(keys, admission, receipts)
	lock, err := db.Begin() // the server cannot begin its transaction
	require.NoError(t, err)
	sent := client.Publish(recordsTopic, 1, false, payload)
	require.False(t, sent.WaitTimeout(200*time.Millisecond), "acknowledged before the commit")
	server.kill()
	require.NoError(t, lock.Rollback())
	assert.Empty(t, receipts)
	assert.Zero(t, rows(t, db))

	s.serve()
	settled(t, s.terminal(keys, admission, receipts).Publish(recordsTopic, 1, false, payload))
	assert.Equal(t, 6, rows(t, db))
	s.equal(ledger)
}

func TestKilledAfterTheCommit(t *testing.T) {
	s := newSite(t)
	s.must("init")
	keys, admission := s.admit("t-1")
	ledger := s.ledger(keys, admission)
	appendCheckins(t, ledger, 5)
	payload, _, err := ledger.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	db, lost, receipts := s.database(), make(chan []byte, 10), make(chan []byte, 10)

	server := s.serve()
	s.terminal(keys, admission, lost).Publish(recordsTopic, 1, false, payload)
	require.Eventually(t, func() bool { return rows(t, db) == 6 }, patience, time.Millisecond)
	server.kill()

	s.serve()
	settled(t, s.terminal(keys, admission, receipts).Publish(recordsTopic, 1, false, payload))
	select {
	case jws := <-receipts:
		r, err := ledger.Receipt(jws)
		require.NoError(t, err)
		assert.Equal(t, chain.Seq(6), r.Seq)
	case <-time.After(patience):
		require.Fail(t, "no receipt came")
	}
	assert.Equal(t, 6, rows(t, db))
	s.equal(ledger)
}

func TestServeEndsOnSIGTERM(t *testing.T) {
	s := newSite(t)
	s.must("init")
	keys, admission := s.admit("t-1")
	server := s.serve()
	client := s.terminal(keys, admission, make(chan []byte, 1))
	silent, err := net.Dial("tcp", s.address) // one that never says anything
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, server.cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- server.cmd.Wait() }()
	select {
	case err := <-ended:
		assert.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "it does not end")
	}
	require.Eventually(t, func() bool { return !client.IsConnectionOpen() }, patience, 10*time.Millisecond)
}

const classFile = `{"class":{"id":"c-1","name":"班"},"sessions":[{"id":"s-1","start":"2099-11-22 09:00","end":"2099-11-22 11:30"}]%s}`

func TestPackageCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	s.admit("t-1")
	roster := s.write("roster.csv", "trainee,name,card_no\np-1,张小明,A12345678\np-2,李明,B12345678\n")
	bad := s.write("bad.csv", "trainee,name,person_no\np-1,张小明,110105194912310021\n")
	plan := s.write("plan.json", fmt.Sprintf(classFile, ""))
	for _, tt := range []struct {
		name string
		args []string
		out  string
		says string // of the error
	}{
		{"roster beside the class file", []string{"-terminal", "t-1", s.write("class.json", fmt.Sprintf(classFile, `,"roster":"roster.csv"`))}, "2 trainees, 1 sessions, published to t-1 as number 1", ""},
		{"roster with a plan", []string{"-terminal", "t-1", "-plan", plan, roster}, "published to t-1 as number 1", ""},
		{"warned of what looks odd", []string{"-terminal", "t-1", "-plan", plan, roster}, "please look again: no session is today", ""},
		{"wrong check digit", []string{"-terminal", "t-1", "-plan", plan, bad}, "", "bad.csv: class file refused:\n  line 2: person_no has a wrong check digit"},
		{"no roster at all", []string{"-terminal", "t-1", plan}, "", "no trainee"},
		{"roster given twice", []string{"-terminal", "t-1", "-plan", s.write("inline.json", fmt.Sprintf(classFile, `,"trainees":[{"trainee":"p-1","name":"张小明","card_no":"A12345678"}]`)), roster}, "", "keep one of them"},
		{"unknown terminal", []string{"-terminal", "t-9", "-plan", plan, roster}, "", "not admitted"},
		{"no terminal", []string{plan}, "", "-terminal"},
		{"no file", []string{"-terminal", "t-1"}, "", "name the class file"},
		{"missing file", []string{"-terminal", "t-1", s.path("nothing.json")}, "", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := s.tool("package", tt.args...)
			if tt.says != "" {
				require.Error(t, err)
				assert.ErrorContains(t, err, tt.says)
				assert.NotContains(t, err.Error(), "110105194912310021")
				return
			}
			require.NoError(t, err)
			assert.Contains(t, out, tt.out)
		})
	}
}

func TestRecordsCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	assert.JSONEq(t, "[]", s.must("records", "-json"))
	keys, admission := s.admit("t-1")
	ledger := s.ledger(keys, admission)
	appendCheckins(t, ledger, 2)
	payload, _, err := ledger.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	s.serve()
	settled(t, s.terminal(keys, admission, make(chan []byte, 1)).Publish(recordsTopic, 1, false, payload))

	var listed []centre.Row
	require.NoError(t, json.Unmarshal([]byte(s.must("records", "-json", "-terminal", "t-1")), &listed))
	require.Len(t, listed, 2, "the open record is not about people")
	assert.Equal(t, "p-1", listed[0].Trainee)
	assert.Equal(t, "c-1", listed[0].Class)
	assert.Equal(t, "s-1", listed[0].Session)
	assert.Equal(t, "on_time", listed[0].Decision)
	assert.Equal(t, uint64(2), listed[0].Seq)
	assert.Len(t, listed[0].Code, 9)
	assert.JSONEq(t, "[]", s.must("records", "-json", "-terminal", "t-2"))
	table := s.must("records", "-all")
	assert.Equal(t, 4, strings.Count(table, "\n"), "a heading and three records")
	assert.Contains(t, table, listed[1].Code)
}

func TestWrongUse(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"no such command", []string{"begin"}, `no command "begin"`},
		{"no such flag", []string{"serve", "-port", "1"}, "-port"},
		{"no configuration", []string{"serve", "-config", s.path("none.toml")}, "no such file"},
		{"misspelt setting", []string{"serve", "-config", s.write("misspelt.toml", "tennant = \"x\"\n")}, "tennant"},
		{"wrong value", []string{"init", "-config", s.write("wrong.toml", "tenant = \"a b\"\n")}, `tenant = "a b"`},
		{"no keys yet", []string{"serve", "-config", s.path("centre.toml")}, "run rollcall-centre init first"},
		{"no request", []string{"admit", "-config", s.path("centre.toml")}, "name the terminal's request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := program(t, tt.args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 1, exit.ExitCode())
			assert.Contains(t, string(out), tt.says)
			assert.Equal(t, 1, strings.Count(string(out), "\n"), "one sentence")
		})
	}
}

func TestHelpFitsAScreen(t *testing.T) {
	for _, args := range [][]string{{}, {"-h"}, {"serve", "-h"}} {
		out, err := program(t, args...).Output()
		require.NoError(t, err)
		assert.Contains(t, string(out), "rollcall-centre records")
		assert.LessOrEqual(t, strings.Count(string(out), "\n"), 24)
	}
}

// The sample that we ship is taken as it is, but for the directory.
func TestSampleConfiguration(t *testing.T) {
	s := newSite(t)
	sample, err := os.ReadFile("../../deploy/centre.toml")
	require.NoError(t, err)
	s.write("centre.toml", strings.Replace(string(sample), "/var/lib/rollcall-centre\"", s.path("centre")+"\"", 1))
	s.must("init")
	_, err = s.tool("init")
	assert.ErrorContains(t, err, "never overwritten")
}

func TestAlarmsCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	keys, admission := s.admit("t-1")
	ledger := s.ledger(keys, admission)
	appendCheckins(t, ledger, 3)
	payload, _, err := ledger.Batch(0, chain.MaxBatchRecords, chain.MaxBatchBytes)
	require.NoError(t, err)
	s.serve()
	settled(t, s.terminal(keys, admission, make(chan []byte, 1)).Publish(recordsTopic, 1, false, append([]byte("x"), payload...)))

	assert.Contains(t, s.must("alarms"), "batch_refused")
	_, err = s.tool("alarms", "close", "1")
	assert.ErrorContains(t, err, "say why")
	_, err = s.tool("alarms", "close", "first", "-reason", "x")
	assert.ErrorContains(t, err, "not the number of an alarm")
	_, err = s.tool("alarms", "clear")
	assert.ErrorContains(t, err, "alarms close ID")
	assert.Contains(t, s.must("alarms", "close", "1", "-reason", "a cable, ticket 7", "-who", "Li"), "alarm 1 is closed")
	assert.NotContains(t, s.must("alarms"), "batch_refused")
	all := s.must("alarms", "-all")
	assert.Contains(t, all, "a cable, ticket 7")
	assert.Contains(t, all, "Li")
}

func TestReaderCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	token := strings.TrimSpace(s.must("reader", "-add", "statistics"))
	assert.Len(t, token, 43)
	assert.Regexp(t, `(?m)^statistics  .*  token$`, s.must("reader"))
	_, err := s.tool("reader", "-add", "statistics")
	assert.ErrorContains(t, err, "remove it first")
	s.must("reader", "-remove", "statistics")
	assert.NotContains(t, s.must("reader"), "statistics")

	request, key := s.path("payroll.csr"), s.path("payroll.key")
	out, err := exec.Command("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", // as docs/centre.md says
		"-subj", "/OU=reader/CN=payroll", "-keyout", key, "-out", request).CombinedOutput()
	require.NoError(t, err, string(out))
	cert := s.write("payroll.crt", s.must("reader", "-add", "payroll", "-request", request))
	_, err = tls.LoadX509KeyPair(cert, key)
	assert.NoError(t, err)
	assert.Regexp(t, `(?m)^payroll  .*  certificate, until 2`, s.must("reader"))
	_, err = s.tool("reader", "-add", "another", "-request", s.write("no.csr", "not a request"))
	assert.ErrorContains(t, err, "not one PEM certificate signing request")
	_, err = s.tool("reader", "-request", request)
	assert.ErrorContains(t, err, "reader takes -add NAME")
}

func TestRevokeCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	s.admit("t-1")
	_, err := s.tool("revoke", "t-1")
	assert.ErrorContains(t, err, "say why")
	assert.Contains(t, s.must("revoke", "-reason", "stolen", "t-1"), "t-1 is shut out")
	_, err = s.tool("admit", s.path("request.json"))
	assert.ErrorContains(t, err, "revoked")
}

func TestRenewCommand(t *testing.T) {
	s := newSite(t)
	_, err := s.tool("renew")
	assert.ErrorContains(t, err, "run rollcall-centre init first")
	s.must("init")
	before, err := os.ReadFile(s.path("centre/keys/tls.crt"))
	require.NoError(t, err)
	assert.Contains(t, s.must("renew"), "holds until "+time.Now().AddDate(0, 0, 3650).Format("2006"))
	after, err := os.ReadFile(s.path("centre/keys/tls.crt"))
	require.NoError(t, err)
	assert.NotEqual(t, before, after)
}

// The read API is served beside the listener, and ends with it.
func TestServeForReaders(t *testing.T) {
	s := newSite(t)
	s.write("centre.toml", fmt.Sprintf("tenant = \"test\"\ndir = %q\nlisten = %q\nread = \"127.0.0.1:0\"\n", s.path("centre"), s.address))
	s.must("init")
	token := strings.TrimSpace(s.must("reader", "-add", "statistics"))
	cmd := program(t, "serve", "-config", s.path("centre.toml"))
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	v := &server{t, cmd}
	t.Cleanup(v.kill)
	said := bufio.NewScanner(stdout)
	require.True(t, said.Scan())
	require.True(t, said.Scan())
	address, found := strings.CutPrefix(said.Text(), "reading at ")
	require.True(t, found, said.Text())

	ca, err := os.ReadFile(s.path("centre/keys/ca.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}, Timeout: patience}
	req, err := http.NewRequest("GET", address+"alarms", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, cmd.Wait())
}

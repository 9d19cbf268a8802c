package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
)

var hostileCommands = flag.Int("hostile-commands", 500, "how many hostile commands TestT15 plays")

// desk is a terminal's commands with a centre that signs for it.
type desk struct {
	t       testing.TB
	path    string
	centre  ed25519.PrivateKey
	forger  ed25519.PrivateKey
	up      time.Duration
	now     time.Time
	done    []uint64 // serials that were carried out
	fail    error    // of what is carried out
	full    error    // of the ledger
	answers []attendance.AdminBody
	alerts  int
	*commands
}

func newDesk(t testing.TB) *desk {
	d := &desk{
		t: t, path: filepath.Join(t.TempDir(), commandsFile), now: noon, up: time.Hour,
		centre: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), forger: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)),
	}
	d.restart()
	return d
}

// restart opens the commands as the daemon does at a start, and answers what is
// not answered.
func (d *desk) restart() {
	answered := uint64(0)
	for _, a := range d.answers {
		answered = max(answered, a.Serial)
	}
	d.commands = openCommands(&commands{
		path: d.path, tenant: "demo", terminal: "t-1", key: d.centre.Public(), log: slog.New(slog.DiscardHandler),
		forged: func() { d.alerts++ },
		now:    func() time.Time { return d.now }, up: func() time.Duration { return d.up },
		carryOut: func(_ context.Context, order attendance.Command) error {
			d.done = append(d.done, order.Serial)
			return d.fail
		},
		record: func(_ context.Context, r attendance.Record) error {
			if d.full != nil {
				return d.full
			}
			body, err := attendance.ReadBody[attendance.AdminBody](r.Body)
			require.NoError(d.t, err)
			assert.Equal(d.t, attendance.TypeAdmin, r.Type)
			d.answers = append(d.answers, body)
			return nil
		},
	}, answered)
	ctx, cancel := context.WithCancel(d.t.Context())
	cancel()
	require.NoError(d.t, d.answerLast(ctx))
}

// order is a good command; change spoils it.
func (d *desk) order(serial uint64, change func(*attendance.Command)) attendance.Command {
	c := attendance.Command{
		V: 1, Tenant: "demo", Terminal: "t-1", Serial: serial, Issued: noon.Add(-time.Hour), Expires: noon.Add(time.Hour),
		Kind: attendance.CommandResend, Resend: &attendance.Resend{Log: "t-1/aa", Seq: 3},
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (d *desk) sign(by ed25519.PrivateKey, purpose chain.Purpose, payload any) []byte {
	jws, err := chain.Sign(by, purpose, payload)
	require.NoError(d.t, err)
	return []byte(jws)
}

func (d *desk) good(serial uint64) []byte {
	return d.sign(d.centre, chain.PurposeCommand, d.order(serial, nil))
}

func (d *desk) last() attendance.AdminBody {
	d.t.Helper()
	require.NotEmpty(d.t, d.answers)
	return d.answers[len(d.answers)-1]
}

func TestCommandIsCarriedOutOnceAndAnswered(t *testing.T) {
	d := newDesk(t)
	jws := d.good(5)
	for range 3 { // retained: it comes with every connection
		d.take(t.Context(), jws)
	}
	d.restart()
	d.take(t.Context(), jws)
	assert.Equal(t, []uint64{5}, d.done)
	require.Len(t, d.answers, 1)
	a := d.last()
	assert.Equal(t, uint64(5), a.Serial)
	assert.Equal(t, attendance.CommandResend, a.Kind)
	assert.Equal(t, attendance.CommandDone, a.Result)
	assert.Len(t, a.SHA256, 64)

	d.take(t.Context(), d.good(9))
	assert.Equal(t, []uint64{5, 9}, d.done, "serials rise, not by one")
	d.fail = queue.ErrNotKept
	d.take(t.Context(), d.good(10))
	assert.Equal(t, attendance.CommandFailed, d.last().Result)
	assert.Equal(t, attendance.CommandNotHere, d.last().Reason)
}

// An order of the centre's that the terminal cannot follow is answered for
// each serial, and its serial is used up.
func TestCommandThatCannotBeFollowedIsAnswered(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*attendance.Command)
		want   attendance.CommandReason
	}{
		{"expired", func(c *attendance.Command) { c.Expires = noon }, attendance.CommandExpired},
		{"a kind of the future", func(c *attendance.Command) { c.Kind, c.Resend = "reboot", nil }, attendance.CommandUnknown},
		{"argument missing", func(c *attendance.Command) { c.Resend = nil }, attendance.CommandArgument},
		{"a version of the future", func(c *attendance.Command) { c.V = 2 }, attendance.CommandVersion},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk(t)
			for serial := uint64(1); serial <= 3; serial++ {
				d.take(t.Context(), d.sign(d.centre, chain.PurposeCommand, d.order(serial, tc.change)))
				assert.Equal(t, serial, d.last().Serial)
				assert.Equal(t, attendance.CommandRefused, d.last().Result)
				assert.Equal(t, tc.want, d.last().Reason)
			}
			assert.Empty(t, d.done)
			d.take(t.Context(), d.good(3))
			assert.Empty(t, d.done, "the serial is used up")
		})
	}
}

// TestCommandOverACrash stops the terminal after each step of a command. It is
// carried out at most once, and answered exactly once.
func TestCommandOverACrash(t *testing.T) {
	for _, tc := range []struct {
		name   string
		saves  int // the disk takes so many notes before the crash
		record bool
		done   int
		want   attendance.CommandResult
	}{
		{name: "before its serial is noted", saves: 0, done: 1, want: attendance.CommandDone}, // it comes again
		{name: "while it is carried out", saves: 1, done: 1, want: attendance.CommandInterrupted},
		{name: "before it is answered", saves: 2, done: 1, want: attendance.CommandDone},
		{name: "before the answer is noted", saves: 2, record: true, done: 1, want: attendance.CommandDone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk(t)
			d.take(t.Context(), d.good(1))
			d.done, d.answers = nil, d.answers[:1]
			crash := errors.New("power cut")
			left := tc.saves
			write := d.save
			d.save = func(noted command) error {
				if left--; left < 0 {
					return crash
				}
				return write(noted)
			}
			if !tc.record {
				d.full = crash
			}
			jws := d.good(2)
			d.take(t.Context(), jws)
			d.full = nil
			d.restart()
			d.take(t.Context(), jws)
			d.take(t.Context(), jws)
			assert.Len(t, d.done, tc.done)
			require.Len(t, d.answers, 2)
			assert.Equal(t, uint64(2), d.last().Serial)
			assert.Equal(t, tc.want, d.last().Result)
			d.restart()
			assert.Len(t, d.answers, 2)
		})
	}
}

// A ledger that is full takes no answer. The next command waits for it.
func TestCommandsWaitForTheAnswerOfTheOneBefore(t *testing.T) {
	d := newDesk(t)
	d.full = queue.ErrFull
	d.take(t.Context(), d.good(1))
	d.take(t.Context(), d.good(2))
	assert.Equal(t, []uint64{1}, d.done)
	d.full = nil
	d.take(t.Context(), d.good(2))
	assert.Equal(t, []uint64{1, 2}, d.done)
	require.Len(t, d.answers, 2)
	assert.Equal(t, uint64(1), d.answers[0].Serial)
}

// A note that is taken away or spoilt does not open the way for old commands:
// the ledger has their answers.
func TestT15CounterResetRepeatsNothing(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"taken away": os.Remove,
		"spoilt":     func(path string) error { return os.WriteFile(path, []byte(`{"serial":`), 0o600) },
		"put back": func(path string) error {
			return os.WriteFile(path, []byte(`{"serial":1,"result":"done","answered":true}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			var all [][]byte
			for serial := uint64(1); serial <= 4; serial++ {
				all = append(all, d.good(serial))
				d.take(t.Context(), all[serial-1])
			}
			require.Len(t, d.done, 4)
			require.NoError(t, spoil(d.path))
			d.restart()
			for _, jws := range all {
				d.take(t.Context(), jws)
			}
			assert.Len(t, d.done, 4)
			assert.Equal(t, attendance.CommandReplayed, d.last().Reason)
		})
	}
}

// forgery is a way to make a hostile command.
type forgery struct {
	name string
	make func(d *desk, r *rand.Rand) []byte
	want attendance.CommandReason // "" where chance decides between malformed and signature
}

func forgeries() []forgery {
	altered := func(change func(jws []byte, r *rand.Rand) []byte) func(*desk, *rand.Rand) []byte {
		return func(d *desk, r *rand.Rand) []byte { return change(d.good(1000+r.Uint64N(1000)), r) }
	}
	return []forgery{
		{"another key's", func(d *desk, r *rand.Rand) []byte {
			return d.sign(d.forger, chain.PurposeCommand, d.order(1000+r.Uint64N(1000), nil))
		}, attendance.CommandSignature},
		{"another purpose", func(d *desk, r *rand.Rand) []byte {
			others := []chain.Purpose{chain.PurposePackage, chain.PurposeReceipt, chain.PurposeCode, chain.PurposeHead, chain.PurposeKey}
			return d.sign(d.centre, others[r.IntN(len(others))], d.order(1000, nil))
		}, attendance.CommandSignature},
		{"another terminal's", func(d *desk, r *rand.Rand) []byte {
			return d.sign(d.centre, chain.PurposeCommand, d.order(1000+r.Uint64N(1000), func(c *attendance.Command) { c.Terminal = "t-2" }))
		}, attendance.CommandAddress},
		{"another tenant's", func(d *desk, r *rand.Rand) []byte {
			return d.sign(d.centre, chain.PurposeCommand, d.order(1000+r.Uint64N(1000), func(c *attendance.Command) { c.Tenant = "other" }))
		}, attendance.CommandAddress},
		{"replayed", func(d *desk, r *rand.Rand) []byte { return d.good(1 + r.Uint64N(max(1, d.commands.last.Serial)-1)) }, attendance.CommandReplayed},
		{"signed, and no command", func(d *desk, r *rand.Rand) []byte {
			return d.sign(d.centre, chain.PurposeCommand, []any{nil, 1, "x", map[string]any{}, []int{1}}[r.IntN(5)])
		}, attendance.CommandMalformed},
		{"huge", func(d *desk, r *rand.Rand) []byte {
			return d.sign(d.centre, chain.PurposeCommand, d.order(1000, func(c *attendance.Command) {
				c.Resend.Log = strings.Repeat("x", attendance.MaxCommand+r.IntN(1<<20))
			}))
		}, attendance.CommandMalformed},
		{"truncated", altered(func(jws []byte, r *rand.Rand) []byte { return jws[:r.IntN(len(jws))] }), ""},
		{"a bit flipped", altered(func(jws []byte, r *rand.Rand) []byte { jws[r.IntN(len(jws))] ^= 1 << r.IntN(7); return jws }), ""},
		{"grown", altered(func(jws []byte, r *rand.Rand) []byte {
			return append(jws, bytes.Repeat([]byte{"A.=\n"[r.IntN(4)]}, 1+r.IntN(9))...)
		}), ""},
		{"another payload", altered(func(jws []byte, r *rand.Rand) []byte {
			parts := bytes.Split(jws, []byte("."))
			other := bytes.Split(d0sign(r), []byte("."))
			parts[1] = other[1]
			return bytes.Join(parts, []byte("."))
		}), attendance.CommandSignature},
		{"noise", func(_ *desk, r *rand.Rand) []byte {
			noise := make([]byte, r.IntN(600))
			for i := range noise {
				noise[i] = byte(r.Uint32())
			}
			return noise
		}, attendance.CommandMalformed},
	}
}

// d0sign gives a command that somebody signed.
func d0sign(r *rand.Rand) []byte {
	payload, _ := json.Marshal(attendance.Command{V: 1, Tenant: "demo", Terminal: "t-1", Serial: 2000 + r.Uint64N(9), Kind: attendance.CommandRotateKey})
	jws, _ := chain.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)), chain.PurposeCommand, json.RawMessage(payload))
	return []byte(jws)
}

// TestT15HostileCommands plays forged, replayed and spoilt commands of every
// class among good ones (F19 too). None is carried out, the good ones are, each
// once, and each reason leaves one record an hour with the count of the rest.
func TestT15HostileCommands(t *testing.T) {
	t.Parallel()
	const seed = 15
	r := rand.New(rand.NewPCG(seed, 0))
	d := newDesk(t)
	d.take(t.Context(), d.good(1))
	d.take(t.Context(), d.good(2))
	hostile, good, serial := 0, 2, uint64(2)
	for i := range *hostileCommands {
		if i%50 == 0 {
			serial++
			good++
			d.take(t.Context(), d.good(serial))
		}
		f := forgeries()[i%len(forgeries())]
		d.take(t.Context(), f.make(d, r))
		hostile++
		d.up += time.Minute
	}
	assert.Len(t, d.done, good, "seed %d", seed)
	told, recorded := 0, 0
	for _, a := range d.answers {
		if a.Serial == 0 {
			recorded++
			told += 1 + a.More
			assert.Equal(t, attendance.CommandRefused, a.Result)
		}
	}
	for _, waiting := range d.commands.refused {
		told += waiting.more
	}
	assert.Equal(t, hostile, told, "each was counted")
	hours := *hostileCommands/60 + 1
	assert.LessOrEqual(t, recorded, hours*len(attendance.CommandReasons))
	t.Logf("%d hostile commands, 0 carried out; %d good ones, each once; %d records of refusals", hostile, good, recorded)
}

// The control of the test above: a terminal that believes the forger's key
// carries out what the forger signs.
func TestT15Control(t *testing.T) {
	d := newDesk(t)
	d.commands.key = d.forger.Public()
	d.take(t.Context(), forgeries()[0].make(d, rand.New(rand.NewPCG(1, 1))))
	assert.Len(t, d.done, 1)
}

// Each class is refused for its own reason, once an hour.
func TestT15ReasonsAndRate(t *testing.T) {
	t.Parallel()
	for _, f := range forgeries() {
		t.Run(f.name, func(t *testing.T) {
			d := newDesk(t)
			for serial := uint64(1); serial <= 3; serial++ {
				d.take(t.Context(), d.good(serial))
			}
			r := rand.New(rand.NewPCG(2, 2))
			before := len(d.answers)
			for range 20 {
				d.take(t.Context(), f.make(d, r))
			}
			if f.want == "" {
				assert.LessOrEqual(t, len(d.answers)-before, 2)
				return
			}
			require.Len(t, d.answers, before+1)
			assert.Equal(t, f.want, d.last().Reason)
			if f.want == attendance.CommandSignature || f.want == attendance.CommandMalformed {
				assert.Equal(t, 20, d.alerts, "the uplink sends one, with the count")
			} else {
				assert.Zero(t, d.alerts)
			}
			d.up += refusalPause
			d.take(t.Context(), f.make(d, r))
			require.Len(t, d.answers, before+2)
			assert.Equal(t, 19, d.last().More)
			assert.Len(t, d.done, 3)
		})
	}
}

func FuzzCommand(f *testing.F) {
	d := newDesk(f)
	f.Add(d.sign(d.forger, chain.PurposeCommand, d.order(1, nil)))
	f.Add(d.sign(d.centre, chain.PurposeCommand, d.order(1, func(c *attendance.Command) { c.Terminal = "t-2" })))
	f.Add([]byte("a.b.c"))
	f.Fuzz(func(t *testing.T, jws []byte) {
		d.t = t
		d.up += refusalPause
		d.take(context.Background(), jws)
		assert.Empty(t, d.done)
	})
}

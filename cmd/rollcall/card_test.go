//go:build cgo

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// The commands through a real pcscd of their own. The PC/SC library allows one
// in a process, so all of it is one test.
func TestCardCommands(t *testing.T) {
	daemon, err := simulator.NewPcscd(t.TempDir(), "Desk", "Desk SAM")
	require.NoError(t, err)
	t.Setenv("PCSCLITE_CSOCK_NAME", daemon.Address())
	require.NoError(t, daemon.Start())
	t.Cleanup(func() { require.NoError(t, daemon.Stop()) })
	do := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), args, &out)
		return out.String(), err
	}
	holder := simulator.InventHolder(7)
	desk := daemon.Slot(0, 0)

	t.Run("nothing inserted", func(t *testing.T) {
		_, err := do("card", "read")
		assert.ErrorContains(t, err, "no card in any reader: insert one")
		_, err = do("card", "read", "-reader", "None")
		assert.ErrorIs(t, err, reader.ErrReaderGone)
		assert.ErrorContains(t, err, "rollcall reader list")
		_, err = do("card", "read", "-profile", "none.json")
		assert.ErrorIs(t, err, os.ErrNotExist)
		out, err := do("reader", "list")
		require.NoError(t, err)
		assert.Regexp(t, `(?m)^Desk 00 00 +empty$`, out)
		assert.Regexp(t, `(?m)^Desk SAM 00 00 +empty, for a security module: gives no taps$`, out)
	})

	remove, err := desk.Insert(simulator.NewCard(holder))
	require.NoError(t, err)
	awaitCard(t, desk.Name, true)

	t.Run("list", func(t *testing.T) {
		out, err := do("reader", "list", "-json")
		require.NoError(t, err)
		var slots []pcsc.Slot
		require.NoError(t, json.Unmarshal([]byte(out), &slots))
		require.Len(t, slots, 4)
		for _, s := range slots {
			assert.Equal(t, s.Name == desk.Name, s.Present, s.Name)
			assert.Equal(t, strings.Contains(s.Name, "SAM"), s.SAM, s.Name)
		}
	})
	t.Run("read, masked", func(t *testing.T) {
		for _, args := range [][]string{{"card", "read"}, {"card", "read", "-json"}, {"card", "read", "-reader", desk.Name}} {
			out, err := do(args...)
			require.NoError(t, err)
			for _, secret := range []string{holder.Ident, holder.CardNo, holder.PersonNo, holder.Name} {
				assert.NotContains(t, out, secret)
			}
			assert.Contains(t, out, "read person_no")
			assert.Contains(t, out, "9000")
			assert.Contains(t, out, "file")
		}
	})
	t.Run("read, shown", func(t *testing.T) {
		out, err := do("card", "read", "-show", "-json")
		require.NoError(t, err)
		var r reading
		require.NoError(t, json.Unmarshal([]byte(out), &r))
		assert.True(t, r.PersonNo == holder.PersonNo && r.Name == holder.Name && r.Ident == holder.Ident && r.CardNo == holder.CardNo)
		assert.Equal(t, "2.00", r.Spec)
		assert.Equal(t, "2035-05-31", r.ValidTo)
		assert.Len(t, r.Steps, 7)
		assert.LessOrEqual(t, r.CardMS, r.TotalMS)
	})
	t.Run("record", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "recorded.txt")
		out, err := do("card", "record", "-source", "an invented card", file)
		require.NoError(t, err)
		assert.Contains(t, out, "without the holder's data")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		packed := strings.Join(strings.Fields(string(text)), "")
		for _, secret := range []string{holder.PersonNo, holder.CardNo, holder.Name} {
			assert.NotContains(t, string(text), secret)
			assert.NotContains(t, packed, strings.ToUpper(hex.EncodeToString([]byte(secret))))
		}
		assert.NotContains(t, packed, holder.Ident[16:24], "serial number, in the ATR too")
		assert.Contains(t, string(text), "# source: an invented card, recorded in reader Desk 00 00 with profile cn-ssc; answer to reset 3B 6D 00 00 ")
		assert.Contains(t, string(text), "< 03 04 32 2E 30 30 90 00\n")
		_, err = do("card", "record", file)
		assert.ErrorIs(t, err, os.ErrExist, "a file that is there stays")
	})
	remove()
	awaitCard(t, desk.Name, false)

	t.Run("a card of another kind", func(t *testing.T) {
		foreign := simulator.NewCard(holder)
		foreign.Faults.Foreign = true
		remove, err := desk.Insert(foreign)
		require.NoError(t, err)
		defer remove()
		awaitCard(t, desk.Name, true)
		out, err := do("card", "read")
		assert.ErrorIs(t, err, reader.ErrUnsupportedCard)
		assert.Contains(t, out, "6A82")
		out, err = do("card", "record", filepath.Join(t.TempDir(), "foreign.txt"))
		require.NoError(t, err)
		assert.Contains(t, out, "not a card this terminal knows")
	})
	t.Run("a card that keeps its holder to itself, with the security module", func(t *testing.T) {
		psam := simulator.NewPSAM()
		closed := holder
		closed.Spec = "3.00"
		awaitCard(t, desk.Name, false)
		remove, err := desk.Insert(psam.Issue(simulator.NewCard(closed)))
		require.NoError(t, err)
		defer remove()
		awaitCard(t, desk.Name, true)
		file := filepath.Join(t.TempDir(), "rollcalld.toml")
		keys := psam.Config()
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `state = "/x"
[cards.psam]
slot = "*sam 00 01"
open = {card = %d, usage = %d, id = %d}
prove = {card = %d, usage = %d, id = %d}
`, keys.Open.Card, keys.Open.Usage, keys.Open.ID, keys.Prove.Card, keys.Prove.Usage, keys.Prove.ID), 0o600))
		level := func(args ...string) (r reading, text string) {
			out, err := do(append([]string{"card", "read", "-json"}, args...)...)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal([]byte(out), &r))
			text, err = do(append([]string{"card", "read"}, args...)...)
			require.NoError(t, err)
			return r, text
		}

		without, text := level()
		assert.Equal(t, attendance.LevelFile, without.Level)
		assert.True(t, without.Partial)
		assert.Contains(t, text, "the card keeps its holder to itself")

		_, err = do("card", "read", "-config", file)
		assert.ErrorIs(t, err, reader.ErrCardRemoved, "an empty slot")
		module := daemon.Slot(1, 1)
		take, err := module.Insert(psam)
		require.NoError(t, err)
		defer func() { take() }()
		awaitCard(t, module.Name, true)
		with, text := level("-config", file)
		assert.Equal(t, attendance.LevelAuthenticated, with.Level)
		assert.False(t, with.Partial)
		assert.Contains(t, text, "the card answered a fresh challenge")
		assert.Contains(t, text, "module: ")
		assert.NotContains(t, text, closed.PersonNo)

		take()
		awaitCard(t, module.Name, false)
		other := simulator.NewPSAM()
		other.Faults.NoKeys = true
		take, err = module.Insert(other)
		require.NoError(t, err)
		awaitCard(t, module.Name, true)
		doubtful, text := level("-config", file)
		assert.Equal(t, attendance.LevelFile, doubtful.Level)
		assert.NotEmpty(t, doubtful.Doubt)
		assert.Contains(t, text, "no higher")
	})
	t.Run("no service", func(t *testing.T) {
		require.NoError(t, daemon.Stop())
		for _, args := range [][]string{{"reader", "list"}, {"card", "read"}} {
			_, err := do(args...)
			assert.ErrorIs(t, err, reader.ErrServiceDown)
			assert.ErrorContains(t, err, "start pcscd")
		}
	})
}

// awaitCard waits until PC/SC sees that a card came or went.
func awaitCard(t *testing.T, name string, present bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		slots, err := pcsc.Slots(pcsc.Config{})
		if err != nil {
			return false
		}
		for _, s := range slots {
			if s.Name == name {
				return s.Present == present
			}
		}
		return false
	}, 20*time.Second, 20*time.Millisecond, errors.New("the card was not seen"))
}

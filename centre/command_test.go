package centre_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

func admin(jws []byte, serial uint64, result attendance.CommandResult, reason attendance.CommandReason) attendance.Record {
	sum := sha256.Sum256(jws)
	return attendance.NewRecord(attendance.TypeAdmin, attendance.AdminBody{
		Serial: serial, Kind: attendance.CommandRotateKey, SHA256: hex.EncodeToString(sum[:]), Result: result, Reason: reason,
	})
}

// Commands wait at the broker one at a time, in order, until the terminal's
// record answers; then they are taken back.
func TestCommandWaitsUntilItIsAnswered(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, loopback, on)
		b := admitted(t, c, "t-1")
		address, stop := serve(t, c)
		defer stop()
		w := connect(t, address, b)
		var serials []uint64
		for range 2 {
			made, err := c.Order(t.Context(), "t-1", attendance.Command{Kind: attendance.CommandRotateKey}, 0)
			require.NoError(t, err)
			serials = append(serials, made.Serial)
		}
		first := next[*packets.PublishPacket](w)
		assert.Equal(t, topic(b, "down/command"), first.TopicName)
		order := b.command(t, first.Payload)
		assert.Equal(t, serials[0], order.Serial)
		assert.Equal(t, "t-1", order.Terminal)

		w.publish(1, topic(b, "up/records"), b.batch(t, b.append(t, openRecord(), admin(first.Payload, serials[0], attendance.CommandFailed, attendance.CommandStorage))))
		second := w.nextCommand(b)
		assert.Equal(t, serials[1], b.command(t, second.Payload).Serial)

		commands, err := c.Commands(t.Context(), "t-1")
		require.NoError(t, err)
		require.Len(t, commands, 2)
		assert.Equal(t, centre.CommandWaiting, commands[0].State)
		assert.Equal(t, "failed", commands[1].State)
		assert.Equal(t, attendance.CommandStorage, commands[1].Reason)
		assert.Equal(t, uint64(2), commands[1].Seq)

		w.publish(2, topic(b, "up/records"), b.batch(t, b.append(t, admin(second.Payload, serials[1], attendance.CommandDone, ""))))
		assert.Empty(t, w.nextCommand(b).Payload, "taken back")
		alarms, err := c.Alarms(t.Context(), false, 0, 10)
		require.NoError(t, err)
		assert.Empty(t, alarms)
	})
}

// nextCommand passes over what else comes down.
func (w *wire) nextCommand(b *box) *packets.PublishPacket {
	for {
		if p, ok := w.read().(*packets.PublishPacket); ok && p.TopicName == topic(b, "down/command") {
			return p
		}
	}
}

// command opens what came down as the terminal does.
func (b *box) command(t testing.TB, jws []byte) attendance.Command {
	t.Helper()
	trust, err := b.admission.Trust()
	require.NoError(t, err)
	payload, err := chain.Open(trust.Package, chain.PurposeCommand, jws)
	require.NoError(t, err)
	order, err := attendance.ParseCommand(payload)
	require.NoError(t, err)
	return order
}

// A terminal that answers what this centre never ordered was sent a forgery.
func TestT15AnswersToForeignCommandsRaiseAnAlarm(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, on func(*centre.Config)) {
		c, _, _ := newCentre(t, on)
		b := admitted(t, c, "t-1")
		made, err := c.Order(t.Context(), "t-1", attendance.Command{Kind: attendance.CommandRotateKey}, time.Hour)
		require.NoError(t, err)
		_, err = c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord(),
			admin([]byte("forged"), 0, attendance.CommandRefused, attendance.CommandSignature),
			admin([]byte("another of that serial"), made.Serial, attendance.CommandDone, ""))))
		require.NoError(t, err)
		alarms, err := c.Alarms(t.Context(), false, 0, 10)
		require.NoError(t, err)
		require.Len(t, alarms, 2)
		for i, a := range alarms {
			assert.Equal(t, centre.AlarmCommand, a.Kind)
			assert.Equal(t, uint64(i+2), a.Seq)
		}
		commands, err := c.Commands(t.Context(), "")
		require.NoError(t, err)
		assert.Equal(t, centre.CommandWaiting, commands[0].State, "somebody else's answer answers nothing")
	})
}

// A correction is of a check-in that the centre has, and names its bytes.
func TestT18CorrectionNamesTheRecord(t *testing.T) {
	c, _, _ := newCentre(t, loopback)
	b := admitted(t, c, "t-1")
	_, err := c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t, openRecord(), checkin("p-1"))))
	require.NoError(t, err)
	correct := func(seq uint64, decision attendance.Outcome) attendance.Command {
		return attendance.Command{Kind: attendance.CommandCorrect, Correct: &attendance.Correct{
			Log: string(b.log), Seq: seq, Decision: decision, Operator: "op-1", Reason: "tapped for another"}}
	}
	for name, order := range map[string]attendance.Command{
		"no check-in":               correct(1, attendance.Void),
		"no record":                 correct(9, attendance.Void),
		"a decision of a tap alone": correct(2, attendance.Duplicate),
		"no argument":               {Kind: attendance.CommandErase},
	} {
		_, err := c.Order(t.Context(), "t-1", order, 0)
		assert.ErrorIs(t, err, centre.ErrOrder, name)
	}
	_, err = c.Order(t.Context(), "t-9", correct(2, attendance.Void), 0)
	assert.ErrorIs(t, err, centre.ErrUnknownTerminal)
	made, err := c.Order(t.Context(), "t-1", correct(2, attendance.Void), 0)
	require.NoError(t, err)
	commands, err := c.Commands(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, commands, 1, "control: what was refused was not made")
	address, stop := serve(t, c)
	defer stop()
	order := b.command(t, next[*packets.PublishPacket](connect(t, address, b)).Payload)
	assert.Equal(t, b.prev.String(), order.Correct.Hash)

	// Both versions are listed.
	_, err = c.Ingest(t.Context(), "t-1", b.batch(t, b.append(t,
		attendance.NewRecord(attendance.TypeCorrection, attendance.CorrectionBody{Correct: *order.Correct, Serial: made.Serial}))))
	require.NoError(t, err)
	rows := stored(t, c)
	require.Len(t, rows, 3)
	assert.Equal(t, "on_time", rows[1].Decision)
	assert.Equal(t, "void", rows[2].Decision)
	assert.Contains(t, rows[2].Reason, "record 2 ")
}

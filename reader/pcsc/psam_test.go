//go:build cgo

package pcsc_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// moduleSlot puts a module into a slot of the real pcscd for the test, and gives
// the configuration that uses it.
func moduleSlot(t *testing.T, psam *simulator.PSAM) pcsc.Config {
	t.Helper()
	slot := daemon.Slot(3, 1)
	remove, err := slot.Insert(psam)
	require.NoError(t, err)
	t.Cleanup(func() {
		remove()
		await(t, slot, false)
	})
	await(t, slot, true)
	return pcsc.Config{PSAM: pcsc.PSAM{Slot: slot.Name, PSAMConfig: psam.Config()}}
}

// T1 through a real pcscd: a card of the module's issuer proves itself, one that
// says yes to everything is opened, and a copy of the files is no more than that.
func TestT1LevelsWithAPSAMOnRealParts(t *testing.T) {
	psam := simulator.NewPSAM()
	cfg := moduleSlot(t, psam)
	desk := daemon.Slot(2, 0)
	copied := func(n int, saysYes bool) *simulator.Card {
		holder := simulator.InventHolder(n)
		holder.Spec = "3.00"
		card := simulator.NewCard(holder)
		card.Faults.Copied, card.Faults.SaysYes = true, saysYes
		return card
	}
	await(t, desk, false)
	remove, err := desk.Insert(newGeneration(psam, 90))
	require.NoError(t, err)
	t.Cleanup(remove)
	await(t, desk, true)

	r := start(t, cfg) // the card lies there before the module is open
	assert.Equal(t, attendance.LevelAuthenticated, r.expect(desk, attendance.CardSeen, attendance.CardRead).Credential.Level)
	remove()
	r.expect(desk, attendance.CardGone)

	for name, c := range map[string]struct {
		card  *simulator.Card
		level attendance.CardLevel
	}{
		"issued": {newGeneration(psam, 91), attendance.LevelAuthenticated},
		"yes":    {copied(92, true), attendance.LevelOpened},
		"copied": {copied(93, false), attendance.LevelFile},
	} {
		t.Run(name, func(t *testing.T) {
			await(t, desk, false)
			remove := r.insert(desk, c.card)
			cred := r.expect(desk, attendance.CardSeen, attendance.CardRead).Credential
			assert.Equal(t, c.level, cred.Level)
			remove()
			r.expect(desk, attendance.CardGone)
		})
	}
}

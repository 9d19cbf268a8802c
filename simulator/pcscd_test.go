package simulator_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
)

func TestPcscdStartsKillsAndStartsAgain(t *testing.T) {
	daemon, err := simulator.NewPcscd(t.TempDir(), "Desk", "Door")
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	t.Cleanup(func() { require.NoError(t, daemon.Stop()) })
	assert.FileExists(t, daemon.Address())
	desk, door := daemon.Slot(0, 0), daemon.Slot(1, 1)
	assert.Equal(t, "Desk 00 00", desk.Name)
	assert.Equal(t, "Door 00 01", door.Name)

	for range 2 {
		for _, slot := range []*simulator.Slot{desk, door} {
			remove, err := slot.Insert(simulator.NewCard(simulator.InventHolder(1)))
			require.NoError(t, err)
			remove()
			remove()
		}
		require.NoError(t, daemon.Kill())
		require.NoError(t, daemon.Kill(), "ended already")
		_, err := desk.Insert(simulator.NewCard(simulator.InventHolder(1)))
		require.Error(t, err)
		require.NoError(t, daemon.Start())
	}
}

func TestPcscdTakesOneToEightReaders(t *testing.T) {
	dir := t.TempDir()
	_, err := simulator.NewPcscd(dir)
	assert.ErrorContains(t, err, "1 to 8")
	_, err = simulator.NewPcscd(dir, make([]string, 9)...)
	assert.ErrorContains(t, err, "1 to 8")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

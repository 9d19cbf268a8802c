package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
)

func TestLedgerAlerts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begun string
		s     queue.Status
		want  map[chain.AlertKind]string
	}{
		{"all is well", "", queue.Status{Unsent: 69, Capacity: 100}, map[chain.AlertKind]string{}},
		{"filling", "", queue.Status{Unsent: 70, Capacity: 100}, map[chain.AlertKind]string{chain.AlertLedger: "warn"}},
		{"nearly full", "", queue.Status{Unsent: 95, Capacity: 100}, map[chain.AlertKind]string{chain.AlertLedger: "alarm"}},
		{"full", "", queue.Status{Unsent: 100, Capacity: 100}, map[chain.AlertKind]string{chain.AlertLedger: "full"}},
		{"disk full", "", queue.Status{Capacity: 100, DiskFull: true}, map[chain.AlertKind]string{chain.AlertDisk: "full"}},
		{"begun anew", "damaged", queue.Status{Capacity: 100}, map[chain.AlertKind]string{chain.AlertEpochBreak: "damaged"}},
		{"begun anew, and the centre has it", "damaged", queue.Status{Capacity: 100, Receipted: 1}, map[chain.AlertKind]string{}},
		{"records lost", "", queue.Status{Capacity: 100, Lost: 3, Unsent: 1}, map[chain.AlertKind]string{chain.AlertGap: ""}},
		{"records lost, and the centre knows", "", queue.Status{Capacity: 100, Lost: 3}, map[chain.AlertKind]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := alerts{begun: tt.begun}
			assert.Equal(t, tt.want, a.of(tt.s))
		})
	}
}

// What rollcall status prints is this part's sentence: it names the reason and
// the address, whatever is wrong with the server.
func TestT17StatusNamesTheReason(t *testing.T) {
	d := &daemon{health: device.NewHealth(time.Now)}
	for _, code := range mqtt.Codes {
		trouble := &mqtt.Trouble{Code: code, Address: "centre.test:8883"}
		d.uplinkReport(false, mqtt.Troubles{trouble})
		part, ok := d.health.Snapshot().Part(device.PartUplink)
		require.True(t, ok)
		zh, en := trouble.Sentence()
		assert.Equal(t, device.StateDegraded, part.State)
		assert.Equal(t, device.Sentence{Zh: zh, En: en}, part.Sentence)
		assert.Contains(t, en, "centre.test:8883")

		d.uplinkReport(true, mqtt.Troubles{trouble}) // through another address
		part, _ = d.health.Snapshot().Part(device.PartUplink)
		assert.Equal(t, device.StateOK, part.State)
		assert.Equal(t, en, part.Sentence.En)
	}
	d.uplinkReport(true, nil)
	part, _ := d.health.Snapshot().Part(device.PartUplink)
	assert.Empty(t, part.Sentence)
}

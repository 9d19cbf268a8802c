package device

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadyMeansCanStore(t *testing.T) {
	for name, test := range map[string]struct {
		parts map[Part]PartState
		ready bool
	}{
		"nobody spoke":     {nil, false},
		"ledger works":     {map[Part]PartState{PartLedger: StateOK}, true},
		"offline, no eyes": {map[Part]PartState{PartLedger: StateOK, PartUplink: StateDown, PartCamera: StateDown, PartReader: StateDown}, true},
		"ledger filling":   {map[Part]PartState{PartLedger: StateDegraded, PartDisk: StateDegraded}, true},
		"ledger down":      {map[Part]PartState{PartLedger: StateDown, PartDisk: StateOK}, false},
		"disk full":        {map[Part]PartState{PartLedger: StateOK, PartDisk: StateDown}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHealth(time.Now)
			for p, s := range test.parts {
				h.Set(p, s, Sentence{})
			}
			assert.Equal(t, test.ready, h.Ready())
		})
	}
}

func TestHealthCountsRecoveries(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	h := NewHealth(func() time.Time { return now })
	h.OK(PartReader)
	for range 2 {
		now = now.Add(time.Minute)
		h.Set(PartReader, StateDown, Sentence{Zh: "读卡器未连接，请检查USB线", En: "No card reader: check its cable"})
		now = now.Add(time.Second)
		h.Set(PartReader, StateDown, Sentence{Zh: "读卡器未连接，请换一个USB口", En: "No card reader: try another socket"})
		reader, ok := h.Snapshot().Part(PartReader)
		require.True(t, ok)
		assert.Equal(t, now.Add(-time.Second), reader.Since, "another sentence is no other state")
		h.OK(PartReader)
	}
	reader, ok := h.Snapshot().Part(PartReader)
	require.True(t, ok)
	assert.Equal(t, PartHealth{Part: PartReader, State: StateOK, Since: now, Recoveries: 2}, reader)
	_, ok = h.Snapshot().Part(PartCamera)
	assert.False(t, ok)
}

func TestHealthTellsOfChangesOnly(t *testing.T) {
	h := NewHealth(time.Now)
	changed := h.Changed()
	h.OK(PartLedger)
	assert.True(t, closed(changed))

	changed = h.Changed()
	h.OK(PartLedger)
	assert.False(t, closed(changed))
	h.Set(PartLedger, StateDown, Sentence{})
	assert.True(t, closed(changed))
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestHealthReportAsJSON(t *testing.T) {
	h := NewHealth(func() time.Time { return time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC) })
	h.Set(PartUplink, StateDown, Sentence{Zh: "离线", En: "Offline"})
	h.OK(PartLedger)
	text, err := json.Marshal(h.Snapshot())
	require.NoError(t, err)
	assert.JSONEq(t, `{"ready":true,"parts":[
		{"part":"ledger","state":"ok","since":"2026-11-21T09:00:00Z","sentence":{},"recoveries":0},
		{"part":"uplink","state":"down","since":"2026-11-21T09:00:00Z","sentence":{"zh":"离线","en":"Offline"},"recoveries":0}]}`, string(text))
	assert.Panics(t, func() { h.Set("toaster", StateOK, Sentence{}) })
}

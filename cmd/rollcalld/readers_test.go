package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"rollcall/device"
)

func TestReaderHealth(t *testing.T) {
	gone := errors.New("gone")
	type said struct {
		reader string
		err    error
	}
	for _, tc := range []struct {
		name string
		said []said
		want device.PartState
	}{
		{"works", []said{{"", nil}, {"a", nil}}, device.StateOK},
		{"no service", []said{{"", gone}}, device.StateDown},
		{"the only one is gone", []said{{"", nil}, {"a", nil}, {"a", gone}}, device.StateDown},
		{"one of two is gone", []said{{"", nil}, {"a", nil}, {"b", nil}, {"a", gone}}, device.StateDegraded},
		{"no service, and a serial reader works", []said{{"", gone}, {"scanner", nil}}, device.StateDegraded},
		{"back again", []said{{"", nil}, {"a", gone}, {"a", nil}}, device.StateOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			health := device.NewHealth(time.Now)
			readers := newReaderHealth(health)
			for _, s := range tc.said {
				readers.report(s.reader, s.err)
			}
			part, ok := health.Snapshot().Part(device.PartReader)
			assert.True(t, ok)
			assert.Equal(t, tc.want, part.State)
			assert.Equal(t, tc.want != device.StateOK, part.Sentence.Zh != "" && part.Sentence.En != "")
		})
	}
}

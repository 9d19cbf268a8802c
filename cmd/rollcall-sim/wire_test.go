package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The demonstration counts messages that are as published, and fails by one
// that is not, or by a kind that was never sent.
func TestWireHoldsMessagesToTheContract(t *testing.T) {
	const prefix = "rollcall/v1/demo/t-7Q2M/"
	golden := map[string][]byte{}
	for topic, file := range map[string]string{
		"up/records": "up-records.txt", "up/state": "up-state.json", "up/alert": "up-alert.jws",
		"down/receipt": "down-receipt.jws", "down/package/c-2026-031": "down-package.jws", "down/command": "down-command-erase.jws",
	} {
		text, err := os.ReadFile(filepath.Join("../../docs/contract/messages", file))
		require.NoError(t, err)
		golden[topic] = text
	}
	listen := func(but, spoil string) (*wire, error) {
		w, err := newWire()
		require.NoError(t, err)
		for topic, message := range golden {
			switch topic {
			case but:
				continue
			case spoil:
				message = spoilt(message)
			}
			w.hear(prefix+topic, message)
		}
		return w, w.judge(&bytes.Buffer{})
	}
	w, err := listen("", "")
	require.NoError(t, err)
	var said bytes.Buffer
	w.hear(prefix+"down/command", nil)
	require.NoError(t, w.judge(&said))
	assert.Equal(t, "messages: down/command 2, down/package 1, down/receipt 1, up/alert 1, up/records 1, up/state 1; "+
		"all as docs/contract publishes, and a spoilt one of each is refused\n", said.String())
	for topic := range golden {
		_, err := listen("", topic)
		assert.ErrorIs(t, err, errUnpublished, "spoilt: %s", topic)
	}
	_, err = listen("up/state", "")
	assert.ErrorContains(t, err, "no message of up/state")
}

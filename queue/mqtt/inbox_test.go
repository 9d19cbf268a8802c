package mqtt

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestInboxKeepsTheNewestOfEachTopic(t *testing.T) {
	b := newInbox()
	assert.True(t, b.put("a", []byte("a1")))
	assert.True(t, b.put("b", []byte("b1")))
	assert.True(t, b.put("a", []byte("a2")))
	assert.True(t, b.put("c", nil), "a withdrawn message is passed over")
	var got []string
	for payload, ok := b.take(); ok; payload, ok = b.take() {
		got = append(got, string(payload))
	}
	assert.Equal(t, []string{"a2", "b1"}, got)
	assert.Zero(t, b.size)
	assert.Empty(t, b.held)
}

func TestInboxIsBounded(t *testing.T) {
	b := newInbox()
	big := make([]byte, maxWaiting/2)
	assert.True(t, b.put("a", big))
	assert.True(t, b.put("b", big))
	assert.False(t, b.put("c", []byte{1}))
	assert.True(t, b.put("a", big), "one in the place of another")
	b.take()
	assert.True(t, b.put("c", []byte{1}))
}

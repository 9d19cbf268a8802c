package queue_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/queuetest"
)

func TestRewind(t *testing.T) {
	dir := t.TempDir()
	l, err := queue.Open(queuetest.Config(dir), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	stop := queuetest.Start(t, l)
	for i := range 9 {
		_, err := l.Append(t.Context(), queuetest.Record(i))
		require.NoError(t, err)
	}
	log := l.Status().Log
	receipt := func(seq chain.Seq) {
		t.Helper()
		e := queuetest.Read(t, l)[seq-1]
		line, err := e.Line()
		require.NoError(t, err)
		_, err = l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, log, seq, chain.HashLine(line)))
		require.NoError(t, err)
	}
	marked := func(want chain.Seq, why string) {
		t.Helper()
		_, last, after := l.Marks()
		assert.Equal(t, chain.Seq(10), last)
		assert.Equal(t, want, after, why)
	}
	receipt(10)
	marked(10, "all is sent")
	changed := l.Changed()
	require.NoError(t, l.Rewind(log, 2))
	<-changed
	marked(2, "an uplink that waits is woken and goes on there")
	assert.Zero(t, l.Status().Unsent, "nothing waits that waited not before")
	receipt(6)
	marked(6, "receipts take it on")
	receipt(4)
	marked(4, "and back")
	receipt(10)
	marked(10, "to where it was")
	receipt(6)
	marked(10, "and no further")

	assert.ErrorIs(t, l.Rewind("t-test/elsewhere", 1), queue.ErrNotKept)
	assert.ErrorIs(t, l.Rewind(log, 10), queue.ErrNotKept)
	assert.NoError(t, l.Rewind(log, 0))
	stop()
}

// A restart in the middle of sending again begins it anew; one after its end
// does not; and a receipt that covers no more than was known ends it on disk.
func TestRewindOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	var l *queue.Ledger
	stop := func() {}
	restart := func() {
		t.Helper()
		stop()
		var err error
		l, err = queue.Open(queuetest.Config(dir), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		stop = queuetest.Start(t, l)
	}
	restart()
	for i := range 9 {
		_, err := l.Append(t.Context(), queuetest.Record(i))
		require.NoError(t, err)
	}
	log := l.Status().Log
	receipt := func(seq chain.Seq) {
		t.Helper()
		line, err := l.Line(log, seq)
		require.NoError(t, err)
		_, err = l.Receipt(queuetest.Receipt(t, queuetest.CentreKey, log, seq, chain.HashLine(line)))
		require.NoError(t, err)
	}
	marked := func(want chain.Seq, why string) {
		t.Helper()
		_, _, after := l.Marks()
		assert.Equal(t, want, after, why)
	}
	receipt(10)
	restart()
	marked(10, "control: nothing was ordered")
	require.NoError(t, l.Rewind(log, 2))
	restart()
	marked(2, "ordered before the restart")
	receipt(6)
	marked(6, "receipts take it on")
	restart()
	marked(2, "nobody noted how far it was: it begins anew")
	receipt(10)
	marked(10, "the centre is where it was")
	restart()
	marked(10, "it is over")
	require.NoError(t, l.Rewind(log, 0))
	restart()
	marked(0, "from the beginning is an order too")
	stop()
}

// Package queuetest holds the tests that every ledger must pass, the one in
// bbolt and a simulated one alike, and the keys they need. Only tests import
// it.
package queuetest

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// Terminal is the id in [Config].
const Terminal chain.TerminalID = "t-test"

// Fixed keys: the terminal's, the centre's, and one that nobody trusts.
var (
	TerminalKey = key(1)
	CentreKey   = key(2)
	StrangerKey = key(3)
)

// Ring is the terminal's before any rotation.
func Ring() *chain.Ring {
	ring, err := chain.NewRing(Terminal, TerminalKey.Public())
	if err != nil {
		panic("queuetest: " + err.Error())
	}
	return ring
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
}

// Config is a ledger's configuration with a clock that moves a second for
// each record.
func Config(dir string) queue.Config {
	var records atomic.Int64
	return queue.Config{
		Dir:        dir,
		Terminal:   Terminal,
		Key:        TerminalKey,
		ReceiptKey: CentreKey.Public(),
		Software:   "rollcall test",
		Stamp: func() chain.Stamp {
			n := records.Add(1)
			wall := time.Date(2026, 11, 21, 8, 30, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
			return chain.Stamp{Wall: chain.NewWall(wall), Boot: "b-1", UpMS: n * 1000, Clock: chain.ClockSynced}
		},
	}
}

// Record is the n-th of many different records.
func Record(n int) attendance.Record {
	return attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{
		Part: "reader", Code: string(attendance.FaultRemoved), Tapped: "2026-11-21T08:30:00.000Z", Reader: fmt.Sprintf("reader %d", n),
	})
}

// Receipt signs a receipt as the centre does.
func Receipt(t testing.TB, key ed25519.PrivateKey, log chain.LogID, seq chain.Seq, hash chain.Hash) []byte {
	t.Helper()
	at := chain.NewWall(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	jws, err := chain.Sign(key, chain.PurposeReceipt, chain.Receipt{Log: log, Seq: seq, Hash: hash, At: at})
	require.NoError(t, err)
	return []byte(jws)
}

// SignAlert signs alerts with a key that was never changed.
func SignAlert(key crypto.Signer) func(chain.Alert) ([]byte, error) {
	return func(a chain.Alert) ([]byte, error) {
		jws, err := chain.Sign(key, chain.PurposeAlert, a)
		return chain.FormAlert(jws), err
	}
}

// Start runs a ledger until the test ends or stop is called, and fails the
// test if it ends otherwise. It closes the ledger.
func Start(t testing.TB, l Ledger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, l.Close())
	}
	t.Cleanup(stop)
	return stop
}

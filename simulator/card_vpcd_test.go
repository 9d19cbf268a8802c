//go:build cgo

package simulator_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ebfe/scard"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
)

// What does an identity cost through a real pcscd and vpcd: the 11 exchanges of
// a whole reading, connecting included? The virtual card takes no time. Run it
// alone: a process can talk to one pcscd only.
func BenchmarkIdentityThroughPcscd(b *testing.B) {
	daemon, err := simulator.NewPcscd(b.TempDir(), "Desk")
	require.NoError(b, err)
	require.NoError(b, daemon.Start())
	defer func() { require.NoError(b, daemon.Stop()) }()
	require.NoError(b, os.Setenv("PCSCLITE_CSOCK_NAME", daemon.Address()))
	slot := daemon.Slot(0, 0)
	remove, err := slot.Insert(thirdGeneration())
	require.NoError(b, err)
	defer remove()
	context, err := scard.EstablishContext()
	require.NoError(b, err)
	defer func() { require.NoError(b, context.Release()) }()
	states := []scard.ReaderState{{Reader: slot.Name}}
	for states[0].EventState&scard.StatePresent == 0 {
		require.NoError(b, context.GetStatusChange(states, 5*time.Second))
		states[0].CurrentState = states[0].EventState &^ scard.StateChanged
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		card, err := context.Connect(slot.Name, scard.ShareShared, scard.ProtocolAny)
		if err != nil {
			b.Fatal(err)
		}
		for _, command := range wholeReading(false) {
			if answer, err := card.Transmit(command); err != nil || len(answer) < 2 {
				b.Fatal(len(answer), err)
			}
		}
		if err := card.Disconnect(scard.LeaveCard); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "p95-us")
}

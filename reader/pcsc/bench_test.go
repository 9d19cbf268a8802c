//go:build cgo

package pcsc_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/ebfe/scard"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// openCard puts a card into a reader and waits until PC/SC sees it.
func openCard(b *testing.B) (*scard.Context, string) {
	b.Helper()
	slot := daemon.Slot(0, 0)
	remove, err := slot.Insert(simulator.NewCard(simulator.InventHolder(20)))
	require.NoError(b, err)
	context, err := scard.EstablishContext()
	require.NoError(b, err)
	wait := func(want scard.StateFlag) {
		states := []scard.ReaderState{{Reader: slot.Name}}
		for states[0].EventState&want == 0 {
			require.NoError(b, context.GetStatusChange(states, patience))
			states[0].CurrentState = states[0].EventState &^ scard.StateChanged
		}
	}
	wait(scard.StatePresent)
	b.Cleanup(func() {
		remove()
		wait(scard.StateEmpty)
		require.NoError(b, context.Release())
	})
	return context, slot.Name
}

// What does one command cost through pcscd and vpcd?
func BenchmarkCommand(b *testing.B) {
	context, name := openCard(b)
	card, err := context.Connect(name, scard.ShareShared, scard.ProtocolAny)
	require.NoError(b, err)
	defer card.Disconnect(scard.LeaveCard)
	_, err = card.Transmit([]byte("\x00\xA4\x04\x00\x0Fsx1.sh.\xC9\xE7\xBB\xE1\xB1\xA3\xD5\xCF"))
	require.NoError(b, err)
	for b.Loop() {
		answer, err := card.Transmit([]byte{0x00, 0xB2, 0x01, 0x28, 0x12})
		if err != nil || len(answer) != 20 {
			b.Fatal(len(answer), err)
		}
	}
}

// What does a whole reading cost through pcscd and vpcd, connecting included?
func BenchmarkReading(b *testing.B) {
	context, name := openCard(b)
	profile := reader.SocialSecurityCard()
	for b.Loop() {
		card, err := context.Connect(name, scard.ShareShared, scard.ProtocolAny)
		require.NoError(b, err)
		_, err = reader.NewCard(card).Read(b.Context(), profile)
		require.NoError(b, err)
		require.NoError(b, card.Disconnect(scard.LeaveCard))
	}
}

// How long is it from the reader's event to the credential, the virtual card's
// own time included? An insertion takes up to 400 ms, so give -benchtime 50x.
func BenchmarkEventToCredential(b *testing.B) {
	d, err := pcsc.New(pcsc.Config{}, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
	require.NoError(b, err)
	taps := make(chan attendance.Tap, 1)
	done := make(chan error, 1)
	go func() { done <- d.Run(b.Context(), taps) }()
	var took []time.Duration
	for b.Loop() {
		remove, err := daemon.Slot(0, 0).Insert(simulator.NewCard(simulator.InventHolder(21)))
		require.NoError(b, err)
		seen, read := <-taps, <-taps
		require.Equal(b, attendance.CardRead, read.Kind)
		took = append(took, read.At.Sub(seen.At))
		remove()
		<-taps
	}
	b.Cleanup(func() { require.NoError(b, <-done) })
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "p95-us")
}

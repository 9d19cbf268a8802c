//go:build cgo

package pcsc_test

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
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

// What does reading an identity cost through pcscd and vpcd, and connecting to
// the card before? The control is eleven bare commands, as many as a reading
// takes that looks at each file first.
func BenchmarkReading(b *testing.B) {
	const bare = 11
	context, name := openCard(b)
	profile := reader.SocialSecurityCard()
	record := []byte{0x00, 0xB2, 0x01, 0x28, 0x12}
	var reading, connecting, control []time.Duration
	for b.Loop() {
		began := time.Now()
		card, err := context.Connect(name, scard.ShareShared, scard.ProtocolAny)
		require.NoError(b, err)
		connected := time.Now()
		_, err = reader.NewCard(card).Read(b.Context(), profile)
		require.NoError(b, err)
		read := time.Now()
		for range bare {
			_, err = card.Transmit(record)
			require.NoError(b, err)
		}
		control = append(control, time.Since(read))
		reading = append(reading, read.Sub(connected))
		connecting = append(connecting, connected.Sub(began))
		require.NoError(b, card.Disconnect(scard.LeaveCard))
	}
	b.ReportMetric(0, "ns/op")
	for what, times := range map[string][]time.Duration{"reading": reading, "connecting": connecting, "bare": control} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), what+"-p50-us")
	}
}

// timed is the real PC/SC, with the time counted that is spent in commands and
// in connecting.
type timed struct {
	pcsc.Binding
	commands, connecting *atomic.Int64
}

func (b timed) Establish() (pcsc.Context, error) {
	began := time.Now()
	c, err := b.Binding.Establish()
	b.connecting.Add(int64(time.Since(began)))
	return timedContext{c, b}, err
}

type timedContext struct {
	pcsc.Context
	by timed
}

func (c timedContext) Connect(reader string) (pcsc.Handle, error) {
	began := time.Now()
	h, err := c.Context.Connect(reader)
	c.by.connecting.Add(int64(time.Since(began)))
	return timedHandle{h, c.by}, err
}

type timedHandle struct {
	pcsc.Handle
	by timed
}

func (h timedHandle) Transmit(command []byte) ([]byte, error) {
	began := time.Now()
	defer func() { h.by.commands.Add(int64(time.Since(began))) }()
	return h.Handle.Transmit(command)
}

// How long is it from the reader's event to the credential, in all, without the
// time inside commands (our share), and without connecting as well? An
// insertion takes up to 400 ms, so give -benchtime 50x.
func BenchmarkEventToCredential(b *testing.B) {
	inside := timed{pcsc.System(), new(atomic.Int64), new(atomic.Int64)}
	d, err := pcsc.New(pcsc.Config{Binding: inside}, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
	require.NoError(b, err)
	taps := make(chan attendance.Tap, 1)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- d.Run(ctx, taps) }()
	var all, share, own []time.Duration
	for n := 21; b.Loop(); n++ {
		inside.commands.Store(0)
		inside.connecting.Store(0)
		remove, err := daemon.Slot(0, 0).Insert(simulator.NewCard(simulator.InventHolder(n)))
		require.NoError(b, err)
		seen, read := <-taps, <-taps
		require.Equal(b, attendance.CardRead, read.Kind)
		took := read.At.Sub(seen.At)
		all = append(all, took)
		share = append(share, took-time.Duration(inside.commands.Load()))
		own = append(own, took-time.Duration(inside.commands.Load()+inside.connecting.Load()))
		remove()
		<-taps
	}
	b.ReportMetric(0, "ns/op")
	for name, times := range map[string][]time.Duration{"all": all, "share": share, "own": own} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-p50-us")
		b.ReportMetric(float64(times[len(times)*95/100].Microseconds()), name+"-p95-us")
	}
	cancel()
	require.NoError(b, <-done)
}

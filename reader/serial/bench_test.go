package serial_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader/serial"
	"rollcall/simulator"
)

// bench runs a driver against a twin behind a pseudo-terminal at the line's own
// pace.
func bench(b *testing.B, cfg serial.Config, speed int, twin simulator.SerialTwin) <-chan attendance.Tap {
	b.Helper()
	cfg.Path = devicePath(b)
	plug(b, cfg.Path, speed, twin)
	up := make(chan error, 64)
	d, err := serial.New(cfg, time.Now, quiet(), func(_ string, err error) { up <- err })
	require.NoError(b, err)
	taps := make(chan attendance.Tap, 16)
	ctx := b.Context()
	go d.Run(ctx, taps)
	require.NoError(b, <-up)
	return taps
}

func until(b *testing.B, taps <-chan attendance.Tap, kind attendance.TapKind) attendance.Tap {
	for tap := range taps {
		if tap.Kind == attendance.CardFailed {
			b.Fatal("not read: ", tap.Fault)
		}
		if tap.Kind == kind {
			return tap
		}
	}
	panic("unreachable")
}

func percentiles(b *testing.B, took []time.Duration, name string) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, name+"-p50-ms")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, name+"-p95-ms")
}

// Find, select and read of an identity card: the wire alone takes 118 ms at
// 115200 and 1,416 ms at 9600.
func BenchmarkIDCard(b *testing.B) {
	for _, speed := range []int{115200, 9600} {
		b.Run(fmt.Sprint(speed), func(b *testing.B) {
			var asked atomic.Int64 // when the module took the find that found the card
			m := &simulator.IDCardModule{}
			m.Work = func(c [2]byte) time.Duration {
				if c == [2]byte{0x20, 0x01} {
					asked.Store(time.Now().UnixNano())
				}
				return 0
			}
			taps := bench(b, serial.Config{Kind: serial.KindIDCard, Speed: speed, Debounce: time.Millisecond, CoolDown: time.Millisecond}, speed, m)
			var reading, whole []time.Duration
			n := 0
			for b.Loop() {
				n++
				began := time.Now()
				remove := m.Place(idCard(n))
				until(b, taps, attendance.CardRead)
				whole = append(whole, time.Since(began))
				// The find's own ten bytes had been on the wire by then.
				find := 10 * 10 * time.Second / time.Duration(speed)
				reading = append(reading, time.Since(time.Unix(0, asked.Load()))+find)
				remove()
				until(b, taps, attendance.CardGone)
			}
			percentiles(b, reading, "reading")
			percentiles(b, whole, "placed-to-read")
		})
	}
}

// From the frame's last byte on the wire to the credential.
func BenchmarkOneWay(b *testing.B) {
	b.Run("uid-em4100", func(b *testing.B) {
		r := &simulator.Scanner{}
		n := 0
		taps := bench(b, serial.Config{Kind: serial.KindEM4100, Debounce: time.Millisecond, CoolDown: time.Millisecond}, 9600, r)
		var took []time.Duration
		for b.Loop() {
			n++
			began := time.Now()
			r.Show(string(simulator.EM4100Frame([]byte{1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})))
			until(b, taps, attendance.CardRead)
			took = append(took, time.Since(began)-14*10*time.Second/9600)
			until(b, taps, attendance.CardGone)
		}
		percentiles(b, took, "after-the-frame")
	})
	for name, end := range map[string]string{"qr-cr": "\r", "qr-silence": ""} {
		b.Run(name, func(b *testing.B) {
			scanner := &simulator.Scanner{End: end}
			taps := bench(b, serial.Config{Kind: serial.KindQR, Speed: 115200, Debounce: time.Millisecond, CoolDown: time.Millisecond}, 115200, scanner)
			var took []time.Duration
			n := 0
			for b.Loop() {
				n++
				code := fmt.Sprintf("%0363d", n)
				began := time.Now()
				scanner.Show(code)
				until(b, taps, attendance.CardRead)
				took = append(took, time.Since(began)-time.Duration(len(code)+len(end))*10*time.Second/115200)
				until(b, taps, attendance.CardGone)
			}
			percentiles(b, took, "after-the-code")
		})
	}
}

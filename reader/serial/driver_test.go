package serial_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/serial"
	"rollcall/simulator"
)

// show writes what a credential says.
func show(c attendance.Credential) string {
	return strings.Join(strings.Fields(strings.Join([]string{
		c.PersonNo.Reveal(), c.Name.Reveal(), c.ValidTo, c.UID.Reveal(), c.Code.Reveal(),
	}, " ")), " ")
}

func idCard(n int) *simulator.IDCard { return simulator.InventIDCard(simulator.InventHolder(n)) }

// virtually runs a story in virtual time.
func virtually(t *testing.T, story func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, story)
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestIDCardGivesTheTapsOfACard(t *testing.T) {
	for _, refind := range []bool{false, true} {
		t.Run(fmt.Sprintf("refind-%v", refind), func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				m := &simulator.IDCardModule{Refind: refind}
				s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
				require.NoError(t, s.report())
				remove := m.Place(idCard(1))
				cred := s.card()
				assert.Equal(t, attendance.KindID, cred.Kind)
				assert.Equal(t, attendance.LevelFile, cred.Level)
				assert.Equal(t, simulator.InventHolder(1).PersonNo, cred.PersonNo.Reveal())
				assert.Equal(t, strings.Repeat("WLT\x00", 256), cred.Photo.Reveal(), "passed through untouched")
				pass(time.Hour)
				if refind {
					assert.Empty(t, s.count(), "a card that lies there for an hour is one card")
				}
				remove()
				pass(4 * time.Second)
				assert.LessOrEqual(t, s.count()[attendance.CardGone], 1)

				m.Place(idCard(2))
				assert.Equal(t, simulator.InventHolder(2).PersonNo, s.card().PersonNo.Reveal())
				m.Place(idCard(3)) // in its place, within one look
				s.next(attendance.CardGone)
				assert.Equal(t, simulator.InventHolder(3).PersonNo, s.card().PersonNo.Reveal())
			})
		})
	}
}

// What one spoilt answer costs: the module says how it is (1), finds the card
// (2), selects it (3), gives its content (4).
func TestIDCardHealsFromOneSpoiltAnswer(t *testing.T) {
	spoilers := map[string]simulator.Spoiler{
		"one AA too many":                simulator.PreambleLonger,
		"one AA too few":                 simulator.PreambleShorter,
		"length 0000":                    simulator.LengthOf(0),
		"length 0001":                    simulator.LengthOf(1),
		"length FFFF":                    simulator.LengthOf(0xFFFF),
		"flipped bit in the length":      simulator.BitFlipped(53),
		"flipped bit in the status":      simulator.BitFlipped(73),
		"two frames in one read":         simulator.Twice,
		"noise around":                   simulator.Amid([]byte{0x00, 0xAA, 0xAA, 0x96, 0x69, 0xFF}),
		"answer to the previous command": simulator.PreviousFirst(),
		"cut":                            simulator.CutAt(8),
		"none":                           simulator.Never,
	}
	for name, spoil := range spoilers {
		for n := 1; n <= 4; n++ {
			t.Run(fmt.Sprintf("%s at %d", name, n), func(t *testing.T) {
				virtually(t, func(t *testing.T) {
					// The card stays findable, so that a second presentation is
					// not needed to see the line heal.
					m := &simulator.IDCardModule{Refind: true, Spoil: simulator.Once(n, spoil)}
					m.Place(idCard(1))
					s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
					for {
						s.next(attendance.CardSeen)
						tap := <-s.taps
						if tap.Kind == attendance.CardRead {
							assert.Equal(t, simulator.InventHolder(1).PersonNo, tap.Credential.PersonNo.Reveal())
							return
						}
						require.Equal(t, attendance.CardFailed, tap.Kind)
						assert.Contains(t, []attendance.CardFault{attendance.FaultUnreadable, attendance.FaultTimeout}, tap.Fault)
						s.next(attendance.CardGone)
					}
				})
			})
		}
	}
}

func TestIDCardFramesMayBeSplitAnywhere(t *testing.T) {
	for n := 1; n < 1295; n += 1 + n/12*7 {
		virtually(t, func(t *testing.T) {
			m := &simulator.IDCardModule{Spoil: simulator.SplitAt(n)}
			m.Place(idCard(1))
			s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
			require.NotEmpty(t, show(s.card()), "split at %d", n)
		})
	}
}

func TestIDCardEveryRefusalHasItsFault(t *testing.T) {
	find, sel, read := [2]byte{0x20, 0x01}, [2]byte{0x20, 0x02}, [2]byte{0x30, 0x01}
	for _, c := range []struct {
		name    string
		command [2]byte
		sw      byte
		want    attendance.CardFault
	}{
		{"select failed", sel, 0x81, attendance.FaultRemoved},
		{"card does not accept module", sel, 0x31, attendance.FaultUnsupported},
		{"module does not accept card", sel, 0x32, attendance.FaultUnsupported},
		{"wrong card type", read, 0x40, attendance.FaultUnsupported},
		{"read failed", read, 0x41, attendance.FaultUnreadable},
		{"data check", read, 0x33, attendance.FaultUnreadable},
		{"no random number", sel, 0x47, attendance.FaultUnreadable},
		{"not authorised", read, 0x66, attendance.FaultUnreadable},
		{"command check", read, 0x10, attendance.FaultUnreadable},
		{"no card any more", read, 0x80, attendance.FaultTimeout}, // no answer to this command
	} {
		t.Run(c.name, func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				m := &simulator.IDCardModule{Refuse: map[[2]byte]byte{c.command: c.sw}}
				m.Place(idCard(1))
				s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
				assert.Equal(t, c.want, s.fault())
				pass(time.Minute)
				assert.Zero(t, s.count()[attendance.CardSeen], "one broken card, one fault")
			})
		})
	}
	t.Run("no cards at all", func(t *testing.T) {
		virtually(t, func(t *testing.T) {
			m := &simulator.IDCardModule{Refuse: map[[2]byte]byte{find: 0x60}}
			s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
			require.NoError(t, s.report())
			assert.ErrorIs(t, s.report(), reader.ErrReaderFault, "a module that fails its self test is a reader in trouble")
		})
	})
}

func TestIDCardPulledAway(t *testing.T) {
	for at, want := range map[int]attendance.CardFault{
		1: attendance.FaultRemoved,    // before it is selected
		2: attendance.FaultUnreadable, // while it is read: the module cannot tell
	} {
		virtually(t, func(t *testing.T) {
			m := &simulator.IDCardModule{PullAt: at}
			m.Place(idCard(1))
			s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
			assert.Equal(t, want, s.fault(), "pulled at command %d", at)
			s.next(attendance.CardGone)
		})
	}
}

func TestSlowModule(t *testing.T) {
	virtually(t, func(t *testing.T) {
		m := &simulator.IDCardModule{Work: func(c [2]byte) time.Duration {
			if c[0] == 0x30 {
				return time.Minute
			}
			return 0
		}}
		m.Place(idCard(1))
		s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
		began := time.Now()
		assert.Equal(t, attendance.FaultTimeout, s.fault())
		assert.LessOrEqual(t, time.Since(began), 5*time.Second)
	})
}

func TestExpiredIDCard(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   serial.Config
		fault attendance.CardFault
	}{
		{"marked", serial.Config{Today: func() string { return "2030-01-01" }}, ""},
		{"refused", serial.Config{RefuseExpired: true, Today: func() string { return "2030-01-01" }}, attendance.FaultExpired},
		{"on its last day", serial.Config{RefuseExpired: true, Today: func() string { return "2029-12-31" }}, ""},
		{"clock not known", serial.Config{RefuseExpired: true, Today: func() string { return "" }}, ""},
		{"no clock", serial.Config{RefuseExpired: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				m := &simulator.IDCardModule{}
				card := idCard(1)
				card.Until = "20291231"
				m.Place(card)
				c.cfg.Kind = serial.KindIDCard
				s, _ := inMemory(t, c.cfg, m)
				if c.fault != "" {
					assert.Equal(t, c.fault, s.fault())
					return
				}
				assert.Equal(t, "2029-12-31", s.card().ValidTo)
			})
		})
	}
}

func TestCoolDown(t *testing.T) {
	virtually(t, func(t *testing.T) {
		m := &simulator.IDCardModule{}
		s, _ := inMemory(t, serial.Config{Kind: serial.KindIDCard}, m)
		remove := m.Place(idCard(1))
		s.card()
		remove()
		s.next(attendance.CardGone)
		remove = m.Place(idCard(1))
		pass(time.Second)
		assert.Empty(t, s.count(), "the same card at once is no other tap")
		remove()
		pass(time.Second)
		m.Place(idCard(2))
		s.card()
		m.Place(nil)
		s.next(attendance.CardGone)
		pass(4 * time.Second)
		m.Place(idCard(1))
		s.card()
	})
}

// T25, F5: things put there and taken away ten times a second.
func TestT25F5FlappingGivesOneTapPerCoolDown(t *testing.T) {
	for kind, device := range map[serial.Kind]func() (twin simulator.SerialTwin, on func() (off func())){
		serial.KindEM4100: func() (simulator.SerialTwin, func() func()) {
			r := &simulator.UIDReader{Frame: simulator.EM4100Frame}
			return r, func() func() { return r.Hold([]byte{1, 2, 3, 4, 5}) }
		},
		serial.KindIDCard: func() (simulator.SerialTwin, func() func()) {
			m := &simulator.IDCardModule{}
			return m, func() func() { return m.Place(idCard(1)) }
		},
		serial.KindQR: func() (simulator.SerialTwin, func() func()) {
			s := &simulator.Scanner{End: "\r"}
			return s, func() func() { s.Show("86013245012345678901"); return func() {} }
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				twin, on := device()
				s, _ := inMemory(t, serial.Config{Kind: kind}, twin)
				for range 600 {
					off := on() // not in step with the looks of a module
					pass(53 * time.Millisecond)
					off()
					pass(48 * time.Millisecond)
				}
				n := s.count()
				assert.GreaterOrEqual(t, n[attendance.CardSeen], 1)
				assert.LessOrEqual(t, n[attendance.CardSeen], 20, "60 s, a cool-down of 3 s")
				assert.Equal(t, n[attendance.CardSeen], n[attendance.CardRead]+n[attendance.CardFailed])
			})
		})
	}
}

func TestUIDRepeatedForAnHourIsOneTap(t *testing.T) {
	for kind, frame := range map[serial.Kind]func([]byte) []byte{
		serial.KindEM4100:    simulator.EM4100LineFrame,
		serial.KindDual:      simulator.DualFrame,
		serial.KindWiegand34: func(b []byte) []byte { return simulator.WiegandFrame(b[:4]) },
	} {
		t.Run(string(kind), func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				r := &simulator.UIDReader{Frame: frame}
				s, _ := inMemory(t, serial.Config{Kind: kind}, r)
				remove := r.Hold([]byte{0x14, 0x00, 0x50, 0x89, 0x31})
				cred := s.card()
				assert.Equal(t, attendance.LevelUID, cred.Level)
				assert.Equal(t, attendance.KindUID, cred.Kind)
				pass(time.Hour)
				assert.Empty(t, s.count())
				remove()
				s.next(attendance.CardGone)
				r.Hold([]byte{0x02, 0x04, 0x2E, 0x53, 0x82})
				s.card()
				r.Hold([]byte{0x02, 0x05, 0x2E, 0x53, 0x82})
				s.next(attendance.CardGone)
				s.card()
			})
		})
	}
}

func TestUIDByteOrder(t *testing.T) {
	virtually(t, func(t *testing.T) {
		r := &simulator.UIDReader{Frame: simulator.DualFrame}
		r.Hold([]byte{0x01, 0x04, 0x2E, 0x53, 0x82})
		s, _ := inMemory(t, serial.Config{Kind: serial.KindDual, ByteOrder: serial.Reversed}, r)
		assert.Equal(t, "82532E04", s.card().UID.Reveal())
	})
}

func TestDamagedSerialNumbers(t *testing.T) {
	virtually(t, func(t *testing.T) {
		r := &simulator.UIDReader{Frame: simulator.EM4100Frame, Spoil: simulator.Once(1, simulator.BitFlipped(30))}
		s, _ := inMemory(t, serial.Config{Kind: serial.KindEM4100}, r)
		r.Hold([]byte{1, 2, 3, 4, 5})
		assert.Equal(t, "02030405", s.card().UID.Reveal(), "one by itself is noise")
	})
	virtually(t, func(t *testing.T) {
		r := &simulator.UIDReader{Frame: simulator.EM4100Frame, Spoil: simulator.BitFlipped(30)}
		s, _ := inMemory(t, serial.Config{Kind: serial.KindEM4100}, r)
		r.Hold([]byte{1, 2, 3, 4, 5})
		assert.Equal(t, attendance.FaultUnreadable, s.fault())
		pass(time.Hour)
		assert.Empty(t, s.count(), "and does not fill the ledger")
	})
}

func TestCodes(t *testing.T) {
	const code = "86013245012345678901"
	for _, c := range []struct {
		name  string
		end   string
		code  string
		fault bool
		none  bool
	}{
		{name: "CR", end: "\r", code: code},
		{name: "CR LF", end: "\r\n", code: code},
		{name: "silence", code: code},
		{name: "an address", end: "\r", code: "https://example.invalid/pay?x=1"},
		{name: "NUL and ESC", end: "\r", code: "\x00" + code[:3] + "\x1b" + code[3:]},
		{name: "nothing", end: "\r", none: true},
		{name: "5,000 bytes", end: "\r", code: strings.Repeat("7", 5000), fault: true},
		{name: "5,000 bytes and silence", code: strings.Repeat("7", 5000), fault: true},
		{name: "UTF-8", end: "\r", code: "电子社保卡电子社保卡", fault: true},
		{name: "short", end: "\r", code: "123", fault: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtually(t, func(t *testing.T) {
				scanner := &simulator.Scanner{End: c.end}
				s, _ := inMemory(t, serial.Config{Kind: serial.KindQR}, scanner)
				scanner.Show(c.code)
				if c.none {
					pass(time.Second)
					assert.Empty(t, s.count())
					return
				}
				if c.fault {
					assert.Equal(t, attendance.FaultBadCode, s.fault())
				} else {
					cred := s.card()
					assert.Equal(t, attendance.KindQR, cred.Kind)
					assert.Empty(t, cred.Level, "nobody has checked it")
					assert.Equal(t, strings.NewReplacer("\x00", "", "\x1b", "").Replace(c.code), cred.Code.Reveal())
				}
				s.next(attendance.CardGone)
				scanner.Show(c.code)
				pass(time.Second)
				assert.Empty(t, s.count(), "the same again is no other tap")
				pass(5 * time.Second)
				scanner.Show(c.code)
				s.next(attendance.CardSeen)
			})
		})
	}
}

func TestGM65(t *testing.T) {
	virtually(t, func(t *testing.T) {
		g := &simulator.GM65{End: "\r"}
		s, w := inMemory(t, serial.Config{Kind: serial.KindGM65}, g)
		require.NoError(t, s.report())
		for n := range 3 {
			pass(10 * time.Second)
			assert.True(t, g.Looking(), "told again before it stops by itself")
			code := fmt.Sprintf("8601324501234567890%d", n)
			g.Show(code)
			assert.Equal(t, code, s.card().Code.Reveal())
			s.next(attendance.CardGone)
		}
		w.unplug()
		require.ErrorIs(t, s.report(), reader.ErrReaderGone)
	})
}

func TestGM65SpoiltAnswers(t *testing.T) {
	for name, spoil := range map[string]simulator.Spoiler{
		"flipped bit": simulator.BitFlipped(41), "none": simulator.Never, "cut": simulator.CutAt(4), "noise": simulator.Amid([]byte{0x02, 0x55, '\r'}),
	} {
		for n := 1; n <= 2; n++ {
			t.Run(fmt.Sprintf("%s at %d", name, n), func(t *testing.T) {
				virtually(t, func(t *testing.T) {
					g := &simulator.GM65{End: "\r", Spoil: simulator.Once(n, spoil)}
					s, _ := inMemory(t, serial.Config{Kind: serial.KindGM65}, g)
					pass(10 * time.Second)
					g.Show("86013245012345678901")
					for {
						s.next(attendance.CardSeen)
						if tap := <-s.taps; tap.Kind == attendance.CardRead {
							assert.Equal(t, "86013245012345678901", tap.Credential.Code.Reveal())
							return
						}
						s.next(attendance.CardGone)
					}
				})
			})
		}
	}
}

// nothing is a device that says nothing, or always the same.
type nothing struct{ says []byte }

func (d nothing) Serve(_ context.Context, line io.ReadWriter) {
	buf := make([]byte, 64)
	for {
		if _, err := line.Read(buf); err != nil {
			return
		}
		if len(d.says) > 0 {
			_, _ = line.Write(d.says)
		}
	}
}

func TestWrongDeviceIsReportedAsNoReader(t *testing.T) {
	for _, kind := range []serial.Kind{serial.KindIDCard, serial.KindGM65} {
		for name, dev := range map[string]nothing{"silent": {}, "chatting": {[]byte("$GPGGA,000000*00\r\n")}, "echoing preambles": {bytes.Repeat([]byte{0xAA, 0x02, 0x00}, 20)}} {
			t.Run(fmt.Sprintf("%s-%s", kind, name), func(t *testing.T) {
				virtually(t, func(t *testing.T) {
					s, _ := inMemory(t, serial.Config{Kind: kind}, dev)
					err := s.report()
					require.ErrorIs(t, err, reader.ErrReaderGone)
					assert.ErrorContains(t, err, "check kind and path")
					pass(10 * time.Minute)
					assert.Empty(t, s.count())
					assert.Empty(t, s.reports, "reported once per change")
				})
			})
		}
	}
}

// When nobody takes the taps, the driver waits, and ends all the same.
func TestNobodyTakesTheTaps(t *testing.T) {
	virtually(t, func(t *testing.T) {
		scanner := &simulator.Scanner{End: "\r"}
		s, _ := inMemory(t, serial.Config{Kind: serial.KindQR}, scanner)
		for n := range 500 {
			scanner.Show(fmt.Sprintf("860132450123456%05d", n))
			pass(100 * time.Millisecond)
		}
		pass(time.Minute)
		s.stop()
	})
}

// No number, name, code or picture goes into a log or a report.
func TestLogsAndReportsAreFreeOfWhatWasRead(t *testing.T) {
	var log bytes.Buffer
	virtually(t, func(t *testing.T) {
		const canary = "CANARY739100000"
		card := idCard(1)
		card.Name, card.Photo = canary[:13], []byte(strings.Repeat(canary, 60))
		bad := idCard(2)
		bad.Number = "99000019700101" + "0009"
		m := &simulator.IDCardModule{}
		w := newWire()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.Serve(ctx, end{w})
		d, reports := newDriver(t, serial.Config{Kind: serial.KindIDCard}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		d.OpenWith(func(string, int) (serial.Port, error) { return w, nil })
		s := start(t, d, reports)
		m.Place(card)
		s.card()
		m.Place(bad)
		s.next(attendance.CardGone)
		s.fault()
		w.unplug()
		pass(time.Second)
		for len(reports) > 0 {
			fmt.Fprintln(&log, <-reports)
		}
		s.stop()
		for _, secret := range []string{canary[:13], bad.Number, card.Number, "WLT"} {
			assert.NotContains(t, log.String(), secret)
			assert.NotContains(t, strings.ToLower(log.String()), fmt.Sprintf("%x", secret))
		}
	})
	assert.Contains(t, log.String(), "bad_number", "control: the log tells what happened")
}

func TestConfigSaysCauseAndCure(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  serial.Config
		want string
	}{
		{"no kind", serial.Config{Path: "/dev/x"}, `kind = "": must be one of id-card, qr, `},
		{"no path", serial.Config{Kind: serial.KindQR}, "under /dev/serial/by-path"},
		{"speed", serial.Config{Kind: serial.KindQR, Path: "/dev/x", Speed: -1}, "speed = -1"},
		{"byte order of a scanner", serial.Config{Kind: serial.KindQR, Path: "/dev/x", ByteOrder: serial.Reversed}, "only readers of serial numbers"},
		{"no byte order", serial.Config{Kind: serial.KindDual, Path: "/dev/x", ByteOrder: "middle"}, "as-sent or reversed"},
		{"negative time", serial.Config{Kind: serial.KindQR, Path: "/dev/x", CoolDown: -1}, "cool_down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := serial.New(c.cfg, time.Now, quiet(), nil)
			assert.ErrorContains(t, err, c.want)
		})
	}
	d, err := serial.New(serial.Config{Kind: serial.KindQR, Path: "/dev/x"}, time.Now, quiet(), nil)
	require.NoError(t, err)
	assert.Equal(t, "qr", d.Name())
}

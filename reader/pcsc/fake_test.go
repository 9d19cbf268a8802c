package pcsc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/reader/pcsc"
	"rollcall/simulator"
)

// Readers of the service in memory.
const (
	desk = "Desk 00 00"
	door = "Door 01 00"
)

// report is one call of pcsc.Report.
type report struct {
	reader string
	err    error
}

// bench is a driver on a service in memory, in virtual time. Its taps and
// reports are taken as they come and kept in order.
type bench struct {
	t      *testing.T
	pcsc   *simulator.PCSC
	driver *pcsc.Driver
	failed func() error // ends Run and gives how it ended

	mu      sync.Mutex // guards what follows
	taps    []attendance.Tap
	reports []report
}

// onBench runs a test with a driver that has been up for a second.
func onBench(t *testing.T, cfg pcsc.Config, service func() *simulator.PCSC, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, pcsc: service()}
		cfg.Binding = b.pcsc
		var err error
		b.driver, err = pcsc.New(cfg, time.Now, slog.New(slog.DiscardHandler), func(reader string, err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reports = append(b.reports, report{reader, err})
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		taps := make(chan attendance.Tap)
		ended, collected := make(chan error, 1), make(chan struct{})
		go func() {
			defer close(collected)
			for {
				select {
				case tap := <-taps:
					b.mu.Lock()
					b.taps = append(b.taps, tap)
					b.mu.Unlock()
				case <-ctx.Done():
					return
				}
			}
		}()
		go func() { ended <- b.driver.Run(ctx, taps) }()
		b.after(time.Second)
		b.failed = func() error {
			cancel()
			<-collected
			return <-ended
		}
		test(b)
		if b.failed != nil {
			assert.NoError(t, b.failed())
		}
		synctest.Wait()
		for _, r := range b.reports {
			if r.reader == "" && r.err != nil && !errors.Is(r.err, pcsc.ErrTooManyHung) {
				assert.ErrorIs(t, r.err, reader.ErrServiceDown)
			}
		}
		contexts, handles := b.pcsc.Open()
		assert.Zero(t, contexts, "conversations left open")
		assert.Zero(t, handles, "connections left open")
		assert.LessOrEqual(t, b.pcsc.Crowd(), 1, "two waits at once")
	})
}

// after lets virtual time pass and everything settle.
func (b *bench) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// story tells the taps so far as "reader kind fault", and forgets them.
func (b *bench) story() (lines []string) {
	for _, tap := range b.taken() {
		line := tap.Reader + " " + tap.Kind.String()
		if tap.Fault != "" {
			line += " " + string(tap.Fault)
		}
		lines = append(lines, line)
	}
	return lines
}

// taken gives the taps so far and forgets them.
func (b *bench) taken() []attendance.Tap {
	b.mu.Lock()
	defer b.mu.Unlock()
	taps := b.taps
	b.taps = nil
	return taps
}

// readOf wants the i-th tap so far to be the card of this person.
func (b *bench) readOf(i, n int) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Greater(b.t, len(b.taps), i)
	assert.True(b.t, b.taps[i].Credential.Ident.Reveal() == simulator.InventHolder(n).Ident, "another card")
}

// reported gives what was reported last on a reader.
func (b *bench) reported(reader string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.reports) - 1; i >= 0; i-- {
		if b.reports[i].reader == reader {
			return b.reports[i].err
		}
	}
	return errors.New("nothing was reported")
}

// two is a service with two readers, with gives one with others.
func two() *simulator.PCSC { return simulator.NewPCSC(desk, door) }

func with(readers ...string) func() *simulator.PCSC {
	return func() *simulator.PCSC { return simulator.NewPCSC(readers...) }
}

func person(n int) *simulator.Card { return simulator.NewCard(simulator.InventHolder(n)) }

func tap(reader string, ending ...string) (lines []string) {
	for _, kind := range append([]string{"seen"}, ending...) {
		lines = append(lines, reader+" "+kind)
	}
	return lines
}

func TestReadersComeAndGo(t *testing.T) {
	onBench(t, pcsc.Config{}, with(), func(b *bench) {
		assert.NoError(t, b.reported(""), "no reader is no trouble")
		b.pcsc.Plug(desk)
		b.after(10 * time.Millisecond)
		assert.NoError(t, b.reported(desk))
		b.pcsc.Insert(desk, person(1))
		b.after(10 * time.Millisecond)
		assert.Equal(t, tap(desk, "read"), b.story())

		b.pcsc.Unplug(desk)
		b.after(10 * time.Millisecond)
		assert.Equal(t, []string{desk + " gone"}, b.story())
		assert.ErrorIs(t, b.reported(desk), reader.ErrReaderGone)

		b.pcsc.Plug(desk)
		b.pcsc.Insert(desk, person(1)) // the card is already in it
		b.pcsc.Plug(door)
		b.after(10 * time.Millisecond)
		assert.NoError(t, b.reported(desk))
		assert.Equal(t, tap(desk, "read"), b.story())
		b.pcsc.Insert(door, person(2))
		b.after(10 * time.Millisecond)
		assert.Equal(t, tap(door, "read"), b.story())
	})
}

func TestReaderThatNoticeMissedIsFoundByListing(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.BlindPnP()
		b.pcsc.Plug("Third 02 00")
		b.pcsc.Insert("Third 02 00", person(1))
		b.after(5 * time.Second)
		assert.Equal(t, tap("Third 02 00", "read"), b.story())
	})
}

// A reader pulled out in the middle of a command, with the card in it.
func TestReaderUnpluggedUnderACommand(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		card := person(1)
		card.Faults.Delay = func([]byte) time.Duration { return 100 * time.Millisecond }
		b.pcsc.Insert(desk, card)
		b.after(250 * time.Millisecond)
		b.pcsc.Unplug(desk)
		b.after(time.Second)
		assert.Equal(t, tap(desk, "failed removed", "gone"), b.story())
		assert.ErrorIs(t, b.reported(desk), reader.ErrReaderGone)
		assert.Zero(t, b.driver.Hung())
	})
}

func TestSwapBetweenTwoLooks(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.Insert(desk, person(1))
		b.after(100 * time.Millisecond)
		b.pcsc.Swap(desk, person(2))
		b.after(100 * time.Millisecond)
		b.readOf(1, 1)
		b.readOf(4, 2)
		assert.Equal(t, append(tap(desk, "read", "gone"), tap(desk, "read")...), b.story())
	})
}

// A swap while the first card is being read: the first gives no credential.
func TestSwapUnderACommand(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		card := person(1)
		card.Faults.Delay = func([]byte) time.Duration { return 100 * time.Millisecond }
		b.pcsc.Insert(desk, card)
		b.after(150 * time.Millisecond)
		b.pcsc.Swap(desk, person(2))
		b.after(100 * time.Millisecond)
		b.readOf(4, 2)
		assert.Equal(t, append(tap(desk, "failed removed", "gone"), tap(desk, "read")...), b.story())
	})
}

// Contacts that bounce while the card goes in are no second tap and no fault.
func TestCardWhoseContactsBounceIsReadOnce(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		card := person(1)
		card.Faults.Delay = func([]byte) time.Duration { return 20 * time.Millisecond }
		for range 3 {
			b.pcsc.Insert(desk, card)
			b.after(30 * time.Millisecond)
			b.pcsc.Remove(desk)
			b.after(30 * time.Millisecond)
		}
		b.pcsc.Insert(desk, card)
		b.after(5 * time.Second)
		assert.Equal(t, tap(desk, "read"), b.story())
	})
}

// Who pulled the card out too early is served at once when it comes back, and
// not twice in a row.
func TestSecondTryIsServedAtOnce(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.Remove(desk) // of nothing: nothing
		card := person(1)
		card.Faults.Delay = func([]byte) time.Duration { return 50 * time.Millisecond }
		b.pcsc.Insert(desk, card)
		b.after(120 * time.Millisecond)
		b.pcsc.Remove(desk)
		b.after(600 * time.Millisecond)
		assert.Equal(t, tap(desk, "failed removed", "gone"), b.story())
		b.pcsc.Insert(desk, card)
		b.after(time.Millisecond)
		assert.Equal(t, tap(desk), b.story())
		b.after(time.Second)
		assert.Equal(t, []string{desk + " read"}, b.story())
	})
}

// The number of insertions went up and the card is still there: it may be
// another, so it is read again, once its cool-down is over.
func TestWrongCountIsTakenForAnotherInsertion(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.Insert(desk, person(1))
		b.after(100 * time.Millisecond)
		b.pcsc.Miscount(desk)
		b.after(time.Second)
		assert.Equal(t, tap(desk, "read", "gone"), b.story())
		b.after(3 * time.Second)
		assert.Equal(t, tap(desk, "read"), b.story())
	})
}

// T25, F5: a card pushed in and out ten times a second for a minute.
func TestT25F5FlappingCardGivesOneTapPerCoolDown(t *testing.T) {
	const coolDown = 3 * time.Second
	for name, delay := range map[string]time.Duration{"read in time": 0, "never read in time": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			onBench(t, pcsc.Config{CoolDown: coolDown}, two, func(b *bench) {
				card := person(1)
				card.Faults.Delay = func([]byte) time.Duration { return delay }
				var goroutines, contexts [2]int
				for i := range 600 {
					b.pcsc.Insert(desk, card)
					b.after(50 * time.Millisecond)
					b.pcsc.Remove(desk)
					b.after(50 * time.Millisecond)
					if i == 100 || i == 599 {
						goroutines[i/599] = runtime.NumGoroutine()
						contexts[i/599], _ = b.pcsc.Open()
					}
				}
				b.after(time.Second)
				var seen []time.Time
				kinds := map[attendance.TapKind]int{}
				for _, tap := range b.taken() {
					if kinds[tap.Kind]++; tap.Kind == attendance.CardSeen {
						seen = append(seen, tap.At)
					}
				}
				for i := range seen[1:] {
					assert.GreaterOrEqual(t, seen[i+1].Sub(seen[i]), coolDown-100*time.Millisecond, "tap %d", i+1)
				}
				assert.GreaterOrEqual(t, len(seen), 2, "the card may never be forgotten for good")
				assert.LessOrEqual(t, len(seen), 21)
				assert.Equal(t, len(seen), kinds[attendance.CardRead]+kinds[attendance.CardFailed])
				assert.Equal(t, len(seen), kinds[attendance.CardGone])
				assert.LessOrEqual(t, b.pcsc.Calls(simulator.CallConnect), 4*len(seen), "work")
				assert.InDelta(t, goroutines[0], goroutines[1], 3, "goroutines: a call may be under way")
				assert.Equal(t, contexts[0], contexts[1], "conversations")
			})
		})
	}
}

// F1: killed fifty times.
func TestF1ServiceKilledFiftyTimes(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		var goroutines int
		for i := range 50 {
			b.pcsc.Kill()
			b.after(2 * time.Second)
			assert.ErrorIs(t, b.reported(""), reader.ErrServiceDown)
			b.pcsc.Start()
			b.pcsc.Insert(desk, person(i))
			b.after(5 * time.Second)
			assert.NoError(t, b.reported(""))
			require.Equal(t, tap(desk, "read"), b.story())
			b.pcsc.Remove(desk)
			b.after(time.Duration(i%7) * time.Second)
			assert.Equal(t, []string{desk + " gone"}, b.story())
			if i == 5 {
				goroutines = runtime.NumGoroutine()
			}
		}
		assert.InDelta(t, goroutines, runtime.NumGoroutine(), 3, "goroutines")
		assert.Zero(t, b.driver.Hung())
	})
}

// F2: not there at the start.
func TestF2ServiceMissingAtStart(t *testing.T) {
	killed := func() *simulator.PCSC {
		service := simulator.NewPCSC(desk)
		service.Kill()
		return service
	}
	onBench(t, pcsc.Config{}, killed, func(b *bench) {
		assert.ErrorIs(t, b.reported(""), reader.ErrServiceDown)
		b.after(time.Hour)
		b.pcsc.Start()
		b.pcsc.Insert(desk, person(1))
		b.after(5 * time.Second)
		assert.NoError(t, b.reported(""))
		assert.Equal(t, tap(desk, "read"), b.story())
	})
}

// F3: the card leaves under a command, and the library may say nothing at all.
func TestF3CardLeavesUnderACommand(t *testing.T) {
	for _, zero := range []bool{false, true} {
		t.Run(fmt.Sprintf("no bytes and no error %t", zero), func(t *testing.T) {
			onBench(t, pcsc.Config{}, two, func(b *bench) {
				for at := 1; at <= 7; at++ {
					card := person(at)
					card.Faults.PullAt = at
					if zero {
						b.pcsc.Vanish(desk)
					}
					b.pcsc.Insert(desk, card)
					b.after(time.Second)
					assert.Equal(t, tap(desk, "failed removed", "gone"), b.story(), "command %d", at)
				}
			})
		})
	}
}

// F6: another kind of card, an empty slot, two cards.
func TestF6WrongCardEmptySlotTwoCards(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		foreign := person(1)
		foreign.Faults.Foreign = true
		b.pcsc.Insert(desk, foreign)
		b.after(time.Second)
		assert.Equal(t, tap(desk, "failed unsupported"), b.story())
		b.pcsc.Remove(desk)
		b.after(time.Second)
		assert.Equal(t, []string{desk + " gone"}, b.story())

		mute := person(2)
		mute.Faults.Mute = true
		b.pcsc.Insert(desk, mute)
		b.after(time.Second)
		assert.Equal(t, tap(desk, "failed mute"), b.story())
		b.pcsc.Remove(desk)
		b.after(time.Minute)
		assert.Equal(t, []string{desk + " gone"}, b.story(), "an empty slot says nothing")

		b.pcsc.Insert(desk, person(3))
		b.pcsc.Insert(door, person(4))
		b.after(time.Second)
		assert.ElementsMatch(t, append(tap(desk, "read"), tap(door, "read")...), b.story())
	})
}

func TestFrozenServiceIsReportedAndAwaited(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.Insert(door, person(1))
		b.after(time.Second)
		b.story()
		b.pcsc.Freeze()
		b.after(4 * time.Second)
		assert.ErrorIs(t, b.reported(""), reader.ErrServiceDown)
		b.after(time.Hour)
		assert.Zero(t, b.driver.Hung(), "calls must not pile up")
		b.pcsc.Insert(desk, person(2))
		b.pcsc.Thaw()
		b.after(5 * time.Second)
		assert.NoError(t, b.reported(""))
		assert.Equal(t, tap(desk, "read"), b.story())

		b.pcsc.Freeze()
		b.after(time.Minute)
		began := time.Now()
		assert.NoError(t, b.failed())
		assert.LessOrEqual(t, time.Since(began), 3*time.Second, "Run ends all the same")
		b.failed = nil
		b.pcsc.Thaw()
		b.after(time.Second)
		assert.Zero(t, b.driver.Hung())
	})
}

// A service that was frozen before the driver started, and one that freezes
// under a command.
func TestFrozenFromTheStartAndUnderACommand(t *testing.T) {
	frozen := func() *simulator.PCSC {
		service := simulator.NewPCSC(desk)
		service.Freeze()
		return service
	}
	onBench(t, pcsc.Config{}, frozen, func(b *bench) {
		b.after(time.Minute)
		assert.ErrorIs(t, b.reported(""), reader.ErrServiceDown)
		b.pcsc.Thaw()
		card := person(1)
		card.Faults.Delay = func([]byte) time.Duration { return 100 * time.Millisecond }
		b.pcsc.Insert(desk, card)
		b.after(250 * time.Millisecond)
		b.pcsc.Freeze()
		b.after(time.Minute)
		assert.Equal(t, tap(desk, "failed timeout"), b.story())
		assert.LessOrEqual(t, b.driver.Hung(), 1)
		b.pcsc.Thaw()
		b.pcsc.Remove(desk)
		b.pcsc.Insert(desk, person(2))
		b.after(5 * time.Second)
		assert.Equal(t, append([]string{desk + " gone"}, tap(desk, "read")...), b.story())
		assert.NoError(t, b.reported(desk))
		assert.Zero(t, b.driver.Hung())
	})
}

func TestHungCardsAreCountedAndBounded(t *testing.T) {
	names := []string{"R0", "R1", "R2", "R3"}
	onBench(t, pcsc.Config{MaxHung: 3}, with(names...), func(b *bench) {
		hang := func(name string) {
			card := person(1)
			card.Faults.HangAt = 2
			b.pcsc.Insert(name, card)
			b.after(5 * time.Second)
			assert.Equal(t, tap(name, "failed timeout"), b.story())
			assert.ErrorIs(t, b.reported(name), reader.ErrReaderHung)
		}
		hang(names[0])
		hang(names[1])
		assert.Equal(t, 2, b.driver.Hung())
		b.pcsc.Remove(names[0])
		b.after(time.Second)
		assert.Equal(t, 1, b.driver.Hung())
		assert.NoError(t, b.reported(names[0]))
		b.pcsc.Insert(names[0], person(2))
		b.after(time.Second)
		assert.Equal(t, append([]string{"R0 gone"}, tap("R0", "read")...), b.story())
		b.pcsc.Remove(names[0])
		b.after(time.Second)
		b.story()

		hang(names[0])
		hang(names[2])
		card := person(1)
		card.Faults.HangAt = 2
		b.pcsc.Insert(names[3], card)
		b.after(5 * time.Second)
		assert.ErrorIs(t, b.failed(), pcsc.ErrTooManyHung)
		b.failed = nil
		for _, name := range names {
			b.pcsc.Remove(name)
		}
		b.after(time.Second)
		assert.Zero(t, b.driver.Hung())
	})
}

func TestAnotherProgram(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		b.pcsc.Exclusive(desk, true)
		b.pcsc.Insert(desk, person(1))
		b.after(300 * time.Millisecond)
		b.pcsc.Exclusive(desk, false)
		b.after(time.Second)
		assert.Equal(t, tap(desk, "read"), b.story(), "it let go in time")

		b.pcsc.Exclusive(door, true)
		b.pcsc.Insert(door, person(2))
		b.after(2 * time.Second)
		assert.Equal(t, tap(door, "failed unreadable"), b.story())
		assert.ErrorIs(t, b.reported(door), reader.ErrReaderBusy)
		b.pcsc.Remove(door)
		b.pcsc.Exclusive(door, false)
		b.after(time.Second)
		assert.NoError(t, b.reported(door))

		b.story()
		slow := person(3)
		slow.Faults.Delay = func([]byte) time.Duration { return 100 * time.Millisecond }
		b.pcsc.Insert(door, slow)
		b.after(250 * time.Millisecond)
		b.pcsc.Reset(door)
		b.after(3 * time.Second)
		assert.Equal(t, tap(door, "read"), b.story(), "reset under a command: once more")
	})
}

// Whatever code any call gives, the driver goes on and reads the next card.
func TestEveryCodeAtEveryCall(t *testing.T) {
	codes := []pcsc.Code{
		pcsc.CodeCancelled, pcsc.CodeInvalidHandle, pcsc.CodeUnknownReader, pcsc.CodeTimeout, pcsc.CodeSharing, pcsc.CodeNoCard,
		pcsc.CodeProtocol, pcsc.CodeCommunication, pcsc.CodeNotTransacted, pcsc.CodeReaderUnavailable, pcsc.CodeNoService,
		pcsc.CodeServiceStopped, pcsc.CodeNoReaders, pcsc.CodeUnsupportedCard, pcsc.CodeUnresponsiveCard, pcsc.CodeUnpoweredCard,
		pcsc.CodeResetCard, pcsc.CodeRemovedCard, 0x80100001, 0x8010001F,
	}
	calls := []simulator.Call{
		simulator.CallEstablish, simulator.CallReaders, simulator.CallWait,
		simulator.CallConnect, simulator.CallTransmit, simulator.CallReconnect,
	}
	for _, call := range calls {
		t.Run(string(call), func(t *testing.T) {
			onBench(t, pcsc.Config{}, two, func(b *bench) {
				for i, code := range codes {
					if call == simulator.CallReconnect {
						b.pcsc.Fail(simulator.CallTransmit, pcsc.CodeResetCard)
					}
					if call == simulator.CallEstablish {
						b.pcsc.Fail(simulator.CallWait, pcsc.CodeCommunication)
					}
					b.pcsc.Fail(call, code)
					b.pcsc.Insert(desk, person(2*i))
					b.after(10 * time.Second)
					b.pcsc.Remove(desk)
					b.after(10 * time.Second)
					b.story()
					b.pcsc.Insert(desk, person(2*i+1))
					b.after(time.Second)
					assert.Equal(t, tap(desk, "read"), b.story(), "after %v", code)
					b.pcsc.Remove(desk)
					b.after(time.Second)
					b.story()
					assert.NoError(t, b.reported(""))
					assert.Zero(t, b.driver.Hung())
				}
			})
		})
	}
}

// A list that names readers which a wait does not know must not spin.
func TestReadersThatStayUnknown(t *testing.T) {
	onBench(t, pcsc.Config{}, two, func(b *bench) {
		before := b.pcsc.Calls(simulator.CallWait)
		for range 100 {
			b.pcsc.Fail(simulator.CallWait, pcsc.CodeUnknownReader)
		}
		b.after(20 * time.Second)
		assert.LessOrEqual(t, b.pcsc.Calls(simulator.CallWait)-before, 40)
		b.after(5 * time.Minute)
		b.pcsc.Insert(desk, person(1))
		b.after(time.Second)
		assert.Equal(t, tap(desk, "read"), b.story())
	})
}

// One device, two slots: what lies in both is one card.
func TestTwoInterfacesOfOneDevice(t *testing.T) {
	const contact, contactless = "ACS Dual [ICC] 00 00", "ACS Dual [PICC] 00 01"
	field := func(n int) *simulator.Card {
		card := person(n)
		card.Contactless = true
		return card
	}
	slow := func(card *simulator.Card) *simulator.Card {
		card.Faults.Delay = func([]byte) time.Duration { return 20 * time.Millisecond }
		return card
	}
	for name, test := range map[string]func(b *bench) (want []string){
		"contact first, field while reading": func(b *bench) []string {
			b.pcsc.Insert(contact, slow(person(1)))
			b.after(30 * time.Millisecond)
			b.pcsc.Insert(contactless, field(1))
			return tap(contact, "read")
		},
		"contact first, field when read": func(b *bench) []string {
			b.pcsc.Insert(contact, person(1))
			b.after(time.Second)
			b.pcsc.Insert(contactless, field(1))
			return tap(contact, "read")
		},
		"out through the field": func(b *bench) []string {
			b.pcsc.Insert(contact, person(1))
			b.after(10 * time.Second)
			b.pcsc.Remove(contact)
			b.after(100 * time.Millisecond)
			b.pcsc.Insert(contactless, field(1))
			return tap(contact, "read", "gone")
		},
		"in through the field, too fast to be read there": func(b *bench) []string {
			b.pcsc.Insert(contactless, slow(field(1)))
			b.after(50 * time.Millisecond)
			b.pcsc.Remove(contactless)
			b.pcsc.Insert(contact, person(1))
			return append(tap(contactless, "failed removed", "gone"), tap(contact, "read")...)
		},
		"the next person, in the field": func(b *bench) []string {
			b.pcsc.Insert(contact, person(1))
			b.after(time.Second)
			b.pcsc.Remove(contact)
			b.after(600 * time.Millisecond)
			b.pcsc.Insert(contactless, field(2))
			return append(tap(contact, "read", "gone"), tap(contactless, "read")...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pcsc.Config{Devices: [][]string{{"ACS Dual [ICC]*", "ACS Dual [PICC]*"}}}
			onBench(t, cfg, with(contact, contactless), func(b *bench) {
				want := test(b)
				b.after(10 * time.Second)
				got := b.story()
				// Each slot keeps its own order; between them there is none.
				bySlot := func(a, b string) int { return strings.Compare(a[:len("ACS Dual [P")], b[:len("ACS Dual [P")]) }
				slices.SortStableFunc(want, bySlot)
				slices.SortStableFunc(got, bySlot)
				assert.Equal(t, want, got)
			})
		})
	}
}

// withModule has a reader for cards and one with a module in it.
func withModule(psam *simulator.PSAM) func() *simulator.PCSC {
	return func() *simulator.PCSC {
		service := simulator.NewPCSC(desk, samSlot)
		service.Insert(samSlot, psam)
		return service
	}
}

const samSlot = "Desk SAM 00 01"

func TestSlotForModulesGivesNoTap(t *testing.T) {
	for name, cfg := range map[string]pcsc.Config{
		"by its name":       {},
		"by configuration":  {SAMSlots: []string{"*00 01"}},
		"as the PSAM's own": {SAMSlots: []string{}, PSAM: pcsc.PSAM{Slot: samSlot, PSAMConfig: simulator.NewPSAM().Config()}},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, cfg, withModule(simulator.NewPSAM()), func(b *bench) {
				b.after(time.Minute)
				assert.Empty(t, b.story())
			})
		})
	}
}

func newGeneration(psam *simulator.PSAM, n int) *simulator.Card {
	holder := simulator.InventHolder(n)
	holder.Spec = "3.00"
	return psam.Issue(simulator.NewCard(holder))
}

func TestPSAMOpensCards(t *testing.T) {
	psam := simulator.NewPSAM()
	cfg := pcsc.Config{PSAM: pcsc.PSAM{Slot: "*sam*", PSAMConfig: psam.Config()}}
	onBench(t, cfg, withModule(psam), func(b *bench) {
		level := func(n int) (attendance.CardLevel, bool) {
			b.pcsc.Insert(desk, newGeneration(psam, n))
			b.after(10 * time.Second)
			b.pcsc.Remove(desk)
			b.after(time.Second)
			taps := b.taken()
			require.Len(t, taps, 3)
			cred := taps[1].Credential
			return cred.Level, cred.Partial()
		}
		want := func(n int, level1 attendance.CardLevel, partial1 bool) {
			t.Helper()
			l, partial := level(n)
			assert.Equal(t, level1, l)
			assert.Equal(t, partial1, partial)
		}
		want(1, attendance.LevelAuthenticated, false)

		b.pcsc.Reset(samSlot) // another program resets it: this card does without
		want(2, attendance.LevelFile, true)
		assert.NoError(t, b.reported(samSlot), "it was opened again")
		want(3, attendance.LevelAuthenticated, false)

		b.pcsc.Remove(samSlot)
		b.after(time.Second)
		assert.Error(t, b.reported(samSlot))
		want(4, attendance.LevelFile, true)
		b.pcsc.Insert(samSlot, psam)
		b.after(11 * time.Second)
		assert.NoError(t, b.reported(samSlot))
		want(5, attendance.LevelAuthenticated, false)

		b.pcsc.Unplug(samSlot)
		b.after(time.Second)
		assert.ErrorIs(t, b.reported(samSlot), reader.ErrReaderGone)
		want(6, attendance.LevelFile, true)
		b.pcsc.Plug(samSlot)
		b.pcsc.Insert(samSlot, psam)
		b.after(11 * time.Second)
		want(7, attendance.LevelAuthenticated, false)

		b.pcsc.Kill()
		b.after(time.Second)
		b.pcsc.Start()
		b.after(11 * time.Second)
		want(8, attendance.LevelAuthenticated, false)
	})
}

// At start, and whenever pcscd comes back, a card may lie in its slot before the
// module is open. It waits, and does not earn less than it can prove; nor does
// it wait for a module that is not there.
func TestCardThatLiesThereBeforeThePSAMIsOpen(t *testing.T) {
	slow := func([]byte) time.Duration { return 300 * time.Millisecond }
	for name, c := range map[string]struct {
		module simulator.PSAMFaults
		slot   string // where the configuration says the module is
		level  attendance.CardLevel
	}{
		"slow":    {simulator.PSAMFaults{Delay: slow}, samSlot, attendance.LevelAuthenticated},
		"hangs":   {simulator.PSAMFaults{HangAt: 1}, samSlot, attendance.LevelFile},
		"nowhere": {simulator.PSAMFaults{}, "Elsewhere 00 01", attendance.LevelFile},
	} {
		t.Run(name, func(t *testing.T) {
			psam := simulator.NewPSAM()
			psam.Faults = c.module
			cfg := pcsc.Config{PSAM: pcsc.PSAM{Slot: c.slot, PSAMConfig: psam.Config()}}
			onBench(t, cfg, func() *simulator.PCSC {
				service := withModule(psam)()
				service.Insert(desk, newGeneration(psam, 1))
				return service
			}, func(b *bench) {
				b.after(10 * time.Second)
				taps := b.taken()
				b.pcsc.Remove(samSlot)
				b.after(time.Second)
				require.Len(t, taps, 2)
				require.Equal(t, attendance.CardRead, taps[1].Kind)
				assert.Equal(t, c.level, taps[1].Credential.Level)
			})
		})
	}
}

func TestPSAMThatIsNowhereIsReported(t *testing.T) {
	psam := simulator.NewPSAM()
	cfg := pcsc.Config{PSAM: pcsc.PSAM{Slot: samSlot, PSAMConfig: psam.Config()}}
	onBench(t, cfg, two, func(b *bench) {
		assert.ErrorIs(t, b.reported(samSlot), reader.ErrReaderGone)
		b.pcsc.Plug(samSlot)
		b.after(time.Second)
		assert.ErrorContains(t, b.reported(samSlot), "put it in")
		b.pcsc.Insert(samSlot, psam)
		b.after(time.Minute)
		assert.NoError(t, b.reported(samSlot))
	})
}

// Two drivers in one process must not wait at once, whoever made them.
func TestTwoWaitersAreImpossible(t *testing.T) {
	service := simulator.NewPCSC(desk)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 4)
	for range cap(done) {
		d, err := pcsc.New(pcsc.Config{Binding: service}, time.Now, slog.New(slog.DiscardHandler), func(string, error) {})
		require.NoError(t, err)
		go func() { done <- d.Run(ctx, make(chan attendance.Tap, 64)) }()
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for service.Calls(simulator.CallWait) < 20 {
		<-tick.C
		service.Miscount(desk) // so that waits end and begin
	}
	cancel()
	for range cap(done) {
		require.NoError(t, <-done)
	}
	assert.Equal(t, 1, service.Crowd())
}

package reader_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

// What each bad card ends with; nil is a credential. Nothing of a card stands in
// an error, which read checks.
var badCards = map[string]error{
	"answers of 0 bytes":                             reader.ErrCardRemoved,
	"answers of 1 bytes":                             reader.ErrCardRemoved,
	"answers of 2 bytes":                             reader.ErrUnsupportedCard,
	"answers of 258 bytes":                           reader.ErrUnsupportedCard,
	"answers of 65538 bytes":                         reader.ErrUnsupportedCard,
	"answer to reset of 0 bytes":                     nil, // PC/SC judges it; only a PSAM reads it, and doubts
	"answer to reset of 1 bytes":                     nil,
	"answer to reset of 33 bytes":                    nil,
	"answer to reset of 34 bytes":                    nil,
	"61xx for ever":                                  reader.ErrBadFormat,
	"61xx with a byte for ever":                      reader.ErrBadFormat,
	"6Cxx for ever":                                  reader.ErrUnsupportedCard,
	"garbage":                                        reader.ErrUnsupportedCard,
	"record length 00":                               reader.ErrBadFormat,
	"record length 80":                               reader.ErrBadFormat,
	"record length FF":                               reader.ErrBadFormat,
	"record tag":                                     reader.ErrBadFormat,
	"file control information cut":                   nil, // not fetched without a PSAM
	"file control information longer than it is":     nil,
	"file control information with a cut tag":        nil,
	"file control information with an inner overrun": nil,
	"name half a character":                          reader.ErrBadFormat,
	"name all FF":                                    nil, // the number is enough
	"name with a control character":                  reader.ErrBadFormat,
	"name with a right-to-left mark":                 reader.ErrBadFormat,
	"name with an override":                          reader.ErrBadFormat,
	"number with full-width digits":                  reader.ErrBadFormat,
	"number with a letter inside":                    reader.ErrBadNumber,
	"number with a lower x":                          nil,
	"number with a wrong check":                      reader.ErrBadNumber,
	"number born on 29 February 2001":                reader.ErrBadNumber,
	"number born on 0000-00-00":                      reader.ErrBadNumber,
	"number born in the future":                      nil, // the clock may be the one that is wrong
	"number of region 000000":                        nil, // regions are not judged
	"valid until 00000000":                           nil, // left out
	"valid until FFFFFFFF":                           nil,
	"valid until 20010229":                           nil,
	"valid until before its issue":                   nil, // refused by date, where it is refused
	"identification code of another system":          reader.ErrBadFormat,
	"identification code all FF":                     reader.ErrBadFormat,
	"version with a control character":               reader.ErrBadFormat,
}

func TestBadCards(t *testing.T) {
	for name, card := range simulator.BadCards(published) {
		t.Run(name, func(t *testing.T) {
			want, known := badCards[name]
			require.True(t, known, "no end is written down for this card")
			cred, err := read(t, card)
			require.ErrorIs(t, err, want)
			if want == nil {
				require.NoError(t, err)
				assert.False(t, cred.Partial())
			}
			assert.LessOrEqual(t, card.Commands(), reader.CommandBudget)
		})
	}
	assert.Len(t, simulator.BadCards(published), len(badCards))
}

// With a PSAM the answer to reset and the file control information matter too: a
// doubt then, and what the card gives without one.
func TestBadCardsWithPSAM(t *testing.T) {
	doubts := 0
	for name := range badCards {
		t.Run(name, func(t *testing.T) {
			c := simulator.NewPSAM().Issue(simulator.BadCards(published)[name])
			card := reader.NewCard(c)
			card.PSAM, card.ATR = newPSAM(t, simulator.NewPSAM()), c.ATR()
			cred, err := card.Read(t.Context(), reader.SocialSecurityCard())
			require.LessOrEqual(t, c.Commands(), reader.CommandBudget)
			if err != nil {
				require.Zero(t, cred)
				noCardData(t, err.Error())
				return
			}
			if strings.HasPrefix(name, "answer to reset") || strings.HasPrefix(name, "file control") {
				doubts++
				assert.ErrorIs(t, card.Doubt(), reader.ErrBadFormat)
				assert.Equal(t, attendance.LevelFile, cred.Level)
				noCardData(t, card.Doubt().Error())
			}
		})
	}
	assert.Equal(t, 8, doubts)
}

// slowly takes its time for each command, and gives answers by the byte.
type slowly struct {
	card   *simulator.Card
	each   time.Duration
	rest   []byte
	bytely bool
}

func (s *slowly) Transmit(command []byte) ([]byte, error) {
	time.Sleep(s.each) // virtual
	if !s.bytely {
		return s.card.Transmit(command)
	}
	if command[1] != 0xC0 || len(s.rest) == 0 {
		answer, err := s.card.Transmit(command)
		if err != nil || len(answer) == 2 {
			return answer, err
		}
		s.rest = answer[:len(answer)-2]
	}
	one := s.rest[0]
	s.rest = s.rest[1:]
	if len(s.rest) == 0 {
		return []byte{one, 0x90, 0x00}, nil
	}
	return []byte{one, 0x61, 0x01}, nil
}

// hostile are readers and cards that would keep a terminal busy.
func hostile() map[string]reader.Transmitter {
	bad := simulator.BadCards(published)
	return map[string]reader.Transmitter{
		"garbage":                      &slowly{card: bad["garbage"], each: 100 * time.Millisecond},
		"61xx for ever":                &slowly{card: bad["61xx for ever"], each: 100 * time.Millisecond},
		"61xx with a byte for ever":    &slowly{card: bad["61xx with a byte for ever"], each: 100 * time.Millisecond},
		"6Cxx for ever":                &slowly{card: bad["6Cxx for ever"], each: 100 * time.Millisecond},
		"by the byte":                  &slowly{card: simulator.NewCard(published), each: 20 * time.Millisecond, bytely: true},
		"by the byte, and slowly":      &slowly{card: simulator.NewCard(published), each: 500 * time.Millisecond, bytely: true},
		"a good card that is too slow": &slowly{card: simulator.NewCard(published), each: time.Second},
	}
}

// F4: a reader that gives garbage, 61xx for ever or a byte at a time is refused
// within the limit of a reading. T26: so the terminal is idle again in time.
func TestF4T26HostileCardsAreRefusedInTime(t *testing.T) {
	const limit = 3 * time.Second
	for name := range hostile() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := hostile()[name]
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				_, err := reader.NewCard(tr).Read(ctx, reader.SocialSecurityCard())
				require.True(t, slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) }), "%v", err)
				assert.NotEmpty(t, reader.FaultOf(err))
				// The command in hand when the limit comes is waited for; drivers
				// give each its own limit.
				assert.LessOrEqual(t, time.Since(began), limit+time.Second)
			})
		})
	}
}

// T26: 64 commands a card, over all attempts and whatever it answers.
func TestT26CommandsAreBudgeted(t *testing.T) {
	for name, answer := range map[string][]byte{"61xx": must("6110"), "61xx with data": append(bytes.Repeat([]byte{'A'}, 256), 0x61, 0x00)} {
		t.Run(name, func(t *testing.T) {
			c := simulator.NewCard(published)
			c.Faults.Twist = func(command, _ []byte) []byte { return answer }
			card := reader.NewCard(c)
			for range 5 {
				_, err := card.Read(t.Context(), reader.SocialSecurityCard())
				require.ErrorIs(t, err, reader.ErrBadFormat)
			}
			assert.Equal(t, reader.CommandBudget, c.Commands())
		})
	}
}

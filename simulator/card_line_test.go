package simulator_test

import (
	"context"
	"encoding/hex"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader"
	"rollcall/simulator"
)

// wholeReading is the 11 exchanges of a whole reading, as in
// reader/testdata/spec-ssc3-selects.txt; contactless cards need no GET RESPONSE.
func wholeReading(contactless bool) [][]byte {
	var commands [][]byte
	for _, digits := range []string{
		"00A404000F7378312E73682EC9E7BBE1B1A3D5CF", "00C000001E", "00A4020002EF05", "00B2010012", "00B2030006", "00B2050006", "00B2060006", "00B207000B",
		"00A4020002EF06", "00B2080014", "00B2090020",
	} {
		if contactless && digits == "00C000001E" {
			continue
		}
		commands = append(commands, hexBytes(digits))
	}
	return commands
}

// The physical floors: 253 bytes of contact are 316 ms at 3.57 MHz, and so on.
func TestTimeOnTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		line     simulator.Line
		commands [][]byte
		want     time.Duration
	}{
		"contact at 3.57 MHz":             {simulator.Contact(3.57e6), wholeReading(false), 316 * time.Millisecond},
		"contact at 4 MHz":                {simulator.Contact(4e6), wholeReading(false), 282 * time.Millisecond},
		"contact at 4.8 MHz":              {simulator.Contact(4.8e6), wholeReading(false), 235 * time.Millisecond},
		"contact at 3.57 MHz, short path": {simulator.Contact(3.57e6), shortPath(), 135 * time.Millisecond},
		"contactless":                     {simulator.Contactless(), wholeReading(true), 24 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			card := thirdGeneration()
			card.Contactless = c.line == simulator.Contactless()
			total := c.line.Reset(card.ATR())
			for _, command := range c.commands {
				answer, err := card.Transmit(command)
				require.NoError(t, err)
				total += c.line.Exchange(command, answer)
			}
			assert.Equal(t, c.want, total.Round(time.Millisecond))
		})
	}
}

func hexBytes(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

func shortPath() [][]byte {
	return [][]byte{wholeReading(false)[0], hexBytes("00B2083014"), hexBytes("00B2093020")}
}

// thirdGeneration is a card as seen in the field, its holder's file open.
func thirdGeneration() *simulator.Card {
	h := simulator.InventHolder(30)
	h.Spec = "3.00"
	card := simulator.NewCard(h)
	card.Algorithm = 0x03
	card.Faults.Copied = true
	return card
}

// The reader adds nothing to the line's time: virtual time shows waits of ours.
func TestReadingWaitsForNothingButTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		profile *reader.Profile
		bytes   int // on the line, answer to reset apart
	}{
		"whole": {reader.SocialSecurityCard(), 164},
		"short": {reader.SocialSecurityCardShort(), 108 - 17},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := simulator.Contact(3.57e6)
				began := time.Now()
				cred, err := reader.NewCard(&onLine{simulator.NewCard(simulator.InventHolder(31)), line}).Read(t.Context(), c.profile)
				require.NoError(t, err)
				assert.False(t, cred.Partial())
				assert.Equal(t, line.Reset(make([]byte, c.bytes)), time.Since(began))
			})
		})
	}
}

// onLine is a card whose answers take their time.
type onLine struct {
	card *simulator.Card
	line simulator.Line
}

func (o *onLine) Transmit(command []byte) ([]byte, error) {
	answer, err := o.card.Transmit(command)
	time.Sleep(o.line.Exchange(command, answer)) // the line's time, virtual in tests
	return answer, err
}

// How far above the physical floor is a reading? In process, answer to reset
// included; "total/floor" is to be below 1.05.
func BenchmarkReadingAtWireSpeed(b *testing.B) {
	whole := func(ctx context.Context, tr reader.Transmitter) error {
		for _, command := range wholeReading(false) {
			if _, err := tr.Transmit(command); err != nil {
				return err
			}
		}
		return nil
	}
	read := func(p *reader.Profile) func(context.Context, reader.Transmitter) error {
		return func(ctx context.Context, tr reader.Transmitter) error {
			_, err := reader.NewCard(tr).Read(ctx, p)
			return err
		}
	}
	for _, c := range []struct {
		name  string
		line  simulator.Line
		floor time.Duration
		read  func(context.Context, reader.Transmitter) error
	}{
		{"contact, 253 bytes", simulator.Contact(3.57e6), 316 * time.Millisecond, whole},
		{"contact, 108 bytes", simulator.Contact(3.57e6), 135 * time.Millisecond, read(reader.SocialSecurityCardShort())},
		{"contact, 181 bytes", simulator.Contact(3.57e6), simulator.Contact(3.57e6).Reset(make([]byte, 181)), read(reader.SocialSecurityCard())},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				card := thirdGeneration()
				time.Sleep(c.line.Reset(card.ATR()))
				if err := c.read(b.Context(), &onLine{card, c.line}); err != nil {
					b.Fatal(err)
				}
			}
			total := b.Elapsed() / time.Duration(b.N)
			b.ReportMetric(float64(total.Milliseconds()), "ms")
			b.ReportMetric(float64(total)/float64(c.floor), "total/floor")
		})
	}
}

package reader_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

func TestEveryGenerationByEveryInterface(t *testing.T) {
	for _, spec := range []string{"1.00", "2.00", "2.01", "3.00"} {
		for _, contactless := range []bool{false, true} {
			for _, faults := range []simulator.CardFaults{{}, {NoShortIDs: true}, {NumbersOnly: true}, {NoShortIDs: true, NumbersOnly: true}} {
				t.Run(fmt.Sprintf("%s contactless %t no short ids %t numbers %t", spec, contactless, faults.NoShortIDs, faults.NumbersOnly), func(t *testing.T) {
					card := of(spec)
					card.Contactless, card.Faults = contactless, faults
					rec := &recorder{card: card}
					cred, err := read(t, rec)
					require.NoError(t, err)
					assert.Equal(t, spec == "3.00", cred.Partial())
					assert.Equal(t, spec, cred.Spec)
					assert.Equal(t, attendance.LevelFile, cred.Level)
					assert.Equal(t, published.Ident, cred.Ident.Reveal())
					assert.Equal(t, published.CardNo, cred.CardNo.Reveal())
					if contactless {
						assert.False(t, slices.ContainsFunc(rec.commands, func(c []byte) bool { return c[1] == 0xC0 }), "GET RESPONSE is T=0's")
					}
				})
			}
		}
	}
}

// The first generation has no extension: what does not fit is lost, and the
// reading does not mind.
func TestNameExtensions(t *testing.T) {
	for name, c := range map[string]struct {
		spec string
		pad  byte
		want int // characters
	}{
		"1.00, cut":            {"1.00", 0x00, 15},
		"2.00, padded with 00": {"2.00", 0x00, 20},
		"2.00, padded with FF": {"2.00", 0xFF, 20},
	} {
		t.Run(name, func(t *testing.T) {
			h := long(c.pad)
			h.Spec = c.spec
			cred, err := read(t, simulator.NewCard(h))
			require.NoError(t, err)
			assert.Equal(t, strings.Repeat("明", c.want), cred.Name.Reveal())
		})
	}
}

// A region that selects, numbers and asks otherwise is a file and not code.
func TestOtherRegion(t *testing.T) {
	text, err := os.ReadFile("testdata/profile-other-region.json")
	require.NoError(t, err)
	profile, err := reader.ParseProfile(text)
	require.NoError(t, err)
	card := simulator.NewRegionalCard(profile, long(0))
	rec := &recorder{card: card}
	cred, err := reader.NewCard(rec).Read(t.Context(), profile)
	require.NoError(t, err)
	assert.Equal(t, published.PersonNo, cred.PersonNo.Reveal())
	assert.Equal(t, published.CardNo, cred.CardNo.Reveal())
	assert.Equal(t, strings.Repeat("明", 20), cred.Name.Reveal())
	assert.Equal(t, []byte{0x00, 0xB2, 0x01, 0x04, 0x00}, rec.commands[2], "Le 00, by number")

	_, err = read(t, simulator.NewRegionalCard(profile, published))
	assert.Error(t, err, "the usual profile reads that card as well: the file is not needed")
}

func TestHabitsOfLe(t *testing.T) {
	for _, le := range []string{"record", "value", "maximum"} {
		text := strings.Replace(profileText(t), `"read_by"`, fmt.Sprintf(`"le": %q, "read_by"`, le), 1)
		profile, err := reader.ParseProfile([]byte(text))
		require.NoError(t, err)
		cred, err := reader.NewCard(simulator.NewCard(published)).Read(t.Context(), profile)
		require.NoError(t, err, le)
		assert.False(t, cred.Partial(), le)
	}
}

func TestShortProfile(t *testing.T) {
	profile := reader.SocialSecurityCardShort()
	rec := &recorder{card: simulator.NewCard(published)}
	cred, err := reader.NewCard(rec).Read(t.Context(), profile)
	require.NoError(t, err)
	assert.Len(t, rec.commands, 3)
	assert.Equal(t, published.PersonNo, cred.PersonNo.Reveal())
	assert.True(t, cred.Ident.IsZero())

	// A closed card gives its own numbers instead.
	cred, err = reader.NewCard(of("3.00")).Read(t.Context(), profile)
	require.NoError(t, err)
	assert.True(t, cred.Partial())
	assert.Equal(t, published.Ident, cred.Ident.Reveal())

	// And is opened all the same.
	c := issued(version("3.00"))
	card := reader.NewCard(c)
	card.PSAM, card.ATR = newPSAM(t, simulator.NewPSAM()), c.ATR()
	cred, err = card.Read(t.Context(), profile)
	require.NoError(t, err)
	assert.Equal(t, attendance.LevelAuthenticated, cred.Level)
	assert.False(t, cred.Partial())
}

func TestExpiredCards(t *testing.T) {
	for name, c := range map[string]struct {
		today string // empty: clock not good, or expired cards are only marked
		want  error
	}{
		"no day to judge by":    {"", nil},
		"long before":           {"2020-01-01", nil},
		"its last day":          {"2025-05-31", nil},
		"the day after":         {"2025-06-01", reader.ErrExpired},
		"a clock of 1970":       {"1970-01-01", nil},
		"a card without a date": {"2099-01-01", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := published
			if name == "a card without a date" {
				h.ValidTo = ""
			}
			card := reader.NewCard(simulator.NewCard(h))
			card.Today = c.today
			cred, err := card.Read(t.Context(), reader.SocialSecurityCard())
			require.ErrorIs(t, err, c.want)
			if c.want == nil && h.ValidTo != "" {
				assert.Equal(t, "2025-05-31", cred.ValidTo, "marked")
			}
		})
	}
}

func TestCiphers(t *testing.T) {
	for name, c := range map[string]struct {
		fci  string
		want byte
		bad  bool
	}{
		"seen on 3.00 cards: SM4": {fci: "6F1C840F7378312E73682EC9E7BBE1B1A3D5CFA50988011E9F0C03860103", want: 3},
		"item missing: 3DES":      {fci: "6F16840F7378312E73682EC9E7BBE1B1A3D5CFA50388011E", want: 1},
		"SSF33":                   {fci: "6F0AA5089F0C03860102", bad: true},
		"SSF33, whole":            {fci: "6F08A5069F0C03860102", want: 2},
		"9F0C without 86":         {fci: "6F09A5079F0C0485021111", want: 1},
		"9F0C with another item":  {fci: "6F0BA5099F0C06850211118600", want: 1},
		"lengths of two bytes":    {fci: "6F810AA581079F0C8103860103", want: 3},
		"filling between":         {fci: "6F0A0000A5069F0C03860103", want: 3},
		"no template":             {fci: "A5069F0C03860103", bad: true},
		"empty":                   {fci: "", bad: true},
		"cipher of two bytes":     {fci: "6F09A5079F0C0486020303", bad: true},
		"indefinite length":       {fci: "6F80A5069F0C038601030000", bad: true},
		"cut tag":                 {fci: "6F019F", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := reader.CipherOf(must(c.fci))
			if c.bad {
				assert.ErrorIs(t, err, reader.ErrBadFormat)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestHistoricalBytes(t *testing.T) {
	const historical = "008154433186601101" + "0A1B2C3D"
	for name, c := range map[string]struct{ atr, want string }{
		"contact":               {"3B6D0000" + historical, historical},
		"contactless":           {hexadecimal(contactlessATR()), historical},
		"none":                  {"3B00", ""},
		"T=0 with TA1":          {"3B9D9500" + historical, historical},
		"T=0, all of the first": {"3BFD11223300" + historical, historical},
		"empty":                 {"", "bad"},
		"one byte":              {"3B", "bad"},
		"33 bytes":              {"3BF0" + strings.Repeat("FF", 31), "bad"},
		"34 bytes":              {"3B" + strings.Repeat("00", 33), "bad"},
		"cut":                   {"3B6D0000" + historical[:10], "bad"},
		"too long":              {"3B6D0000" + historical + "00", "bad"},
		"first byte":            {"3C6D0000" + historical, "bad"},
		"check byte":            {"3B8D8001" + historical + "00", "bad"},
		"endless announcements": {"3B80" + strings.Repeat("80", 31), "bad"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := reader.HistoricalBytes(must(c.atr))
			if c.want == "bad" {
				assert.ErrorIs(t, err, reader.ErrBadFormat)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, hexadecimal(got))
		})
	}
}

func contactlessATR() []byte {
	c := of("3.00")
	c.Contactless = true
	return c.ATR()
}

func FuzzCipher(f *testing.F) {
	f.Add(must("6F1C840F7378312E73682EC9E7BBE1B1A3D5CFA50988011E9F0C03860103"))
	f.Add(must("6F810AA581079F0C8103860103"))
	f.Fuzz(func(t *testing.T, fci []byte) {
		if _, err := reader.CipherOf(fci); err != nil {
			require.ErrorIs(t, err, reader.ErrBadFormat)
		}
	})
}

func FuzzAnswerToReset(f *testing.F) {
	f.Add(of("2.00").ATR())
	f.Add(contactlessATR())
	f.Fuzz(func(t *testing.T, atr []byte) {
		historical, err := reader.HistoricalBytes(atr)
		if err != nil {
			require.ErrorIs(t, err, reader.ErrBadFormat)
			return
		}
		require.LessOrEqual(t, len(historical), 15)
	})
}

// One answer of card or PSAM, in a reading that authenticates.
func FuzzAuthentication(f *testing.F) {
	f.Add(uint8(0), must("11223344556677889000"))
	f.Add(uint8(13), must("6108"))
	f.Add(uint8(9), must("63C2"))
	f.Fuzz(func(t *testing.T, step uint8, answer []byte) {
		n := 0
		twist := func(_, good []byte) []byte {
			n++
			if n-1 == int(step)%25 {
				return slices.Clone(answer)
			}
			return good
		}
		module, c := simulator.NewPSAM(), issued(version("3.00"))
		module.Faults.Twist, c.Faults.Twist = twist, twist
		card := reader.NewCard(c)
		card.PSAM, card.ATR = newPSAM(t, module), c.ATR()
		_, err := card.Read(t.Context(), reader.SocialSecurityCard())
		require.LessOrEqual(t, n, 2*reader.CommandBudget)
		for _, err := range []error{err, card.Doubt()} {
			if err != nil {
				noCardData(t, err.Error())
			}
		}
	})
}

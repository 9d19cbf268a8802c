package reader_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader"
	"rollcall/simulator"
)

func TestPersonNumbers(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"sample of the standard":         {"11010519491231002X", "11010519491231002X"},
		"second sample of the standard":  {"440524188001010014", "440524188001010014"},
		"lower x":                        {"11010519491231002x", "11010519491231002X"},
		"15 digits":                      {"110105491231002", "11010519491231002X"},
		"unknown region":                 {"990000197001022342", "990000197001022342"},
		"region 000000":                  {"000000197001010015", ""},
		"foreigner":                      {"usa0123456789", "USA0123456789"},
		"foreigner with a sign":          {"USA01234-6789", ""},
		"foreigner, nothing but letters": {"USA", ""},
		"wrong check":                    {"110105194912310021", ""},
		"check X elsewhere":              {"1101051949123100X2", ""},
		"no such day":                    {"110105200102290022", ""},
		"16 digits":                      {"1101054912310020", ""},
		"15 with letter":                 {"11010549123100A", ""},
		"empty":                          {"", ""},
		"full-width digit":               {"１10105194912310", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := reader.ParsePersonNo(c.in)
			if c.want == "" {
				assert.ErrorIs(t, err, reader.ErrBadNumber)
				assert.True(t, got.IsZero())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got.Reveal())
		})
	}
}

// The check finds every single wrong digit.
func TestEverySingleWrongDigitIsFound(t *testing.T) {
	const good = "11010519491231002X"
	for i := range good {
		digits := "0123456789"
		if i == len(good)-1 {
			digits += "X"
		}
		for _, c := range digits {
			bad := good[:i] + string(c) + good[i+1:]
			if bad == good {
				continue
			}
			_, err := reader.ParsePersonNo(bad)
			assert.ErrorIs(t, err, reader.ErrBadNumber, "position %d", i)
		}
	}
}

func TestCardIdentificationCodes(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"with check":        {"110105D1560000050A1B2C3D01020304", true},
		"without check":     {"110105D1560000050A1B2C3DFFFFFFFF", true},
		"lower case":        {"110105d1560000050a1b2c3dffffffff", true},
		"another system":    {"110105D1560000060A1B2C3DFFFFFFFF", false},
		"31 digits":         {"110105D1560000050A1B2C3DFFFFFFF", false},
		"no hexadecimal":    {"11010GD1560000050A1B2C3DFFFFFFFF", false},
		"letters of beyond": {"110105D1560000050A1B2C3DFFFFFF\x00\x00", false},
	} {
		t.Run(name, func(t *testing.T) {
			ident, err := reader.ParseCardIdent(c.in)
			if !c.ok {
				assert.ErrorIs(t, err, reader.ErrBadFormat)
				return
			}
			require.NoError(t, err)
			assert.Len(t, ident.Reveal(), 32)
		})
	}
}

func TestInventedHoldersHaveGoodNumbers(t *testing.T) {
	seen := map[string]bool{}
	for n := range 5000 {
		h := simulator.InventHolder(n)
		_, err := reader.ParsePersonNo(h.PersonNo)
		require.NoError(t, err)
		_, err = reader.ParseCardIdent(h.Ident)
		require.NoError(t, err)
		_, err = reader.ParseCardNo(h.CardNo)
		require.NoError(t, err)
		require.False(t, seen[h.PersonNo] || seen[h.Ident] || seen[h.CardNo], "a number twice")
		seen[h.PersonNo], seen[h.Ident], seen[h.CardNo] = true, true, true
	}
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"11010519491231002X", "110105491231002", "USA0123456789", "110105D1560000050A1B2C3DFFFFFFFF", "A12345678"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if no, err := reader.ParsePersonNo(s); err == nil {
			again, err := reader.ParsePersonNo(no.Reveal())
			require.NoError(t, err)
			require.True(t, no == again, "the one form is not stable")
		}
		if ident, err := reader.ParseCardIdent(s); err == nil {
			require.Len(t, ident.Reveal(), 32)
		}
		if no, err := reader.ParseCardNo(s); err == nil {
			require.LessOrEqual(t, len(no.Reveal()), 9)
		}
	})
}

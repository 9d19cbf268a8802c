package reader_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/simplifiedchinese"

	"rollcall/reader"
	"rollcall/simulator"
)

// record gives the dialogue of a reading and an exploration.
func record(t testing.TB, card reader.Transmitter, atr []byte) string {
	t.Helper()
	var text bytes.Buffer
	p := reader.SocialSecurityCard()
	rec := reader.NewRecorder(&text, card, p, "a test\nof the recorder", atr)
	_, _ = reader.NewCard(rec).Read(t.Context(), p)
	_ = reader.Explore(t.Context(), rec, p)
	require.NoError(t, rec.Err())
	return text.String()
}

// hits counts the secrets of which any three bytes in a row stand in a text,
// as bytes or as hexadecimal digits.
func hits(text string, secrets ...[]byte) (n int) {
	packed := strings.ToUpper(strings.Join(strings.Fields(text), ""))
	for _, secret := range secrets {
		for i := 0; i+3 <= len(secret); i++ {
			window := secret[i : i+3]
			if bytes.Count(window, []byte{0}) > 1 || bytes.Count(window, []byte{0xFF}) > 1 {
				continue // filling
			}
			if strings.Contains(text, string(window)) || strings.Contains(packed, strings.ToUpper(hex.EncodeToString(window))) {
				n++
			}
		}
	}
	return n
}

func secretsOf(h simulator.Holder) [][]byte {
	name, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(h.Name))
	if err != nil {
		panic(err)
	}
	ident := must(h.Ident)
	return [][]byte{ident[:3], ident[8:], []byte(h.CardNo), []byte(h.PersonNo), name, []byte(h.Name), must(h.Issued), must(h.ValidTo)}
}

func TestRecordingHoldsNothingOfTheHolder(t *testing.T) {
	canary := simulator.Holder{
		Ident: "A7B3C9D156000005D4E8F1A2B6C3D7E9", CardNo: "QZ7391846", PersonNo: "11010519491231002X",
		Name: "欧阳夏侯诸葛令狐慕容司马上官尉迟", Issued: "20171123", ValidTo: "20371122",
	}
	for _, spec := range []string{"1.00", "2.00", "3.00"} {
		for _, contactless := range []bool{false, true} {
			h := canary
			h.Spec = spec
			if spec == "1.00" {
				h.Name = "欧阳夏侯"
			}
			card := simulator.NewCard(h)
			card.Contactless = contactless
			text := record(t, card, card.ATR())
			assert.Zero(t, hits(text, secretsOf(h)...), "%s, contactless %t:\n%s", spec, contactless, text)
			assert.Contains(t, text, "< 03 04 "+strings.ToUpper(spacedHex(spec))+" 90 00\n", "the version is public")
			assert.Contains(t, text, "01 10 xx xx xx", "tag and length are")
			assert.Contains(t, text, "6F ", "file control information is")
			assert.Contains(t, text, spacedHex("sx1.sh."), "so is the application's name")
		}
	}
	// The control: a recorder that blanks nothing would be found.
	assert.NotZero(t, hits(hex.EncodeToString([]byte(canary.PersonNo)), secretsOf(canary)...))
}

func spacedHex(s string) string {
	return strings.TrimSpace(strings.ToUpper(hexSpaces([]byte(s))))
}

func hexSpaces(b []byte) string {
	var s strings.Builder
	for _, v := range b {
		s.WriteString(hex.EncodeToString([]byte{v}) + " ")
	}
	return s.String()
}

// A card may put anything anywhere: before the tag, beyond the length, into
// file control information, into commands that an issuer's program would send.
func TestRecordingOfAHostileCardHoldsNothing(t *testing.T) {
	secret := []byte("QZ7391846")
	for name, answer := range map[string][]byte{
		"bare":                       secret,
		"after a tag, length wrong":  slices.Concat([]byte{0x07, 0x20}, secret),
		"as a record":                slices.Concat([]byte{0x07, 0x09}, secret),
		"as the version":             slices.Concat([]byte{0x03, 0x09}, secret),
		"in file control":            slices.Concat([]byte{0x6F, 0x0B, 0x84, 0x09}, secret),
		"in file control, unknown":   slices.Concat([]byte{0x6F, 0x0B, 0x50, 0x09}, secret),
		"behind file control":        slices.Concat([]byte{0x6F, 0x02, 0x88, 0x00}, secret),
		"in the issuer's own":        slices.Concat([]byte{0x6F, 0x10, 0xA5, 0x0E, 0x9F, 0x0C, 0x0B, 0x86, 0x09}, secret),
		"cut in file control":        slices.Concat([]byte{0x6F, 0x20, 0xA5, 0x1E, 0x9F, 0x0C, 0x1B, 0x86, 0x19}, secret),
		"length of length":           slices.Concat([]byte{0x6F, 0x81, 0x0B, 0x84, 0x09}, secret),
		"a template without any end": bytes.Repeat([]byte{0x6F}, 64),
	} {
		t.Run(name, func(t *testing.T) {
			text := record(t, fixed(append(slices.Clone(answer), 0x90, 0x00)), slices.Concat([]byte{0x3B, 0x09}, secret))
			assert.Zero(t, hits(text, secret), text)
		})
	}
}

// fixed gives one answer to everything.
type fixed []byte

func (f fixed) Transmit([]byte) ([]byte, error) { return f, nil }

func TestRecordingSaysWhatWentWrong(t *testing.T) {
	card := simulator.NewCard(published)
	card.Faults.PullAt = 3
	text := record(t, card, card.ATR())
	assert.Contains(t, text, "# no answer: "+reader.ErrCardRemoved.Error())
	assert.True(t, strings.HasPrefix(text, "# source: a test of the recorder; answer to reset 3B 6D 00 00 00 81"), "line 1 stays one line")

	var commands bytes.Buffer
	rec := reader.NewRecorder(&commands, fixed{0x90, 0x00}, reader.SocialSecurityCard(), "x", nil)
	_, err := rec.Transmit(must("0082000A10AABBCCDDEEFF00112233445566778899"))
	require.NoError(t, err)
	assert.Contains(t, commands.String(), "> 00 82 00 0A xx xx", "a cryptogram may come from a card")

	full := reader.NewRecorder(broken{}, fixed{0x90, 0x00}, reader.SocialSecurityCard(), "x", nil)
	assert.ErrorIs(t, full.Err(), errFull)
}

var errFull = errors.New("disk full")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errFull }

func TestExplorationOnlySelectsAndReads(t *testing.T) {
	x := &twisted{t: t, card: simulator.NewCard(published), answer: func(good []byte) ([]byte, error) { return good, nil }}
	require.NoError(t, reader.Explore(t.Context(), x, reader.SocialSecurityCard()))
	assert.Greater(t, x.sent, 30)

	forever := &twisted{t: t, card: simulator.NewCard(published), answer: always("6110")}
	assert.Error(t, reader.Explore(t.Context(), forever, reader.SocialSecurityCard()))
	assert.LessOrEqual(t, forever.sent, 400)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, reader.Explore(ended, x, reader.SocialSecurityCard()), context.Canceled)
}

func FuzzRecorder(f *testing.F) {
	f.Add([]byte("\x6F\x0B\x84\x09QZ7391846\x90\x00"))
	f.Add([]byte("\x07\x09QZ7391846\x90\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, answer []byte) {
		text := record(t, fixed(answer), answer)
		require.Less(t, len(text), 2_000_000)
	})
}

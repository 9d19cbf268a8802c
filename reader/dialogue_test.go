package reader_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

// exchange is a command and its answer.
type exchange struct {
	psam            bool // with the PSAM, else with the card
	command, answer []byte
	left            []bool // bytes of the answer that a recording leaves out
}

// is reports whether an answer is the one written down, as far as it is.
func (x exchange) is(answer []byte) bool {
	if len(answer) != len(x.answer) {
		return false
	}
	for i := range answer {
		if !x.left[i] && answer[i] != x.answer[i] {
			return false
		}
	}
	return true
}

// dialogue reads a file of testdata.
func dialogue(t testing.TB, name string) []exchange {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return exchanges(t, string(text))
}

// exchanges reads a dialogue: its source in line 1, then a line "> " for each
// command to the card and a line "< " for its answer, in hexadecimal; ">> " and
// "<< " are the PSAM's. In an answer xx is a byte that a recording leaves out.
func exchanges(t testing.TB, text string) []exchange {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	require.Contains(t, lines[0], "# source: ")
	lines = lines[1:]
	require.NotEmpty(t, lines)
	require.Zero(t, len(lines)%2, "a command without answer")
	var d []exchange
	for i := 0; i < len(lines); i += 2 {
		psam := strings.HasPrefix(lines[i], ">>")
		command, answer := "> ", "< "
		if psam {
			command, answer = ">> ", "<< "
		}
		x := exchange{psam: psam}
		var left []bool
		x.command, left = line(t, lines[i], command)
		require.NotContains(t, left, true, "a command that cannot be sent again: %s", lines[i])
		x.answer, x.left = line(t, lines[i+1], answer)
		d = append(d, x)
	}
	return d
}

func line(t testing.TB, s, mark string) (b []byte, left []bool) {
	t.Helper()
	digits, ok := strings.CutPrefix(s, mark)
	require.True(t, ok, "want %q at the start of %q", mark, s)
	packed := strings.ReplaceAll(digits, " ", "")
	b, err := hex.DecodeString(strings.ReplaceAll(packed, "xx", "00"))
	require.NoError(t, err, s)
	for i := range b {
		left = append(left, packed[2*i:2*i+2] == "xx")
	}
	return b, left
}

// player gives the answers of a dialogue and wants its commands, in order.
type player struct {
	t    *testing.T
	rest *[]exchange
	psam bool
}

func (p *player) Transmit(command []byte) ([]byte, error) {
	p.t.Helper()
	require.NotEmpty(p.t, *p.rest, "command %X after the end of the dialogue", command)
	next := (*p.rest)[0]
	*p.rest = (*p.rest)[1:]
	require.Equal(p.t, next.psam, p.psam, "command %X to the other one", command)
	require.Equal(p.t, hex.EncodeToString(next.command), hex.EncodeToString(command))
	return next.answer, nil
}

// published is the holder of the dialogues. The person number is a sample
// printed in GB 11643-1999; the rest is invented.
var published = simulator.Holder{
	Ident:    "110105D1560000050A1B2C3DFFFFFFFF",
	CardNo:   "A12345678",
	PersonNo: "11010519491231002X",
	Name:     "王小明",
	Spec:     "2.00",
	Issued:   "20150601",
	ValidTo:  "20250531",
}

// of gives a published holder's card of a version.
func of(version string) *simulator.Card {
	h := published
	h.Spec = version
	return simulator.NewCard(h)
}

// with sets faults on a card.
func with(c *simulator.Card, f simulator.CardFaults) *simulator.Card {
	c.Faults = f
	return c
}

// sm4Card is a 3.00 card as it was seen in the field: its cipher is SM4.
func sm4Card() *simulator.Card {
	c := of("3.00")
	c.Algorithm = 0x03
	return c
}

// long is the published holder with a name that needs its extension.
func long(padding byte) simulator.Holder {
	h := published
	h.Name = strings.Repeat("明", 20)
	h.Padding = padding
	return h
}

var dialogues = map[string]struct {
	card    func() *simulator.Card
	reads   bool // this is how the reader reads such a card
	profile *reader.Profile
	want    error
	level   attendance.CardLevel
}{
	"spec-ssc1-short-ids.txt":    {card: func() *simulator.Card { return of("1.00") }, reads: true},
	"spec-ssc1-no-extension.txt": {card: func() *simulator.Card { return of("1.00") }},
	"spec-ssc2-short-ids.txt":    {card: func() *simulator.Card { return of("2.00") }, reads: true},
	"spec-ssc2-selects.txt":      {card: func() *simulator.Card { return of("2.00") }},
	"spec-ssc2-numbers.txt":      {card: func() *simulator.Card { return of("2.00") }},
	"spec-ssc2-lengths.txt":      {card: func() *simulator.Card { return of("2.00") }},
	"spec-ssc2-refused.txt": {reads: true, card: func() *simulator.Card {
		return with(of("2.00"), simulator.CardFaults{RefuseHolder: true})
	}},
	"spec-ssc2-foreign.txt": {reads: true, want: reader.ErrUnsupportedCard, card: func() *simulator.Card {
		return with(of("2.00"), simulator.CardFaults{Foreign: true})
	}},
	"spec-ssc2-no-short-ids.txt": {reads: true, card: func() *simulator.Card {
		return with(of("2.00"), simulator.CardFaults{NoShortIDs: true})
	}},
	"spec-ssc2-extension.txt":  {reads: true, card: func() *simulator.Card { return simulator.NewCard(long(0xFF)) }},
	"spec-ssc2-short-path.txt": {reads: true, profile: reader.SocialSecurityCardShort(), card: func() *simulator.Card { return of("2.00") }},
	"spec-ssc3-selects.txt":    {card: func() *simulator.Card { return with(sm4Card(), simulator.CardFaults{Copied: true}) }},
	"spec-ssc3-closed.txt":     {reads: true, card: sm4Card},
	"spec-ssc3-contactless.txt": {reads: true, card: func() *simulator.Card {
		c := sm4Card()
		c.Contactless = true
		return c
	}},
	"spec-ssc3-psam.txt": {reads: true, level: attendance.LevelAuthenticated, card: func() *simulator.Card {
		c := simulator.NewPSAM().Issue(of("3.00"))
		c.Challenge = must("1122334455667788")
		return c
	}},
}

// The twins first: else the tests of the reader against them would prove only
// that one hand wrote both.
func TestTwinsSpeakThePublishedDialogues(t *testing.T) {
	for name, c := range dialogues {
		t.Run(name, func(t *testing.T) {
			card, psam := c.card(), simulator.NewPSAM()
			for i, x := range dialogue(t, name) {
				answer := card.Transmit
				if x.psam {
					answer = psam.Transmit
				}
				got, err := answer(x.command)
				require.NoError(t, err)
				require.True(t, x.is(got), "exchange %d: want %X, got %X", i+1, x.answer, got)
			}
		})
	}
}

// A recording of a real card will be played against a twin, which must answer
// alike wherever the recording says how. Until there is one, a twin's stands in.
func TestRecordingsArePlayedAgainstTwins(t *testing.T) {
	unlike := func(recorded, played *simulator.Card) (n int) {
		for _, x := range exchanges(t, record(t, recorded, recorded.ATR())) {
			got, err := played.Transmit(x.command)
			require.NoError(t, err)
			if !x.is(got) {
				n++
			}
		}
		return n
	}
	stranger := simulator.InventHolder(3)
	stranger.Spec = "2.00"
	assert.Zero(t, unlike(of("2.00"), of("2.00")))
	assert.Zero(t, unlike(of("2.00"), simulator.NewCard(stranger)), "another holder's card of the same kind")
	assert.NotZero(t, unlike(of("2.00"), of("3.00")))
	assert.NotZero(t, unlike(of("2.00"), with(of("2.00"), simulator.CardFaults{NoShortIDs: true})))
}

func TestReaderSpeaksThePublishedDialogues(t *testing.T) {
	for name, c := range dialogues {
		if !c.reads {
			continue
		}
		t.Run(name, func(t *testing.T) {
			rest := dialogue(t, name)
			card := reader.NewCard(&player{t: t, rest: &rest})
			card.ATR = c.card().ATR()
			if c.level == "" {
				c.level = attendance.LevelFile
			} else {
				psam, err := reader.NewPSAM(&player{t: t, rest: &rest, psam: true}, simulator.NewPSAM().Config())
				require.NoError(t, err)
				card.PSAM = psam
				card.SetRandom(inTurn(t, "A0A1A2A3A4A5A6A7", "B0B1B2B3B4B5B6B7"))
			}
			if c.profile == nil {
				c.profile = reader.SocialSecurityCard()
			}
			cred, err := card.Read(t.Context(), c.profile)
			require.ErrorIs(t, err, c.want)
			assert.NoError(t, card.Doubt())
			assert.Empty(t, rest, "lines not used")
			if err == nil {
				assert.Equal(t, c.level, cred.Level)
			}
		})
	}
}

// inTurn gives written-down bytes for random ones.
func inTurn(t *testing.T, values ...string) func([]byte) {
	return func(b []byte) {
		require.NotEmpty(t, values)
		copy(b, must(values[0]))
		values = values[1:]
	}
}

func TestEveryDialogueIsPlayed(t *testing.T) {
	files, err := filepath.Glob("testdata/spec-*")
	require.NoError(t, err)
	recorded, err := filepath.Glob("testdata/recorded-*")
	require.NoError(t, err)
	files = append(files, recorded...)
	for _, f := range files {
		assert.Contains(t, dialogues, filepath.Base(f))
	}
}

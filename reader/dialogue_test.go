package reader_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader"
	"rollcall/simulator"
)

// exchange is a command and its answer.
type exchange struct{ command, answer []byte }

// dialogue reads a file of testdata: its source in line 1, then a line "> " for
// each command and a line "< " for its answer, in hexadecimal.
func dialogue(t *testing.T, name string) []exchange {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Contains(t, lines[0], "# source: ")
	lines = lines[1:]
	require.NotEmpty(t, lines)
	require.Zero(t, len(lines)%2, "a command without answer")
	var d []exchange
	for i := 0; i < len(lines); i += 2 {
		d = append(d, exchange{line(t, lines[i], "> "), line(t, lines[i+1], "< ")})
	}
	return d
}

func line(t *testing.T, s, mark string) []byte {
	t.Helper()
	digits, ok := strings.CutPrefix(s, mark)
	require.True(t, ok, "want %q at the start of %q", mark, s)
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	require.NoError(t, err, s)
	return b
}

// player gives the answers of a dialogue and wants its commands, in order.
type player struct {
	t    *testing.T
	rest []exchange
}

func (p *player) Transmit(command []byte) ([]byte, error) {
	p.t.Helper()
	require.NotEmpty(p.t, p.rest, "command %X after the end of the dialogue", command)
	next := p.rest[0]
	p.rest = p.rest[1:]
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

var dialogues = map[string]struct {
	faults simulator.CardFaults
	reads  bool // this is how the reader reads such a card
	want   error
}{
	"spec-ssc2-short-ids.txt":    {reads: true},
	"spec-ssc2-selects.txt":      {},
	"spec-ssc2-numbers.txt":      {},
	"spec-ssc2-lengths.txt":      {},
	"spec-ssc2-refused.txt":      {faults: simulator.CardFaults{RefuseHolder: true}, reads: true},
	"spec-ssc2-foreign.txt":      {faults: simulator.CardFaults{Foreign: true}, reads: true, want: reader.ErrUnsupportedCard},
	"spec-ssc2-no-short-ids.txt": {faults: simulator.CardFaults{NoShortIDs: true}, reads: true},
}

// The card first: else the tests of the reader against it would prove only that
// one hand wrote both.
func TestVirtualCardSpeaksThePublishedDialogues(t *testing.T) {
	for name, c := range dialogues {
		t.Run(name, func(t *testing.T) {
			card := simulator.NewCard(published)
			card.Faults = c.faults
			for i, x := range dialogue(t, name) {
				answer, err := card.Transmit(x.command)
				require.NoError(t, err)
				require.Equal(t, hex.EncodeToString(x.answer), hex.EncodeToString(answer), "exchange %d", i+1)
			}
		})
	}
}

func TestReaderSpeaksThePublishedDialogues(t *testing.T) {
	for name, c := range dialogues {
		if !c.reads {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := &player{t, dialogue(t, name)}
			_, err := reader.NewCard(p).Read(t.Context(), reader.SocialSecurityCard())
			require.ErrorIs(t, err, c.want)
			assert.Empty(t, p.rest, "lines not used")
		})
	}
}

func TestEveryDialogueIsPlayed(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, f := range files {
		assert.Contains(t, dialogues, filepath.Base(f))
	}
}

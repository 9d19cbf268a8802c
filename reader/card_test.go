package reader_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

// sentinels are all the errors a card may end with.
var sentinels = []error{
	reader.ErrReaderGone, reader.ErrServiceDown, reader.ErrReaderBusy, reader.ErrReaderHung, reader.ErrCardRemoved,
	reader.ErrCardReset, reader.ErrCardMute, reader.ErrUnsupportedCard, reader.ErrAccessRefused, reader.ErrCardBlocked,
	reader.ErrBadFormat, reader.ErrBadNumber, reader.ErrExpired, reader.ErrTimeout,
}

// twisted is a card whose answer to one command is not its own. It counts, and
// fails the test on a command that a terminal must not send.
type twisted struct {
	t       testing.TB
	card    *simulator.Card
	command []byte // the command with another answer; nil for every command
	answer  func(good []byte) ([]byte, error)
	sent    int
}

func (x *twisted) Transmit(command []byte) ([]byte, error) {
	x.sent++
	require.Contains(x.t, []byte{0xA4, 0xB2, 0xC0, 0x84, 0x82, 0x88}, command[1], "only selecting, reading and authenticating: never a PIN")
	good, err := x.card.Transmit(command)
	if err == nil && (x.command == nil || bytes.Equal(x.command, command)) {
		return x.answer(good)
	}
	return good, err
}

// always makes an answer of hexadecimal digits.
func always(digits string) func([]byte) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		panic(err)
	}
	return func([]byte) ([]byte, error) { return b, nil }
}

// value replaces a record's value, filled with 00, and keeps tag and length.
func value(b []byte) func([]byte) ([]byte, error) {
	return func(good []byte) ([]byte, error) {
		n := int(good[1])
		return slices.Concat(good[:2], b, make([]byte, n-len(b)), []byte{0x90, 0x00}), nil
	}
}

func read(t testing.TB, tr reader.Transmitter) (attendance.Credential, error) {
	t.Helper()
	cred, err := reader.NewCard(tr).Read(t.Context(), reader.SocialSecurityCard())
	if err == nil {
		return cred, nil
	}
	require.True(t, slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) }), "no sentinel: %v", err)
	require.Zero(t, cred, "data beside an error")
	noCardData(t, err.Error())
	return cred, err
}

// noCardData is the canary: the published holder stands in no text, plain or in
// hexadecimal, whole or in part.
func noCardData(t testing.TB, text string) {
	t.Helper()
	text = strings.ToUpper(text)
	for _, secret := range []string{published.Ident[:6], published.Ident[16:24], published.CardNo[1:], published.PersonNo[6:14], published.Name} {
		require.NotContains(t, text, secret)
		require.NotContains(t, text, strings.ToUpper(hex.EncodeToString([]byte(secret))))
	}
}

// goodCommands are the commands of a good reading.
func goodCommands(t testing.TB) (commands [][]byte) {
	card := simulator.NewCard(published)
	_, err := read(t, &twisted{t: t, card: card, answer: func(good []byte) ([]byte, error) { return good, nil }})
	require.NoError(t, err)
	rec := &recorder{card: simulator.NewCard(published)}
	_, err = read(t, rec)
	require.NoError(t, err)
	return rec.commands
}

type recorder struct {
	card     *simulator.Card
	commands [][]byte
}

func (r *recorder) Transmit(command []byte) ([]byte, error) {
	r.commands = append(r.commands, slices.Clone(command))
	return r.card.Transmit(command)
}

// Commands of a good reading, by what they ask for.
var (
	selectSSSE   = must("00A404000F7378312E73682EC9E7BBE1B1A3D5CF")
	readIdent    = must("00B2012812")
	readVersion  = must("00B2032806")
	readValidTo  = must("00B2062806")
	readCardNo   = must("00B207280B")
	readPersonNo = must("00B2083014")
	readName     = must("00B2093020")
	readNameExt  = must("00B24E3016")
)

func must(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

func TestGoodCardIsReadInFull(t *testing.T) {
	cred, err := read(t, simulator.NewCard(published))
	require.NoError(t, err)
	assert.Equal(t, attendance.Credential{
		Kind:     attendance.KindSSC,
		Level:    attendance.LevelFile,
		Ident:    attendance.NewCardIdent(published.Ident),
		CardNo:   attendance.NewCardNo(published.CardNo),
		PersonNo: attendance.NewPersonNo(published.PersonNo),
		Name:     attendance.NewPersonName(published.Name),
		Spec:     "2.00",
		ValidTo:  "2025-05-31",
	}, cred)
	assert.Equal(t, [][]byte{selectSSSE, readIdent, readVersion, readValidTo, readCardNo, readPersonNo, readName}, goodCommands(t))
}

func TestCardsThatWantToBeAskedOtherwise(t *testing.T) {
	for name, faults := range map[string]simulator.CardFaults{
		"no short file identifiers":           {NoShortIDs: true},
		"by number":                           {NumbersOnly: true},
		"by number, no short file identifier": {NoShortIDs: true, NumbersOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			card := simulator.NewCard(published)
			card.Faults = faults
			cred, err := read(t, card)
			require.NoError(t, err)
			assert.False(t, cred.Partial())
			assert.False(t, cred.CardNo.IsZero())
		})
	}
}

func TestPartialCredentials(t *testing.T) {
	for name, c := range map[string]struct {
		command []byte
		answer  func([]byte) ([]byte, error)
	}{
		"holder file refused":        {readPersonNo, always("6982")},
		"holder file conditions":     {readPersonNo, always("6985")},
		"holder file blank":          {readPersonNo, value(nil)},
		"holder file filled with FF": {readPersonNo, value(bytes.Repeat([]byte{0xFF}, 18))},
		"holder file filled with 20": {readPersonNo, value(bytes.Repeat([]byte{' '}, 18))},
	} {
		t.Run(name, func(t *testing.T) {
			card := simulator.NewCard(published)
			cred, err := read(t, &twisted{t: t, card: card, command: c.command, answer: c.answer})
			require.NoError(t, err)
			assert.True(t, cred.Partial())
			assert.True(t, cred.Name.IsZero())
			assert.False(t, cred.Ident.IsZero())
			assert.False(t, cred.CardNo.IsZero())
		})
	}
}

// What a credential can do without must keep nobody out of class.
func TestOptionalItemsMayMakeNoSense(t *testing.T) {
	for name, c := range map[string]struct {
		command []byte
		answer  func([]byte) ([]byte, error)
		item    func(attendance.Credential) bool // the item that is missing then
	}{
		"card number refused":     {readCardNo, always("6982"), func(c attendance.Credential) bool { return c.CardNo.IsZero() }},
		"card number missing":     {readCardNo, always("6A83"), func(c attendance.Credential) bool { return c.CardNo.IsZero() }},
		"card number blank":       {readCardNo, value(nil), func(c attendance.Credential) bool { return c.CardNo.IsZero() }},
		"card number with escape": {readCardNo, value([]byte("A1\x1b")), func(c attendance.Credential) bool { return c.CardNo.IsZero() }},
		"date 00000000":           {readValidTo, value(nil), func(c attendance.Credential) bool { return c.ValidTo == "" }},
		"date FFFFFFFF":           {readValidTo, value(must("FFFFFFFF")), func(c attendance.Credential) bool { return c.ValidTo == "" }},
		"date 20010229":           {readValidTo, value(must("20010229")), func(c attendance.Credential) bool { return c.ValidTo == "" }},
		"date 2001A101":           {readValidTo, value(must("2001A101")), func(c attendance.Credential) bool { return c.ValidTo == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			cred, err := read(t, &twisted{t: t, card: simulator.NewCard(published), command: c.command, answer: c.answer})
			require.NoError(t, err)
			assert.True(t, c.item(cred))
			assert.False(t, cred.Partial())
		})
	}
}

func TestMissingRecords(t *testing.T) {
	for name, want := range map[string]error{
		"card_ident":   reader.ErrBadFormat,
		"spec_version": reader.ErrBadFormat,
		"issued":       nil,
		"valid_to":     nil,
		"card_no":      nil,
		"person_no":    reader.ErrBadFormat,
		"name":         reader.ErrBadFormat,
		"name_ext":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			card := simulator.NewCard(published)
			card.Faults.Without = []string{name}
			_, err := read(t, card)
			assert.ErrorIs(t, err, want)
		})
	}
}

func TestBadValues(t *testing.T) {
	gbk := func(digits string) func([]byte) ([]byte, error) { return value(must(digits)) }
	for name, c := range map[string]struct {
		command []byte
		answer  func([]byte) ([]byte, error)
		want    error
	}{
		"ident of another system":      {readIdent, gbk("110105D1560000060A1B2C3DFFFFFFFF"), reader.ErrBadFormat},
		"ident blank":                  {readIdent, value(nil), reader.ErrBadFormat},
		"ident all FF":                 {readIdent, value(bytes.Repeat([]byte{0xFF}, 16)), reader.ErrBadFormat},
		"version with control":         {readVersion, value([]byte("2\x00\x1b0")), reader.ErrBadFormat},
		"person number wrong check":    {readPersonNo, value([]byte("110105194912310021")), reader.ErrBadNumber},
		"person number one digit off":  {readPersonNo, value([]byte("11010519491231003X")), reader.ErrBadNumber},
		"person number 20010229":       {readPersonNo, value([]byte("110105200102290022")), reader.ErrBadNumber},
		"person number with letter":    {readPersonNo, value([]byte("1101051949123I002X")), reader.ErrBadNumber},
		"person number short":          {readPersonNo, value([]byte("1101051949")), reader.ErrBadNumber},
		"person number full-width":     {readPersonNo, gbk("A3B1A3B1A3B0A3B1A3B0A3B5"), reader.ErrBadFormat},
		"name half a character":        {readName, gbk("CDF5D0A1C3"), reader.ErrBadFormat},
		"name no GB18030":              {readName, gbk("80FFFE81"), reader.ErrBadFormat},
		"name with control":            {readName, gbk("CDF51BD0A1"), reader.ErrBadFormat},
		"name with right-to-left mark": {readName, gbk("CDF58136A531D0A1"), reader.ErrBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, &twisted{t: t, card: simulator.NewCard(published), command: c.command, answer: c.answer})
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestNames(t *testing.T) {
	for name, text := range map[string]string{
		"two characters":                "王明",
		"15 characters fill the record": strings.Repeat("王", 15),
		"25 characters":                 strings.Repeat("明", 25),
		"with a dot":                    "阿卜杜拉·买买提",
		"four-byte characters":          "王𠮷㐂",
		"four bytes over the border":    strings.Repeat("王", 14) + "𠮷明",
		"Latin":                         "ANNA MARIA",
	} {
		t.Run(name, func(t *testing.T) {
			h := published
			h.Name = text
			cred, err := read(t, simulator.NewCard(h))
			require.NoError(t, err)
			assert.Equal(t, text, cred.Name.Reveal())
		})
	}
}

func TestNameExtensionIsReadIfTheNameIsFull(t *testing.T) {
	for name, h := range map[string]simulator.Holder{
		"short name": published,
		"long name":  {Ident: published.Ident, PersonNo: published.PersonNo, Name: strings.Repeat("明", 25), Spec: "2.00"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{card: simulator.NewCard(h)}
			_, err := read(t, rec)
			require.NoError(t, err)
			assert.Equal(t, name == "long name", slices.ContainsFunc(rec.commands, func(c []byte) bool { return bytes.Equal(c, readNameExt) }))
			select {
			case <-rec.card.Read():
			default:
				t.Error("the card does not know that it was read to the end")
			}
		})
	}
}

func TestRecordsOutOfForm(t *testing.T) {
	forms := map[string]func(good []byte) ([]byte, error){
		"cut": func(good []byte) ([]byte, error) { return slices.Concat(good[:len(good)-3], []byte{0x90, 0x00}), nil },
		"too long": func(good []byte) ([]byte, error) {
			return slices.Concat(good[:len(good)-2], []byte{0x41, 0x90, 0x00}), nil
		},
		"wrong tag":   func(good []byte) ([]byte, error) { good[0] ^= 0x40; return good, nil },
		"length 00":   func(good []byte) ([]byte, error) { good[1] = 0x00; return good, nil },
		"length 80":   func(good []byte) ([]byte, error) { good[1] = 0x80; return good, nil },
		"length FF":   func(good []byte) ([]byte, error) { good[1] = 0xFF; return good, nil },
		"tag only":    func(good []byte) ([]byte, error) { return []byte{good[0], 0x90, 0x00}, nil },
		"status only": always("9000"),
	}
	for name, form := range forms {
		for i, command := range goodCommands(t)[1:] {
			t.Run(fmt.Sprintf("%s at record %d", name, i+1), func(t *testing.T) {
				_, err := read(t, &twisted{t: t, card: simulator.NewCard(published), command: command, answer: form})
				assert.ErrorIs(t, err, reader.ErrBadFormat)
			})
		}
	}
}

func TestAnswersOfAnyLengthAtEveryStep(t *testing.T) {
	for _, n := range []int{0, 1, 2, 258, 65538} {
		for i, command := range goodCommands(t) {
			t.Run(fmt.Sprintf("%d bytes at step %d", n, i+1), func(t *testing.T) {
				x := &twisted{t: t, card: simulator.NewCard(published), command: command,
					answer: func([]byte) ([]byte, error) { return make([]byte, n), nil }}
				_, err := read(t, x)
				require.Error(t, err)
				assert.Equal(t, n < 2, errors.Is(err, reader.ErrCardRemoved), err)
			})
		}
	}
}

func TestEveryStatusWordAtEveryStep(t *testing.T) {
	for _, sw := range []string{
		"6100", "6110", "6200", "6281", "6283", "6300", "63C3", "6581", "6700", "6800", "6981", "6982", "6983", "6984",
		"6985", "6986", "6988", "6A80", "6A81", "6A82", "6A83", "6A86", "6A88", "6B00", "6C00", "6C10", "6D00", "6E00", "6F00",
		"9303", "9001", "0000", "FFFF",
	} {
		for i, command := range goodCommands(t) {
			t.Run(fmt.Sprintf("%s at step %d", sw, i+1), func(t *testing.T) {
				x := &twisted{t: t, card: simulator.NewCard(published), command: command, answer: always(sw)}
				_, _ = read(t, x)
				assert.LessOrEqual(t, x.sent, reader.CommandBudget)
			})
		}
	}
}

func TestWhatStatusWordsMean(t *testing.T) {
	for name, c := range map[string]struct {
		command []byte
		sw      string
		want    error
	}{
		"application unknown":      {selectSSSE, "6A82", reader.ErrUnsupportedCard},
		"application locked":       {selectSSSE, "6A81", reader.ErrCardBlocked},
		"application locked ever":  {selectSSSE, "9303", reader.ErrCardBlocked},
		"selecting not understood": {selectSSSE, "6D00", reader.ErrUnsupportedCard},
		"class not understood":     {selectSSSE, "6E00", reader.ErrUnsupportedCard},
		"memory at selecting":      {selectSSSE, "6581", reader.ErrBadFormat},
		"memory at reading":        {readIdent, "6581", reader.ErrBadFormat},
		"damaged":                  {readIdent, "6281", reader.ErrBadFormat},
		"ident refused":            {readIdent, "6982", reader.ErrAccessRefused},
		"ident not now":            {readIdent, "6985", reader.ErrAccessRefused},
		"locked while reading":     {readVersion, "9303", reader.ErrCardBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, &twisted{t: t, card: simulator.NewCard(published), command: c.command, answer: always(c.sw)})
			require.ErrorIs(t, err, c.want)
			status, ok := errors.AsType[*reader.StatusError](err)
			require.True(t, ok)
			assert.Equal(t, c.sw, fmt.Sprintf("%04X", status.SW))
			assert.Contains(t, err.Error(), c.sw)
		})
	}
}

// A card may not keep the reader busy for ever.
func TestEndlessAnswers(t *testing.T) {
	for name, answer := range map[string]func([]byte) ([]byte, error){
		"61xx for ever":           always("6120"),
		"61xx for ever with data": always("4141 6102"),
		"6Cxx with the same Le":   always("6C12"),
		"61xx then 6Cxx":          always("6C00"),
	} {
		for _, command := range [][]byte{nil, readIdent, readName} {
			t.Run(fmt.Sprintf("%s at %X", name, command), func(t *testing.T) {
				x := &twisted{t: t, card: simulator.NewCard(published), command: command}
				x.answer = func(good []byte) ([]byte, error) {
					x.command = nil // from here on every command
					return answer(good)
				}
				_, err := read(t, x)
				require.Error(t, err)
				assert.LessOrEqual(t, x.sent, reader.CommandBudget)
			})
		}
	}
}

// Bad contacts are mostly good a moment later.
func TestUnusableDataIsReadASecondTime(t *testing.T) {
	spoilt := false
	x := &twisted{t: t, card: simulator.NewCard(published), command: readIdent, answer: func(good []byte) ([]byte, error) {
		if !spoilt {
			spoilt = true
			return always("6581")(nil)
		}
		return good, nil
	}}
	cred, err := read(t, x)
	require.NoError(t, err)
	assert.False(t, cred.Partial())
}

func TestCardPulledAtEachCommand(t *testing.T) {
	for n := range goodCommands(t) {
		card := simulator.NewCard(published)
		card.Faults.PullAt = n + 1
		_, err := read(t, card)
		assert.ErrorIs(t, err, reader.ErrCardRemoved, "command %d", n+1)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	card := reader.NewCard(simulator.NewCard(published))
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	_, err := card.Read(late, reader.SocialSecurityCard())
	assert.ErrorIs(t, err, reader.ErrTimeout)

	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = card.Read(stopped, reader.SocialSecurityCard())
	assert.ErrorIs(t, err, context.Canceled)
}

func TestEverySentinelHasAFault(t *testing.T) {
	assert.Empty(t, reader.FaultOf(nil))
	assert.Equal(t, attendance.FaultUnreadable, reader.FaultOf(errors.New("unheard of")))
	for want, errs := range map[attendance.CardFault][]error{
		attendance.FaultRemoved:     {reader.ErrCardRemoved, reader.ErrReaderGone, reader.ErrServiceDown},
		attendance.FaultMute:        {reader.ErrCardMute},
		attendance.FaultUnsupported: {reader.ErrUnsupportedCard, reader.ErrAccessRefused},
		attendance.FaultBlocked:     {reader.ErrCardBlocked},
		attendance.FaultExpired:     {reader.ErrExpired},
		attendance.FaultBadNumber:   {reader.ErrBadNumber},
		attendance.FaultTimeout:     {reader.ErrTimeout, reader.ErrReaderHung},
		attendance.FaultUnreadable:  {reader.ErrReaderBusy, reader.ErrCardReset, reader.ErrBadFormat},
	} {
		for _, err := range errs {
			assert.Equal(t, want, reader.FaultOf(fmt.Errorf("reading: %w", err)))
		}
	}
}

// The answers of a card, one after the other: a length byte and that much, the
// last one for ever.
type fuzzCard struct {
	answers []byte
	sent    int
}

func (f *fuzzCard) Transmit([]byte) ([]byte, error) {
	f.sent++
	if len(f.answers) == 0 {
		return []byte{0x90, 0x00}, nil
	}
	n := min(int(f.answers[0]), len(f.answers)-1)
	answer := f.answers[1 : 1+n]
	f.answers = f.answers[1+n:]
	return slices.Clone(answer), nil
}

func FuzzCardAnswers(f *testing.F) {
	var good, refused []byte
	for i, command := range goodCommands(f) {
		card := simulator.NewCard(published)
		for _, before := range goodCommands(f)[:i] {
			_, _ = card.Transmit(before)
		}
		answer, err := card.Transmit(command)
		require.NoError(f, err)
		if i == 5 {
			refused = append(slices.Clone(good), 2, 0x69, 0x82)
		}
		good = append(append(good, byte(len(answer))), answer...)
	}
	f.Add(good)
	f.Add(refused)
	f.Add([]byte{2, 0x61, 0x18, 2, 0x6C, 0x12, 2, 0x61, 0x12, 2, 0x61, 0x12})
	f.Fuzz(func(t *testing.T, data []byte) {
		card := &fuzzCard{answers: data}
		cred, err := read(t, card)
		require.LessOrEqual(t, card.sent, reader.CommandBudget)
		if err == nil {
			require.Equal(t, attendance.KindSSC, cred.Kind)
			require.Len(t, cred.Ident.Reveal(), 32)
		}
	})
}

// One record of an otherwise good card.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(1), must("0110110105D1560000050A1B2C3DFFFFFFFF9000"))
	f.Add(uint8(5), must("08123131303130353139343931323331303032589000"))
	f.Add(uint8(6), must("091ECDF5D0A1C3F70000000000000000000000000000000000000000000000009000"))
	f.Add(uint8(6), must("6282"))
	commands := goodCommands(f)
	f.Fuzz(func(t *testing.T, step uint8, answer []byte) {
		_, _ = read(t, &twisted{t: t, card: simulator.NewCard(published), command: commands[int(step)%len(commands)],
			answer: func([]byte) ([]byte, error) { return answer, nil }})
	})
}

// What is our own part of reading a card?
func BenchmarkReadingInMemory(b *testing.B) {
	profile := reader.SocialSecurityCard()
	card := simulator.NewCard(published)
	for b.Loop() {
		if _, err := reader.NewCard(card).Read(b.Context(), profile); err != nil {
			b.Fatal(err)
		}
	}
}

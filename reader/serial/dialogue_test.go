package serial_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader/serial"
	"rollcall/simulator"
)

// step is one line of a dialogue: "> " what the host sends, "< " what the
// device sends, "! " what a person does, "= " the serial number that comes out.
type step struct {
	mark byte
	text string
	data []byte // of > and <
}

// dialogue reads a file of testdata: its source in line 1, then steps. Bytes are
// hexadecimal; 00*4 is four times 00, u"x":8 is text in UTF-16LE filled with
// spaces to 8 bytes.
func dialogue(t *testing.T, name string) []step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.True(t, strings.HasPrefix(lines[0], "# source: "), "line 1 names the source")
	require.NotEmpty(t, lines[1:])
	var steps []step
	for _, l := range lines[1:] {
		require.Greater(t, len(l), 2)
		s := step{mark: l[0], text: l[2:]}
		if s.mark == '>' || s.mark == '<' {
			for word := range strings.FieldsSeq(s.text) {
				s.data = append(s.data, wordBytes(t, word)...)
			}
		}
		steps = append(steps, s)
	}
	return steps
}

func wordBytes(t *testing.T, word string) []byte {
	t.Helper()
	if text, ok := strings.CutPrefix(word, `u"`); ok {
		text, size, ok := strings.Cut(text, `":`)
		require.True(t, ok, word)
		n, err := strconv.Atoi(size)
		require.NoError(t, err)
		b := bytes.Repeat([]byte{' ', 0}, n/2)
		for i, unit := range utf16.Encode([]rune(text)) {
			binary.LittleEndian.PutUint16(b[2*i:], unit)
		}
		return b
	}
	digits, times, repeated := strings.Cut(word, "*")
	b, err := hex.DecodeString(digits)
	require.NoError(t, err, word)
	if repeated {
		n, err := strconv.Atoi(times)
		require.NoError(t, err)
		b = bytes.Repeat(b, n)
	}
	return b
}

// cards are the holders of the dialogues. The person number of the citizen is a
// sample printed in GB 11643-1999; the rest is invented.
var cards = map[string]*simulator.IDCard{
	"citizen":    {Name: "王小明", Number: "11010519491231002X", Born: "19491231", Until: "20400101"},
	"resident":   {Kind: simulator.IDResident, Name: "陈小文", Number: "810000194912310028", Born: "19491231", Until: "20300101"},
	"foreigner":  {Kind: simulator.IDForeigner2017, English: "DOE,JOHN", Number: "ZZZ990019900101", Born: "19900101", Until: "20300101"},
	"foreigner3": {Kind: simulator.IDForeigner2023, Name: "安娜", English: "DOE,ANNA", Number: "911990199001010017", Born: "19900101", Until: "20300101"},
}

// device is the twin of a dialogue and what a person can do to it.
type device struct {
	kind serial.Kind
	twin simulator.SerialTwin
	act  func(verb, object string)
	want []string // what the taps show, in order, by show
	only bool     // the driver does not speak this dialogue
}

func uidDevice(t *testing.T, kind serial.Kind, frame func([]byte) []byte, want string) device {
	r := &simulator.UIDReader{Frame: frame}
	return device{kind: kind, twin: r, want: []string{want}, act: func(_, object string) {
		b, err := hex.DecodeString(object)
		require.NoError(t, err)
		r.Hold(b)
	}}
}

func moduleDevice(want ...string) device {
	m := &simulator.IDCardModule{}
	for _, c := range cards {
		c.Photo = bytes.Repeat([]byte("WLT\x00"), 256)
	}
	return device{kind: serial.KindIDCard, twin: m, want: want, only: want == nil, act: func(_, object string) { m.Place(cards[object]) }}
}

func devices(t *testing.T) map[string]device {
	scanner := &simulator.GM65{End: "\r"}
	return map[string]device{
		"spec-idcard-citizen.txt":        moduleDevice("11010519491231002X 王小明 2040-01-01"),
		"spec-idcard-resident.txt":       moduleDevice("810000194912310028 陈小文 2030-01-01"),
		"spec-idcard-foreigner-2017.txt": moduleDevice("ZZZ990019900101 DOE,JOHN 2030-01-01"),
		"spec-idcard-foreigner-2023.txt": moduleDevice("911990199001010017 安娜 2030-01-01"),
		"spec-idcard-module.txt":         moduleDevice(),
		"spec-gm65.txt":                  {kind: serial.KindGM65, twin: scanner, want: []string{"1234567890ABCDEF"}, act: func(_, code string) { scanner.Show(code) }},
		"spec-gm65-commands.txt":         {kind: serial.KindGM65, twin: &simulator.GM65{}, only: true},
		"spec-em4100.txt":                uidDevice(t, serial.KindEM4100, simulator.EM4100Frame, "00508931"),
		"spec-dual.txt":                  uidDevice(t, serial.KindDual, simulator.DualFrame, "042E5382"),
		"spec-wiegand26.txt":             uidDevice(t, serial.KindWiegand26, simulator.WiegandFrame, "3D12D6"),
	}
}

func TestEveryDialogueIsPlayed(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	known := devices(t)
	assert.Len(t, files, len(known))
	for _, f := range files {
		assert.Contains(t, known, filepath.Base(f))
	}
}

// The twins first: else the tests of the driver against them would prove only
// that one hand wrote both.
func TestTwinsSpeakThePublishedDialogues(t *testing.T) {
	for name, dev := range devices(t) {
		t.Run(name, func(t *testing.T) {
			w := newWire()
			ctx, cancel := context.WithCancel(t.Context())
			var serving sync.WaitGroup
			serving.Go(func() { dev.twin.Serve(ctx, end{w}) })
			defer serving.Wait()
			defer w.unplug()
			defer cancel()
			for i, s := range dialogue(t, name) {
				switch s.mark {
				case '>':
					w.toDevice <- s.data
				case '<':
					got := make([]byte, len(s.data))
					w.timeout = patience
					_, err := io.ReadFull(w, got)
					require.NoError(t, err)
					require.Equal(t, hex.EncodeToString(s.data), hex.EncodeToString(got), "line %d", i+2)
				case '!':
					verb, object, _ := strings.Cut(s.text, " ")
					dev.act(verb, object)
				case '=':
				default:
					t.Fatalf("line %d: %q", i+2, s.mark)
				}
			}
		})
	}
}

// scripted plays the device of a dialogue: it wants each command and gives what
// follows it.
type scripted struct {
	t     *testing.T
	steps []step
	done  chan struct{} // closed when every line was used
}

func (d *scripted) Serve(ctx context.Context, line io.ReadWriter) {
	<-line.(end).opened // else a one-way device speaks to nobody
	var got []byte
	buf := make([]byte, 256)
	for i, s := range d.steps {
		switch s.mark {
		case '>':
			for len(got) < len(s.data) {
				n, err := line.Read(buf)
				if err != nil {
					return
				}
				got = append(got, buf[:n]...)
			}
			if !assert.Equal(d.t, hex.EncodeToString(s.data), hex.EncodeToString(got[:len(s.data)]), "line %d", i+2) {
				return
			}
			got = got[len(s.data):]
		case '<':
			if _, err := line.Write(s.data); err != nil {
				return
			}
		}
	}
	close(d.done)
	<-ctx.Done()
}

func TestDriverSpeaksThePublishedDialogues(t *testing.T) {
	for name, dev := range devices(t) {
		if dev.only {
			continue
		}
		t.Run(name, func(t *testing.T) {
			player := &scripted{t: t, steps: dialogue(t, name), done: make(chan struct{})}
			s, _ := inMemory(t, serial.Config{Kind: dev.kind}, player)
			for _, want := range dev.want {
				assert.Equal(t, want, show(s.card()))
			}
			select {
			case <-player.done:
			case <-time.After(patience):
				assert.Fail(t, "lines not used")
			}
		})
	}
}

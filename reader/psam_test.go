package reader_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/reader"
	"rollcall/simulator"
)

// issued gives a holder's card with keys of the test PSAM.
func issued(h simulator.Holder) *simulator.Card {
	return simulator.NewPSAM().Issue(simulator.NewCard(h))
}

func version(v string) simulator.Holder {
	h := published
	h.Spec = v
	return h
}

func newPSAM(t testing.TB, module *simulator.PSAM) *reader.PSAM {
	t.Helper()
	psam, err := reader.NewPSAM(module, module.Config())
	require.NoError(t, err)
	return psam
}

// readWith reads a card with a PSAM and gives what kept its level from being
// higher.
func readWith(t testing.TB, psam *reader.PSAM, c *simulator.Card) (attendance.Credential, error) {
	t.Helper()
	card := reader.NewCard(c)
	card.PSAM, card.ATR = psam, c.ATR()
	cred, err := card.Read(t.Context(), reader.SocialSecurityCard())
	require.NoError(t, err)
	return cred, card.Doubt()
}

func TestLevelsAreEarned(t *testing.T) {
	contactless := func(c *simulator.Card) *simulator.Card { c.Contactless = true; return c }
	cipher := func(b byte, c *simulator.Card) *simulator.Card { c.Algorithm = b; return c }
	onlyOpen := func(c *reader.PSAMConfig) { c.Prove = reader.KeyPair{} }
	onlyProve := func(c *reader.PSAMConfig) { c.Open = reader.KeyPair{} }
	for name, c := range map[string]struct {
		card    *simulator.Card
		psam    simulator.PSAMFaults
		config  func(*reader.PSAMConfig)
		level   attendance.CardLevel
		partial bool
		doubt   error
	}{
		"3.00":                            {card: issued(version("3.00")), level: attendance.LevelAuthenticated},
		"3.00 contactless":                {card: contactless(issued(version("3.00"))), level: attendance.LevelAuthenticated},
		"3.00, cipher named 3DES":         {card: cipher(1, issued(version("3.00"))), level: attendance.LevelAuthenticated},
		"3.00, key to open only":          {card: issued(version("3.00")), config: onlyOpen, level: attendance.LevelOpened},
		"3.00, key to prove only":         {card: issued(version("3.00")), config: onlyProve, level: attendance.LevelAuthenticated, partial: true},
		"3.00, SSF33":                     {card: cipher(2, issued(version("3.00"))), level: attendance.LevelFile, partial: true, doubt: reader.ErrAlgorithm},
		"3.00, SM4":                       {card: cipher(3, issued(version("3.00"))), level: attendance.LevelFile, partial: true, doubt: reader.ErrAlgorithm},
		"3.00 of another issuer":          {card: simulator.NewCard(version("3.00")), level: attendance.LevelFile, partial: true, doubt: reader.ErrNotOpened},
		"PSAM of another issuer":          {card: issued(version("3.00")), psam: simulator.PSAMFaults{WrongKeys: true}, level: attendance.LevelFile, partial: true, doubt: reader.ErrNotOpened},
		"PSAM without these keys":         {card: issued(version("3.00")), psam: simulator.PSAMFaults{NoKeys: true}, level: attendance.LevelFile, partial: true, doubt: reader.ErrPSAMFailed},
		"PSAM out of its slot":            {card: issued(version("3.00")), psam: simulator.PSAMFaults{Gone: true}, level: attendance.LevelFile, partial: true, doubt: reader.ErrPSAMFailed},
		"2.00 with keys":                  {card: issued(version("2.00")), level: attendance.LevelAuthenticated},
		"2.00 with keys, key to open":     {card: issued(version("2.00")), config: onlyOpen, level: attendance.LevelFile},
		"1.00 without keys":               {card: simulator.NewCard(version("1.00")), level: attendance.LevelFile, doubt: reader.ErrNotProved},
		"copy":                            {card: with(simulator.NewCard(version("3.00")), simulator.CardFaults{Copied: true}), level: attendance.LevelFile, doubt: reader.ErrNotOpened},
		"card that says yes":              {card: with(simulator.NewCard(version("3.00")), simulator.CardFaults{SaysYes: true}), level: attendance.LevelOpened, doubt: reader.ErrNotProved},
		"holder's file closed for ever":   {card: with(issued(version("3.00")), simulator.CardFaults{RefuseHolder: true}), level: attendance.LevelFile, partial: true, doubt: reader.ErrNotOpened},
		"answer to reset empty":           {card: with(issued(version("3.00")), simulator.CardFaults{ATR: []byte{}}), level: attendance.LevelFile, partial: true, doubt: reader.ErrBadFormat},
		"answer to reset of another form": {card: with(issued(version("3.00")), simulator.CardFaults{ATR: must("3B00")}), level: attendance.LevelFile, partial: true, doubt: reader.ErrBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			module := simulator.NewPSAM()
			module.Faults = c.psam
			config := module.Config()
			if c.config != nil {
				c.config(&config)
			}
			psam, err := reader.NewPSAM(module, config)
			require.NoError(t, err)
			cred, doubt := readWith(t, psam, c.card)
			assert.Equal(t, c.level, cred.Level)
			assert.Equal(t, c.partial, cred.Partial())
			assert.False(t, cred.Ident.IsZero())
			assert.ErrorIs(t, doubt, c.doubt)
			assert.Equal(t, c.doubt == reader.ErrPSAMFailed, psam.Err() != nil)
		})
	}
}

// T1: 1,000 of 1,000 copies come out as what they are.
func TestT1CopiesNeverAuthenticate(t *testing.T) {
	psam := newPSAM(t, simulator.NewPSAM())
	for n := range 1000 {
		h := simulator.InventHolder(n)
		h.Spec = "3.00"
		copied, _ := readWith(t, psam, with(simulator.NewCard(h), simulator.CardFaults{Copied: true}))
		require.Equal(t, attendance.LevelFile, copied.Level)
		yes, _ := readWith(t, psam, with(simulator.NewCard(h), simulator.CardFaults{SaysYes: true}))
		require.Equal(t, attendance.LevelOpened, yes.Level)
	}
	good, doubt := readWith(t, psam, issued(version("3.00")))
	require.NoError(t, doubt)
	require.Equal(t, attendance.LevelAuthenticated, good.Level)
}

// T1: a card that plays back what a good one once answered is asked something
// else.
func TestT1ReplayNeverAuthenticates(t *testing.T) {
	psam := newPSAM(t, simulator.NewPSAM())
	var answers [][]byte
	good := issued(version("3.00"))
	good.Faults.Twist = func(command, answer []byte) []byte {
		answers = append(answers, slices.Clone(answer))
		return answer
	}
	cred, doubt := readWith(t, psam, good)
	require.NoError(t, doubt)
	require.Equal(t, attendance.LevelAuthenticated, cred.Level)

	replay := simulator.NewCard(version("3.00"))
	replay.Faults.Twist = func(_, _ []byte) []byte {
		answer := answers[0]
		answers = answers[1:]
		return answer
	}
	cred, doubt = readWith(t, psam, replay)
	assert.Equal(t, attendance.LevelOpened, cred.Level)
	assert.ErrorIs(t, doubt, reader.ErrNotProved)
}

// T1: a card that hands our own values back, or what the PSAM computed for it
// before, has answered nothing.
func TestT1CardThatReflectsNeverAuthenticates(t *testing.T) {
	for name, answer := range map[string]func(external, internal []byte) []byte{
		"its factor":                    func(_, internal []byte) []byte { return internal[5:13] },
		"its data":                      func(_, internal []byte) []byte { return internal[13:21] },
		"the cryptogram that opened it": func(external, _ []byte) []byte { return external[5:13] },
	} {
		t.Run(name, func(t *testing.T) {
			card := issued(version("3.00"))
			card.Contactless = true
			var external []byte
			card.Faults.Twist = func(command, good []byte) []byte {
				switch command[1] {
				case 0x82:
					external = slices.Clone(command)
				case 0x88:
					return append(slices.Clone(answer(external, command)), 0x90, 0x00)
				}
				return good
			}
			cred, doubt := readWith(t, newPSAM(t, simulator.NewPSAM()), card)
			assert.Equal(t, attendance.LevelOpened, cred.Level)
			assert.ErrorIs(t, doubt, reader.ErrNotProved)
		})
	}
}

// A wrong key uses up tries of people's cards, so it is not tried on many.
func TestWrongKeysLockNoCards(t *testing.T) {
	module := simulator.NewPSAM()
	module.Faults.WrongKeys = true
	psam := newPSAM(t, module)
	externals := 0
	for n := range 10 {
		card := issued(version("3.00"))
		card.Faults.Twist = func(command, answer []byte) []byte {
			if command[1] == 0x82 {
				externals++
			}
			return answer
		}
		cred, doubt := readWith(t, psam, card)
		require.True(t, cred.Partial())
		require.Error(t, doubt)
		require.Equal(t, n >= 2, psam.Err() != nil, "card %d", n)
	}
	assert.Equal(t, 3, externals)
	assert.ErrorIs(t, psam.Err(), reader.ErrPSAMAside)
}

// One card costs one try at most, however often it is read.
func TestCardThatRefusedIsNotTriedAgain(t *testing.T) {
	module := simulator.NewPSAM()
	module.Faults.WrongKeys = true
	c := issued(version("3.00"))
	rec := &recorder{card: c}
	card := reader.NewCard(rec)
	card.PSAM, card.ATR = newPSAM(t, module), c.ATR()
	for range 3 {
		_, err := card.Read(t.Context(), reader.SocialSecurityCard())
		require.NoError(t, err)
		require.ErrorIs(t, card.Doubt(), reader.ErrNotOpened)
	}
	externals := slices.DeleteFunc(rec.commands, func(c []byte) bool { return c[1] != 0x82 })
	assert.Len(t, externals, 1)
}

func TestPSAMAfterLosingPower(t *testing.T) {
	module := simulator.NewPSAM()
	psam := newPSAM(t, module)
	for range 3 {
		cred, doubt := readWith(t, psam, issued(version("3.00")))
		require.NoError(t, doubt)
		require.Equal(t, attendance.LevelAuthenticated, cred.Level)
		module.PowerOff()
	}
	assert.NoError(t, psam.Err())
}

func TestPSAMServesReadersInTurn(t *testing.T) {
	psam := newPSAM(t, simulator.NewPSAM())
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 20 {
				cred, doubt := readWith(t, psam, issued(version("3.00")))
				assert.NoError(t, doubt)
				assert.Equal(t, attendance.LevelAuthenticated, cred.Level)
			}
		})
	}
	readers.Wait()
}

// Whatever the PSAM answers, the card gives what it gives without one.
func TestBadPSAMAnswers(t *testing.T) {
	for name, answer := range map[string][]byte{
		"nothing": {}, "one byte": {0x90}, "status only": {0x90, 0x00}, "noise": must("0102039000"), "61xx for ever": must("6108"),
		"6Cxx for ever": must("6C08"), "6A88": must("6A88"), "6985": must("6985"), "long": make([]byte, 65538),
	} {
		for _, ins := range []byte{0xA4, 0xDE, 0xFA, 0xC0} {
			t.Run(name, func(t *testing.T) {
				module := simulator.NewPSAM()
				sent := 0
				module.Faults.Twist = func(command, good []byte) []byte {
					sent++
					if command[1] == ins {
						return answer
					}
					return good
				}
				psam := newPSAM(t, module)
				cred, doubt := readWith(t, psam, issued(version("3.00")))
				assert.LessOrEqual(t, sent, 24)
				assert.Equal(t, doubt == nil, cred.Level == attendance.LevelAuthenticated, "a level below gives its reason")
				if ins == 0xC0 { // the cryptogram itself; the others may say 9000 and mean it
					assert.Error(t, doubt)
				}
			})
		}
	}
}

func TestBadPSAMConfigs(t *testing.T) {
	good := simulator.NewPSAM().Config()
	for name, c := range map[string]struct {
		edit func(*reader.PSAMConfig)
		says string
	}{
		"no keys":       {func(c *reader.PSAMConfig) { *c = reader.PSAMConfig{} }, "neither key"},
		"aid short":     {func(c *reader.PSAMConfig) { c.AID = reader.Hex{1} }, "aid"},
		"three factors": {func(c *reader.PSAMConfig) { c.Open.Usage = 0x68 }, "open"},
		"no factor":     {func(c *reader.PSAMConfig) { c.Prove.Usage = 0x08 }, "prove"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			c.edit(&config)
			_, err := reader.NewPSAM(simulator.NewPSAM(), config)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

// Another program computes what card and PSAM compute: OpenSSL, now and when
// the vectors were written.
func TestCryptogramsAreThoseOfOpenSSL(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors-psam.txt")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	require.NotEmpty(t, lines)
	config := simulator.NewPSAM().Config()
	pairs := map[string]reader.KeyPair{"open": config.Open, "prove": config.Prove}
	for _, l := range lines {
		f := strings.Fields(l)
		require.Len(t, f, 7)
		pair := pairs[f[0]]
		root, region, card, process, data := must(f[1]), must(f[2]), must(f[3]), must(f[4]), must(f[5])
		key := derived(t, derived(t, derived(t, root, region), card), process)
		assert.Equal(t, f[6], hexadecimal(openssl(t, key, data)), "written down")

		module := simulator.NewPSAM()
		for _, command := range []string{
			"00A4040006D15600000590",
			"BFDE" + hexadecimal([]byte{pair.Usage, pair.ID, 24}) + f[3] + f[2] + f[4],
			"80FA000008" + f[5],
		} {
			_, err := module.Transmit(must(command))
			require.NoError(t, err)
		}
		answer, err := module.Transmit(must("00C0000008"))
		require.NoError(t, err)
		assert.Equal(t, f[6]+"9000", hexadecimal(answer), "PSAM")

		c := issued(version("3.00"))
		c.Contactless = true
		_, err = c.Transmit(selectSSSE)
		require.NoError(t, err)
		answer, err = c.Transmit(slices.Concat([]byte{0x00, 0x88, 0x00, pair.Card, 0x10}, process, data))
		require.NoError(t, err)
		assert.Equal(t, f[6]+"9000", hexadecimal(answer), "card")
	}
}

func derived(t *testing.T, key, factor []byte) []byte {
	inverted := slices.Clone(factor)
	for i := range inverted {
		inverted[i] ^= 0xFF
	}
	return slices.Concat(openssl(t, key, factor), openssl(t, key, inverted))
}

func openssl(t *testing.T, key, block []byte) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", "enc", "-des-ede", "-nopad", "-nosalt", "-K", hexadecimal(key))
	cmd.Stdin = bytes.NewReader(block)
	out, err := cmd.Output()
	require.NoError(t, err, "run make setup-test")
	require.Len(t, out, 8)
	return out
}

func hexadecimal(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// No text that leaves a reading has anything of the card in it.
func TestCanaryNoCardDataInDoubts(t *testing.T) {
	for _, module := range []simulator.PSAMFaults{{}, {WrongKeys: true}, {NoKeys: true}, {Gone: true}} {
		for _, card := range []*simulator.Card{
			issued(version("3.00")), simulator.NewCard(version("3.00")), with(simulator.NewCard(version("3.00")), simulator.CardFaults{SaysYes: true}),
			with(issued(version("3.00")), simulator.CardFaults{ATR: []byte(published.PersonNo)}), sm4Card(),
		} {
			m := simulator.NewPSAM()
			m.Faults = module
			psam := newPSAM(t, m)
			_, doubt := readWith(t, psam, card)
			for _, err := range []error{doubt, psam.Err()} {
				if err != nil {
					noCardData(t, err.Error())
				}
			}
		}
	}
}

package simulator_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/simulator"
)

// What a card says to commands that no published dialogue has. Each case is a
// fresh card; commands and answers in hexadecimal, by turns.
func TestCardKeepsToItsStandard(t *testing.T) {
	const selectSSSE = "00A404000F7378312E73682EC9E7BBE1B1A3D5CF"
	for name, c := range map[string][]string{
		"file before the application":       {"00A4020002EF05", "6A82"},
		"record before the application":     {"00B2012812", "6A82"},
		"record without a file":             {selectSSSE, "6118", "00B2010012", "6986"},
		"another application":               {"00A40400053150415921", "6A82"},
		"GET RESPONSE with nothing to give": {selectSSSE, "6118", "00A4020002EF05", "9000", "00C0000018", "6985"},
		"no such record":                    {selectSSSE, "6118", "00B2112812", "6A83"},
		"no such file":                      {selectSSSE, "6118", "00A4020002EF07", "6A82"},
		"a PIN":                             {selectSSSE, "6118", "0020000003123456", "6D00"},
		"another class":                     {"80B2012812", "6E00"},
		"cut command":                       {"00A404000F73", "6700"},
		"no command":                        {"00", "6700"},
	} {
		t.Run(name, func(t *testing.T) {
			card := simulator.NewCard(simulator.InventHolder(1))
			for i := 0; i < len(c); i += 2 {
				command, err := hex.DecodeString(c[i])
				require.NoError(t, err)
				answer, err := card.Transmit(command)
				require.NoError(t, err)
				assert.Equal(t, c[i+1], fmt.Sprintf("%X", answer[len(answer)-2:]), "command %s", c[i])
			}
		})
	}
}

func TestCardForgetsWithoutPower(t *testing.T) {
	card := simulator.NewCard(simulator.InventHolder(1))
	_, err := card.Transmit([]byte("\x00\xA4\x04\x00\x0Fsx1.sh.\xC9\xE7\xBB\xE1\xB1\xA3\xD5\xCF"))
	require.NoError(t, err)
	readIdent := []byte{0x00, 0xB2, 0x01, 0x28, 0x12}
	answer, err := card.Transmit(readIdent)
	require.NoError(t, err)
	require.Len(t, answer, 20)

	card.PowerOff()
	answer, err = card.Transmit(readIdent)
	require.NoError(t, err)
	assert.Equal(t, []byte{0x6A, 0x82}, answer)
}

package attendance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const commandHead = `{"v":1,"tenant":"demo","terminal":"t-1","serial":7,"issued":"2026-11-22T08:00:00Z","expires":"2026-11-23T08:00:00Z",`

func TestParseCommand(t *testing.T) {
	const correct = `"kind":"correct","correct":{"log":"t-1/aa","seq":4,"hash":"h","decision":"void","operator":"op-1","reason":"tapped for another"}`
	for _, tc := range []struct {
		name, rest string
		want       CommandReason // "" if it is taken
	}{
		{"resend", `"kind":"resend","resend":{"log":"t-1/aa","seq":0}}`, ""},
		{"erase", `"kind":"erase","erase":{"trainee":"T1","reason":"consent"}}`, ""},
		{"rotate", `"kind":"rotate_key"}`, ""},
		{"correct", correct + `}`, ""},
		{"a kind of the future", `"kind":"reboot"}`, CommandUnknown},
		{"no kind", `"resend":{"log":"a","seq":1}}`, CommandUnknown},
		{"argument missing", `"kind":"erase"}`, CommandArgument},
		{"argument of another kind", `"kind":"rotate_key","erase":{"trainee":"T1","reason":"centre"}}`, CommandArgument},
		{"two arguments", correct + `,"erase":{"trainee":"T1","reason":"centre"}}`, CommandArgument},
		{"an unknown name", `"kind":"rotate_key","also":1}`, CommandArgument},
		{"an unknown name inside", `"kind":"erase","erase":{"trainee":"T1","reason":"centre","all":true}}`, CommandArgument},
		{"no trainee", `"kind":"erase","erase":{"trainee":"","reason":"centre"}}`, CommandArgument},
		{"a reason that the centre does not have", `"kind":"erase","erase":{"trainee":"T1","reason":"operator"}}`, CommandArgument},
		{"no reason", strings.Replace(correct, "tapped for another", "", 1) + `}`, CommandArgument},
		{"a long reason", strings.Replace(correct, "tapped for another", strings.Repeat("长", 201), 1) + `}`, CommandArgument},
		{"a decision that is none", strings.Replace(correct, "void", "duplicate", 1) + `}`, CommandArgument},
		{"no log", `"kind":"resend","resend":{"log":"","seq":1}}`, CommandArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := ParseCommand([]byte(commandHead + tc.rest))
			assert.Equal(t, tc.want, reasonOf(err))
			assert.Equal(t, uint64(7), c.Serial, "it can be answered")
		})
	}
	for name, text := range map[string]string{
		"nothing": ``, "no object": `[]`, "cut": commandHead, "no serial": `{"v":1,"tenant":"demo","terminal":"t-1"}`,
		"no address": `{"v":1,"serial":3,"kind":"rotate_key"}`, "serial below": `{"v":1,"tenant":"demo","terminal":"t-1","serial":-3}`,
	} {
		_, err := ParseCommand([]byte(text))
		assert.Equal(t, CommandMalformed, reasonOf(err), name)
	}
	c, err := ParseCommand([]byte(`{"v":2,"tenant":"demo","terminal":"t-1","serial":9,"do":{"what":"is","new":true}}`))
	assert.Equal(t, CommandVersion, reasonOf(err), "an unknown version is told from rubbish")
	assert.Equal(t, uint64(9), c.Serial)
}

// reasonOf gives the reason of a refusal; "" of nil, and of an error that is
// none.
func reasonOf(err error) CommandReason {
	if err == nil {
		return ""
	}
	if refused, ok := err.(*CommandError); ok {
		return refused.Reason
	}
	return "not a CommandError"
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte(commandHead + `"kind":"rotate_key"}`))
	f.Add([]byte(commandHead + `"kind":"erase","erase":{"trainee":"T1","reason":"centre"}}`))
	f.Add([]byte(`{"v":2,"tenant":"demo","terminal":"t-1","serial":9}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := ParseCommand(payload)
		if err != nil {
			require.ErrorIs(t, err, ErrCommand)
			return
		}
		text, err := json.Marshal(c)
		require.NoError(t, err)
		again, err := ParseCommand(text)
		require.NoError(t, err)
		require.Equal(t, c.Serial, again.Serial)
		require.Equal(t, c.Kind, again.Kind)
	})
}

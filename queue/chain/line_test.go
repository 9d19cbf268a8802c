package chain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

const good = `{"v":1,"log":"t-1/aaaa","seq":1,"prev":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",` +
	`"at":{"wall":"2026-11-21T08:30:00.000+08:00","boot":"b","up_ms":0,"clock":"synced"},"type":"checkin","body":{"a":1}}`

// manyNames is an object of more names than are compared one with another; its
// end is missing.
var manyNames = func() string {
	text := `{"n0":0`
	for n := 1; n < 40; n++ {
		text += fmt.Sprintf(`,"n%d":%d`, n, n)
	}
	return text
}()

func TestParseLineTakesOneFormOnly(t *testing.T) {
	e, err := chain.ParseLine([]byte(good))
	require.NoError(t, err)
	assert.Equal(t, chain.Seq(1), e.Seq)
	again, err := e.Line()
	require.NoError(t, err)
	assert.Equal(t, good, string(again))

	for name, change := range map[string][2]string{
		"version 2":                        {`"v":1`, `"v":2`},
		"no version":                       {`"v":1,`, ``},
		"a name twice":                     {`"seq":1,`, `"seq":1,"seq":1,`},
		"other key order":                  {`"v":1,"log":"t-1/aaaa"`, `"log":"t-1/aaaa","v":1`},
		"a space":                          {`"seq":1`, `"seq": 1`},
		"a space at the end":               {`{"a":1}}`, `{"a":1}} `},
		"a newline":                        {`{"a":1}}`, "{\"a\":1}}\n"},
		"an unknown name":                  {`"seq":1,`, `"seq":1,"more":1,`},
		"a name in capitals":               {`"seq"`, `"Seq"`},
		"an escaped name":                  {`"seq"`, `"\u0073eq"`},
		"seq 0":                            {`"seq":1`, `"seq":0`},
		"seq as a fraction":                {`"seq":1`, `"seq":1.0`},
		"seq with an exponent":             {`"seq":1`, `"seq":1e0`},
		"seq below 0":                      {`"seq":1`, `"seq":-1`},
		"seq beyond 64 bits":               {`"seq":1`, `"seq":18446744073709551617`},
		"hash too short":                   {`"prev":"AAAA`, `"prev":"`},
		"hash too long":                    {`"prev":"A`, `"prev":"AAAAA`},
		"hash with padding":                {`AAA",`, `AAA=",`},
		"hash with stray bits":             {`AAA","at"`, `AAB","at"`},
		"hash with a line end":             {`"prev":"A`, `"prev":"\nA`},
		"log without epoch":                {`t-1/aaaa`, `t-1`},
		"log with two slashes":             {`t-1/aaaa`, `t-1/a/a`},
		"log with a plus":                  {`t-1/aaaa`, `t+1/aaaa`},
		"no log":                           {`t-1/aaaa`, ``},
		"time without zone":                {`.000+08:00`, `.000`},
		"time to the microsecond":          {`.000+08:00`, `.000000+08:00`},
		"time to the second":               {`.000+08:00`, `+08:00`},
		"UTC in its other form":            {`.000+08:00`, `.000+00:00`},
		"unknown clock error given as 0":   {`"clock":"synced"`, `"clock":"synced","err_ms":0`},
		"no type":                          {`"checkin"`, `""`},
		"body that is a list":              {`{"a":1}`, `[1]`},
		"body that is null":                {`{"a":1}`, `null`},
		"body that is missing":             {`,"body":{"a":1}`, ``},
		"ack that is null":                 {`{"a":1}}`, `{"a":1},"ack":null}`},
		"body with a space":                {`{"a":1}`, `{"a": 1}`},
		"body with a name twice":           {`{"a":1}`, `{"a":1,"a":1}`},
		"a name twice below a list":        {`{"a":1}`, `{"a":[{"b":1,"b":2}]}`},
		"a name twice, once escaped":       {`{"a":1}`, `{"a":1,"\u0061":2}`},
		"body with a name in capitals":     {`{"a":1}`, `{"A":1}`},
		"body with a name that folds":      {`{"a":1}`, `{"ſ":1}`},
		"body with an empty name":          {`{"a":1}`, `{"":1}`},
		"body with a name twice of many":   {`{"a":1}`, manyNames + `,"n7":1}`},
		"body with an escape that is none": {`{"a":1}`, `{"a":"\x"}`},
		"body with a number that is none":  {`{"a":1}`, `{"a":01}`},
		"body with a control character":    {`{"a":1}`, "{\"a\":\"\t\"}"},
		"body with a comma too many":       {`{"a":1}`, `{"a":1,}`},
		"seq with a 0 before it":           {`"seq":1`, `"seq":01`},
		"time below 0 in another form":     {`"up_ms":0`, `"up_ms":-0`},
		"invalid UTF-8 in the body":        {`{"a":1}`, "{\"a\":\"\xff\"}"},
		"invalid UTF-8 in the type":        {`checkin`, "\xff"},
		"too long":                         {`{"a":1}`, `{"a":"` + strings.Repeat("x", chain.MaxLine) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			line := strings.Replace(good, change[0], change[1], 1)
			require.NotEqual(t, good, line)
			_, err := chain.ParseLine([]byte(line))
			assert.ErrorIs(t, err, chain.ErrMalformed)
		})
	}
	for _, text := range []string{"", "{}", "null", "[]", `"x"`, good + good} {
		_, err := chain.ParseLine([]byte(text))
		assert.ErrorIs(t, err, chain.ErrMalformed, text)
	}
}

func TestParseLineKeepsTheBody(t *testing.T) {
	for _, body := range []string{
		`{}`, `{"a":1.50,"b":[{"a":1},{"a":1}],"c":{"a":null}}`, `{"text":"张*明 <&>\u2028 \/ é"}`, `{"big":123456789012345678901234567890}`, manyNames + `}`,
	} {
		e, err := chain.ParseLine([]byte(strings.Replace(good, `{"a":1}`, body, 1)))
		require.NoError(t, err, body)
		assert.Equal(t, body, string(e.Body))
	}
}

func TestLineRefusesWhatIsTooLong(t *testing.T) {
	e := chain.Entry{V: 1, Log: logA, Seq: 1, Type: "x", Body: json.RawMessage(`{"a":"` + strings.Repeat("x", chain.MaxLine) + `"}`)}
	_, err := e.Line()
	assert.ErrorIs(t, err, chain.ErrMalformed)
}

func TestHash(t *testing.T) {
	h := chain.HashLine([]byte("abc")) // FIPS 180-4, example of SHA-256
	assert.Equal(t, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0", h.String())
	assert.Equal(t, "BA78-16BF", h.Short())
	text, err := json.Marshal(h)
	require.NoError(t, err)
	var back chain.Hash
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, h, back)
}

func TestWall(t *testing.T) {
	w := chain.NewWall(time.Date(2026, 11, 21, 8, 30, 0, 123456789, time.FixedZone("", -(3*3600+30*60))))
	assert.Equal(t, "2026-11-21T08:30:00.123-03:30", w.String())
	text, err := json.Marshal(w)
	require.NoError(t, err)
	var back chain.Wall
	require.NoError(t, json.Unmarshal(text, &back))
	assert.True(t, w.Equal(back.Time))
}

func TestNames(t *testing.T) {
	for name, ok := range map[chain.TerminalID]bool{
		"t-1": true, "A": true, "": false, "t_1": false, "t/1": false, "+": false, "#": false, "终": false,
		chain.TerminalID(strings.Repeat("x", 64)): true, chain.TerminalID(strings.Repeat("x", 65)): false,
	} {
		assert.Equal(t, ok, name.Valid(), name)
	}
	assert.Equal(t, chain.TerminalID("t-1"), chain.NewLogID("t-1", "3f9c").Terminal())
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, `{"a":1}`, `{"a":[{"b":"\u0061"},[]]}`, 1)))
	f.Add([]byte(strings.Replace(good, `"synced"`, `"synced","err_ms":-4`, 1)))
	f.Add([]byte(strings.Replace(good, `{"a":1}`, `{"\u0061":1,"b":-1.5E+9,"c":{"d":[true,null]}},"ack":{"seq":0,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, 1)))
	f.Add([]byte(`{"v":1,"body":{`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := chain.ParseLine(line)
		if err != nil {
			if !errors.Is(err, chain.ErrMalformed) {
				t.Fatalf("%v does not unwrap to ErrMalformed", err)
			}
			return
		}
		again, err := e.Line()
		require.NoError(t, err)
		assert.Equal(t, string(line), string(again), "one form")
		var std chain.Entry
		require.NoError(t, json.Unmarshal(line, &std))
		assert.Equal(t, std, e, "what the standard library reads")
	})
}

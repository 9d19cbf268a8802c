package reader_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/reader"
	"rollcall/simulator"
)

func profileText(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("profiles/cn-ssc.json")
	require.NoError(t, err)
	return string(text)
}

// Each case is the good profile with one text replaced.
func TestBadProfilesAreRefused(t *testing.T) {
	good := profileText(t)
	for name, c := range map[string]struct{ old, new, says string }{
		"unknown key":          {`"select_file"`, `"select_fil"`, "select_fil"},
		"unknown key in file":  {`"may_refuse"`, `"may_refuze"`, "may_refuze"},
		"unknown key in item":  {`"len": 16`, `"length": 16`, "length"},
		"no name":              {`"cn-ssc"`, `""`, "name"},
		"aid no hexadecimal":   {`"7378`, `"73zz`, "hexadecimal"},
		"aid short":            {`7378312E73682EC9E7BBE1B1A3D5CF`, `7378`, "aid"},
		"select_file short":    {`00A40200`, `00A402`, "select_file"},
		"read_by unknown":      {`["tag", "number"]`, `["tag", "name"]`, "read_by"},
		"read_by twice":        {`["tag", "number"]`, `["tag", "tag"]`, "read_by"},
		"read_by nothing":      {`["tag", "number"]`, `[]`, "read_by"},
		"number without rec":   {`["tag", "number"]`, `["number"]`, "rec"},
		"fid short":            {`"fid": "EF05"`, `"fid": "EF"`, "fid"},
		"sfi 31":               {`"sfi": 5`, `"sfi": 31`, "sfi"},
		"file without id":      {`"id": "EF05"`, `"id": ""`, "id"},
		"tag 00":               {`"tag": "03"`, `"tag": "00"`, "tag"},
		"tag of two bytes":     {`"tag": "03"`, `"tag": "0303"`, "tag"},
		"rec 255":              {`"rec": 3`, `"rec": 255`, "rec"},
		"len 0":                {`"len": 9`, `"len": 0`, "len"},
		"len 254":              {`"len": 9`, `"len": 254`, "len"},
		"date of 3 bytes":      {`"len": 4, "enc": "date"`, `"len": 3, "enc": "date"`, "len"},
		"unknown item":         {`"card_no"`, `"card_number"`, "card_number"},
		"item twice":           {`"issued"`, `"valid_to"`, "twice"},
		"wrong encoding":       {`"name": "card_no", "len": 9, "enc": "an"`, `"name": "card_no", "len": 9, "enc": "cn"`, "enc"},
		"no card_ident":        {`"name": "card_ident", "len": 16, "enc": "cn"`, `"name": "issued", "len": 4, "enc": "date"`, "issued"},
		"text after the end":   {"  ]\n}", "  ]\n} {}", "after"},
		"negative":             {`"sfi": 5`, `"sfi": -5`, "sfi"},
		"another type":         {`"sfi": 5`, `"sfi": "5"`, "sfi"},
		"cut":                  {"  ]\n}", "", "EOF"},
		"required of a string": {`"required": true},`, `"required": "yes"},`, "required"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			require.NotEqual(t, good, bad)
			_, err := reader.ParseProfile([]byte(bad))
			assert.ErrorContains(t, err, c.says)
		})
	}
}

// A region that does it otherwise is a file and not code.
func TestProfileWithoutShortIDs(t *testing.T) {
	text := strings.NewReplacer(`"sfi": 5, `, ``, `"sfi": 6, `, ``, `["tag", "number"]`, `["tag"]`, `00A40200`, `00A40000`).Replace(profileText(t))
	p, err := reader.ParseProfile([]byte(text))
	require.NoError(t, err)
	rec := &recorder{card: simulator.NewCard(published)}
	cred, err := reader.NewCard(rec).Read(t.Context(), p)
	require.NoError(t, err)
	assert.False(t, cred.Partial())
	assert.Equal(t, must("00A4000002EF05"), rec.commands[1])
}

func FuzzProfile(f *testing.F) {
	f.Add([]byte(profileText(f)))
	f.Add([]byte(`{"name":"x","aid":"0102030405","select_file":"00A40200","read_by":["number"],"files":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := reader.ParseProfile(text)
		if err != nil {
			return
		}
		rec := &recorder{card: simulator.NewCard(published)}
		_, _ = reader.NewCard(rec).Read(t.Context(), p)
		require.LessOrEqual(t, len(rec.commands), reader.CommandBudget)
	})
}

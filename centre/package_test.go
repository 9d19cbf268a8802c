package centre_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/simplifiedchinese"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/queue/chain"
)

// The numbers are the samples printed in GB 11643-1999, and made up.
const roster = `trainee,name,ssc_ident,card_no,person_no
p-1,张小明,110000D1560000050123456789ABCDEF,A12345678,11010519491231002X
p-2,欧阳娜娜,,B12345678,
p-3,阿依古丽·买买提,,,440524188001010014
`

// planJSON is a class of two sessions on the day of the given time.
func planJSON(day time.Time, rest string) string {
	date := day.In(time.FixedZone("", 8*3600)).Format(time.DateOnly)
	return fmt.Sprintf(`{"class":{"id":"c-1","name":"中式烹调师 初级 2 班"},
"sessions":[{"id":"s-1","start":"%s 09:00","end":"%s 11:30"},
 {"id":"s-2","start":"%sT13:30:00+08:00","end":"%sT16:00:00+08:00"}]%s}`, date, date, date, date, rest)
}

// clocked is a centre whose clock stands still.
func clocked(t testing.TB, now time.Time) (*centre.Centre, *box) {
	t.Helper()
	cfg := centre.Config{Tenant: "test", Dir: filepath.Join(t.TempDir(), "centre")}
	begin(t, cfg, now)
	c, err := centre.Open(t.Context(), cfg, discard(), func() time.Time { return now })
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c, admitted(t, c, "t-1")
}

// The package that comes out is what a terminal takes in: it finds each
// trainee by each number, and holds neither number nor name.
func TestPublishedPackage(t *testing.T) {
	c, b := clocked(t, today)
	plan, err := c.ParsePlan([]byte(planJSON(today, `,"officers":[{"id":"o-1","name":"王建国"}]`)))
	require.NoError(t, err)
	plan.Trainees, err = centre.ParseRoster([]byte(roster))
	require.NoError(t, err)
	done, err := c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
	assert.Empty(t, done.Warnings)

	p := done.Package
	assert.Equal(t, uint64(today.UnixMilli()), p.Serial)
	assert.Equal(t, "test", p.Tenant)
	assert.True(t, today.Equal(p.Issued))
	assert.Equal(t, time.Date(2026, 11, 24, 16, 0, 0, 0, today.Location()).UTC(), p.Expires.UTC(), "two days after the last session")
	assert.Equal(t, attendance.Profile{ID: "generic", Version: 1, EarlyWindowMin: 30, LateGraceMin: 5,
		FaceThreshold: 0.412, FaceTries: 3, ConfirmDeadlineS: 15}, p.Profile)
	assert.Equal(t, time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), p.Sessions[0].Start.UTC(), "without a zone: Asia/Shanghai")
	assert.Equal(t, time.Date(2026, 11, 22, 5, 30, 0, 0, time.UTC), p.Sessions[1].Start.UTC())
	assert.Equal(t, []attendance.Officer{{ID: "o-1", Display: "王*国"}}, p.Officers)
	assert.Equal(t, []string{"张*明", "欧阳*娜", "阿***·买**"}, []string{p.Trainees[0].Display, p.Trainees[1].Display, p.Trainees[2].Display})

	key, err := chain.OpenLookupKey(b.sealing, "t-1", "c-1", p.LookupKey)
	require.NoError(t, err)
	assert.Equal(t, []attendance.RosterKey{
		rosterKey(key, attendance.KeyIdent, "110000D1560000050123456789ABCDEF"),
		rosterKey(key, attendance.KeyPersonNo, "11010519491231002X"),
		rosterKey(key, attendance.KeyCardNo, "A12345678"),
	}, p.Trainees[0].Keys)
	assert.Equal(t, []attendance.RosterKey{rosterKey(key, attendance.KeyCardNo, "B12345678")}, p.Trainees[1].Keys)

	text, err := json.Marshal(p)
	require.NoError(t, err)
	for _, secret := range []string{"张小明", "娜娜", "买买提", "建国", "11010519491231002X", "A12345678", "B12345678", "440524188001010014", "0123456789ABCDEF"} {
		assert.NotContains(t, string(text), secret)
	}
}

func rosterKey(key []byte, kind attendance.KeyKind, value string) attendance.RosterKey {
	h := attendance.HashNumber(key, kind, value)
	return attendance.RosterKey{Kind: kind, Hash: h[:]}
}

// Serials grow by one within a millisecond, and from the time: a centre that was put
// back from an older copy does not use those again that it has forgotten.
func TestSerialsGrowPerTerminal(t *testing.T) {
	c, b := clocked(t, today)
	other := admitted(t, c, "t-2")
	first := uint64(today.UnixMilli())
	for want := range uint64(3) {
		assert.Equal(t, first+want, publish(t, c, b, "c-1").Package.Serial)
		made, err := c.Order(t.Context(), "t-1", attendance.Command{Kind: attendance.CommandRotateKey}, 0)
		require.NoError(t, err)
		assert.Equal(t, first+want, made.Serial)
	}
	assert.Equal(t, first, publish(t, c, other, "c-1").Package.Serial)
}

func TestLookupKeysDifferByClassAndTerminal(t *testing.T) {
	c, b := clocked(t, time.Now())
	other := admitted(t, c, "t-2")
	seen := map[string]bool{}
	for _, p := range []centre.Published{publish(t, c, b, "c-1"), publish(t, c, b, "c-2"), publish(t, c, other, "c-1")} {
		seen[string(p.Package.Trainees[0].Keys[0].Hash)] = true
	}
	assert.Len(t, seen, 3, "one card gives another hash in each class and at each terminal")
}

func TestPublishWarns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		now  time.Time
		says []string
	}{
		{"nothing odd", today, nil},
		{"before the day", today.AddDate(0, 0, -1), []string{"no session is today"}},
		{"in the afternoon", today.Add(4 * time.Hour), []string{"1 of 2 sessions are over already"}},
		{"after the last", today.AddDate(0, 0, 1), []string{"2 of 2 sessions are over already", "no session is today"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := clocked(t, tt.now)
			plan, err := c.ParsePlan([]byte(planJSON(today, "")))
			require.NoError(t, err)
			plan.Trainees, err = centre.ParseRoster([]byte(roster))
			require.NoError(t, err)
			done, err := c.Publish(t.Context(), "t-1", plan)
			require.NoError(t, err)
			assert.Equal(t, tt.says, done.Warnings)
		})
	}
}

// TestAFaceAloneIsAllowedOnlyWhereTheClassSaysSo: the rule is off by default, and
// then a package does not name it, so that terminals of earlier builds take it.
func TestAFaceAloneIsAllowedOnlyWhereTheClassSaysSo(t *testing.T) {
	c, _ := clocked(t, today)
	for rest, want := range map[string]bool{"": false, `,"profile":{"identify":false}`: false, `,"profile":{"identify":true}`: true} {
		plan, err := c.ParsePlan([]byte(planJSON(today, rest)))
		require.NoError(t, err)
		assert.Equal(t, want, plan.Profile.Identify)
		text, err := json.Marshal(plan.Profile)
		require.NoError(t, err)
		assert.Equal(t, want, strings.Contains(string(text), "identify"))
	}
}

func TestPublishRefuses(t *testing.T) {
	c, _ := clocked(t, today)
	people, err := centre.ParseRoster([]byte(roster))
	require.NoError(t, err)
	for _, tt := range []struct {
		name, terminal, plan string
		is                   error
		says                 string
	}{
		{"a terminal that is not admitted", "t-9", planJSON(today, ""), centre.ErrUnknownTerminal, `"t-9"`},
		{"a class that is long over", "t-1", planJSON(today.AddDate(0, -1, 0), ""), centre.ErrClassFile, "correct the dates"},
		{"a rule that is not built", "t-1", planJSON(today, `,"profile":{"instructor_first":true}`), centre.ErrClassFile, "instructor_first"},
		{"a rule that makes no sense", "t-1", planJSON(today, `,"profile":{"face_tries":0}`), centre.ErrClassFile, "face_tries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := c.ParsePlan([]byte(tt.plan))
			require.NoError(t, err)
			plan.Trainees = people
			_, err = c.Publish(t.Context(), chain.TerminalID(tt.terminal), plan)
			require.ErrorIs(t, err, tt.is)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

// canaries are the numbers and names of the files below; no message may hold
// one.
var canaries = []string{"11010519491231002", "44052418800101001", "张小明", "欧阳", "A1234567", "0123456789ABCDEF"}

func TestRoster(t *testing.T) {
	line := func(s string) string { return "trainee,name,ssc_ident,card_no,person_no\n" + s }
	gbk := func(s string) string {
		out, err := simplifiedchinese.GB18030.NewEncoder().String(s)
		require.NoError(t, err)
		return out
	}
	for _, tt := range []struct {
		name   string
		file   string
		people int
		says   []string // of the error
	}{
		{name: "UTF-8", file: roster, people: 3},
		{name: "UTF-8 with byte order mark", file: "\ufeff" + roster, people: 3},
		{name: "GB18030", file: gbk(roster), people: 3},
		{name: "carriage returns", file: strings.ReplaceAll(roster, "\n", "\r\n"), people: 3},
		{name: "columns in Chinese, another order, some left out", file: "姓名,学员编号,卡号\n张小明,p-1,A12345678\n", people: 1},
		{name: "empty rows at the end", file: roster + ",,,,\n,,,,\n", people: 3},
		{name: "one trainee", file: line("p-1,张小明,,A12345678,\n"), people: 1},
		{name: "15-digit number", file: line("p-1,张小明,,,110105491231002\n"), people: 1},
		{name: "full-width digits and spaces", file: line("p-1,张小明,,Ａ１２３４５６７８,１１０１０５１９４９１２３１００２ｘ \n"), people: 1},
		{name: "number of a foreigner", file: line("p-1,John Smith,,,ABC123456789012345\n"), people: 1},
		{name: "empty", file: "", says: []string{"the file is empty"}},
		{name: "no trainee", file: line(""), says: []string{"there is no trainee"}},
		{name: "UTF-16", file: "\xff\xfet\x00r\x00", says: []string{"UTF-16: save it as UTF-8"}},
		{name: "neither", file: line("p-1,\xff\xff\xff,,A12345678,\n"), says: []string{"neither UTF-8 nor GB18030"}},
		{name: "unknown column", file: "trainee,name,phone\n", says: []string{"line 1: column 3"}},
		{name: "column twice", file: "trainee,name,name\n", says: []string{"line 1: column name is there twice"}},
		{name: "column missing", file: "name,card_no\n", says: []string{"line 1: column trainee is missing"}},
		{name: "too few columns", file: line("p-1,张小明\n"), says: []string{"line 2: it has more or fewer columns"}},
		{name: "open quote", file: line("p-1,\"张小明,,A12345678,\n"), says: []string{"line 2: a quote"}},
		{name: "no number", file: line("p-1,张小明,,,\n"), says: []string{"line 2: one of ssc_ident, card_no, person_no and uid"}},
		{name: "serial number of a chip", file: "trainee,name,uid\np-1,张小明,04a2b3c4\n", people: 1},
		{name: "serial number cut", file: "trainee,name,uid\np-1,张小明,04a2b3c\n", says: []string{"line 2: uid"}},
		{name: "chip twice", file: "trainee,name,uid\np-1,张小明,04A2B3C4\np-2,欧阳娜,04a2b3c4\n", says: []string{"line 3: the same uid as line 2"}},
		{name: "no name", file: line("p-1,,,A12345678,\n"), says: []string{"line 2: name"}},
		{name: "control character in a name", file: line("p-1,张小明\u0007,,A12345678,\n"), says: []string{"line 2: name"}},
		{name: "a name that never ends", file: line("p-1,a" + strings.Repeat("\u0301", 4000) + ",,A12345678,\n"), says: []string{"line 2: name"}},
		{name: "id with a blank", file: line("p 1,张小明,,A12345678,\n"), says: []string{"line 2: trainee must be"}},
		{name: "person number as id", file: line("11010519491231002X,张小明,,A12345678,\n"), says: []string{"line 2: trainee is a number"}},
		{name: "card number as id", file: line("A12345678,张小明,,A12345678,\n"), says: []string{"line 2: trainee is a number"}},
		{name: "wrong check digit", file: line("p-1,张小明,,,110105194912310021\np-2,李明,,,440524188001010014\n"), says: []string{"line 2: person_no has a wrong check digit (GB 11643)"}},
		{name: "17 digits", file: line("p-1,张小明,,,11010519491231002\n"), says: []string{"line 2: person_no must have 18 digits"}},
		{name: "rounded by a spreadsheet", file: line("p-1,张小明,,,1.10105E+17\np-2,张小明,,,110105194912310000\n"),
			says: []string{"line 2: person_no", "format the column as text", "line 3: person_no"}},
		{name: "card number too short", file: line("p-1,张小明,,A1234567,\n"), says: []string{"line 2: card_no"}},
		{name: "card identification code of another card", file: line("p-1,张小明,110000D1560000150123456789ABCDEF,,\n"), says: []string{"line 2: ssc_ident"}},
		{name: "trainee twice", file: line("p-1,张小明,,A12345678,\np-1,张小明,,B12345678,\n"), says: []string{"line 3: the same trainee as line 2"}},
		{name: "card twice", file: line("p-1,张小明,,A12345678,\np-2,欧阳娜,,a12345678,\n"), says: []string{"line 3: the same card_no as line 2"}},
		{name: "person twice, in both forms", file: line("p-1,张小明,,,11010519491231002X\np-2,张小明,,,110105491231002\n"), says: []string{"line 3: the same person_no as line 2"}},
		{name: "line numbers with quoted line ends", file: line("p-1,\"张\n小明\",,A12345678,\np-2,张小明,,,\n"), says: []string{"line 4: one of"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			people, err := centre.ParseRoster([]byte(tt.file))
			if tt.says == nil {
				require.NoError(t, err)
				assert.Len(t, people, tt.people)
				return
			}
			require.ErrorIs(t, err, centre.ErrClassFile)
			assert.Nil(t, people)
			for _, says := range tt.says {
				assert.ErrorContains(t, err, says)
			}
			for _, canary := range canaries {
				assert.NotContains(t, err.Error(), canary)
			}
		})
	}
}

func largeRoster(n int) []byte {
	var b strings.Builder
	b.WriteString("trainee,name,ssc_ident,card_no\n")
	for i := range n {
		fmt.Fprintf(&b, "p-%d,张小明,110000D156000005%016X,A%08d\n", i, i, i)
	}
	return []byte(b.String())
}

func TestRosterLimits(t *testing.T) {
	t.Parallel()
	people, err := centre.ParseRoster(largeRoster(5000))
	require.NoError(t, err)
	assert.Len(t, people, 5000)
	_, err = centre.ParseRoster(largeRoster(5001))
	assert.ErrorContains(t, err, "line 5002: more than 5000 trainees")
	_, err = centre.ParseRoster(make([]byte, 9<<20))
	assert.ErrorContains(t, err, "at most")

	c, _ := clocked(t, today)
	plan, err := c.ParsePlan([]byte(planJSON(today, "")))
	require.NoError(t, err)
	plan.Trainees = people
	done, err := c.Publish(t.Context(), "t-1", plan)
	require.NoError(t, err)
	assert.Len(t, done.Package.Trainees, 5000)
}

func TestRosterReportsAllProblemsUpToALimit(t *testing.T) {
	_, err := centre.ParseRoster([]byte("trainee,name,card_no\n" + strings.Repeat("p-1,,\n", 30)))
	require.Error(t, err)
	assert.Equal(t, 22, strings.Count(err.Error(), "\n")+1, "a heading, 20 problems, and how many more")
	assert.ErrorContains(t, err, "more")
}

func TestPlan(t *testing.T) {
	c, _ := clocked(t, today)
	one := `,"trainees":[{"trainee":"p-1","name":"张小明","card_no":"A12345678"}]`
	for _, tt := range []struct {
		name, file string
		says       []string
	}{
		{"trainees inline", planJSON(today, one), nil},
		{"roster in a file of its own", planJSON(today, `,"roster":"r.csv"`), nil},
		{"own rules", planJSON(today, `,"profile":{"id":"x","version":2,"late_grace_min":0}`), nil},
		{"no JSON", `{"class":`, []string{"ends too early"}},
		{"a comma missing", "{\n\"class\":{\"id\":\"c\" \"name\":\"x\"}}", []string{"line 2", "missing comma"}},
		{"a number where text belongs", `{"class":{"id":7}}`, []string{"line 1", "class.id"}},
		{"unknown field", `{"klass":{}}`, []string{`unknown field "klass"`}},
		{"a person's number as a field", `{"11010519491231002X":{}}`, []string{"not a class file"}},
		{"two files in one", planJSON(today, one) + "{}", []string{"follows the closing brace"}},
		{"nothing", `{}`, []string{"class.id", "class.name", "0 sessions"}},
		{"class id with a slash", strings.Replace(planJSON(today, one), "c-1", "c/1", 1), []string{"class.id"}},
		{"time that is none", strings.Replace(planJSON(today, one), "09:00", "9 am", 1), []string{"session 1: start must be a time such as"}},
		{"ends before it starts", strings.Replace(planJSON(today, one), "11:30", "08:30", 1), []string{"session 1: it ends before it starts"}},
		{"session twice", strings.Replace(planJSON(today, one), "s-2", "s-1", 1), []string{"session 2: id s-1 is there twice"}},
		{"officer without a name", planJSON(today, one+`,"officers":[{"id":"o-1"}]`), []string{"officer 1"}},
		{"trainees and roster", planJSON(today, one+`,"roster":"r.csv"`), []string{"keep one of them"}},
		{"wrong check digit", planJSON(today, `,"trainees":[{"trainee":"p-1","name":"张小明","person_no":"110105194912310021"}]`), []string{"trainee 1: person_no has a wrong check digit"}},
		{"no trainee", planJSON(today, `,"trainees":[]`), []string{"there is no trainee"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := c.ParsePlan([]byte(tt.file))
			if tt.says == nil {
				require.NoError(t, err)
				assert.Equal(t, attendance.ClassID("c-1"), plan.Class.ID)
				return
			}
			require.ErrorIs(t, err, centre.ErrClassFile)
			assert.Nil(t, plan)
			for _, says := range tt.says {
				assert.ErrorContains(t, err, says)
			}
			for _, canary := range canaries {
				assert.NotContains(t, err.Error(), canary)
			}
		})
	}
}

// The examples in the documentation are read as they stand there.
func TestClassFileDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/class-file.md")
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```")
	c, _ := clocked(t, today)
	plans, rosters := 0, 0
	for i := 1; i < len(blocks); i += 2 {
		kind, example, _ := strings.Cut(blocks[i], "\n")
		switch kind {
		case "json":
			_, err := c.ParsePlan([]byte(example))
			require.NoError(t, err)
			plans++
		case "csv":
			_, err := centre.ParseRoster([]byte(example))
			require.NoError(t, err)
			rosters++
		}
	}
	assert.Equal(t, []int{2, 2}, []int{plans, rosters})
}

func FuzzParseRoster(f *testing.F) {
	f.Add([]byte(roster))
	f.Add([]byte("\ufeff" + roster))
	f.Add([]byte("姓名,学员编号,卡号\n\"张\n小明\",p-1,A12345678\n"))
	f.Add([]byte("trainee,name\n\xc0\xee,\xc3\xf7\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		people, err := centre.ParseRoster(file)
		if err != nil {
			require.ErrorIs(t, err, centre.ErrClassFile)
			require.Less(t, len(err.Error()), 8000)
			return
		}
		for _, p := range people {
			assert.NotEmpty(t, p.ID)
			assert.False(t, p.Ident.IsZero() && p.CardNo.IsZero() && p.PersonNo.IsZero())
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	c, _ := clocked(f, today)
	f.Add([]byte(planJSON(today, `,"trainees":[{"trainee":"p-1","name":"张小明","card_no":"A12345678"}]`)))
	f.Add([]byte(planJSON(today, `,"roster":"r.csv","expires":"2027-01-01 00:00","officers":[{"id":"o","name":"王建国"}]`)))
	f.Add([]byte(`{"profile":{"face_threshold":1e308}}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		plan, err := c.ParsePlan(file)
		if err != nil {
			require.ErrorIs(t, err, centre.ErrClassFile)
			return
		}
		assert.NotEmpty(t, plan.Class.ID)
		assert.NotEmpty(t, plan.Sessions)
	})
}

package attendance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPersonalValuesRedactThemselves(t *testing.T) {
	const canary = "CANARY7391"
	tap := Tap{Kind: CardRead, Reader: "reader", Credential: Credential{
		Ident: NewCardIdent(canary), CardNo: NewCardNo(canary), PersonNo: NewPersonNo(canary), Name: NewPersonName(canary),
		UID: NewUID(canary), Code: NewCodeText(canary), Photo: NewPersonPhoto([]byte(canary)),
	}}
	var out bytes.Buffer
	for _, v := range []any{tap, &tap, tap.Credential, tap.Credential.Name, tap.Credential.PersonNo, []Tap{tap}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		require.NoError(t, json.NewEncoder(&out).Encode(v))
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	assert.NotContains(t, out.String(), canary)
	assert.NotContains(t, out.String(), fmt.Sprintf("%x", canary))
	assert.Equal(t, canary, tap.Credential.Name.Reveal(), "control: the value is there")
}

func TestDecide(t *testing.T) {
	session := Session{ID: "s-1", Start: at("09:00:00"), End: at("11:30:00")}
	profile := Profile{LateGraceMin: 5}
	matched := &FaceEvidence{Level: FaceMatch}
	for _, tc := range []struct {
		name   string
		ev     Evidence
		tapped string
		want   Decision
	}{
		{"on the minute", Evidence{OnRoster: true, Open: true, Face: matched}, "09:00:00", Decision{Outcome: OnTime}},
		{"early", Evidence{OnRoster: true, Open: true, Face: matched}, "08:31:00", Decision{Outcome: OnTime}},
		{"last second of grace", Evidence{OnRoster: true, Open: true, Face: matched}, "09:05:00", Decision{Outcome: OnTime}},
		{"first second after grace", Evidence{OnRoster: true, Open: true, Face: matched}, "09:05:01", Decision{Outcome: Late, LateMin: 5}},
		{"late", Evidence{OnRoster: true, Open: true, Face: matched}, "09:12:59", Decision{Outcome: Late, LateMin: 12}},
		{"not on roster", Evidence{Open: true, Face: matched}, "09:00:00", Decision{Outcome: NotOnRoster}},
		{"no session", Evidence{OnRoster: true, Face: matched}, "09:00:00", Decision{Outcome: NoSession}},
		{"already, and no face asked for", Evidence{OnRoster: true, Open: true, First: &FirstCheckin{Seq: 7}}, "09:30:00", Decision{Outcome: Duplicate}},
		{"no face check yet", Evidence{OnRoster: true, Open: true}, "09:00:00", Decision{Outcome: Unconfirmed}},
		{"no match is never on time", Evidence{OnRoster: true, Open: true, Face: &FaceEvidence{Level: FaceNone}, Reason: ReasonNotMatched}, "09:00:00", Decision{Outcome: Unconfirmed, Reason: ReasonNotMatched}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, Decide(tc.ev, session, profile, at(tc.tapped)))
		})
	}
}

func TestRosterFindsByEveryNumberAndKeepsClassesApart(t *testing.T) {
	key := []byte("a lookup key of thirty-two bytes")
	entry := func(kind KeyKind, value string) RosterKey {
		hash := HashNumber(key, kind, value)
		return RosterKey{kind, hash[:]}
	}
	p := &Package{
		Class: ClassInfo{ID: "c-1"}, Sessions: []Session{{ID: "s-1", Start: at("09:00:00"), End: at("10:00:00")}},
		Trainees: []Trainee{{ID: "T1", Keys: []RosterKey{entry(KeyIdent, "I1"), entry(KeyPersonNo, "P1"), entry(KeyCardNo, "N1"), entry(KeyUID, "U1")}}},
	}
	roster := NewRoster(nil).With(p, key)
	for name, c := range map[string]Credential{
		"identification code": {Ident: NewCardIdent("I1")},
		"person number":       {PersonNo: NewPersonNo("P1")},
		"card number":         {CardNo: NewCardNo("N1")},
		"a new card":          {Ident: NewCardIdent("I2"), PersonNo: NewPersonNo("P1")},
		"serial number":       {UID: NewUID("U1")},
	} {
		place, ok := roster.Find(c, at("09:00:00"))
		assert.True(t, ok, name)
		assert.Equal(t, TraineeID("T1"), place.Trainee.ID, name)
	}
	_, ok := roster.Find(Credential{CardNo: NewCardNo("I1")}, at("09:00:00"))
	assert.False(t, ok, "a number of another kind is another number")
	_, ok = NewRoster(nil).With(p, []byte("another key")).Find(Credential{Ident: NewCardIdent("I1")}, at("09:00:00"))
	assert.False(t, ok, "another terminal's key opens nothing")

	later := *p
	later.Sessions = nil
	place, ok := roster.With(&later, key).Find(Credential{Ident: NewCardIdent("I1")}, at("09:00:00"))
	assert.True(t, ok)
	assert.False(t, place.Open, "a package replaces the earlier one of its class")
}

func TestBookRefusesWhatTheRecordsDoNotBearOut(t *testing.T) {
	checkin := func(enrol uint64, model string) Record {
		return NewRecord(TypeCheckin, CheckinBody{Trainee: "T01", Session: "s-1", Decision: OnTime,
			Face: &FaceEvidence{Level: FaceMatch, Enrol: enrol, Model: model}})
	}
	for name, tc := range map[string]struct {
		record  Record
		problem string
	}{
		"live enrolment":            {checkin(2, "87aa"), ""},
		"no such enrolment":         {checkin(9, "87aa"), "not this trainee's live one"},
		"another's enrolment":       {checkin(3, "87aa"), "not this trainee's live one"},
		"template of another model": {checkin(2, "99bb"), "not this trainee's live one"},
		"not a body":                {Record{Type: TypeCheckin, Body: []byte(`[]`)}, "reading a record body"},
	} {
		t.Run(name, func(t *testing.T) {
			err := testBook(t).Observe(10, tc.record.Type, tc.record.Body)
			if tc.problem == "" {
				assert.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, tc.problem)
		})
	}
	book := testBook(t)
	require.NoError(t, book.Observe(10, TypeCheckin, checkin(2, "87aa").Body))
	assert.ErrorContains(t, book.Observe(11, TypeCheckin, checkin(2, "87aa").Body), "second check-in")
	assert.Equal(t, 1, book.Count("s-1"))
}

func TestBookRefusesACheckinByAUsedCode(t *testing.T) {
	book := testBook(t)
	shown := func(id TraineeID, d Outcome) Record {
		return NewRecord(TypeCheckin, CheckinBody{Trainee: id, Session: "s-1", Decision: d, Code: "AAAAAAAAAAA1",
			Card: CardEvidence{Kind: KindQR, Level: LevelSigned}})
	}
	require.NoError(t, book.Observe(10, TypeCheckin, shown("T01", Unconfirmed).Body))
	assert.True(t, book.CodeUsed("AAAAAAAAAAA1"))
	assert.False(t, book.CodeUsed(""), "a check-in by card uses no code")
	require.NoError(t, book.Observe(11, TypeCheckin, shown("T01", Unconfirmed).Body))
	assert.ErrorContains(t, book.Observe(12, TypeCheckin, shown("T01", OnTime).Body), "record 10 used")
}

func TestParseClassCodeRefusesWhatNoCentreGives(t *testing.T) {
	good := ClassCode{V: 1, Terminal: "t-1", Trainee: "T01", Class: "c-1", Session: "s-1", Issued: 1000, Expires: 1300, Nonce: "AAAAAAAAAAA1"}
	for name, change := range map[string]func(*ClassCode){
		"":                func(*ClassCode) {},
		"version":         func(c *ClassCode) { c.V = 2 },
		"no terminal":     func(c *ClassCode) { c.Terminal = "" },
		"no trainee":      func(c *ClassCode) { c.Trainee = "" },
		"no class":        func(c *ClassCode) { c.Class = "" },
		"no session":      func(c *ClassCode) { c.Session = "" },
		"long id":         func(c *ClassCode) { c.Trainee = TraineeID(bytes.Repeat([]byte("T"), 65)) },
		"no nonce":        func(c *ClassCode) { c.Nonce = "" },
		"strange nonce":   func(c *ClassCode) { c.Nonce = "AAAAAAAAAAA " },
		"long nonce":      func(c *ClassCode) { c.Nonce = string(bytes.Repeat([]byte("A"), 33)) },
		"before 1970":     func(c *ClassCode) { c.Issued = -1 },
		"over at once":    func(c *ClassCode) { c.Expires = c.Issued },
		"valid for a day": func(c *ClassCode) { c.Expires = c.Issued + 86400 },
	} {
		t.Run(name, func(t *testing.T) {
			code := good
			change(&code)
			raw, err := json.Marshal(code)
			require.NoError(t, err)
			got, err := ParseClassCode(raw)
			if name == "" {
				require.NoError(t, err)
				assert.Equal(t, good, got)
				return
			}
			assert.ErrorIs(t, err, ErrClassCode)
		})
	}
	_, err := ParseClassCode([]byte(`{"v":1,"face":"none"}`))
	assert.ErrorIs(t, err, ErrClassCode, "a claim that is not understood is not passed over")
}

func FuzzParseClassCode(f *testing.F) {
	f.Add([]byte(`{"v":1,"aud":"t-1","sub":"T01","cls":"c-1","ses":"s-1","iat":1000,"exp":1300,"jti":"AAAAAAAAAAA1"}`))
	f.Add([]byte(`{"v":1,"iat":9223372036854775807,"exp":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if c, err := ParseClassCode(payload); err == nil {
			assert.LessOrEqual(t, c.Expires-c.Issued, int64(MaxCodeLife/time.Second))
			c.ValidAt(time.Unix(0, 0))
		}
	})
}

func TestParsePackageRefusesWhatItDoesNotUnderstand(t *testing.T) {
	good := map[string]any{
		"v": 1, "tenant": "demo", "terminal": "t-1", "serial": 1,
		"issued": "2026-11-23T08:00:00+08:00", "expires": "2026-12-23T08:00:00+08:00",
		"class": map[string]any{"id": "c-1", "name": "n"},
		"profile": map[string]any{"id": "generic", "version": 1, "instructor_first": false, "early_window_min": 30, "late_grace_min": 5,
			"face_threshold": 0.412, "face_tries": 3, "confirm_deadline_s": 15},
		"sessions": []any{map[string]any{"id": "s-1", "start": "2026-11-23T09:00:00+08:00", "end": "2026-11-23T11:00:00+08:00"}},
		"trainees": []any{map[string]any{"id": "T1", "keys": []any{map[string]any{"kind": "ssc-ident", "hash": "AAAA"}}}},
	}
	for _, tc := range []struct {
		name   string
		change func(p map[string]any)
		want   string
	}{
		{"as it should be", func(map[string]any) {}, ""},
		{"a rule this program does not know", func(p map[string]any) { p["profile"].(map[string]any)["late_count_to_fail"] = 3 }, "late_count_to_fail"},
		{"instructor first", func(p map[string]any) { p["profile"].(map[string]any)["instructor_first"] = true }, "instructor_first"},
		{"threshold that accepts all", func(p map[string]any) { p["profile"].(map[string]any)["face_threshold"] = 0 }, "face_threshold"},
		{"version", func(p map[string]any) { p["v"] = 2 }, "version 2"},
		{"expired before issued", func(p map[string]any) { p["expires"] = "2026-01-01T00:00:00Z" }, "expires"},
		{"session twice", func(p map[string]any) { p["sessions"] = append(p["sessions"].([]any), p["sessions"].([]any)[0]) }, "session"},
		{"trainee without a card", func(p map[string]any) { p["trainees"] = []any{map[string]any{"id": "T1", "keys": []any{}}} }, "trainee 1"},
		{"no serial", func(p map[string]any) { p["serial"] = 0 }, "serial"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw, err := json.Marshal(good)
			require.NoError(t, err)
			var p map[string]any
			require.NoError(t, json.Unmarshal(raw, &p))
			tc.change(p)
			raw, err = json.Marshal(p)
			require.NoError(t, err)
			_, err = ParsePackage(raw)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrPackage)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func FuzzParsePackage(f *testing.F) {
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := ParsePackage(payload)
		if err == nil {
			NewRoster(nil).With(p, nil).Idle(time.Unix(0, 0))
		}
	})
}

func TestIdleNamesTheClassOrTheNextOne(t *testing.T) {
	roster := testRoster(t)
	assert.Equal(t, Screen{State: ScreenIdle, Class: "电工初级班", Session: "s-1", Until: "11:30", Identify: true}, roster.Idle(at("08:30:00")))
	assert.Equal(t, Screen{State: ScreenNoClass, Until: "11-23 14:00"}, roster.Idle(at("12:00:00")))
	assert.Equal(t, Screen{State: ScreenNoClass}, roster.Idle(at("18:00:00")))
}

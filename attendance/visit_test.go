package attendance

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the scripts in testdata; explain every changed line")

// TestVisitScripts tells visits as scripts: an event, "----", and what the
// terminal did.
func TestVisitScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/visit/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := play(t, string(want))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

// play runs the events of a script and writes the script anew.
func play(t *testing.T, script string) string {
	p := &player{t: t, roster: testRoster(t), book: testBook(t), now: at("09:01:00"), seq: 100}
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n\n") {
		comments, event := "", ""
		for line := range strings.SplitSeq(block, "\n") {
			if strings.HasPrefix(line, "#") {
				comments += line + "\n"
				continue
			}
			event = line
			break
		}
		if event == "" {
			out.WriteString(block + "\n\n")
			continue
		}
		fmt.Fprintf(&out, "%s%s\n----\n", comments, event)
		for _, a := range p.play(event) {
			out.WriteString(describe(a) + "\n")
		}
		out.WriteString("\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}

type player struct {
	t      *testing.T
	roster *Roster
	book   *Book
	visit  *Visit
	now    time.Time
	seq    uint64
	stored Record
}

func (p *player) play(event string) []Action {
	word, rest, _ := strings.Cut(event, " ")
	if clock, ok := strings.CutPrefix(word, "@"); ok {
		p.now = at(clock)
		word, rest, _ = strings.Cut(rest, " ")
	}
	actions := p.event(word, strings.Fields(rest))
	for _, a := range actions {
		if s, ok := a.(StoreRecord); ok {
			p.stored = s.Record
		}
	}
	return actions
}

func (p *player) event(word string, args []string) []Action {
	tap := Tap{Reader: "reader", At: p.now}
	switch word {
	case "seen":
		tap.Kind = CardSeen
		visit, actions := NewVisit(p.roster, p.book, testCode, tap)
		p.visit = visit
		return actions
	case "touch":
		tap.Kind, tap.Reader = Touched, ""
		visit, actions := NewIdentification(p.roster, p.book, tap, p.now)
		p.visit = visit
		return actions
	case "read":
		tap.Kind, tap.Credential = CardRead, testCredential(args...)
		return p.visit.Tap(tap, p.now)
	case "code":
		tap.Kind, tap.Credential = CardRead, Credential{Kind: KindQR, Code: NewCodeText(strings.Join(args, " "))}
		return p.visit.Tap(tap, p.now)
	case "failed":
		tap.Kind, tap.Fault = CardFailed, CardFault(args[0])
		return p.visit.Tap(tap, p.now)
	case "gone":
		tap.Kind = CardGone
		return p.visit.Tap(tap, p.now)
	case "look":
		return p.visit.Look(Look{At: p.now, Advice: Advice(args[0])}, p.now)
	case "match":
		return p.visit.Look(p.match(args), p.now)
	case "suspect":
		return p.visit.Look(Look{At: p.now, Suspect: true}, p.now)
	case "enrolled":
		p.seq++
		r := NewRecord(TypeEnrol, EnrolBody{Trainee: TraineeID(args[0]), Model: "87aa"})
		require.NoError(p.t, p.book.Observe(p.seq, r.Type, r.Body))
		return nil
	case "withdrawn":
		p.seq++
		r := NewRecord(TypeWithdraw, WithdrawBody{Trainee: TraineeID(args[0]), Reason: WithdrawOperator})
		require.NoError(p.t, p.book.Observe(p.seq, r.Type, r.Body))
		return nil
	case "unusable":
		return p.visit.Unusable()
	case "tick":
		return p.visit.Tick(p.now)
	case "stored":
		if len(args) > 0 {
			return p.visit.Stored(Stored{}, errors.New(strings.Join(args, " ")))
		}
		p.seq++
		require.NoError(p.t, p.book.Observe(p.seq, p.stored.Type, p.stored.Body))
		return p.visit.Stored(Stored{Seq: p.seq, Code: "3F9C-21AB"}, nil)
	}
	p.t.Fatalf("unknown event %q", word)
	return nil
}

// match reads a score and what else the look says: frames=3 unless given,
// advice, calibrated (a threshold) and like (another trainee, at 0.83). Of an
// identification it says who it is, by which margin, and the calibrated least
// margin.
func (p *player) match(args []string) Look {
	number := func(text string) float64 {
		x, err := strconv.ParseFloat(text, 64)
		require.NoError(p.t, err)
		return x
	}
	l := Look{At: p.now, Match: &Match{Score: number(args[0]), Frames: 3, Quality: 0.98, Liveness: -1, Model: "87aa"}}
	for _, arg := range args[1:] {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "frames":
			l.Match.Frames = int(number(value))
		case "advice":
			l.Advice = Advice(value)
		case "calibrated":
			l.Match.Threshold, l.Match.Calibration = number(value), "c0ffee"
		case "who":
			l.Match.Trainee = TraineeID(value)
		case "margin":
			l.Match.Margin = number(value)
		case "least":
			l.Match.LeastMargin = number(value)
		case "like":
			l.Match.Like = &Likeness{TraineeID(value), 0.83}
		default:
			p.t.Fatalf("unknown word %q", arg)
		}
	}
	return l
}

func describe(a Action) string {
	switch a := a.(type) {
	case ShowScreen:
		return "show " + describeScreen(a.Screen)
	case OpenCamera:
		return "open camera"
	case VerifyFace:
		return fmt.Sprintf("verify %s by enrolment %d", a.Trainee, a.Enrolment.Seq)
	case IdentifyFace:
		text := "identify among"
		for _, id := range slices.Sorted(maps.Keys(a.Candidates)) {
			text += fmt.Sprintf(" %s by enrolment %d,", id, a.Candidates[id].Seq)
		}
		return strings.TrimSuffix(text, ",")
	case AcceptFace:
		return "accept face"
	case CloseCamera:
		return "close camera"
	case StoreRecord:
		return fmt.Sprintf("store %s %s", a.Record.Type, a.Record.Body)
	case WakeAt:
		return "wake at " + a.At.Format("15:04:05.000")
	}
	return fmt.Sprintf("%T", a)
}

func describeScreen(s Screen) string {
	text := string(s.State)
	for _, part := range []struct{ name, value string }{
		{"name", s.Name}, {"at", s.At}, {"minutes", number0(s.Minutes)}, {"ordinal", number0(s.Ordinal)},
		{"code", s.Code}, {"try", number0(s.Try)}, {"advice", string(s.Advice)}, {"reason", s.Reason},
	} {
		if part.value != "" {
			text += " " + part.name + "=" + part.value
		}
	}
	return text
}

func number0(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

var shanghai = time.FixedZone("CST", 8*3600)

func at(clock string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-11-23 "+clock, shanghai)
	if err != nil {
		panic(err)
	}
	return t
}

// The people of the scripts: T01 and T02 are enrolled, T03 never was, T04 is
// of a class that does not meet now and lets no face alone check in, and a
// stranger is on no roster.
var testIdents = map[string]string{
	"T01":      "990000D15600000500000001FFFFFFFF",
	"T02":      "990000D15600000500000002FFFFFFFF",
	"T03":      "990000D15600000500000003FFFFFFFF",
	"T04":      "990000D15600000500000004FFFFFFFF",
	"stranger": "990000D15600000500000099FFFFFFFF",
}

// testCode opens the codes of the scripts: trainee, class, session, nonce,
// issued and expires. Two words stand for what is not the centre's.
func testCode(text string) (ClassCode, error) {
	f := strings.Fields(text)
	switch f[0] {
	case "somebody's":
		return ClassCode{}, ErrNotClassCode
	case "forged":
		return ClassCode{}, ErrClassCode
	}
	c := ClassCode{
		V: 1, Terminal: "t-1", Trainee: TraineeID(f[0]), Class: ClassID(f[1]), Session: SessionID(f[2]), Nonce: f[3],
		Issued: at(f[4]).Unix(), Expires: at(f[5]).Unix(),
	}
	return c, c.Check()
}

func testCredential(args ...string) Credential {
	c := Credential{Kind: KindSSC, Level: LevelFile, Spec: "2.00", Ident: NewCardIdent(testIdents[args[0]])}
	if len(args) == 1 {
		c.PersonNo, c.CardNo = NewPersonNo("990000199001010000"), NewCardNo("A00000001")
	}
	return c
}

func testRoster(t *testing.T) *Roster {
	lookup := []byte("a lookup key of thirty-two bytes")
	roster := NewRoster([]byte("the terminal's own key, 32 bytes"))
	for _, class := range []struct {
		id, name string
		sessions []Session
		trainees []string
	}{
		{"c-1", "电工初级班", []Session{
			{ID: "s-1", Start: at("09:00:00"), End: at("11:30:00")}, {ID: "s-3", Start: at("14:00:00"), End: at("16:00:00")},
		}, []string{"T01", "T02", "T03"}},
		{"c-2", "焊工班", []Session{{ID: "s-2", Start: at("14:00:00"), End: at("16:00:00")}}, []string{"T04"}},
	} {
		p := &Package{
			V: 1, Tenant: "demo", Terminal: "t-1", Serial: 1, Issued: at("08:00:00"), Expires: at("20:00:00"),
			Class: ClassInfo{ID: ClassID(class.id), Name: class.name}, Sessions: class.sessions,
			Officers: []Officer{{ID: "O1", Display: "周*"}},
			Profile: Profile{
				ID: "generic", Version: 1, EarlyWindowMin: 30, LateGraceMin: 5,
				FaceThreshold: 0.412, FaceTries: 3, ConfirmDeadlineS: 15, Identify: class.id == "c-1",
			},
		}
		for _, id := range class.trainees {
			hash := HashNumber(lookup, KeyIdent, testIdents[id])
			p.Trainees = append(p.Trainees, Trainee{ID: TraineeID(id), Display: "张*" + id[2:], Keys: []RosterKey{{KeyIdent, hash[:]}}})
		}
		require.NoError(t, p.check())
		roster = roster.With(p, lookup)
	}
	return roster
}

func testBook(t *testing.T) *Book {
	book := NewBook()
	for i, id := range []TraineeID{"T01", "T02"} {
		r := NewRecord(TypeEnrol, EnrolBody{Trainee: id, Consent: "k-1", Officer: "O1", Model: "87aa", Salt: "c2FsdA", Hash: "aGFzaA", Frames: 3, Quality: 0.9})
		require.NoError(t, book.Observe(uint64(i+2), r.Type, r.Body))
	}
	return book
}

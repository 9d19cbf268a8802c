package attendance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The records of an enrolment, in short: "consent K1", "enrol K1", "withdraw
// consent K1 2" (reason, consent, enrol record), "erase 3", "match 2".
func enrolmentRecord(t *testing.T, line string) Record {
	t.Helper()
	words := strings.Fields(line)
	number := func(i int) uint64 {
		if i >= len(words) {
			return 0
		}
		return uint64(words[i][0] - '0')
	}
	switch words[0] {
	case "consent":
		return NewRecord(TypeConsent, ConsentBody{Trainee: "T1", Consent: words[1], Scope: ScopeFace, Officer: "O1"})
	case "enrol":
		return NewRecord(TypeEnrol, EnrolBody{Trainee: "T1", Consent: words[1], Officer: "O1", OfficerCard: &CardEvidence{}, Model: "m", Key: "key"})
	case "old-enrol":
		return NewRecord(TypeEnrol, EnrolBody{Trainee: "T1", Consent: words[1], Officer: "O1", Model: "m"})
	case "withdraw":
		return NewRecord(TypeWithdraw, WithdrawBody{Trainee: "T1", Reason: WithdrawReason(words[1]), Consent: words[2], Enrol: number(3)})
	case "erase":
		return NewRecord(TypeErase, EraseBody{Trainee: "T1", Withdraw: number(1)})
	case "match":
		return NewRecord(TypeCheckin, CheckinBody{Trainee: "T1", Session: "s", Decision: OnTime, Face: &FaceEvidence{Level: FaceMatch, Enrol: number(1), Model: "m"}})
	}
	t.Fatalf("unknown record %q", line)
	return Record{}
}

func TestBookJudgesEnrolments(t *testing.T) {
	for _, tc := range []struct {
		name    string
		records []string // from 1 on; the last is judged
		problem string
	}{
		{"under a consent", []string{"consent K1", "enrol K1"}, ""},
		{"a match by it", []string{"consent K1", "enrol K1", "match 2"}, ""},
		{"without a consent on record", []string{"enrol K1"}, "no record gives"},
		{"under another consent", []string{"consent K1", "enrol K2"}, "no record gives"},
		{"of the first builds", []string{"old-enrol K1", "match 1"}, ""},
		{"withdrawn: a match", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "match 2"}, "not this trainee's live one"},
		{"withdrawn by the operator: a match", []string{"consent K1", "enrol K1", "withdraw operator K1 2", "match 2"}, "not this trainee's live one"},
		{"withdrawn: the consent given again", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "consent K1"}, "that record 3 withdrew"},
		{"withdrawn: enrolled under it", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "erase 3", "enrol K1"}, "that record 3 withdrew"},
		{"withdrawn: enrolled under it and matched", []string{"consent K1", "withdraw consent K1", "enrol K1", "match 3"}, "not this trainee's live one"},
		{"withdrawn: an old enrolment under it", []string{"old-enrol K1", "withdraw consent K1 1", "old-enrol K1"}, "that record 2 withdrew"},
		{"a new consent", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "erase 3", "consent K2", "enrol K2", "match 6"}, ""},
		{"by the operator: enrolled again", []string{"consent K1", "enrol K1", "withdraw operator K1 2", "erase 3", "enrol K1", "match 5"}, ""},
		{"enrolled anew: the former match", []string{"consent K1", "enrol K1", "enrol K1", "match 2"}, "not this trainee's live one"},
		{"withdraws what is not live", []string{"consent K1", "enrol K1", "withdraw operator K1 1"}, "not this trainee's live one"},
		{"erases what was not withdrawn", []string{"consent K1", "enrol K1", "erase 2"}, "did not withdraw"},
		{"erases twice", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "erase 3", "erase 3"}, "did not withdraw"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			book := NewBook()
			for i, line := range tc.records {
				r := enrolmentRecord(t, line)
				err := book.Observe(uint64(i+1), r.Type, r.Body)
				switch {
				case i < len(tc.records)-1:
				case tc.problem == "":
					assert.NoError(t, err)
				default:
					assert.ErrorContains(t, err, tc.problem)
				}
			}
		})
	}
}

func TestBookTellsWhatIsLeftToErase(t *testing.T) {
	book := NewBook()
	say := func(seq uint64, line string) {
		r := enrolmentRecord(t, line)
		require.NoError(t, book.Observe(seq, r.Type, r.Body))
	}
	say(1, "consent K1")
	say(2, "enrol K1")
	assert.Empty(t, book.Unerased())
	id, standing := book.Consent("T1")
	assert.True(t, standing)
	assert.Equal(t, "K1", id)
	say(3, "withdraw consent K1 2")
	assert.Equal(t, []Withdrawn{{Trainee: "T1", Seq: 3, Enrolment: Enrolment{Seq: 2, Consent: "K1", Model: "m", Key: "key"}}}, book.Unerased())
	assert.Empty(t, book.Enrolments())
	_, standing = book.Consent("T1")
	assert.False(t, standing)
	ended, yes := book.ConsentEnded("T1", "K1")
	assert.True(t, yes)
	assert.Equal(t, uint64(3), ended)
	say(4, "erase 3")
	assert.Empty(t, book.Unerased())
}

// TestStandingSaysAgainWhatHolds: a book that heard only what a new epoch
// begins with knows the same.
func TestStandingSaysAgainWhatHolds(t *testing.T) {
	for _, tc := range []struct {
		name     string
		records  []string
		enrolled bool
		ended    bool // the consent K1
		unerased int
	}{
		{"nothing", []string{"match 1"}, false, false, 0},
		{"enrolled", []string{"consent K1", "enrol K1"}, true, false, 0},
		{"of the first builds", []string{"old-enrol K1"}, true, false, 0},
		{"withdrawn", []string{"consent K1", "enrol K1", "withdraw consent K1 2"}, false, true, 1},
		{"withdrawn and erased", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "erase 3"}, false, true, 1},
		{"template alone", []string{"consent K1", "enrol K1", "withdraw operator K1 2"}, false, false, 1},
		{"template alone, erased", []string{"consent K1", "enrol K1", "withdraw operator K1 2", "erase 3"}, false, false, 0},
		{"enrolled under a new consent", []string{"consent K1", "enrol K1", "withdraw consent K1 2", "erase 3", "consent K2", "enrol K2"}, true, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Standing
			for _, line := range tc.records {
				require.NoError(t, s.Observe(enrolmentRecord(t, line)))
			}
			book := NewBook()
			for i, r := range s.Records() {
				require.NoError(t, book.Observe(uint64(i+2), r.Type, r.Body))
			}
			_, enrolled := book.Enrolment("T1")
			assert.Equal(t, tc.enrolled, enrolled)
			_, ended := book.ConsentEnded("T1", "K1")
			assert.Equal(t, tc.ended, ended)
			assert.Len(t, book.Unerased(), tc.unerased)
		})
	}
	var s Standing
	assert.Error(t, s.Observe(Record{Type: TypeErase, Body: []byte("[]")}))
}

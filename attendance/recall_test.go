package attendance

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fullBook has seen something of everything that a book remembers.
func fullBook(t *testing.T) *Book {
	t.Helper()
	b := NewBook()
	seq := uint64(0)
	see := func(r Record) {
		seq++
		_ = b.Observe(seq, r.Type, r.Body) // some do not hold, and are taken all the same
	}
	see(NewRecord(TypeConsent, ConsentBody{Trainee: "p-1", Consent: "cs-1", Scope: ScopeFace}))
	see(NewRecord(TypeEnrol, EnrolBody{Trainee: "p-1", Consent: "cs-1", Model: "m"}))
	see(NewRecord(TypeEnrol, EnrolBody{Trainee: "p-2", Consent: "cs-2", Model: "m"}))
	see(NewRecord(TypeWithdraw, WithdrawBody{Trainee: "p-2", Consent: "cs-2", Enrol: 3, Reason: WithdrawConsent}))
	see(NewRecord(TypePackage, PackageBody{Class: "c-1", SHA256: "5f"}))
	see(NewRecord(TypePending, PendingBody{Hash: "aa"}))
	see(NewRecord(TypeAdmin, AdminBody{Serial: 9}))
	see(NewRecord(TypeSession, SessionBody{Class: "c-1", Session: "s-1", Event: SessionOpened}))
	for n := range 4 {
		see(NewRecord(TypeCheckin, CheckinBody{
			Trainee: TraineeID(fmt.Sprint("p-", n)), Session: SessionID(fmt.Sprint("s-", n%2)), Decision: OnTime, Code: fmt.Sprint("nonce-", n),
			Face: &FaceEvidence{Level: FaceMatch, Model: "m", Enrol: 2},
		}))
	}
	return b
}

// Whatever a book remembers outlives its writing down, each field of it.
func TestBookIsRecalledWhole(t *testing.T) {
	b := fullBook(t)
	for i := range reflect.TypeFor[Book]().NumField() {
		require.False(t, reflect.ValueOf(*b).Field(i).IsZero(), "this test shows nothing about %s", reflect.TypeFor[Book]().Field(i).Name)
		if f := reflect.ValueOf(*b).Field(i); f.Kind() == reflect.Map {
			require.Positive(t, f.Len(), "this test shows nothing about %s", reflect.TypeFor[Book]().Field(i).Name)
		}
	}
	text, err := b.Memory()
	require.NoError(t, err)
	again, err := RecallBook(text)
	require.NoError(t, err)
	assert.Equal(t, b, again)

	_, err = RecallBook(text[:len(text)/2])
	assert.Error(t, err)
	empty, err := NewBook().Memory()
	require.NoError(t, err)
	again, err = RecallBook(empty)
	require.NoError(t, err)
	assert.Equal(t, NewBook(), again)
}

func TestBookForgetsWhatNoPackageNames(t *testing.T) {
	b := fullBook(t)
	b.Forget(func(s SessionID) bool { return s == "s-0" }, 100)
	_, there := b.First("s-0", "p-2")
	assert.True(t, there, "a session that a package names")
	_, there = b.First("s-1", "p-3")
	assert.False(t, there)
	assert.Equal(t, 2, b.Count("s-0"))
	assert.Zero(t, b.Count("s-1"))
	assert.False(t, b.CodeUsed("nonce-0"))
	_, there = b.Pending("aa")
	assert.False(t, there)
	_, there = b.Enrolment("p-1")
	assert.True(t, there, "who is enrolled stays")
	assert.EqualValues(t, 9, b.LastCommand())

	b = fullBook(t)
	b.Forget(func(SessionID) bool { return false }, 11)
	_, there = b.First("s-1", "p-3")
	assert.True(t, there, "a young record")
}

package attendance

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestALoanTakesReaderAndScreen(t *testing.T) {
	d := &diary{}
	playTerminal(t, d, func(taps chan<- Tap, terminal *Terminal) {
		loan, err := terminal.Borrow(context.Background())
		require.NoError(t, err)
		loan.Show(Screen{State: ScreenEnrolOfficer})
		taps <- seen("a")
		taps <- read("a", "T01")
		assert.Equal(t, CardSeen, (<-loan.Cards).Kind)
		assert.Equal(t, CardRead, (<-loan.Cards).Kind)
		<-time.After(time.Minute) // no idle screen comes in between
		synctest.Wait()
		assert.Equal(t, []string{"2 seated", "screen idle", "screen enrol_officer"}, d.entries[:3])
		assert.NotContains(t, d.entries[3:], "screen idle")

		loan.Show(Screen{State: ScreenEnrolled})
		loan.Return()
		<-time.After(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, "screen enrolled", d.entries[len(d.entries)-1], "it stands for its time")
		<-time.After(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, "screen idle", d.entries[len(d.entries)-1])
		taps <- seen("a")
		taps <- read("a", "stranger")
		synctest.Wait()
		assert.Contains(t, d.entries, "on disk unknown", "the class goes on")
	})
	assert.NotContains(t, d.entries, "on disk checkin", "a card on loan is no check-in")
}

func TestALoanWaitsForWhoChecksIn(t *testing.T) {
	d := &diary{}
	playTerminal(t, d, func(taps chan<- Tap, terminal *Terminal) {
		taps <- seen("a")
		taps <- read("a", "T01")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := terminal.Borrow(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		d.looks <- pass()
		synctest.Wait()
		loan, err := terminal.Borrow(context.Background())
		require.NoError(t, err)
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = terminal.Borrow(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "one at a time")
		loan.Return()
	})
	assert.Contains(t, d.entries, "on disk checkin")
}

func TestCardsThatNobodyTakesOfALoanAreDropped(t *testing.T) {
	d := &diary{}
	playTerminal(t, d, func(taps chan<- Tap, terminal *Terminal) {
		loan, err := terminal.Borrow(context.Background())
		require.NoError(t, err)
		for range 3 * maxWaiting {
			taps <- seen("a")
		}
		synctest.Wait()
		assert.Len(t, loan.Cards, maxWaiting, "and the loop goes on")
		loan.Return()
	})
}

func TestNothingIsLentAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		terminal := NewTerminal(TerminalConfig{
			Ledger: d, Faces: d, Panel: d, Book: NewBook(), Log: slog.New(slog.DiscardHandler),
			Roster: func() *Roster { return NewRoster(nil) }, Now: time.Now,
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- terminal.Run(ctx) }()
		loan, err := terminal.Borrow(t.Context())
		require.NoError(t, err)
		cancel()
		require.NoError(t, <-ended)
		loan.Return() // does not hang
		_, err = terminal.Borrow(t.Context())
		assert.ErrorIs(t, err, ErrEnded)
		_, err = terminal.Append(t.Context(), NewRecord(TypeErase, EraseBody{}))
		assert.ErrorIs(t, err, ErrEnded)
		assert.ErrorIs(t, terminal.Consult(t.Context(), func(*Book) {}), ErrEnded)
	})
}

func TestOfficersAreFoundInTheTraineesClass(t *testing.T) {
	key := func(class string, ident string) []RosterKey {
		hash := HashNumber([]byte("key of "+class), KeyIdent, ident)
		return []RosterKey{{Kind: KeyIdent, Hash: hash[:]}}
	}
	class := func(id ClassID, trainee TraineeID, officers ...Officer) *Package {
		return &Package{Class: ClassInfo{ID: id}, Officers: officers, Trainees: []Trainee{{ID: trainee, Keys: key(string(id), testIdents[string(trainee)])}}}
	}
	roster := NewRoster(nil).
		With(class("c-1", "T01", Officer{ID: "O1", Keys: key("c-1", testIdents["T03"])}, Officer{ID: "O2"}), []byte("key of c-1")).
		With(class("c-2", "T02", Officer{ID: "O3", Keys: key("c-2", testIdents["T04"])}), []byte("key of c-2"))
	for _, tc := range []struct {
		name string
		card string
		of   TraineeID
		want string
	}{
		{"of the class", "T03", "T01", "O1"},
		{"of another class", "T04", "T01", ""},
		{"of that class", "T04", "T02", "O3"},
		{"a trainee", "T01", "T01", ""},
		{"a stranger", "stranger", "T01", ""},
		{"for nobody", "T03", "T09", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			officer, ok := roster.FindOfficer(testCredential(tc.card), tc.of)
			assert.Equal(t, tc.want, officer.ID)
			assert.Equal(t, tc.want != "", ok)
		})
	}
}

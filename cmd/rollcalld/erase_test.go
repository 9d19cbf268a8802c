package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/vision"
)

// keeper is a daemon as far as enrolments go: ledger, book, gallery.
func (r *room) keeper() *daemon {
	d := &daemon{cfg: config{State: r.dir}, log: slog.New(slog.DiscardHandler), keys: r.keys, terminal: r.term, book: attendance.NewBook()}
	for i, record := range r.records {
		_ = d.book.Observe(uint64(i+1), record.Type, record.Body)
	}
	require.NoError(r.t, d.openGallery())
	d.unerased = d.book.Unerased()
	return d
}

// enrolled gives a trainee a template and its records.
func (r *room) enrolled(d *daemon, trainee attendance.TraineeID) attendance.Enrolment {
	p, err := d.gallery.Prepare(trainee, vision.Template{Model: "m", Embedding: vision.Embedding{1, 2}})
	require.NoError(r.t, err)
	_, err = r.term.Append(r.t.Context(), attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{
		Trainee: trainee, Consent: "K-" + string(trainee), Scope: attendance.ScopeFace, Officer: "O1",
	}))
	require.NoError(r.t, err)
	body := attendance.EnrolBody{Trainee: trainee, Consent: "K-" + string(trainee), Officer: "O1", Model: "m", Salt: p.Salt, Hash: p.Hash, Key: p.Key}
	stored, err := r.term.Append(r.t.Context(), attendance.NewRecord(attendance.TypeEnrol, body))
	require.NoError(r.t, err)
	require.NoError(r.t, p.Commit())
	return attendance.Enrolment{Seq: stored.Seq, Consent: body.Consent, Model: "m", Salt: p.Salt, Hash: p.Hash, Key: p.Key}
}

func (r *room) templates() int {
	files, err := os.ReadDir(filepath.Join(r.dir, "templates"))
	require.NoError(r.t, err)
	return len(files)
}

func TestErasureIsRecordedBeforeAndAfter(t *testing.T) {
	for reason, ended := range map[attendance.WithdrawReason]bool{
		attendance.WithdrawConsent: true, attendance.WithdrawCentre: false, attendance.WithdrawOperator: false,
	} {
		t.Run(string(reason), func(t *testing.T) {
			r := newRoom(t)
			d := r.keeper()
			e := r.enrolled(d, "T1")
			r.enrolled(d, "T2")
			require.Equal(t, 2, r.templates())

			got, err := d.Erase(t.Context(), control.EraseRequest{Trainee: "T1", Reason: reason})
			require.NoError(t, err)
			assert.Equal(t, control.EraseAnswer{Withdraw: 5, Erase: 6, Code: got.Code}, got)
			assert.Equal(t, attendance.NewRecord(attendance.TypeWithdraw, attendance.WithdrawBody{
				Trainee: "T1", Consent: "K-T1", Enrol: e.Seq, Reason: reason,
			}), r.records[4])
			assert.Equal(t, attendance.NewRecord(attendance.TypeErase, attendance.EraseBody{Trainee: "T1", Withdraw: 5, Key: e.Key}), r.records[5])
			assert.Equal(t, 1, r.templates(), "control: the other's is there")
			_, err = d.gallery.Load("T1", e)
			assert.ErrorIs(t, err, vision.ErrNoTemplate)

			again := r.keeper()
			_, live := again.book.Enrolment("T1")
			assert.False(t, live)
			_, withdrawn := again.book.ConsentEnded("T1", "K-T1")
			assert.Equal(t, ended, withdrawn)
			assert.Empty(t, again.unerased)
			_, err = d.erase(t.Context(), "T1", reason)
			assert.ErrorIs(t, err, errNothingToErase)
		})
	}
}

func TestErasureRefuses(t *testing.T) {
	r := newRoom(t)
	d := r.keeper()
	_, err := d.erase(t.Context(), "T1", attendance.WithdrawConsent)
	assert.ErrorIs(t, err, errNothingToErase)
	r.enrolled(d, "T1")
	_, err = d.erase(t.Context(), "T1", "whim")
	assert.ErrorContains(t, err, "must be consent, centre or operator")
	assert.Len(t, r.records, 2)
	assert.Equal(t, 1, r.templates())
}

// TestAConsentWithoutTemplateCanBeWithdrawn: it was given, and no picture came
// out well.
func TestAConsentWithoutTemplateCanBeWithdrawn(t *testing.T) {
	r := newRoom(t)
	d := r.keeper()
	_, err := r.term.Append(t.Context(), attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{Trainee: "T1", Consent: "K1", Scope: attendance.ScopeFace, Officer: "O1"}))
	require.NoError(t, err)
	_, err = d.erase(t.Context(), "T1", attendance.WithdrawOperator)
	assert.ErrorIs(t, err, errNothingToErase, "there is no template")
	got, err := d.erase(t.Context(), "T1", attendance.WithdrawConsent)
	require.NoError(t, err)
	assert.Equal(t, attendance.NewRecord(attendance.TypeWithdraw, attendance.WithdrawBody{Trainee: "T1", Consent: "K1", Reason: attendance.WithdrawConsent}), r.records[got.Withdraw-1])
}

// TestACrashBetweenWithdrawalAndErasure stops after each step; the next start
// finishes, and says so once.
func TestACrashBetweenWithdrawalAndErasure(t *testing.T) {
	for name, interrupted := range map[string]func(t *testing.T, d *daemon){
		"after the withdrawal": func(*testing.T, *daemon) {},
		"after the key and the file": func(t *testing.T, d *daemon) {
			require.NoError(t, d.gallery.Erase("T1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			d := r.keeper()
			e := r.enrolled(d, "T1")
			r.enrolled(d, "T2")
			body, err := d.withdrawal(t.Context(), "T1", attendance.WithdrawConsent)
			require.NoError(t, err)
			_, err = r.term.Append(t.Context(), attendance.NewRecord(attendance.TypeWithdraw, body))
			require.NoError(t, err)
			interrupted(t, d)

			d = r.keeper()
			require.Len(t, d.unerased, 1)
			require.NoError(t, d.finishLate(t.Context(), d.unerased[0]))
			assert.Equal(t, attendance.NewRecord(attendance.TypeErase, attendance.EraseBody{Trainee: "T1", Withdraw: 5, Key: e.Key}), r.records[5])
			assert.Equal(t, 1, r.templates())
			_, err = d.gallery.Load("T1", e)
			assert.ErrorIs(t, err, vision.ErrNoTemplate)
			assert.Empty(t, r.keeper().unerased, "once")
			assert.Len(t, r.records, 6)
		})
	}
}

// TestAnErasureThatWasInterruptedSparesTheNewTemplate: it was withdrawn, the
// power went, and somebody enrolled the trainee anew.
func TestAnErasureThatWasInterruptedSparesTheNewTemplate(t *testing.T) {
	r := newRoom(t)
	d := r.keeper()
	r.enrolled(d, "T1")
	body, err := d.withdrawal(t.Context(), "T1", attendance.WithdrawOperator)
	require.NoError(t, err)
	_, err = r.term.Append(t.Context(), attendance.NewRecord(attendance.TypeWithdraw, body))
	require.NoError(t, err)
	d = r.keeper()
	renewed := r.enrolled(d, "T1")
	require.NoError(t, d.finishLate(t.Context(), d.unerased[0]))
	template, err := d.gallery.Load("T1", renewed)
	require.NoError(t, err)
	assert.Len(t, template.Embedding, 2)
}

// TestTheKeyOfTheFirstBuildsGoes: it sealed every template, and nothing needs it now.
func TestTheKeyOfTheFirstBuildsGoes(t *testing.T) {
	r := newRoom(t)
	file := filepath.Join(r.dir, "keys", "template.pem")
	require.NoError(t, os.WriteFile(file, []byte("-----BEGIN ROLLCALL TEMPLATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END ROLLCALL TEMPLATE KEY-----\n"), 0o600))
	var err error
	r.keys, err = device.OpenKeys(filepath.Join(r.dir, "keys"))
	require.NoError(t, err)
	r.keeper()
	assert.NoFileExists(t, file)
}

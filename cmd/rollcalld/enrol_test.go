package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/simulator"
)

// office is a terminal with an identity card module, a camera and a class of
// three trainees and an officer, and the people who come to be enrolled. There
// is no network.
type office struct {
	*testing.T
	file, state string
	module      *simulator.IDCardModule
	camera      *simulator.Camera
	people      []simulator.Person
	client      *control.Client
}

// The holders of the office's cards.
var (
	cardOf  = map[attendance.TraineeID]simulator.Holder{"T1": simulator.InventHolder(1), "T2": simulator.InventHolder(2), "T3": simulator.InventHolder(3)}
	officer = simulator.InventHolder(50)
	another = simulator.InventHolder(51) // officer: a card that was shown just now gives no other tap
	nobodys = simulator.InventHolder(99)
)

// buildWorker builds the camera worker, once.
var buildWorker = sync.OnceValues(func() (worker string, err error) {
	worker = filepath.Join(programs, "rollcall-vision")
	said, err := exec.Command("go", "build", "-tags", "opencv gocv_specific_modules gocv_calib3d gocv_videoio", "-o", worker, "rollcall/cmd/rollcall-vision").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return worker, err
})

func newOffice(t *testing.T) *office {
	worker, err := buildWorker()
	require.NoError(t, err)
	people, err := simulator.LoadPeople("../../build/people")
	require.NoError(t, err, "run make models")
	o := &office{T: t, module: &simulator.IDCardModule{}, camera: simulator.NewCamera(), people: people}
	o.file, o.state = admitted(t)
	o.client = control.NewClient(o.state)
	dir := filepath.Dir(o.state)
	line, err := simulator.PlugSerial(filepath.Join(dir, "module"), 115200, o.module)
	require.NoError(t, err)
	t.Cleanup(line.Unplug)
	server := httptest.NewServer(o.camera)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })

	var trainees []any
	for _, id := range []attendance.TraineeID{"T1", "T2", "T3"} {
		trainees = append(trainees, map[string]any{"trainee": id, "name": cardOf[id].Name, "person_no": cardOf[id].PersonNo})
	}
	publishClass(t, dir, o.state, map[string]any{
		"profile": map[string]any{"identify": true}, "trainees": trainees, "officers": []any{
			map[string]any{"id": "O1", "name": officer.Name, "person_no": officer.PersonNo},
			map[string]any{"id": "O2", "name": another.Name, "person_no": another.PersonNo},
		},
	}, nil)
	models, err := filepath.Abs("../../build/models")
	require.NoError(t, err)
	vision := filepath.Join(dir, "vision.toml")
	require.NoError(t, os.WriteFile(vision, fmt.Appendf(nil, "camera = %q\nmodels = %q\n", server.URL, models), 0o600))
	text, err := os.ReadFile(o.file)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte(`"/nonexistent/rollcall-vision"`), fmt.Appendf(nil, "%q", worker), 1)
	text = bytes.Replace(text, []byte(`"/nonexistent/vision.toml"`), fmt.Appendf(nil, "%q", vision), 1)
	text = fmt.Appendf(text, "[[serial]]\nkind = \"id-card\"\npath = %q\ncool_down = \"600ms\"\n", filepath.Join(dir, "module"))
	require.NoError(t, os.WriteFile(o.file, text, 0o600))
	return o
}

func (o *office) start() (stop func() error) {
	o.Helper()
	stop = start(o.T, o.file, o.state)
	require.Eventually(o, func() bool {
		status, err := o.client.Status(o.Context())
		camera, ok := status.Health.Part(device.PartCamera)
		return err == nil && status.Worker.PID != 0 && (!ok || camera.State == device.StateOK)
	}, 60*time.Second, 20*time.Millisecond)
	return stop
}

// enrol enrols: who is before the camera follows the advice, and the cards are
// presented one after another, each when one is asked for.
func (o *office) enrol(ctx context.Context, r control.EnrolRequest, who simulator.Person, cards ...simulator.Holder) (control.EnrolAnswer, []control.EnrolStep, error) {
	o.camera.Show(who, simulator.AtEnrolment)
	defer o.camera.Empty()
	var steps []control.EnrolStep
	var shown []simulator.Holder
	remove := func() {}
	defer func() { remove() }()
	answer, err := o.client.Enrol(ctx, r, func(s control.EnrolStep) {
		remove()
		if s.Fault == attendance.EnrolCardUnread { // on a busy machine it was not there for long enough
			cards, shown = append(shown, cards...), nil
		} else {
			steps = append(steps, s)
		}
		switch {
		case s.Step == "look":
			o.camera.Show(who, simulator.Posed(s.Pose))
		case (s.Step == "trainee" || s.Step == "officer") && len(cards) > 0:
			remove = o.module.Place(simulator.InventIDCard(cards[0]))
			cards, shown = cards[1:], cards[:1:1]
		}
	})
	return answer, steps, err
}

// records gives the lines of the ledger that hold all of these.
func (o *office) records(parts ...string) (found []string) {
	o.Helper()
	var out strings.Builder
	require.NoError(o, o.client.Export(o.Context(), &out))
	for _, line := range strings.Split(out.String(), "\n") {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

func (o *office) screen() attendance.Screen {
	o.Helper()
	status, err := o.client.Status(o.Context())
	require.NoError(o, err)
	return status.Screen
}

// faults are what was wrong with the cards presented.
func faults(steps []control.EnrolStep) (faults []attendance.EnrolFault) {
	for _, s := range steps {
		if s.Fault != "" {
			faults = append(faults, s.Fault)
		}
	}
	return faults
}

// TestEnrolmentThroughTheDaemon: one office, since worker and nets take long to
// start. What is told first leaves no template behind.
func TestEnrolmentThroughTheDaemon(t *testing.T) {
	o := newOffice(t)
	stop := o.start()
	for _, story := range []struct {
		name string
		tell func(*testing.T, *office)
	}{
		{"stopped by the officer", stoppedEnrolment},
		{"consent withdrawn meanwhile", withdrawnMeanwhile},
		{"from consent to erasure", fromConsentToErasure},
	} {
		t.Run(story.name, func(t *testing.T) {
			o.T = t
			story.tell(t, o)
		})
	}
	o.T = t
	o.noPictures()
	require.NoError(t, stop())
	stop = o.start()
	o.checkIn("T3", o.people[5])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T3"`, `"duplicate"`, `"card"`), 1, "all is remembered after a restart")
	require.NoError(t, stop())
}

func fromConsentToErasure(t *testing.T, o *office) {
	_, _, err := o.enrol(t.Context(), control.EnrolRequest{Trainee: "T1"}, o.people[0])
	require.ErrorContains(t, err, "no consent: enrolment needs the id of the trainee's consent on file")
	_, _, err = o.enrol(t.Context(), control.EnrolRequest{Trainee: "T9", Consent: "K1"}, o.people[0])
	require.ErrorContains(t, err, "no trainee")
	assert.Empty(t, o.records(`"type":"consent"`, `"T1"`), "nothing is recorded without")

	// By card, and only an officer's card will do.
	answer, steps, err := o.enrol(t.Context(), control.EnrolRequest{Consent: "K1"}, o.people[0], nobodys, cardOf["T1"], cardOf["T2"], officer)
	require.NoError(t, err)
	assert.Equal(t, []attendance.EnrolFault{attendance.EnrolNotTrainee, attendance.EnrolNotOfficer}, faults(steps))
	assert.Equal(t, attendance.TraineeID("T1"), answer.Trainee)
	assert.Equal(t, []attendance.Pose{"front", "left", "right", "front", "front"}, answer.Poses)
	require.Len(t, o.records(`"type":"consent"`, `"trainee":"T1","consent":"K1","scope":"face","officer":"O1","card":{"kind":"id"`), 1)
	require.Len(t, o.records(`"type":"enrol"`, `"officer_card":{"kind":"id"`, `"poses":["front","left","right","front","front"]`), 1)
	assert.Equal(t, attendance.ScreenEnrolled, o.screen().State)
	assert.Equal(t, answer.Code, o.screen().Code)

	// The same face under another name.
	_, _, err = o.enrol(t.Context(), control.EnrolRequest{Trainee: "T2", Consent: "K2"}, o.people[0], officer)
	require.ErrorContains(t, err, "like that of trainee T1")
	assert.Equal(t, string(attendance.EnrolDuplicate), o.screen().Reason)
	assert.Empty(t, o.records(`"type":"enrol"`, `"T2"`))
	answer, _, err = o.enrol(t.Context(), control.EnrolRequest{Trainee: "T2", Consent: "K2", Resembles: "T1"}, o.people[0], officer)
	require.NoError(t, err, "the officer has seen two people")
	assert.Greater(t, answer.Duplicate, 0.6)
	require.Len(t, o.records(`"type":"enrol"`, `"trainee":"T2"`, `"resembles":"T1"`), 1)
	require.Len(t, o.records(`"type":"consent"`, `"T2"`, `"K2"`), 1, "once, for both tries")

	// Another person: nobody alike, and a check-in by the template.
	answer, _, err = o.enrol(t.Context(), control.EnrolRequest{Trainee: "T3", Consent: "K3"}, o.people[5], officer)
	require.NoError(t, err)
	assert.Less(t, answer.Duplicate, 0.45)
	o.checkIn("T3", o.people[5])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T3"`, `"level":"match"`, fmt.Sprintf(`"enrol":%d`, answer.Seq)), 1)

	// The same person without a card, and one whom nobody enrolled.
	o.touch("checkin", o.people[5])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T3"`, `"decision":"duplicate"`, `"mode":"identified"`, fmt.Sprintf(`"enrol":%d`, answer.Seq)), 1)
	o.touch("unknown", o.people[3])
	require.Len(t, o.records(`"type":"unknown"`, `"reason":"not_identified"`), 1)

	// Withdrawal takes effect at once, and erasure is done when it is answered.
	assert.Len(t, o.templates(), 3)
	began := time.Now()
	erased, err := o.client.Erase(t.Context(), control.EraseRequest{Trainee: "T1", Reason: attendance.WithdrawConsent})
	require.NoError(t, err)
	t.Logf("erased in %s", time.Since(began))
	assert.Len(t, o.templates(), 2)
	require.Len(t, o.records(`"type":"withdraw"`, `"trainee":"T1","consent":"K1"`, `"reason":"consent"`), 1)
	require.Len(t, o.records(`"type":"erase"`, `"trainee":"T1"`, fmt.Sprintf(`"withdraw":%d`, erased.Withdraw)), 1)
	_, _, err = o.enrol(t.Context(), control.EnrolRequest{Trainee: "T1", Consent: "K1"}, o.people[0], officer)
	require.ErrorContains(t, err, "was withdrawn")
	o.checkIn("T1", o.people[0])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T1"`, `"reason":"no_enrolment"`), 1, "the card still does, with a person's word")
	o.touch("checkin", o.people[0])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T2"`, `"decision":"on_time"`, `"mode":"identified"`), 1, "the one template that is left of them")
}

// checkIn presents a card and waits for its record.
func (o *office) checkIn(id attendance.TraineeID, who simulator.Person) {
	o.Helper()
	before := len(o.records(`"type":"checkin"`))
	o.camera.Show(who, simulator.AtCheckIn)
	defer o.camera.Empty()
	remove := o.module.Place(simulator.InventIDCard(cardOf[id]))
	defer remove()
	require.Eventually(o, func() bool { return len(o.records(`"type":"checkin"`)) > before }, 60*time.Second, 50*time.Millisecond)
}

// touch touches the button of the panel, as soon as it stands there, and waits
// for the record of what came of it.
func (o *office) touch(record string, who simulator.Person) {
	o.Helper()
	before := len(o.records(`"type":"`+record+`"`, `"mode":"identified"`))
	o.camera.Show(who, simulator.AtCheckIn)
	defer o.camera.Empty()
	status, err := o.client.Status(o.Context())
	require.NoError(o, err)
	require.Eventually(o, func() bool {
		answer, err := http.Post(status.Panel+"/identify", "", nil)
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusNoContent
	}, 60*time.Second, 50*time.Millisecond)
	require.Eventually(o, func() bool {
		return len(o.records(`"type":"`+record+`"`, `"mode":"identified"`)) > before
	}, 60*time.Second, 50*time.Millisecond)
}

func (o *office) templates() []os.DirEntry {
	o.Helper()
	files, err := os.ReadDir(filepath.Join(o.state, "templates"))
	require.NoError(o, err)
	return files
}

// noPictures looks for the beginning of a JPEG or PNG in every file of the
// terminal. That it can find one is its control.
func (o *office) noPictures() {
	o.Helper()
	find := func(root string) (found []string) {
		require.NoError(o, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if bytes.Contains(text, []byte("\xff\xd8\xff\xe0")) || bytes.Contains(text, []byte("\xff\xd8\xff\xdb")) || bytes.Contains(text, []byte("\x89PNG\r\n")) {
				found = append(found, path)
			}
			return err
		}))
		return found
	}
	assert.NotEmpty(o, find("../../build/people"), "control: it finds pictures")
	assert.Empty(o, find(o.state))
}

// stoppedEnrolment: the officer's program ends while the camera looks; reader
// and screen are back with the class, the camera is off, and no template is left.
func stoppedEnrolment(t *testing.T, o *office) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	remove := func() {}
	o.camera.Show(o.people[0], simulator.Variation{Size: 30}) // too far: advice without end
	_, err := o.client.Enrol(ctx, control.EnrolRequest{Trainee: "T2", Consent: "K0"}, func(s control.EnrolStep) {
		remove()
		switch s.Step {
		case "officer":
			remove = o.module.Place(simulator.InventIDCard(officer))
		case "look":
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return o.screen().Reason == string(attendance.EnrolStopped) }, 30*time.Second, 20*time.Millisecond)
	o.checkIn("T2", o.people[1])
	require.Len(t, o.records(`"type":"checkin"`, `"trainee":"T2"`, `"reason":"no_enrolment"`), 1)
	assert.Empty(t, o.records(`"type":"enrol"`))
	assert.Len(t, o.records(`"type":"consent"`, `"K0"`), 1, "the consent was given, and stands")
	assert.Empty(t, o.templates())
}

// withdrawnMeanwhile: while the camera looks. Nobody waits for it to withdraw.
func withdrawnMeanwhile(t *testing.T, o *office) {
	remove, withdrawn := func() {}, false
	o.camera.Show(o.people[5], simulator.AtEnrolment)
	_, err := o.client.Enrol(t.Context(), control.EnrolRequest{Trainee: "T3", Consent: "K9"}, func(s control.EnrolStep) {
		remove()
		switch s.Step {
		case "officer":
			remove = o.module.Place(simulator.InventIDCard(another))
		case "consent":
			_, err := o.client.Erase(t.Context(), control.EraseRequest{Trainee: "T3", Reason: attendance.WithdrawConsent})
			withdrawn = assert.NoError(t, err)
		case "look":
			o.camera.Show(o.people[5], simulator.Posed(s.Pose))
		}
	})
	require.ErrorContains(t, err, "was withdrawn")
	assert.True(t, withdrawn)
	assert.Empty(t, o.records(`"type":"enrol"`))
	assert.Empty(t, o.templates())
}

// Package control is the daemon's local door: HTTP over a Unix socket in its
// state directory that only the daemon's own user may open. The operator's
// tool asks through it for what the running daemon alone knows or may write.
//
// Nothing that passes it carries a name, a card number or a template.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rollcall/attendance"
	"rollcall/device"
)

// ErrNotRunning says that no daemon answers in a state directory.
var ErrNotRunning = errors.New("no daemon is running on this state directory")

// Status is what the daemon says of itself.
type Status struct {
	Software string              `json:"software"`
	Terminal string              `json:"terminal"`
	Tenant   string              `json:"tenant"`
	Started  time.Time           `json:"started"`
	Panel    string              `json:"panel"` // the panel's address
	Screen   attendance.Screen   `json:"screen"`
	Health   device.HealthReport `json:"health"`
	Ledger   LedgerStatus        `json:"ledger"`
	Classes  []ClassStatus       `json:"classes"`
	Worker   WorkerStatus        `json:"worker"`
}

// LedgerStatus tells how much is on disk and how much the centre confirmed.
type LedgerStatus struct {
	Log       string    `json:"log"`
	Last      uint64    `json:"last"`
	Receipted uint64    `json:"receipted"`
	ReceiptAt time.Time `json:"receipt_at,omitzero"`
}

// ClassStatus is one class package the terminal works from.
type ClassStatus struct {
	Class    string `json:"class"`
	Serial   uint64 `json:"serial"`
	Sessions int    `json:"sessions"`
	Trainees int    `json:"trainees"`
}

// WorkerStatus is the camera worker's process.
type WorkerStatus struct {
	PID      int `json:"pid"` // 0 while none runs
	Restarts int `json:"restarts"`
}

// EnrolRequest asks the daemon to enrol the person before the camera.
type EnrolRequest struct {
	Trainee   attendance.TraineeID `json:"trainee,omitempty"` // empty: whose card is presented first
	Consent   string               `json:"consent"`
	Resembles attendance.TraineeID `json:"resembles,omitempty"` // the officer has decided that these are two people
}

// EnrolStep is what happens at the terminal while an enrolment goes on.
type EnrolStep struct {
	Step    string                `json:"step"` // trainee, officer, consent, look, compare
	Trainee attendance.TraineeID  `json:"trainee,omitempty"`
	Officer string                `json:"officer,omitempty"`
	Fault   attendance.EnrolFault `json:"fault,omitempty"`  // trainee, officer: of the card presented last
	Frame   int                   `json:"frame,omitempty"`  // look: of Frames
	Frames  int                   `json:"frames,omitempty"` // look
	Pose    attendance.Pose       `json:"pose,omitempty"`   // look
	Advice  attendance.Advice     `json:"advice,omitempty"` // look
}

// EnrolAnswer names the enrol record and what it says.
type EnrolAnswer struct {
	Trainee   attendance.TraineeID `json:"trainee"`
	Officer   string               `json:"officer"`
	Seq       uint64               `json:"seq"`
	Code      string               `json:"code"`
	Quality   float64              `json:"quality"`
	Likeness  float64              `json:"likeness"`
	Duplicate float64              `json:"duplicate,omitempty"`
	Poses     []attendance.Pose    `json:"poses"`
}

// enrolLine is one line of the answer to an enrolment: steps, then an answer or
// an error.
type enrolLine struct {
	Step   *EnrolStep   `json:"step,omitempty"`
	Answer *EnrolAnswer `json:"answer,omitempty"`
	Error  string       `json:"error,omitempty"`
}

// EraseRequest asks the daemon to end a trainee's enrolment for good.
type EraseRequest struct {
	Trainee attendance.TraineeID      `json:"trainee"`
	Reason  attendance.WithdrawReason `json:"reason"`
}

// EraseAnswer names the records that say so.
type EraseAnswer struct {
	Withdraw uint64 `json:"withdraw"` // seq of the withdraw record
	Erase    uint64 `json:"erase"`    // seq of the erase record
	Code     string `json:"code"`     // of the erase record
}

// Daemon is what the door opens to. Its methods may be called at once.
type Daemon interface {
	Status() Status
	Enrol(ctx context.Context, r EnrolRequest, progress func(EnrolStep)) (EnrolAnswer, error)
	Erase(ctx context.Context, r EraseRequest) (EraseAnswer, error)
	Export(w io.Writer) error
}

func socket(state string) string { return filepath.Join(state, "control.sock") }

// Listen opens the door. A socket left by a daemon that was killed is taken
// away; the ledger's lock has shown by then that no other daemon lives.
func Listen(state string) (net.Listener, error) {
	path := socket(state)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return listener, nil
}

// Handler serves a daemon.
func Handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.Status(), nil) })
	mux.HandleFunc("POST /enrol", func(w http.ResponseWriter, r *http.Request) {
		if request, ok := decode[EnrolRequest](w, r); ok {
			answerEnrol(w, func(progress func(EnrolStep)) (EnrolAnswer, error) { return d.Enrol(r.Context(), request, progress) })
		}
	})
	mux.HandleFunc("POST /erase", serve(d.Erase))
	mux.HandleFunc("GET /export", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", trailerError)
		if err := d.Export(w); err != nil {
			w.Header().Set(trailerError, err.Error())
		}
	})
	return mux
}

// serve answers requests of one kind.
func serve[Request, Answer any](do func(context.Context, Request) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if request, ok := decode[Request](w, r); ok {
			a, err := do(r.Context(), request)
			answer(w, a, err)
		}
	}
}

func decode[Request any](w http.ResponseWriter, r *http.Request) (request Request, ok bool) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return request, false
	}
	return request, true
}

// answerEnrol sends each step as it comes, and the end. What is refused before
// the first step has a status of its own.
func answerEnrol(w http.ResponseWriter, do func(func(EnrolStep)) (EnrolAnswer, error)) {
	out, flush, began := json.NewEncoder(w), http.NewResponseController(w), false
	a, err := do(func(s EnrolStep) {
		began = true
		_ = out.Encode(enrolLine{Step: &s}) // a client that is gone ends the request's context
		_ = flush.Flush()
	})
	switch {
	case err != nil && !began:
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		_ = out.Encode(enrolLine{Error: err.Error()})
	default:
		_ = out.Encode(enrolLine{Answer: &a})
	}
}

// trailerError tells a client that an export broke off.
const trailerError = "X-Export-Error"

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client sees a cut answer
}

// Client speaks to the daemon of a state directory.
type Client struct{ http http.Client }

// NewClient makes a client; calls give [ErrNotRunning] when nobody listens.
func NewClient(state string) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", socket(state))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				return nil, ErrNotRunning
			}
			return conn, err
		},
	}}}
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Enrol has the daemon enrol the person before the camera, and tells progress of
// every step. It ends when ctx does: nothing is kept then.
func (c *Client) Enrol(ctx context.Context, r EnrolRequest, progress func(EnrolStep)) (EnrolAnswer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return EnrolAnswer{}, err
	}
	response, err := c.do(ctx, http.MethodPost, "/enrol", body)
	if err != nil {
		return EnrolAnswer{}, err
	}
	defer response.Body.Close()
	lines := json.NewDecoder(response.Body)
	for {
		var line enrolLine
		if err := lines.Decode(&line); err != nil {
			return EnrolAnswer{}, fmt.Errorf("reading the daemon's answer: %w", err)
		}
		switch {
		case line.Answer != nil:
			return *line.Answer, nil
		case line.Step != nil:
			progress(*line.Step)
		default:
			return EnrolAnswer{}, errors.New(line.Error)
		}
	}
}

// Erase has the daemon end an enrolment for good.
func (c *Client) Erase(ctx context.Context, r EraseRequest) (EraseAnswer, error) {
	return ask[EraseAnswer](ctx, c, "/erase", r)
}

// Export streams the ledger of the running daemon into w.
func (c *Client) Export(ctx context.Context, w io.Writer) error {
	response, err := c.do(ctx, http.MethodGet, "/export", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	if text := response.Trailer.Get(trailerError); text != "" {
		return errors.New(text)
	}
	return nil
}

func ask[T any](ctx context.Context, c *Client, path string, request any) (T, error) {
	body, err := json.Marshal(request)
	if err != nil {
		var none T
		return none, err
	}
	return call[T](ctx, c, http.MethodPost, path, body)
}

func call[T any](ctx context.Context, c *Client, method, path string, body []byte) (T, error) {
	var v T
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return v, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if errors.Is(err, ErrNotRunning) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return nil, errors.New(string(bytes.TrimSpace(text)))
	}
	return response, nil
}

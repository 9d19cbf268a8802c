package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"rollcall/docs/contract"
)

// errUnpublished says that a message was sent that docs/contract does not
// publish.
var errUnpublished = errors.New("a message is not as published in docs/contract")

// wire holds every message between terminal and centre against the published
// contract.
type wire struct {
	contract *contract.Contract

	mu    sync.Mutex // guards what follows
	count map[string]int
	last  map[string][2]string // topic and payload of each kind
	wrong error                // the first
}

func newWire() (*wire, error) {
	c, err := contract.Load()
	return &wire{contract: c, count: map[string]int{}, last: map[string][2]string{}}, err
}

// hear takes a message.
func (w *wire) hear(topic string, payload []byte) {
	err := w.contract.Check(topic, payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	kind := kindOf(topic)
	w.count[kind]++
	if len(payload) > 0 { // else a retained message was taken back
		w.last[kind] = [2]string{topic, string(payload)}
	}
	if err != nil && w.wrong == nil {
		w.wrong = fmt.Errorf("%w: %s: %w", errUnpublished, kind, err)
	}
}

// kindOf is a topic without what names somebody.
func kindOf(topic string) string {
	parts := strings.Split(topic, "/")
	if len(parts) < 6 {
		return topic
	}
	return parts[4] + "/" + parts[5]
}

// expected are the kinds of message that every demonstration sends.
var expected = []string{"down/package", "down/receipt", "up/records", "up/state"}

// judge prints what was heard, and shows by a spoilt copy of each kind that the
// contract would have refused it.
func (w *wire) judge(out io.Writer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong != nil {
		return w.wrong
	}
	var said []string
	for _, kind := range slices.Sorted(maps.Keys(w.count)) {
		said = append(said, fmt.Sprintf("%s %d", kind, w.count[kind]))
		if m, ok := w.last[kind]; ok && w.contract.Check(m[0], spoilt([]byte(m[1]))) == nil {
			return fmt.Errorf("%w: control: a spoilt message of %s was not noticed", errUnpublished, kind)
		}
	}
	for _, kind := range expected {
		if w.count[kind] == 0 {
			return fmt.Errorf("%w: no message of %s was heard", errUnpublished, kind)
		}
	}
	fmt.Fprintf(out, "messages: %s; all as docs/contract publishes, and a spoilt one of each is refused\n", strings.Join(said, ", "))
	return nil
}

// spoilt gives a message one field more than is published, in its JSON or in
// the payload of its JWS.
func spoilt(message []byte) []byte {
	more := func(object []byte) []byte { return bytes.Replace(object, []byte("{"), []byte(`{"unpublished":1,`), 1) }
	parts := bytes.Split(message, []byte("."))
	payload, err := base64.RawURLEncoding.AppendDecode(nil, parts[min(1, len(parts)-1)])
	if bytes.HasPrefix(message, []byte("{")) || len(parts) != 3 || err != nil {
		return more(message)
	}
	parts[1] = base64.RawURLEncoding.AppendEncode(nil, more(payload))
	return bytes.Join(parts, []byte("."))
}

// Package contract is what goes between terminal, broker and centre, for
// programs that are not ours: asyncapi.yaml names the topics, schemas/ holds a
// JSON Schema (2020-12) of every message and every record body, messages/ a
// golden message of each, invalid/ messages that must be refused. docs/record.md
// says what they mean.
//
// The schemas name every field of this version, so that a test finds what is
// sent and not published. Readers must be more patient: they pass over fields
// that they do not know in records, heads, receipts, states and alerts, and
// refuse them in what comes down.
package contract

import (
	"bytes"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schemas/*.json
var files embed.FS

// ErrMessage is wrapped by every refusal of a message.
var ErrMessage = errors.New("message is not as published")

// Contract holds the compiled schemas. It may be used from several goroutines.
type Contract struct {
	schemas map[string]*jsonschema.Schema
}

// Load compiles the published schemas.
func Load() (*Contract, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	names, err := fs.Glob(files, "schemas/*.json")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := compiler.AddResource(strings.TrimPrefix(name, "schemas/"), schema); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	c := &Contract{map[string]*jsonschema.Schema{}}
	for _, name := range names {
		name = strings.TrimPrefix(name, "schemas/")
		if c.schemas[strings.TrimSuffix(name, ".json")], err = compiler.Compile(name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

// signed maps the topics under rollcall/v1/{tenant}/{terminal}/ whose payload is
// one JWS (an alert's behind the handovers that lead to its key) to the schema of its payload, which is the end of its "typ" as well.
var signed = map[string]string{"up/alert": "alert", "down/receipt": "receipt", "down/command": "command", "down/package": "package"}

// Check judges a message by its full topic. An empty payload is a retained
// message that was taken back. Signatures are not checked. Errors wrap
// [ErrMessage].
func (c *Contract) Check(topic string, payload []byte) error {
	parts := strings.SplitN(topic, "/", 5)
	if len(parts) < 5 || parts[0] != "rollcall" || parts[1] != "v1" {
		return fmt.Errorf("%w: topic %s", ErrMessage, topic)
	}
	rest := parts[4]
	if class, ok := strings.CutPrefix(rest, "down/package/"); ok && class != "" {
		rest = "down/package"
	}
	name, isSigned := signed[rest]
	switch {
	case isSigned && len(payload) == 0 && strings.HasPrefix(rest, "down/") && name != "receipt":
		return nil
	case name == "alert":
		return c.handed(name, bytes.Split(payload, []byte("\n")))
	case isSigned:
		return c.jws(name, payload)
	case rest == "up/state":
		return c.JSON("state", payload)
	case rest == "up/records":
		return c.batch(payload)
	}
	return fmt.Errorf("%w: topic %s", ErrMessage, topic)
}

func (c *Contract) batch(payload []byte) error {
	lines := bytes.Split(payload, []byte("\n"))
	if len(lines) < 2 || len(lines) > 160 || len(payload) > 65_536 {
		return fmt.Errorf("%w: a batch of %d lines and %d bytes", ErrMessage, len(lines), len(payload))
	}
	records := 1 // the head is none
	for records < len(lines)-1 && bytes.HasPrefix(lines[records], []byte("{")) {
		records++
	}
	for _, line := range lines[:records] {
		if err := c.JSON("record", line); err != nil {
			return err
		}
	}
	return c.handed("head", lines[records:])
}

// handed judges handovers and what is signed by the key that they lead to.
func (c *Contract) handed(name string, parts [][]byte) error {
	last := len(parts) - 1
	for _, jws := range parts[:last] {
		if err := c.jws("key", jws); err != nil {
			return err
		}
	}
	return c.jws(name, parts[last])
}

func (c *Contract) jws(name string, text []byte) error {
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 {
		return fmt.Errorf("%w: %s: no JWS in compact form", ErrMessage, name)
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return fmt.Errorf("%w: %s: header: %w", ErrMessage, name, err)
	}
	if err := c.JSON("jws-header", header); err != nil {
		return err
	}
	var h struct {
		Typ string `json:"typ"`
	}
	if err := json.Unmarshal(header, &h); err != nil || h.Typ != "rollcall-"+name {
		return fmt.Errorf("%w: %s: signed for another purpose, %q", ErrMessage, name, h.Typ)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("%w: %s: payload: %w", ErrMessage, name, err)
	}
	return c.JSON(name, body)
}

// JSON judges one JSON text by the schema of that name.
func (c *Contract) JSON(name string, text []byte) error {
	schema, ok := c.schemas[name]
	if !ok {
		return fmt.Errorf("%w: no schema %q", ErrMessage, name)
	}
	var version struct {
		V *int `json:"v"`
	}
	if json.Unmarshal(text, &version) == nil && version.V != nil && *version.V != 1 {
		return fmt.Errorf("%w: %s: version %d, this contract is version 1", ErrMessage, name, *version.V)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMessage, name, err)
	}
	return nil
}

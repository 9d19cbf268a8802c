package contract_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// specification is the official JSON Schema of AsyncAPI 3.0.0, as published in
// the package @asyncapi/specs 6.11.1, schemas/3.0.0.json, with its SHA-256.
const (
	specification    = "testdata/asyncapi-3.0.0.json.gz"
	specificationSum = "d4571a420e6ffb7fcc7066c95a6db1202f299a3c51daa103d0706bf30f95e626"
)

func asyncAPI(t *testing.T) *jsonschema.Schema {
	f, err := os.Open(specification)
	require.NoError(t, err)
	defer f.Close()
	plain, err := gzip.NewReader(f)
	require.NoError(t, err)
	text, err := io.ReadAll(plain)
	require.NoError(t, err)
	sum := sha256.Sum256(text)
	require.Equal(t, specificationSum, hex.EncodeToString(sum[:]))
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	const name = "http://asyncapi.com/definitions/3.0.0/asyncapi.json" // its own $id
	require.NoError(t, compiler.AddResource(name, schema))
	compiled, err := compiler.Compile(name)
	require.NoError(t, err)
	return compiled
}

// document reads a YAML document as JSON has it.
func document(t *testing.T, text string) any {
	var value any
	require.NoError(t, yaml.Unmarshal([]byte(text), &value))
	plain, err := json.Marshal(value)
	require.NoError(t, err)
	value, err = jsonschema.UnmarshalJSON(bytes.NewReader(plain))
	require.NoError(t, err)
	return value
}

// asyncapi.yaml is an AsyncAPI 3.0.0 document by the official schema, and what
// it refers to within itself is there. A spoilt one fails.
func TestAsyncAPIIsOne(t *testing.T) {
	text, err := os.ReadFile("asyncapi.yaml")
	require.NoError(t, err)
	schema := asyncAPI(t)
	whole := document(t, string(text))
	require.NoError(t, schema.Validate(whole))
	assert.Empty(t, lost(whole, whole))

	for name, spoil := range map[string][2]string{
		"another version":               {"asyncapi: 3.0.0", "asyncapi: 3.0.1"},
		"no title":                      {"  title: Rollcall", "  headline: Rollcall"},
		"a field that is not known":     {"defaultContentType:", "contentType:"},
		"a server without its protocol": {"    protocol: mqtts\n", ""},
		"an address that is no text":    {"address: rollcall/v1/{tenant}/{terminal}/up/state", "address: [up, state]"},
		"an action of version 2":        {"action: send", "action: publish"},
		"an operation on no channel":    {"channel: {$ref: '#/channels/state'}", "topic: state"},
		"a description in pieces":       {"{description: '1 to 64 letters, digits, hyphens'}", "{description: 1 to 64 letters, digits, hyphens}"},
		"messages as a list":            {"    messages:\n      state:", "    messages:\n      - state:"},
		"a parameter with a schema":     {`{description: "the centre's id of the class"}`, "{schema: {type: string}}"},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := strings.Replace(string(text), spoil[0], spoil[1], 1)
			require.NotEqual(t, string(text), spoilt)
			assert.Error(t, schema.Validate(document(t, spoilt)))
		})
	}
	t.Run("a reference to nothing", func(t *testing.T) {
		spoilt := document(t, strings.Replace(string(text), "'#/channels/state'", "'#/channels/status'", 1))
		assert.Equal(t, []string{"#/channels/status"}, lost(spoilt, spoilt))
	})
}

// lost lists references within a document that lead nowhere.
func lost(whole, part any) (refs []string) {
	switch part := part.(type) {
	case []any:
		for _, item := range part {
			refs = append(refs, lost(whole, item)...)
		}
	case map[string]any:
		for name, value := range part {
			ref, _ := value.(string)
			path, within := strings.CutPrefix(ref, "#/")
			if name != "$ref" || !within {
				refs = append(refs, lost(whole, value)...)
				continue
			}
			at := whole
			for step := range strings.SplitSeq(path, "/") {
				object, _ := at.(map[string]any)
				at = object[step]
			}
			if at == nil {
				refs = append(refs, ref)
			}
		}
	}
	return refs
}

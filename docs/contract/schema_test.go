package contract_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

// bodies are the types that record bodies are made of.
var bodies = map[attendance.RecordType]any{
	attendance.TypeOpen: attendance.OpenBody{}, attendance.TypeCheckin: attendance.CheckinBody{}, attendance.TypeUnknown: attendance.UnknownBody{},
	attendance.TypeFault: attendance.FaultBody{}, attendance.TypeConsent: attendance.ConsentBody{}, attendance.TypeEnrol: attendance.EnrolBody{},
	attendance.TypeWithdraw: attendance.WithdrawBody{}, attendance.TypeErase: attendance.EraseBody{}, attendance.TypePackage: attendance.PackageBody{},
	attendance.TypeGap: attendance.GapBody{}, attendance.TypePending: attendance.PendingBody{}, attendance.TypeSession: attendance.SessionBody{},
	attendance.TypeAnchor: attendance.AnchorBody{}, attendance.TypeAdmin: attendance.AdminBody{}, attendance.TypeCorrection: attendance.CorrectionBody{},
	attendance.TypeKey: attendance.KeyBody{},
}

// state is the message of queue/mqtt; a test sends a real one.
type state struct {
	State    string      `json:"state"`
	Software string      `json:"software"`
	Log      chain.LogID `json:"log"`
	Seq      chain.Seq   `json:"seq"`
	Run      string      `json:"run"`
}

// payloads are the messages, or what is signed in them.
var payloads = map[string]any{
	"head": chain.Head{}, "receipt": chain.Receipt{}, "alert": chain.Alert{}, "key": chain.Handover{}, "state": state{},
	"package": attendance.Package{}, "command": attendance.Command{}, "code": attendance.ClassCode{},
	"request": chain.Request{}, "admission": chain.Admission{},
}

type object = map[string]any

const (
	base64urlHash = "^[A-Za-z0-9_-]{43}$"
	hexHash       = "^[0-9a-f]{64}$"
	wallTime      = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)$`
	plainName     = "^[a-z0-9_]+$"
	jwsForm       = `^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`
)

// patterns are of text fields whose Go type says too little.
var patterns = map[string]string{
	"tapped": wallTime, "wall": wallTime, "start": wallTime, "end": wallTime,
	"sha256": hexHash, "model": hexHash, "calibration": hexHash,
	"hash": base64urlHash, "handover": jwsForm, "handovers": jwsForm, "boot": "^[A-Za-z0-9-]{1,64}$",
}

// generate makes the schema of every message and body from the types that the
// programs use, so that no field is sent and not published.
func generate(t *testing.T) map[string][]byte {
	g := generator{enums: constants(t)}
	out := map[string]object{}
	for name, of := range payloads {
		out[name] = g.document(name, of)
	}
	var choices []any
	for _, typ := range sortedTypes() {
		name := "body-" + string(typ)
		out[name] = g.document(name, bodies[typ])
		choices = append(choices, object{
			"if":   object{"properties": object{"type": object{"const": typ}}},
			"then": object{"properties": object{"body": object{"$ref": name + ".json"}}},
		})
	}
	record := g.document("record", chain.Entry{})
	properties := record["properties"].(object)
	properties["type"] = object{"enum": sortedTypes()}
	properties["body"] = object{"type": "object"}
	record["allOf"] = choices
	out["record"] = record
	for _, name := range []string{"record", "package", "command", "code", "request", "admission", "alert"} {
		out[name]["properties"].(object)["v"] = object{"const": 1}
	}
	out["state"]["properties"].(object)["state"] = object{"enum": []string{"online", "offline"}}
	out["jws-header"] = object{
		"$schema": dialect, "title": "jws-header", "type": "object", "additionalProperties": false, "required": []string{"alg", "kid", "typ"},
		"properties": object{
			"alg": object{"enum": []string{"EdDSA", "ES256"}}, "kid": object{"type": "string", "pattern": "^[0-9a-f]{16}$"},
			"typ": object{"enum": g.enums["Purpose"]},
		},
	}
	texts := map[string][]byte{}
	for name, schema := range out {
		text, err := json.MarshalIndent(schema, "", "  ")
		require.NoError(t, err)
		texts[name] = append(text, '\n')
	}
	return texts
}

func sortedTypes() []attendance.RecordType {
	var types []attendance.RecordType
	for typ := range bodies {
		types = append(types, typ)
	}
	slices.Sort(types)
	return types
}

const dialect = "https://json-schema.org/draft/2020-12/schema"

type generator struct {
	enums map[string][]string // by the name of the Go type
}

func (g generator) document(name string, of any) object {
	schema := g.schema("", reflect.TypeOf(of))
	schema["$schema"], schema["title"] = dialect, name
	return schema
}

func (g generator) schema(field string, typ reflect.Type) object {
	switch typ {
	case reflect.TypeFor[chain.Hash]():
		return object{"type": "string", "pattern": base64urlHash}
	case reflect.TypeFor[chain.Wall]():
		return object{"type": "string", "pattern": wallTime}
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return object{"type": "object"}
	case reflect.TypeFor[chain.LogID]():
		return object{"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}/[A-Za-z0-9-]{1,64}$"}
	case reflect.TypeFor[chain.AlertKind]():
		return object{"type": "string", "pattern": plainName} // readers take kinds that they do not know
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return g.schema(field, typ.Elem())
	case reflect.Struct:
		return g.object(typ)
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": g.schema(field, typ.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.String:
		if values := g.enums[typ.Name()]; len(values) > 0 && typ.PkgPath() != "" {
			return object{"enum": values}
		}
		if pattern := patterns[field]; pattern != "" {
			return object{"type": "string", "pattern": pattern}
		}
		return object{"type": "string"}
	}
	panic("no schema for " + typ.String())
}

func (g generator) object(typ reflect.Type) object {
	properties, required := object{}, []string{}
	for field := range typ.Fields() {
		if field.Anonymous {
			inner := g.object(field.Type)
			for name, schema := range inner["properties"].(object) {
				properties[name] = schema
			}
			required = append(required, inner["required"].([]string)...)
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		properties[name] = g.schema(name, field.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
		}
	}
	return object{"type": "object", "additionalProperties": false, "required": required, "properties": properties}
}

// constants reads the values of every enumeration out of the source.
func constants(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for _, dir := range []string{"../../attendance", "../../queue/chain"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok || spec.Type == nil || len(spec.Values) != 1 {
					return true
				}
				typ, isName := spec.Type.(*ast.Ident)
				literal, isLiteral := spec.Values[0].(*ast.BasicLit)
				if !isName || !isLiteral || literal.Kind != token.STRING || typ.Name == "string" {
					return true
				}
				value, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				if value != "" {
					out[typ.Name] = append(out[typ.Name], value)
				}
				return true
			})
		}
	}
	for _, values := range out {
		slices.Sort(values)
	}
	return out
}

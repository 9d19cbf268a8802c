package contract_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/docs/contract"
	"rollcall/queue/chain"
)

var update = flag.Bool("update", false, "rewrite schemas/ and messages/ from the programs' types and vectors")

const prefix = "rollcall/v1/demo/t-7Q2M/"

func load(t testing.TB) *contract.Contract {
	c, err := contract.Load()
	require.NoError(t, err)
	return c
}

// compare holds a directory to what it should hold, to the byte.
func compare(t *testing.T, dir string, want map[string][]byte) {
	if *update {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o755))
		for name, text := range want {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var wanted []string
	for name, text := range want {
		wanted = append(wanted, name)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err, "run go test ./docs/contract -update")
		assert.Equal(t, string(text), string(got), "%s: run go test ./docs/contract -update", name)
	}
	slices.Sort(wanted)
	assert.Equal(t, wanted, names)
}

// The schemas are those of the types that the programs send.
func TestSchemasAreOfTheTypes(t *testing.T) {
	want := map[string][]byte{}
	for name, text := range generate(t) {
		want[name+".json"] = text
	}
	compare(t, "schemas", want)
	for _, typ := range constants(t)["RecordType"] {
		assert.Contains(t, bodies, attendance.RecordType(typ), "a record type without a published body")
	}
}

// vectors are the records of docs/record.md.
type vectors struct {
	Records []struct {
		Line string `json:"line"`
	} `json:"records"`
	Head     string `json:"head"`
	Handover string `json:"handover"`
	Receipt  string `json:"receipt"`
}

func readVectors(t testing.TB) (v vectors) {
	text, err := os.ReadFile("../../queue/chain/testdata/vectors.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

// golden makes one message of each kind, and a record of each type. Their keys
// are those of the vectors.
func golden(t testing.TB) map[string][]byte {
	v := readVectors(t)
	out := map[string][]byte{
		"down-receipt.jws": []byte(v.Receipt),
		"up-state.json":    []byte(`{"state":"online","software":"rollcalld 0.1.0","log":"t-7Q2M/3f9c5a10b2d4","seq":17,"run":"5d3c1e"}`),
	}
	var lines []string
	for _, r := range v.Records {
		e, err := chain.ParseLine([]byte(r.Line))
		require.NoError(t, err)
		out["record-"+e.Type+".json"] = []byte(r.Line)
		lines = append(lines, r.Line)
	}
	out["up-records.txt"] = []byte(strings.Join(append(lines, v.Head), "\n"))
	terminal, centre := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	at := time.Date(2026, 11, 21, 9, 40, 0, 0, time.FixedZone("", 8*3600))
	gap := chain.Entry{
		V: 1, Log: "t-7Q2M/3f9c5a10b2d4", Seq: 21, Prev: chain.Hash{1}, Type: string(attendance.TypeGap),
		At:   chain.Stamp{Wall: chain.NewWall(at), Boot: "b-2", UpMS: 4000, Clock: chain.ClockUnsynced},
		Body: attendance.NewRecord(attendance.TypeGap, attendance.GapBody{From: 18, To: 20, Reason: "damaged"}).Body,
	}
	line, err := gap.Line()
	require.NoError(t, err)
	out["record-gap.json"] = line
	sign := func(key ed25519.PrivateKey, purpose chain.Purpose, payload any) []byte {
		jws, err := chain.Sign(key, purpose, payload)
		require.NoError(t, err)
		return []byte(jws)
	}
	out["up-alert.jws"] = sign(terminal, chain.PurposeAlert, chain.Alert{
		V: 1, Log: gap.Log, Seq: 21, Kind: chain.AlertGap, Code: "damaged", Count: 1, Since: chain.NewWall(at), At: chain.NewWall(at),
	})
	out["key.jws"] = []byte(v.Handover)
	out["up-records-handover.txt"] = []byte(strings.Join([]string{lines[len(lines)-1], v.Handover, v.Head}, "\n"))
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	out["up-alert-handover.txt"] = append([]byte(v.Handover+"\n"), sign(next, chain.PurposeAlert, chain.Alert{
		V: 1, Log: gap.Log, Seq: 21, Kind: chain.AlertLedger, Code: "warn", Count: 1, Since: chain.NewWall(at), At: chain.NewWall(at),
	})...)
	out["code.jws"] = sign(centre, chain.PurposeCode, attendance.ClassCode{
		V: 1, Terminal: "t-7Q2M", Trainee: "tr-0007", Class: "c-2026-031", Session: "s-1", Issued: at.Unix(), Expires: at.Unix() + 300, Nonce: "AAECAwQFBgcI",
	})
	out["down-package.jws"] = sign(centre, chain.PurposePackage, attendance.Package{
		V: 1, Tenant: "demo", Terminal: "t-7Q2M", Serial: 5, Issued: at, Expires: at.AddDate(0, 1, 0),
		Class: attendance.ClassInfo{ID: "c-2026-031", Name: "电工初级"}, LookupKey: bytes.Repeat([]byte{7}, 80),
		Profile:  attendance.Profile{ID: "generic", Version: 1, EarlyWindowMin: 30, LateGraceMin: 5, FaceThreshold: 0.412, FaceTries: 3, ConfirmDeadlineS: 15},
		Sessions: []attendance.Session{{ID: "s-1", Start: at, End: at.Add(time.Hour)}},
		Officers: []attendance.Officer{{ID: "o-1", Display: "李*"}},
		Trainees: []attendance.Trainee{{ID: "tr-0007", Display: "张*明", Keys: []attendance.RosterKey{{Kind: attendance.KeyIdent, Hash: make([]byte, 32)}}}},
	})
	command := attendance.Command{V: 1, Tenant: "demo", Terminal: "t-7Q2M", Serial: 7, Issued: at, Expires: at.AddDate(0, 0, 7)}
	for kind, argue := range map[attendance.CommandKind]func(*attendance.Command){
		attendance.CommandResend: func(c *attendance.Command) { c.Resend = &attendance.Resend{Log: string(gap.Log), Seq: 4} },
		attendance.CommandErase: func(c *attendance.Command) {
			c.Erase = &attendance.Erase{Trainee: "tr-0007", Reason: attendance.WithdrawConsent}
		},
		attendance.CommandRotateKey: func(*attendance.Command) {},
		attendance.CommandCorrect: func(c *attendance.Command) {
			c.Correct = &attendance.Correct{Log: string(gap.Log), Seq: 4, Hash: strings.Repeat("A", 42) + "E", Decision: attendance.Void, Operator: "op-2", Reason: "tapped for another"}
		},
	} {
		c := command
		c.Kind = kind
		argue(&c)
		payload, err := json.Marshal(c)
		require.NoError(t, err)
		_, err = attendance.ParseCommand(payload)
		require.NoError(t, err)
		out["down-command-"+string(kind)+".jws"] = sign(centre, chain.PurposeCommand, c)
	}
	return out
}

// topicOf is where a golden message goes; "" for what is no message by itself.
func topicOf(name string) string {
	name = strings.TrimSuffix(name, filepath.Ext(name))
	for _, topic := range []string{"up/records", "up/state", "up/alert", "down/receipt", "down/command"} {
		if strings.HasPrefix(name, strings.ReplaceAll(topic, "/", "-")) {
			return prefix + topic
		}
	}
	if name == "down-package" {
		return prefix + "down/package/c-2026-031"
	}
	return ""
}

// There is a golden message of each kind and a record of each type, made by the
// programs, and all are as published.
func TestGoldenMessages(t *testing.T) {
	messages := golden(t)
	compare(t, "messages", messages)
	c := load(t)
	for typ := range bodies {
		line, ok := messages["record-"+string(typ)+".json"]
		require.True(t, ok, "no golden record of type %s", typ)
		assert.NoError(t, c.JSON("record", line), typ)
	}
	for name, payload := range messages {
		if topic := topicOf(name); topic != "" {
			assert.NoError(t, c.Check(topic, payload), name)
		}
	}
}

// A field or a value that is not published is found: the control of every test
// that finds nothing.
func TestUnpublishedIsFound(t *testing.T) {
	c := load(t)
	for typ := range bodies {
		line := string(golden(t)["record-"+string(typ)+".json"])
		for name, spoilt := range map[string]string{
			"a field more":     strings.Replace(line, `"body":{`, `"body":{"unpublished":1,`, 1),
			"a field missing":  strings.Replace(line, `"boot":`, `"bot":`, 1),
			"another type":     strings.Replace(line, `"type":"`+string(typ)+`"`, `"type":"other"`, 1),
			"a number as text": strings.Replace(line, `"up_ms":`, `"up_ms":"1","x":`, 1),
		} {
			require.NotEqual(t, line, spoilt)
			assert.ErrorIs(t, c.JSON("record", []byte(spoilt)), contract.ErrMessage, "%s: %s", typ, name)
		}
	}
}

// TestT28InvalidMessages: each of the golden invalid messages is refused, in
// words that name what is wrong. A file is a topic, the words, and the payload.
func TestT28InvalidMessages(t *testing.T) {
	files, err := fs.Glob(os.DirFS("invalid"), "*.txt")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 10)
	c := load(t)
	for _, name := range files {
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("invalid", name))
			require.NoError(t, err)
			parts := strings.SplitN(string(text), "\n", 3)
			require.Len(t, parts, 3)
			err = c.Check(prefix+parts[0], []byte(strings.TrimSuffix(parts[2], "\n")))
			require.ErrorIs(t, err, contract.ErrMessage)
			assert.ErrorContains(t, err, parts[1])
		})
	}
}

func FuzzCheck(f *testing.F) {
	for name, payload := range golden(f) {
		if topic := topicOf(name); topic != "" {
			f.Add(topic, payload)
		}
	}
	c := load(f)
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		if err := c.Check(topic, payload); err != nil {
			require.ErrorIs(t, err, contract.ErrMessage)
		}
	})
}

// asyncapi.yaml names every topic and, by file, every schema of a message.
func TestAsyncAPIIsComplete(t *testing.T) {
	text, err := os.ReadFile("asyncapi.yaml")
	require.NoError(t, err)
	document := string(text)
	assert.True(t, strings.HasPrefix(document, "asyncapi: 3.0.0\n"))
	for _, topic := range []string{"up/records", "up/state", "up/alert", "down/receipt", "down/package/{class}", "down/command"} {
		assert.Contains(t, document, "address: rollcall/v1/{tenant}/{terminal}/"+topic+"\n")
	}
	for _, name := range []string{"record", "head", "state", "alert", "receipt", "package", "command", "jws-header"} {
		assert.Contains(t, document, "./schemas/"+name+".json")
	}
	for line := range strings.Lines(document) {
		if _, ref, ok := strings.Cut(line, "$ref: './"); ok {
			file, _, _ := strings.Cut(ref, "'")
			_, err := os.Stat(file)
			assert.NoError(t, err, line)
		}
	}
}

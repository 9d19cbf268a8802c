package queue_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/queue/chain"
)

var update = flag.Bool("update", false, "write the test vectors anew; explain every changed line in the commit")

// testdata is read by the tests of queue/chain too, which check it with other
// means than those that made it.
const testdata = "chain/testdata"

// vectors is testdata/vectors.json.
type vectors struct {
	Note         string         `json:"note"`
	TerminalSeed string         `json:"terminal_seed"` // Ed25519 private key (RFC 8032), hex
	CentreSeed   string         `json:"centre_seed"`   // the same, of authority and receipt key
	CA           string         `json:"ca"`
	Certificate  string         `json:"certificate"`
	ReceiptKey   string         `json:"receipt_key"`
	Records      []recordVector `json:"records"`
	NextSeed     string         `json:"next_seed"` // the key that the last record but one hands over to
	Handover     string         `json:"handover"`
	KeyHead      string         `json:"key_head"` // of the key record, by the terminal's first key
	Head         string         `json:"head"`     // of the last record, by the next
	Receipt      string         `json:"receipt"`
	Verdict      string         `json:"verdict"`
	Lookup       lookupVector   `json:"lookup"`
}

type recordVector struct {
	Line   string `json:"line"`
	SHA256 string `json:"sha256"` // hex
	Hash   string `json:"hash"`   // base64url
	Code   string `json:"code"`
}

type lookupVector struct {
	Secret   string             `json:"centre_secret"` // hex
	Terminal chain.TerminalID   `json:"terminal"`
	Class    string             `json:"class"`
	Key      string             `json:"key"` // hex
	Kind     attendance.KeyKind `json:"kind"`
	Value    string             `json:"value"`
	Hash     string             `json:"hash"`            // hex
	Sealing  string             `json:"sealing_private"` // X25519, hex
	Sealed   string             `json:"sealed"`          // hex; another each time it is made
}

func seed(n byte) []byte { return bytes.Repeat([]byte{n}, ed25519.SeedSize) }

// nextSeed is that of the key which the example hands over to.
const nextSeed = 5

// exampleRecords are one of each type, in an order that could be.
func exampleRecords(t *testing.T, terminal ed25519.PrivateKey) []attendance.Record {
	liveness, present := 0.81, 1
	next := ed25519.NewKeyFromSeed(seed(nextSeed))
	handover, err := chain.SignHandover(terminal, "t-7Q2M", next.Public())
	require.NoError(t, err)
	card := attendance.CardEvidence{Kind: attendance.KindSSC, Level: attendance.LevelFile, Reader: "Reader 1"}
	profile := attendance.ProfileRef{ID: "generic", Version: 1}
	model := strings.Repeat("5f", 32)
	hash := strings.Repeat("A", 42) + "E"
	return []attendance.Record{
		attendance.NewRecord(attendance.TypeOpen, attendance.OpenBody{
			Reason: "missing", Terminal: "t-7Q2M", Key: chain.KeyID(terminal.Public()), Software: "rollcalld 0.1.0",
			Last: &attendance.LastKnown{Log: "t-7Q2M/0a1b2c3d4e5f", Seq: 12, Hash: hash},
		}),
		attendance.NewRecord(attendance.TypePackage, attendance.PackageBody{
			Class: "c-2026-031", Serial: 5, SHA256: strings.Repeat("c1", 32), Sessions: 12, Trainees: 30,
		}),
		attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{
			Trainee: "tr-0007", Consent: "cs-0007", Officer: "o-1", Model: model, Salt: "AAECAwQFBgcICQoLDA0ODw", Hash: hash, Frames: 5, Quality: 0.93,
		}),
		attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
			Trainee: "tr-0007", Class: "c-2026-031", Session: "s-1", Decision: attendance.Late, LateMin: 7,
			Tapped: "2026-11-21T09:07:01.870+08:00", Card: card,
			Face: &attendance.FaceEvidence{
				Level: attendance.FaceMatch, Tries: 1, Score: 0.71, Threshold: 0.412, Uncalibrated: true,
				Quality: 0.95, Liveness: &liveness, Model: model, Enrol: 3, Frames: 3,
			},
			Profile: profile, Signals: []attendance.Signal{attendance.SignalFirstUse},
		}),
		attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
			Trainee: "tr-0007", Class: "c-2026-031", Session: "s-1", Decision: attendance.Duplicate, First: 4,
			Tapped: "2026-11-21T09:10:02.980+08:00", Card: card, Profile: profile,
		}),
		attendance.NewRecord(attendance.TypeUnknown, attendance.UnknownBody{
			KeyKind: attendance.KeyCardNo, Hash: hash, Tapped: "2026-11-21T09:13:02.500+08:00", Card: card,
		}),
		attendance.NewRecord(attendance.TypePending, attendance.PendingBody{
			Hash: hash, Tapped: "2026-11-21T09:16:02.900+08:00", Reader: "Scanner 1",
		}),
		attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{
			Part: "reader", Code: string(attendance.FaultRemoved), Tapped: "2026-11-21T09:19:02.100+08:00", Reader: "Reader 1",
		}),
		attendance.NewRecord(attendance.TypeWithdraw, attendance.WithdrawBody{
			Trainee: "tr-0007", Consent: "cs-0007", Enrol: 3, Reason: attendance.WithdrawConsent,
		}),
		attendance.NewRecord(attendance.TypeErase, attendance.EraseBody{Trainee: "tr-0007", Withdraw: 9, Key: "BAUGBwgJCgsMDQ4PEBESEw"}),
		attendance.NewRecord(attendance.TypeConsent, attendance.ConsentBody{
			Trainee: "tr-0007", Consent: "cs-0031", Scope: attendance.ScopeFace, Officer: "o-1", Card: &card,
		}),
		attendance.NewRecord(attendance.TypeEnrol, attendance.EnrolBody{
			Trainee: "tr-0007", Consent: "cs-0031", Officer: "o-1", OfficerCard: &card, Model: model,
			Salt: "AAECAwQFBgcICQoLDA0ODw", Hash: hash, Key: "FBUWFxgZGhscHR4fICEiIw", Frames: 5, Quality: 0.95, Likeness: 0.88,
			Poses: []attendance.Pose{
				attendance.PoseFront, attendance.PoseLeft, attendance.PoseRight, attendance.PoseFront, attendance.PoseFront,
			},
			Duplicate: 0.52, Resembles: "tr-0009",
		}),
		attendance.NewRecord(attendance.TypeAnchor, attendance.AnchorBody{
			Source: attendance.TimeReceipt, Wall: "2026-11-21T09:34:02.950+08:00", UpMS: 2283286, ErrMS: 121, Seq: 12,
		}),
		attendance.NewRecord(attendance.TypeSession, attendance.SessionBody{
			Class: "c-2026-031", Session: "s-1", Event: attendance.SessionClosed,
			Start: "2026-11-21T09:00:00.000+08:00", End: "2026-11-21T09:36:00.000+08:00", Serial: 5, Present: &present,
		}),
		attendance.NewRecord(attendance.TypeCorrection, attendance.CorrectionBody{
			Correct: attendance.Correct{
				Log: "t-7Q2M/3f9c5a10b2d4", Seq: 4, Hash: hash, Decision: attendance.OnTime, Operator: "op-2", Reason: "the lesson began late",
			},
			Serial: 7,
		}),
		attendance.NewRecord(attendance.TypeAdmin, attendance.AdminBody{
			Serial: 7, Kind: attendance.CommandCorrect, SHA256: strings.Repeat("c7", 32), Result: attendance.CommandDone,
		}),
		attendance.NewRecord(attendance.TypeCheckin, attendance.CheckinBody{
			Trainee: "tr-0007", Class: "c-2026-031", Session: "s-2", Decision: attendance.OnTime, Tapped: "2026-11-21T09:46:02.950+08:00",
			Face: &attendance.FaceEvidence{
				Level: attendance.FaceMatch, Mode: attendance.FaceIdentified, Tries: 1, Score: 0.68, Threshold: 0.45, Margin: 0.41,
				LeastMargin: 0.05, Uncalibrated: true, Quality: 0.96, Model: model, Enrol: 12, Frames: 4,
			},
			Profile: profile, Signals: []attendance.Signal{attendance.SignalFirstUse},
		}),
		attendance.NewRecord(attendance.TypeUnknown, attendance.UnknownBody{
			Tapped: "2026-11-21T09:49:02.950+08:00", Reason: attendance.ReasonNotIdentified,
			Face: &attendance.FaceEvidence{
				Level: attendance.FaceNone, Mode: attendance.FaceIdentified, Tries: 3, Score: 0.21, Threshold: 0.45, Margin: 0.04,
				LeastMargin: 0.05, Uncalibrated: true, Quality: 0.94, Model: model, Frames: 5,
			},
		}),
		attendance.NewRecord(attendance.TypeKey, attendance.KeyBody{
			Old: chain.KeyID(terminal.Public()), New: chain.KeyID(next.Public()), Handover: handover,
		}),
		attendance.NewRecord(attendance.TypeAdmin, attendance.AdminBody{
			Serial: 8, Kind: attendance.CommandRotateKey, SHA256: strings.Repeat("c8", 32), Result: attendance.CommandDone,
		}),
	}
}

// makeVectors forms the vectors from their inputs. before is what stood in the
// file: what is random in them is kept.
func makeVectors(t *testing.T, before vectors) (vectors, []byte) {
	terminal, centre := ed25519.NewKeyFromSeed(seed(1)), ed25519.NewKeyFromSeed(seed(2))
	const log chain.LogID = "t-7Q2M/3f9c5a10b2d4"
	v := vectors{
		Note:         "test keys: nothing signed with them is worth anything; written by `go test ./queue -run Vectors -update`",
		TerminalSeed: hex.EncodeToString(seed(1)),
		CentreSeed:   hex.EncodeToString(seed(2)),
		NextSeed:     hex.EncodeToString(seed(nextSeed)),
	}
	cert := exampleCertificates(t, &v, terminal, centre)

	const step = 3 * time.Minute
	var lines [][]byte
	var hashes []chain.Hash
	began := time.Date(2026, 11, 21, 8, 58, 3, 120e6, time.FixedZone("", 8*3600))
	for i, r := range exampleRecords(t, terminal) {
		if r.Type == attendance.TypeCorrection { // of line 4, as it came out
			r.Body = bytes.Replace(r.Body, []byte(strings.Repeat("A", 42)+"E"), []byte(hashes[3].String()), 1)
		}
		e := chain.Entry{
			V: chain.Version, Log: log, Seq: chain.Seq(i + 1), Type: string(r.Type), Body: r.Body,
			At: chain.Stamp{
				Wall: chain.NewWall(began.Add(time.Duration(i) * step)), Boot: "6f1b6c2e-51c1-4f2f-9a3e-0d1c5a8e7b90",
				UpMS: 123456 + int64(i)*step.Milliseconds(), Clock: chain.ClockSynced, ErrMS: 40,
			},
		}
		if i > 0 {
			e.Prev = hashes[i-1]
		}
		if i > 4 {
			e.Ack = &chain.Ack{Seq: 4, Hash: hashes[3]}
		}
		line, err := e.Line()
		require.NoError(t, err)
		h := chain.HashLine(line)
		lines, hashes = append(lines, line), append(hashes, h)
		v.Records = append(v.Records, recordVector{string(line), hex.EncodeToString(h[:]), h.String(), h.Short()})
	}
	head := func(key ed25519.PrivateKey, seq int) string {
		jws, err := chain.Sign(key, chain.PurposeHead, chain.Head{
			Log: log, Seq: chain.Seq(seq), Hash: hashes[seq-1], Wall: chain.NewWall(began.Add(time.Duration(seq-1) * step)),
		})
		require.NoError(t, err)
		return jws
	}
	last, next := len(lines), ed25519.NewKeyFromSeed(seed(nextSeed))
	v.KeyHead, v.Head = head(terminal, last-1), head(next, last)
	var err error
	v.Handover, err = chain.SignHandover(terminal, "t-7Q2M", next.Public())
	require.NoError(t, err)
	v.Receipt, err = chain.Sign(centre, chain.PurposeReceipt, chain.Receipt{
		Log: log, Seq: 4, Hash: hashes[3], At: chain.NewWall(began.Add(4 * step)),
	})
	require.NoError(t, err)
	v.Verdict = fmt.Sprintf("verified 1-%[1]d; sealed to 4 at 2026-11-21T09:10:03.120+08:00 (centre); own word 5-%[1]d", len(lines))
	v.Lookup = exampleLookup(t, before.Lookup.Sealed)

	export := slices.Concat([][]byte{chain.CertificateLine(cert), []byte(v.Handover)}, lines[:last-1],
		[][]byte{[]byte(v.KeyHead), lines[last-1], []byte(v.Head), []byte(v.Receipt), nil})
	return v, bytes.Join(export, []byte("\n"))
}

// exampleCertificates makes the centre's authority and the terminal's ledger
// certificate. Ed25519 signs the same bytes alike each time.
func exampleCertificates(t *testing.T, v *vectors, terminal, centre ed25519.PrivateKey) *x509.Certificate {
	make := func(template, parent *x509.Certificate, serial int64, pub any) *x509.Certificate {
		template.SerialNumber = big.NewInt(serial)
		template.NotBefore, template.NotAfter = time.Unix(1_790_000_000, 0), time.Unix(2_420_000_000, 0)
		der, err := x509.CreateCertificate(nil, template, parent, pub, centre)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	root := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test centre"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := make(root, root, 1, centre.Public())
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "t-7Q2M", OrganizationalUnit: []string{string(chain.RoleLedger)}}}
	cert := make(leaf, ca, 2, terminal.Public())
	var err error
	v.CA, v.Certificate = chain.EncodeCertificate(ca.Raw), chain.EncodeCertificate(cert.Raw)
	v.ReceiptKey, err = chain.EncodePublicKey(centre.Public())
	require.NoError(t, err)
	return cert
}

func exampleLookup(t *testing.T, sealed string) lookupVector {
	secret := seed(3)
	l := lookupVector{
		Secret: hex.EncodeToString(secret), Terminal: "t-7Q2M", Class: "c-2026-031",
		Kind: attendance.KeyCardNo, Value: "A00000001", Sealing: hex.EncodeToString(seed(4)), Sealed: sealed,
	}
	key, err := chain.DeriveLookupKey(secret, l.Terminal, l.Class)
	require.NoError(t, err)
	hash := attendance.HashNumber(key, l.Kind, l.Value)
	l.Key, l.Hash = hex.EncodeToString(key), hex.EncodeToString(hash[:])
	if sealed == "" {
		private, err := ecdh.X25519().NewPrivateKey(seed(4))
		require.NoError(t, err)
		box, err := chain.SealLookupKey(private.PublicKey().Bytes(), l.Terminal, l.Class, key)
		require.NoError(t, err)
		l.Sealed = hex.EncodeToString(box)
	}
	return l
}

// The program still forms the bytes that are published.
func TestVectors(t *testing.T) {
	jsonFile, exportFile := filepath.Join(testdata, "vectors.json"), filepath.Join(testdata, "export.txt")
	var want vectors
	text, err := os.ReadFile(jsonFile)
	if !*update {
		require.NoError(t, err)
	}
	if err == nil {
		require.NoError(t, json.Unmarshal(text, &want))
	}
	got, export := makeVectors(t, want)
	if *update {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		require.NoError(t, enc.Encode(got))
		require.NoError(t, os.MkdirAll(testdata, 0o755))
		require.NoError(t, os.WriteFile(jsonFile, buf.Bytes(), 0o644))
		require.NoError(t, os.WriteFile(exportFile, export, 0o644))
		quote(t, got)
		return
	}
	assert.Equal(t, want, got)
	wantExport, err := os.ReadFile(exportFile)
	require.NoError(t, err)
	assert.Equal(t, string(wantExport), string(export))
}

// quote renews the vectors in docs/record.md.
func quote(t *testing.T, v vectors) {
	const path, begin, end = "../docs/record.md", "Line 1, SHA-256 ", "Lookup: centre secret"
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	var b strings.Builder
	for i, r := range v.Records {
		fmt.Fprintf(&b, "Line %d, SHA-256 `%s`, hash `%s`, code `%s`:\n\n    %s\n\n", i+1, r.SHA256, r.Hash, r.Code, r.Line)
	}
	fmt.Fprintf(&b, "Head of line %d, the key record, by the first key:\n\n    %s\n\n", len(v.Records)-1, v.KeyHead)
	fmt.Fprintf(&b, "Handover, as it stands behind the certificate in an export:\n\n    %s\n\n", v.Handover)
	fmt.Fprintf(&b, "Head of the last line, by the next key:\n\n    %s\n\nReceipt of line 4:\n\n    %s\n\nVerify says: `%s`.\n\n", v.Head, v.Receipt, v.Verdict)
	require.NoError(t, os.WriteFile(path, []byte(before+b.String()+end+after), 0o644))
}

// docs/record.md quotes every vector and names every field of what is
// published, so that it cannot be left behind.
func TestDocumentIsComplete(t *testing.T) {
	text, err := os.ReadFile("../docs/record.md")
	require.NoError(t, err)
	doc := string(text)
	data, err := os.ReadFile(filepath.Join(testdata, "vectors.json"))
	require.NoError(t, err)
	var v vectors
	require.NoError(t, json.Unmarshal(data, &v))

	quoted := []string{v.TerminalSeed, v.CentreSeed, v.NextSeed, v.Handover, v.KeyHead, v.Head, v.Receipt, v.Verdict, v.Lookup.Secret, v.Lookup.Key, v.Lookup.Value, v.Lookup.Hash}
	for _, r := range v.Records {
		quoted = append(quoted, r.Line, r.SHA256, r.Hash, r.Code)
	}
	for _, q := range quoted {
		assert.True(t, strings.Contains(doc, q), "docs/record.md does not quote %s", q)
	}
	for _, of := range []any{
		chain.Entry{}, chain.Stamp{}, chain.Ack{}, chain.Head{}, chain.Receipt{}, chain.Request{}, chain.Admission{},
		attendance.OpenBody{}, attendance.LastKnown{}, attendance.CheckinBody{}, attendance.CardEvidence{}, attendance.FaceEvidence{}, attendance.LikeFace{},
		attendance.UnknownBody{}, attendance.PendingBody{}, attendance.FaultBody{}, attendance.PackageBody{},
		attendance.ConsentBody{}, attendance.EnrolBody{}, attendance.WithdrawBody{}, attendance.EraseBody{},
		attendance.SessionBody{}, attendance.AnchorBody{}, attendance.KeyBody{}, attendance.AdminBody{}, attendance.CorrectionBody{},
		attendance.Command{}, attendance.Resend{}, attendance.Erase{}, attendance.Correct{}, chain.Handover{},
		attendance.Package{}, attendance.Profile{}, attendance.ProfileRef{}, attendance.ClassInfo{}, attendance.Session{},
		attendance.Officer{}, attendance.Trainee{}, attendance.RosterKey{}, attendance.ClassCode{},
	} {
		for field := range reflect.TypeOf(of).Fields() {
			if field.Anonymous {
				continue // its own type is in the list
			}
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			assert.Regexp(t, "`([a-z0-9_]+\\.)?"+name+"`", doc, "docs/record.md does not name %T.%s", of, name)
		}
	}
}

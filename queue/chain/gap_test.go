package chain_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/queue/chain"
)

// Records may be missing where a gap record names them: of its own log behind
// them, or of an earlier log of the terminal. Both verifiers say the same.
func TestGapsThatAreNamed(t *testing.T) {
	h := newHouse(t)
	// file is records 1 to 6 of a log without 3 and 4, then one of a second log.
	file := func(own, later string) [][]byte {
		first, second := h.ledger(terminalKey, logA, 6), &ledger{h: h, key: terminalKey, log: "t-1/bbbb"}
		if own != "" {
			first.record("gap", own)
		}
		second.record("open", "{}")
		if later != "" {
			second.record("gap", later)
		}
		return slices.Concat(slices.Delete(first.whole(), 5, 9), second.whole()[1:])
	}
	behind := func(body string) [][]byte { // the gap record is the first behind the gap
		l := h.ledger(terminalKey, logA, 4)
		l.record("gap", body)
		return slices.Delete(l.whole(), 7, 9)
	}
	reader := newSecondReader(t, h)
	for i, tc := range []struct {
		name string
		file [][]byte
		want string // of the first log; "" if it is not sound
		says string
	}{
		{"by nobody", file("", ""), "", "record 3 of t-1/aaaa: is missing"},
		{"by its own log", file(`{"from":3,"to":4}`, ""), "verified 1-2; own word 1-2; gap 3-4; verified 5-7; own word 5-7", ""},
		{"in part", file(`{"from":3,"to":3}`, ""), "", "record 4 of t-1/aaaa: is missing"},
		{"by a later log", file("", `{"log":"t-1/aaaa","from":3,"to":4}`), "verified 1-2; own word 1-2; gap 3-4; verified 5-6; own word 5-6", ""},
		{"by both", file(`{"from":3,"to":3}`, `{"log":"t-1/aaaa","from":4,"to":4}`), "verified 1-2; own word 1-2; gap 3-4; verified 5-7; own word 5-7", ""},
		{"by a later log, with the tail", file("", `{"log":"t-1/aaaa","from":3,"to":90}`), "verified 1-2; own word 1-2; gap 3-4; verified 5-6; own word 5-6", ""},
		{"by a later log, of the tail alone", file("", `{"log":"t-1/aaaa","from":8,"to":90}`), "", "record 3 of t-1/aaaa: is missing"},
		{"by a later log for its own", file("", `{"from":1,"to":1}`), "", "record 3 of t-1/aaaa: is missing"},
		{"by a later log for one that is not here", file(`{"from":3,"to":4}`, `{"log":"t-1/cccc","from":3,"to":4}`), "verified 1-2; own word 1-2; gap 3-4; verified 5-7; own word 5-7", ""},
		{"for another terminal", file(`{"from":3,"to":4}`, `{"log":"t-2/aaaa","from":3,"to":4}`), "", "record 2 of t-1/bbbb: is a gap record that names no records before it"},
		{"for records to come", file(`{"from":3,"to":7}`, ""), "", "record 3 of t-1/aaaa: is missing"},
		{"the wrong way round", file(`{"from":4,"to":3}`, ""), "", "record 3 of t-1/aaaa: is missing"},
		{"by the record right behind it", behind(`{"from":4,"to":4}`), "verified 1-3; own word 1-3; gap 4; verified 5; own word 5", ""},
		{"by the record right behind it, in part", behind(`{"from":3,"to":3}`), "", "record 4 of t-1/aaaa: is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			epochs, err := verify(&h.trust, tc.file)
			var said []string
			if tc.want == "" {
				assert.ErrorContains(t, err, tc.says)
			} else {
				require.NoError(t, err)
				assert.Equal(t, tc.want, epochs[0].String())
				for _, e := range epochs {
					said = append(said, bounds(e))
				}
			}
			path := filepath.Join(reader.dir, fmt.Sprint(i))
			require.NoError(t, os.WriteFile(path, append(bytes.Join(tc.file, []byte("\n")), '\n'), 0o600))
			reader.names, reader.want[path] = append(reader.names, path), strings.Join(said, "\n")
		})
	}
	reader.compare()
	assert.Equal(t, 14, reader.files)
	e := chain.Entry{Log: logA, Seq: 5, Body: []byte(`{"from":1,"to":4}`)}
	assert.True(t, chain.NamesGap(e))
	e.Seq = 4
	assert.False(t, chain.NamesGap(e))
}

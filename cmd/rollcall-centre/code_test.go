package main_test

import (
	"fmt"
	"image/png"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"rsc.io/qr"

	"rollcall/attendance"
)

func TestCodeCommand(t *testing.T) {
	s := newSite(t)
	s.must("init")
	s.admit("t-1")
	now := time.Now().UTC()
	class := fmt.Sprintf(`{"class":{"id":"electrician-2026-3","name":"班"},"sessions":[{"id":"session-012","start":%q,"end":%q}],
"trainees":[{"trainee":"trainee-000123","name":"张小明","card_no":"A12345678"}]}`, now.Add(-time.Hour).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
	s.must("package", "-terminal", "t-1", s.write("class.json", class))

	args := []string{"-terminal", "t-1", "-class", "electrician-2026-3", "-session", "session-012", "-trainee", "trainee-000123"}
	out := s.must("code", append(args, "-png", s.path("code.png"))...)
	text := strings.TrimSpace(out)
	assert.LessOrEqual(t, len(text), attendance.MaxCodeText)
	symbol, err := qr.Encode(text, qr.L)
	require.NoError(t, err)
	version := (symbol.Size - 17) / 4
	t.Logf("%d characters, QR version %d-L, %d modules a side", len(text), version, symbol.Size)
	assert.LessOrEqual(t, version, 15, "read off a telephone by a cheap scanner")

	f, err := os.Open(s.path("code.png"))
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	assert.Equal(t, picture.Bounds().Dx(), picture.Bounds().Dy())

	_, err = s.tool("code", args[:6]...)
	require.Error(t, err)
	assert.ErrorContains(t, err, "not in class")
	_, err = s.tool("code", append(args, "t-1")...)
	assert.ErrorContains(t, err, "flags only")
}

package main

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
	"rollcall/centre"
	"rollcall/device"
)

func TestParseOrder(t *testing.T) {
	order, err := parseOrder([]string{"resend", "t-1/aa", "41"})
	require.NoError(t, err)
	assert.Equal(t, &attendance.Resend{Log: "t-1/aa", Seq: 41}, order.Resend)
	order, err = parseOrder([]string{"erase", "p-1", "consent"})
	require.NoError(t, err)
	assert.Equal(t, &attendance.Erase{Trainee: "p-1", Reason: attendance.WithdrawConsent}, order.Erase)
	order, err = parseOrder([]string{"correct", "t-1/aa", "7", "void", "op-1", "tapped for another"})
	require.NoError(t, err)
	assert.Equal(t, &attendance.Correct{Log: "t-1/aa", Seq: 7, Decision: attendance.Void, Operator: "op-1", Reason: "tapped for another"}, order.Correct)

	for _, tc := range []struct{ args, says []string }{
		{[]string{"reboot"}, []string{"reboot", "resend, erase or correct"}},
		{[]string{"resend", "t-1/aa"}, []string{"LOG SEQ"}},
		{[]string{"resend", "t-1/aa", "-1"}, []string{"-1", "record's number"}},
		{[]string{"correct", "t-1/aa", "7", "void", "op-1", "two", "words"}, []string{"quoted"}},
	} {
		_, err := parseOrder(tc.args)
		require.Error(t, err)
		for _, word := range tc.says {
			assert.ErrorContains(t, err, word)
		}
	}
}

// FuzzOrder types anything after command -terminal t-1. It is refused in words,
// or a command that a terminal understands is made, and the list can be read.
func FuzzOrder(f *testing.F) {
	dir := f.TempDir()
	cfg := centre.Config{Tenant: "test", Dir: filepath.Join(dir, "centre")}
	require.NoError(f, centre.Init(cfg, time.Now()))
	c, err := centre.Open(f.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(f, err)
	f.Cleanup(func() { assert.NoError(f, c.Close()) })
	keys, err := device.CreateKeys(filepath.Join(dir, "keys"))
	require.NoError(f, err)
	request, err := keys.Request("t-1")
	require.NoError(f, err)
	text, err := json.Marshal(request)
	require.NoError(f, err)
	_, err = c.Admit(f.Context(), text)
	require.NoError(f, err)
	for _, seed := range []string{
		"resend\x00t-1/aa\x0041", "erase\x00p-1\x00consent", "correct\x00t-1/aa\x007\x00void\x00op-1\x00tapped for another", "rotate_key",
		"reboot", "", "\x00", "erase\x00\xff\x00centre", "resend\x00t-9/aa\x009223372036854775807", "correct\x00\x00\x00\x00\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, words string) {
		order, err := parseOrder(strings.Split(words, "\x00"))
		if err != nil {
			return
		}
		made, err := c.Order(t.Context(), "t-1", order, 0)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.Equal(t, order.Kind, made.Kind)
		commands, err := c.Commands(t.Context(), "t-1")
		require.NoError(t, err)
		require.Equal(t, made.Serial, commands[0].Serial)
	})
}

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollcall/attendance"
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

package pcsc

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"rollcall/reader"
)

func TestCodesHaveMeanings(t *testing.T) {
	for name, c := range map[string]struct {
		code Code
		want error
	}{
		"unknown reader":     {0x80100009, reader.ErrReaderGone},
		"reader unavailable": {0x80100017, reader.ErrReaderGone},
		"no service":         {0x8010001D, reader.ErrServiceDown},
		"service stopped":    {0x8010001E, reader.ErrServiceDown},
		"connection lost":    {0x80100013, reader.ErrServiceDown},
		"exclusive":          {0x8010000B, reader.ErrReaderBusy},
		"removed":            {0x80100069, reader.ErrCardRemoved},
		"removed in between": {0x80100016, reader.ErrCardRemoved},
		"no card":            {0x8010000C, reader.ErrCardRemoved},
		"reset":              {0x80100068, reader.ErrCardReset},
		"unresponsive":       {0x80100066, reader.ErrCardMute},
		"unpowered":          {0x80100067, reader.ErrCardMute},
		"no protocol":        {0x8010000F, reader.ErrCardMute},
		"unsupported":        {0x80100065, reader.ErrUnsupportedCard},
		"anything else":      {0x80100001, reader.ErrBadFormat},
	} {
		t.Run(name, func(t *testing.T) {
			assert.ErrorIs(t, meaning(c.code), c.want)
			assert.ErrorIs(t, meaning(c.code), c.code)
		})
	}
	assert.NoError(t, meaning(nil))
}

func TestPatternsNameSlots(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*sam*", "acs acr1252 cl reader [acr1252 reader sam] 01 00", true},
		{"*sam*", "acs acr1252 cl reader [acr1252 reader picc] 00 00", false},
		{"desk 00 0*", "desk 00 01", true},
		{"desk 00 00", "desk 00 01", false},
		{"desk", "desk 00 00", false},
		{"*", "", true},
		{"", "", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-b-b-d", false},
		{"[a]*", "[a] 00", true},
	} {
		t.Run(c.pattern+" "+c.name, func(t *testing.T) { assert.Equal(t, c.want, matches(c.pattern, c.name)) })
	}
}

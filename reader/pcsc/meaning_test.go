//go:build cgo

package pcsc

import (
	"testing"

	"github.com/ebfe/scard"
	"github.com/stretchr/testify/assert"

	"rollcall/reader"
)

func TestCodesHaveMeanings(t *testing.T) {
	for name, c := range map[string]struct {
		code scard.Error
		want error
	}{
		"unknown reader":     {scard.ErrUnknownReader, reader.ErrReaderGone},
		"reader unavailable": {scard.ErrReaderUnavailable, reader.ErrReaderGone},
		"no service":         {scard.ErrNoService, reader.ErrServiceDown},
		"service stopped":    {scard.ErrServiceStopped, reader.ErrServiceDown},
		"connection lost":    {scard.ErrCommError, reader.ErrServiceDown},
		"exclusive":          {scard.ErrSharingViolation, reader.ErrReaderBusy},
		"removed":            {scard.ErrRemovedCard, reader.ErrCardRemoved},
		"removed in between": {scard.ErrNotTransacted, reader.ErrCardRemoved},
		"no card":            {scard.ErrNoSmartcard, reader.ErrCardRemoved},
		"reset":              {scard.ErrResetCard, reader.ErrCardReset},
		"unresponsive":       {scard.ErrUnresponsiveCard, reader.ErrCardMute},
		"unpowered":          {scard.ErrUnpoweredCard, reader.ErrCardMute},
		"unsupported":        {scard.ErrUnsupportedCard, reader.ErrUnsupportedCard},
		"anything else":      {scard.ErrInternalError, reader.ErrBadFormat},
	} {
		t.Run(name, func(t *testing.T) { assert.ErrorIs(t, meaning(c.code), c.want) })
	}
	assert.NoError(t, meaning(scard.ErrSuccess))
}

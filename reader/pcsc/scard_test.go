//go:build cgo

package pcsc

import (
	"testing"

	"github.com/ebfe/scard"
	"github.com/stretchr/testify/assert"
)

// Our numbers must be the C library's.
func TestNumbersAreTheBindings(t *testing.T) {
	for ours, theirs := range map[Code]scard.Error{
		CodeCancelled: scard.ErrCancelled, CodeInvalidHandle: scard.ErrInvalidHandle, CodeUnknownReader: scard.ErrUnknownReader,
		CodeTimeout: scard.ErrTimeout, CodeSharing: scard.ErrSharingViolation, CodeNoCard: scard.ErrNoSmartcard,
		CodeProtocol: scard.ErrProtoMismatch, CodeCommunication: scard.ErrCommError, CodeNotTransacted: scard.ErrNotTransacted,
		CodeReaderUnavailable: scard.ErrReaderUnavailable, CodeNoService: scard.ErrNoService, CodeServiceStopped: scard.ErrServiceStopped,
		CodeNoReaders: scard.ErrNoReadersAvailable, CodeUnsupportedCard: scard.ErrUnsupportedCard,
		CodeUnresponsiveCard: scard.ErrUnresponsiveCard, CodeUnpoweredCard: scard.ErrUnpoweredCard,
		CodeResetCard: scard.ErrResetCard, CodeRemovedCard: scard.ErrRemovedCard,
	} {
		assert.Equal(t, ours, code(theirs))
	}
	assert.NoError(t, code(scard.ErrSuccess))
	for ours, theirs := range map[Flags]scard.StateFlag{
		StateIgnore: scard.StateIgnore, StateChanged: scard.StateChanged, StateUnknown: scard.StateUnknown,
		StateUnavailable: scard.StateUnavailable, StateEmpty: scard.StateEmpty, StatePresent: scard.StatePresent,
		StateExclusive: scard.StateExclusive, StateInUse: scard.StateInuse, StateMute: scard.StateMute,
	} {
		assert.EqualValues(t, ours, theirs)
	}
}

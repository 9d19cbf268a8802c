//go:build !cgo

package pcsc

import (
	"fmt"

	"rollcall/device"
)

// System gives a stand-in: this program was built without PC/SC.
func System() Binding { return noSystem{} }

type noSystem struct{}

// Establish says how to build the driver.
func (noSystem) Establish() (Context, error) {
	return nil, fmt.Errorf("this program was built without PC/SC: install libpcsclite-dev and build it with CGO_ENABLED=1: %w", device.ErrPermanent)
}

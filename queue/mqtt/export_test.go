package mqtt

import (
	"context"
	"net"
)

// SetDial gives an uplink another way to its addresses.
func (u *Uplink) SetDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	u.dial = dial
}

const DefaultReceiptTimeout = defaultReceiptTimeout

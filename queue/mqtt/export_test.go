package mqtt

import (
	"context"
	"net"
	"time"
)

// SetDial gives an uplink another way to its addresses.
func (u *Uplink) SetDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	u.dial = dial
}

const DefaultReceiptTimeout = defaultReceiptTimeout

// SetJitter gives an uplink other pauses.
func (u *Uplink) SetJitter(jitter func(time.Duration) time.Duration) { u.jitter = jitter }

// OpenTLS opens a connection as the uplink does, for one that is written
// differently.
func (u *Uplink) OpenTLS(ctx context.Context, address string) (net.Conn, error) {
	return (&connection{Uplink: u, address: address}).open(ctx)
}

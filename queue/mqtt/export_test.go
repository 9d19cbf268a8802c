package mqtt

import (
	"context"
	"net"
	"time"

	"rollcall/queue/chain"
)

// SetDial gives an uplink another way to its addresses.
func (u *Uplink) SetDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	u.dial = dial
}

const DefaultReceiptTimeout = defaultReceiptTimeout

// SetJitter gives an uplink other pauses.
func (u *Uplink) SetJitter(jitter func(time.Duration) time.Duration) { u.jitter = jitter }

// TrustPUBACK has an uplink let records go on the broker's acknowledgement.
func (u *Uplink) TrustPUBACK(letGo func(last chain.Seq)) { u.trusted = letGo }

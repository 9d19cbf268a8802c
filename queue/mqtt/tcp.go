package mqtt

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A connection over which nothing comes back any more (cable out, black hole) is
// given up within 10 s: an idle one is probed by the kernel after 3 s and every
// 2 s from then, one with data under way is given up when none of it was
// acknowledged for 8 s. A slow link that acknowledges anything is kept
// (tcp(7), TCP_USER_TIMEOUT; RFC 5482). MQTT's own keep-alive has a minute: it
// watches over the broker's program, not over the path to it.
const (
	probeIdle   = 3 * time.Second
	probeEvery  = 2 * time.Second
	userTimeout = 8 * time.Second
)

func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeEvery, Count: 3},
		Control: func(_, _ string, conn syscall.RawConn) error {
			var set error
			err := conn.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return set
		},
	}
}

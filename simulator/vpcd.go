package simulator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
)

// A Chip is what goes into a slot: a [Card] or a [PSAM].
type Chip interface {
	ATR() []byte
	PowerOff()
	// reset powers the chip; serve answers a command. Both take the time that
	// takes, and report false if the chip leaves or ctx ends before.
	reset(ctx context.Context) bool
	serve(ctx context.Context, command []byte) (answer []byte, ok bool)
}

// A Slot is where a virtual card goes into a virtual reader. It takes one card
// at a time.
type Slot struct {
	Name string // as PC/SC lists it, "Desk 00 00"
	addr string
}

// Insert puts a card into the slot and returns at once; the reader, which polls
// every 400 ms, sees it within that time. remove takes the card out, may be
// called twice, and returns when the card is out. A card also comes out by
// itself when its PullAt is reached and when pcscd ends.
func (s *Slot) Insert(card Chip) (remove func(), err error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, fmt.Errorf("inserting a card into %s: %w", s.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		serveCard(ctx, conn.(*net.TCPConn), card)
		card.PowerOff()
	})
	return func() { cancel(); serving.Wait() }, nil
}

// What the reader asks of a card, by vpcd's protocol: a length in two bytes,
// then a command APDU, or one of these bytes.
const (
	vpcdPowerOff = 0x00 // 01 is on, 02 reset
	vpcdATR      = 0x04 // also the poll whether the card is still there
)

// serveCard answers until the connection ends, which either side may do.
func serveCard(ctx context.Context, conn *net.TCPConn, card Chip) {
	for {
		request, err := readVPCD(conn)
		if err != nil {
			return
		}
		var answer []byte
		ok := true
		switch {
		case len(request) > 1:
			if answer, ok = card.serve(ctx, request); !ok {
				return
			}
		case len(request) == 0:
			return
		case request[0] == vpcdATR:
			answer = card.ATR()
		case request[0] == vpcdPowerOff:
			card.PowerOff()
			continue
		default: // on, or reset
			if !card.reset(ctx) {
				return
			}
			continue
		}
		answer = answer[:min(len(answer), math.MaxUint16)]
		message := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
		if _, err := conn.Write(append(message, answer...)); err != nil {
			return
		}
	}
}

// readVPCD reads one message. vpcd sends length and body apart with Nagle's
// algorithm on, and each would wait 40 ms for a delayed acknowledgement: so
// acknowledge at once. The option does not last, hence before each read.
func readVPCD(conn *net.TCPConn) ([]byte, error) {
	var length [2]byte
	if err := readQuickly(conn, length[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(length[:]))
	return body, readQuickly(conn, body)
}

func readQuickly(conn *net.TCPConn, b []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
	if err != nil {
		return err
	}
	if optErr != nil {
		return optErr
	}
	_, err = io.ReadFull(conn, b)
	return err
}

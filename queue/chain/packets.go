package chain

import (
	"errors"
	"io"
	"net"
)

// ErrPacket says that bytes are no MQTT packet, or one that may not be so long.
var ErrPacket = errors.New("MQTT packet too long or malformed")

const (
	packetPublish = 3    // type of a PUBLISH, in the upper half of the first byte
	lengthMore    = 0x80 // another digit of the remaining length follows
)

// Packets reads MQTT control packets (3.1.1, section 2.2) from a reader and
// passes them on with none longer than a limit: a PUBLISH that is longer is cut
// to it, so that what it carries fails its check and nothing else is lost;
// another packet that is longer ends the reading with [ErrPacket]. It keeps no
// packet in memory. Parsers behind it that make room for the length a packet
// claims are so bounded. One goroutine may use it.
type Packets struct {
	r      io.Reader
	limit  int
	header []byte // of the packet in hand, as far as it is not passed on
	pass   int    // bytes of it to pass on after the header
	drop   int    // and to pass over after these
}

// NewPackets limits what comes from r to limit bytes after the fixed header.
func NewPackets(r io.Reader, limit int) *Packets { return &Packets{r: r, limit: limit} }

// LimitPackets is a connection that reads through [Packets].
func LimitPackets(conn net.Conn, limit int) net.Conn {
	return limitedConn{conn, NewPackets(conn, limit)}
}

type limitedConn struct {
	net.Conn
	packets *Packets
}

func (c limitedConn) Read(b []byte) (int, error) { return c.packets.Read(b) }

// Read implements [io.Reader].
func (p *Packets) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(p.header) == 0 && p.pass == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	if len(p.header) > 0 {
		n := copy(b, p.header)
		p.header = p.header[n:]
		return n, nil
	}
	n, err := p.r.Read(b[:min(len(b), p.pass)])
	p.pass -= n
	return n, err
}

// next passes over what was cut and reads the next fixed header.
func (p *Packets) next() error {
	n, err := io.CopyN(io.Discard, p.r, int64(p.drop))
	if p.drop -= int(n); err != nil {
		return err
	}
	var header [5]byte
	if _, err := io.ReadFull(p.r, header[:1]); err != nil {
		return err
	}
	length, digits := 0, 0
	for more := true; more; digits++ {
		if digits == 4 {
			return ErrPacket
		}
		digit := header[1+digits : 2+digits]
		if _, err := io.ReadFull(p.r, digit); err != nil {
			return err
		}
		length |= int(digit[0]&^lengthMore) << (7 * digits)
		more = digit[0]&lengthMore != 0
	}
	p.header, p.pass, p.drop = header[:1+digits], length, 0
	if length <= p.limit {
		return nil
	}
	if header[0]>>4 != packetPublish {
		return ErrPacket
	}
	p.header, p.pass, p.drop = appendLength(header[:1], p.limit), p.limit, length-p.limit
	return nil
}

// appendLength encodes a remaining length (3.1.1, section 2.2.3).
func appendLength(b []byte, n int) []byte {
	for n >= lengthMore {
		b = append(b, byte(n)|lengthMore)
		n >>= 7
	}
	return append(b, byte(n))
}

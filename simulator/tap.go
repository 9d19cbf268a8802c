package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"rollcall/device"
	"rollcall/queue/chain"
)

// tap stands before the centre and reads what terminal and centre publish. A
// stage has the keys of both, so it can end TLS on either side as the other.
type tap struct {
	listener net.Listener
	target   string // the centre
	centre   string // the directory of its keys
	terminal string // the directory of the terminal's keys
	wire     func(topic string, payload []byte)
}

// run relays until ctx ends.
func (t *tap) run(ctx context.Context) {
	var relays sync.WaitGroup
	defer relays.Wait()
	defer context.AfterFunc(ctx, func() { t.listener.Close() })()
	for {
		near, err := t.listener.Accept()
		if err != nil {
			return
		}
		relays.Go(func() {
			defer context.AfterFunc(ctx, func() { near.Close() })()
			defer near.Close()
			_ = t.relay(ctx, near) // the terminal sees a closed connection
		})
	}
}

func (t *tap) relay(ctx context.Context, near net.Conn) error {
	asCentre, asTerminal, err := t.identities()
	if err != nil {
		return err
	}
	plain := tls.Server(near, asCentre)
	defer plain.Close()
	if err := plain.HandshakeContext(ctx); err != nil {
		return err
	}
	far, err := (&tls.Dialer{Config: asTerminal}).DialContext(ctx, "tcp", t.target)
	if err != nil {
		return err
	}
	defer far.Close()
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() {
		_ = t.pass(plain, far)
		near.Close()
	})
	defer far.Close()
	return t.pass(far, plain)
}

// identities are read for each connection: the keys are made after the stage is
// opened.
func (t *tap) identities() (asCentre, asTerminal *tls.Config, err error) {
	server, err := tls.LoadX509KeyPair(filepath.Join(t.centre, "tls.crt"), filepath.Join(t.centre, "tls.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("tap: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(t.centre, "ca.crt"))
	if err != nil {
		return nil, nil, fmt.Errorf("tap: %w", err)
	}
	ca := x509.NewCertPool()
	ca.AppendCertsFromPEM(text)
	keys, err := device.OpenKeys(t.terminal)
	if err != nil {
		return nil, nil, fmt.Errorf("tap: %w", err)
	}
	admission, err := device.LoadAdmission(t.terminal)
	if err != nil {
		return nil, nil, fmt.Errorf("tap: %w", err)
	}
	cert, err := chain.ParseCertificate(admission.Uplink)
	if err != nil {
		return nil, nil, fmt.Errorf("tap: %w", err)
	}
	asCentre = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca}
	asTerminal = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: keys.Uplink()}}}
	return asCentre, asTerminal, nil
}

// pass relays packets, byte by byte as they came, and tells of messages.
func (t *tap) pass(to io.Writer, from io.Reader) error {
	var raw bytes.Buffer
	copied := io.TeeReader(from, &raw)
	for {
		raw.Reset()
		packet, err := packets.ReadPacket(copied)
		if err != nil {
			return err
		}
		switch p := packet.(type) {
		case *packets.PublishPacket:
			t.wire(p.TopicName, p.Payload)
		case *packets.ConnectPacket:
			if p.WillFlag {
				t.wire(p.WillTopic, p.WillMessage)
			}
		}
		if _, err := to.Write(raw.Bytes()); err != nil {
			return err
		}
	}
}

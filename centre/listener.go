package centre

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"rollcall/queue/chain"
)

const (
	// maxPacket admits a batch of chain.MaxBatchBytes with its topic.
	maxPacket = chain.MaxBatchBytes + 1024
	// maxState bounds what a terminal may leave retained.
	maxState = 4096
	// connectTime is how long a connection may take for TLS and MQTT CONNECT.
	connectTime = 10 * time.Second
	// ingestTime is how long a batch may wait for the store.
	ingestTime = 30 * time.Second
	maxClients = 20_000
)

// Listener is the centre's own MQTT broker. It serves admitted terminals only:
// TLS 1.3, a client certificate of the centre's authority with the key the
// terminal was admitted with, the client id its CommonName. A terminal may
// publish its records, state and alerts, and hear what is addressed to it;
// nothing else.
//
// The acknowledgement of a batch is sent after the database commit, and the
// receipt after the acknowledgement. A batch that the store did not take is
// not acknowledged, and the connection is closed.
type Listener struct {
	centre *Centre
	net    net.Listener
}

// Listen opens the address in the configuration. Run serves it.
func (c *Centre) Listen() (*Listener, error) {
	if c.cfg.Listen == "" {
		return nil, errors.New("nothing to serve on: set listen (the centre's own listener) or broker (through a broker) in the configuration")
	}
	l, err := net.Listen("tcp", c.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen = %q: %w", c.cfg.Listen, err)
	}
	return &Listener{centre: c, net: l}, nil
}

// Address is the address that terminals dial, with the port that was taken.
func (l *Listener) Address() string { return l.net.Addr().String() }

// Run serves until ctx ends, then closes all connections and returns after the
// last batch in hand.
func (l *Listener) Run(ctx context.Context) error {
	server := mqtt.New(&mqtt.Options{
		Capabilities:           l.capabilities(),
		InlineClient:           true,                          // the centre's own publishing
		Logger:                 slog.New(slog.DiscardHandler), // it logs whole packets
		SysTopicResendInterval: int64(math.MaxInt32),          // nobody may read $SYS
	})
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := server.AddHook(&door{centre: l.centre, work: work, server: server}, nil); err != nil {
		return fmt.Errorf("starting the listener: %w", err)
	}
	closing, closeAll := context.WithCancel(work)
	defer closeAll()
	if err := server.AddListener(listeners.NewNet("terminals", newTLSListener(closing, l.net, l.centre))); err != nil {
		return fmt.Errorf("starting the listener: %w", err)
	}
	if err := server.Serve(); err != nil {
		return fmt.Errorf("starting the listener: %w", err)
	}
	var shutting sync.WaitGroup
	shutting.Go(func() { l.centre.shutOut(closing, server) })
	err := l.centre.deliver(ctx, func(topic string, payload []byte) error {
		return server.Publish(topic, payload, true, 1)
	})
	closeAll()
	shutting.Wait()
	dismiss(server)
	return errors.Join(err, server.Close())
}

// dismiss lets the clients go before Close does. mochi's Close (v2.7.9) takes a
// read lock on its list of clients twice, and a client that leaves between the
// two, waiting for the write lock, holds it for ever. One that does not leave
// within a second is left to Close.
func dismiss(server *mqtt.Server) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		left := 0
		for _, cl := range server.Clients.GetAll() {
			if !cl.Net.Inline {
				_ = server.DisconnectClient(cl, packets.ErrServerShuttingDown)
				left++
			}
		}
		if left == 0 {
			return
		}
		<-tick.C
	}
}

func (l *Listener) capabilities() *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumPacketSize = maxPacket
	c.MaximumClients = maxClients
	c.MaximumMessageExpiryInterval = 0 // with any other value retained packages are dropped after it
	c.MaximumSessionExpiryInterval = 60
	c.MaximumClientWritesPending = 64
	c.MaximumInflight = 64
	c.ReceiveMaximum = 16
	c.MaximumQos = 1
	c.SharedSubAvailable = 0
	return c
}

// newTLSListener accepts connections with a deadline for their first words,
// and closes all of them when closing ends.
func newTLSListener(closing context.Context, l net.Listener, c *Centre) net.Listener {
	return &patientListener{Listener: l, closing: closing, log: c.log, tls: &tls.Config{
		GetCertificate: c.served.forServer,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      c.keys.caPool(),
		MinVersion:     tls.VersionTLS13,
		Time:           c.now,
	}}
}

// patientListener waits and goes on where Accept fails for want of file
// descriptors or the like; the MQTT server would stop listening in silence.
type patientListener struct {
	net.Listener
	tls     *tls.Config
	closing context.Context
	log     *slog.Logger
}

func (l *patientListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err == nil {
			conn := &terminalConn{Conn: tls.Server(raw, l.tls)}
			conn.forget = context.AfterFunc(l.closing, func() { raw.Close() })
			return conn, conn.SetDeadline(time.Now().Add(connectTime))
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.log.Error("connection not accepted", "err", err)
		<-time.After(100 * time.Millisecond)
	}
}

// terminalConn is a connection that is closed with its listener.
type terminalConn struct {
	*tls.Conn
	forget func() bool
}

func (c *terminalConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// door is the hook by which mochi asks the centre. mochi calls it from one
// goroutine per client.
type door struct {
	mqtt.HookBase
	centre *Centre
	work   context.Context // ends when the listener is closed
	server *mqtt.Server
}

func (d *door) ID() string { return "rollcall-centre" }

func (d *door) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnSessionEstablished, mqtt.OnDisconnect}, b) >= 0
}

// OnConnectAuthenticate lets in the terminal whose certificate it is.
func (d *door) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	err := d.authenticate(cl)
	if err != nil {
		d.centre.log.Warn("terminal refused", "remote", cl.Net.Remote, "err", err)
		return false
	}
	d.succeed(cl)
	return true
}

// succeed ends an older connection of the same terminal and waits until mochi
// has let it go. mochi 2.7.9 forgets a client by its id: an old connection that
// ends while the new one begins can take the new one's subscriptions with it,
// and no receipt would ever reach that terminal. One whose batch waits for the
// store longer than connectTime is left to mochi.
func (d *door) succeed(cl *mqtt.Client) {
	ctx, cancel := context.WithTimeout(d.work, connectTime)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		old, ok := d.server.Clients.Get(cl.ID)
		if !ok || ctx.Err() != nil {
			return
		}
		old.Stop(packets.ErrSessionTakenOver)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (d *door) authenticate(cl *mqtt.Client) error {
	conn, ok := cl.Net.Conn.(*terminalConn)
	if !ok || len(conn.ConnectionState().PeerCertificates) == 0 {
		return errors.New("no client certificate")
	}
	cert := conn.ConnectionState().PeerCertificates[0]
	id := chain.TerminalID(cert.Subject.CommonName)
	if role := chain.RoleOf(cert); role != chain.RoleUplink {
		return fmt.Errorf("the certificate of %q is for %q, not for %q", id, role, chain.RoleUplink)
	}
	if cl.ID != string(id) {
		return fmt.Errorf("the client id is not %q, the certificate's name", id)
	}
	known, err := findTerminal(d.work, d.centre.db, id)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	if err != nil || !bytes.Equal(key, known.UplinkKey) {
		return fmt.Errorf("the certificate of %q is for another key than it was admitted with", id)
	}
	if will := cl.Properties.Will; will.Flag != 0 && will.TopicName != d.topic(cl, topicState) {
		return fmt.Errorf("the last will of %q is not its state", id)
	}
	return nil
}

func (d *door) topic(cl *mqtt.Client, rest string) string {
	return topicPrefix(d.centre.cfg.Tenant, chain.TerminalID(cl.ID)) + rest
}

// OnACLCheck keeps a terminal to its own topics.
func (d *door) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	if write {
		rest, own := strings.CutPrefix(topic, d.topic(cl, ""))
		return own && (rest == topicRecords || rest == topicState || rest == topicAlert)
	}
	return strings.HasPrefix(topic, d.topic(cl, topicDown))
}

// OnPublish stores a batch. mochi 2.7.9 writes the PUBACK after this hook
// returned without error, and then hands the packet to its subscribers: so the
// packet that carried the records goes on as the one that carries the receipt,
// and the terminal gets PUBACK and receipt in this order. On an error other
// than ErrRejectPacket mochi acknowledges all the same.
func (d *door) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	ctx, cancel := context.WithTimeout(d.work, ingestTime)
	defer cancel()
	id := chain.TerminalID(cl.ID)
	switch pk.TopicName {
	case d.topic(cl, topicState):
		return d.dealtWith(ctx, cl, pk, "state", d.centre.state(ctx, id, pk.Payload))
	case d.topic(cl, topicAlert):
		pk.FixedHeader.Retain = false
		err := d.centre.Alert(ctx, id, pk.Payload)
		pk.Ignore = true // nobody may read it
		return d.dealtWith(ctx, cl, pk, "alert", err)
	}
	receipt, err := d.centre.Ingest(ctx, id, pk.Payload)
	pk.FixedHeader.Retain = false
	pk.TopicName, pk.Payload = d.topic(cl, topicReceipt), receipt
	pk.Ignore = receipt == nil
	return d.dealtWith(ctx, cl, pk, "batch", err)
}

// dealtWith lets a message be acknowledged, unless the store is at fault: then
// it closes the connection.
func (d *door) dealtWith(ctx context.Context, cl *mqtt.Client, pk packets.Packet, what string, err error) (packets.Packet, error) {
	if err == nil {
		return pk, nil
	}
	if !d.centre.mayAcknowledge(ctx, chain.TerminalID(cl.ID), what, err) {
		cl.Stop(err)
		return pk, packets.ErrRejectPacket
	}
	if what == "state" {
		pk.Ignore = true
	}
	return pk, nil
}

func (d *door) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	d.centre.log.Info("terminal connected", "terminal", cl.ID, "remote", cl.Net.Remote)
}

func (d *door) OnDisconnect(cl *mqtt.Client, err error, _ bool) {
	if cl.Net.Inline {
		return
	}
	d.centre.log.Info("terminal disconnected", "terminal", cl.ID, "remote", cl.Net.Remote, "cause", err)
}

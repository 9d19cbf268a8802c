package centre

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"rollcall/queue/chain"
)

const (
	// brokerTime bounds each exchange with the broker.
	brokerTime = 10 * time.Second
	// brokerWaiting is how many batches may wait for the store. More are
	// dropped with a count: their terminals get no receipt and send again.
	brokerWaiting  = 256
	reconnectFirst = 200 * time.Millisecond
	reconnectMost  = 30 * time.Second
)

// Subscriber serves through a broker of somebody else's. The broker's
// acknowledgement then means nothing: a terminal lets go of records only
// against the receipt. Several centres on one database may share the work.
type Subscriber struct{ centre *Centre }

// Subscriber gives the way through the broker in the configuration. Run
// connects it.
func (c *Centre) Subscriber() *Subscriber { return &Subscriber{c} }

// Run serves until ctx ends, and connects again for as long as it takes.
func (s *Subscriber) Run(ctx context.Context) error {
	wait := reconnectFirst
	for {
		connected, err := s.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if connected {
			wait = reconnectFirst
		}
		s.centre.log.WarnContext(ctx, "broker lost", "broker", s.centre.cfg.Broker, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(mathrand.N(wait)):
		}
		wait = min(2*wait, reconnectMost)
	}
}

// session is one connection, with a client of its own: a client that
// reconnects by itself completes publishes that were never acknowledged.
func (s *Subscriber) session(ctx context.Context) (connected bool, err error) {
	lost := make(chan error, 1)
	waiting := make(chan mqtt.Message, brokerWaiting)
	client, err := s.connect(ctx, lost)
	if err != nil {
		return false, fmt.Errorf("connecting: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	delivered := make(chan error, 1)
	defer func() {
		client.Disconnect(250) // milliseconds for what is being sent
		cancel()
		<-delivered
	}()
	filters := s.filters()
	subscribed := client.SubscribeMultiple(filters, func(_ mqtt.Client, m mqtt.Message) {
		select {
		case waiting <- m:
		default:
			s.centre.log.Warn("message dropped, the store is behind", "topic", m.Topic())
		}
	})
	go func() {
		delivered <- s.centre.deliver(ctx, func(topic string, payload []byte) error {
			return done(client.Publish(topic, 1, true, payload))
		})
		close(delivered)
	}()
	if err := done(subscribed); err != nil {
		return false, fmt.Errorf("subscribing: %w", err)
	}
	for filter, granted := range subscribed.(*mqtt.SubscribeToken).Result() {
		if granted > 1 {
			return false, fmt.Errorf("the broker does not let %s subscribe to %s: check its access list", centreName, filter)
		}
	}
	s.centre.log.InfoContext(ctx, "broker connected", "broker", s.centre.cfg.Broker)
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case err := <-lost:
			return true, err
		case err := <-delivered:
			return true, err
		case m := <-waiting:
			if err := s.take(ctx, client, m); err != nil {
				return true, err
			}
		}
	}
}

// filters are what the centre hears. Centres on one database share records and
// alerts; states go to each, so that each can tell two boxes from one.
func (s *Subscriber) filters() map[string]byte {
	terminals := "rollcall/v1/" + s.centre.cfg.Tenant + "/+/"
	return map[string]byte{
		"$share/ingest/" + terminals + topicRecords: 1,
		"$share/ingest/" + terminals + topicAlert:   1,
		terminals + topicState:                      1,
	}
}

// take deals with a message, and answers a batch with the receipt.
func (s *Subscriber) take(ctx context.Context, client mqtt.Client, m mqtt.Message) error {
	id, rest, ok := terminalOf(s.centre.cfg.Tenant, m.Topic())
	if !ok {
		s.centre.log.WarnContext(ctx, "message under a topic of no terminal", "topic", m.Topic())
		return nil
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), ingestTime)
	defer cancel()
	var receipt []byte
	var err error
	what := strings.TrimPrefix(rest, "up/")
	switch rest {
	case topicState:
		err = s.centre.state(work, id, m.Payload())
	case topicAlert:
		err = s.centre.Alert(work, id, m.Payload())
	case topicRecords:
		what = "batch"
		receipt, err = s.centre.Ingest(work, id, m.Payload())
	}
	if err != nil {
		s.centre.mayAcknowledge(ctx, id, what, err)
	}
	if receipt == nil {
		return nil
	}
	if err := done(client.Publish(topicPrefix(s.centre.cfg.Tenant, id)+topicReceipt, 1, false, receipt)); err != nil {
		return fmt.Errorf("sending a receipt to %s: %w", id, err)
	}
	return nil
}

// connect makes a client and connects it. lost gets the error that ends the
// connection.
func (s *Subscriber) connect(ctx context.Context, lost chan<- error) (mqtt.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTime)
	defer cancel()
	suffix := make([]byte, 4) // a broker ends the older of two clients of one name
	if _, err := rand.Read(suffix); err != nil {
		return nil, err
	}
	var keep func() bool
	client := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker("ssl://" + s.centre.cfg.Broker).
		SetClientID(centreName + "-" + hex.EncodeToString(suffix)).
		SetProtocolVersion(4). // 3.1.1
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetOrderMatters(false).
		SetKeepAlive(60 * time.Second).
		SetPingTimeout(brokerTime).
		SetWriteTimeout(brokerTime).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			conn, err := s.dial(ctx)
			if err != nil {
				return nil, err
			}
			keep = context.AfterFunc(ctx, func() { conn.Close() }) // paho's wait for CONNACK knows no context
			// What is longer than any terminal may send is cut: paho makes room for
			// whatever length a packet claims, and a broker may pass on larger ones.
			return chain.LimitPackets(conn, maxPacket), nil
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			select {
			case lost <- err:
			default:
			}
		}))
	connected := client.Connect()
	<-connected.Done()
	if err := connected.Error(); err != nil {
		return nil, err
	}
	if !keep() {
		return nil, ctx.Err()
	}
	return client, nil
}

func (s *Subscriber) dial(ctx context.Context) (net.Conn, error) {
	dialer := tls.Dialer{Config: &tls.Config{
		GetClientCertificate: s.centre.served.forClient,
		RootCAs:              s.centre.keys.caPool(),
		MinVersion:           tls.VersionTLS13,
		Time:                 s.centre.now,
	}}
	return dialer.DialContext(ctx, "tcp", s.centre.cfg.Broker)
}

var errBrokerSilent = errors.New("the broker did not answer in time")

func done(t mqtt.Token) error {
	if !t.WaitTimeout(brokerTime) {
		return errBrokerSilent
	}
	return t.Error()
}

package mqtt

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"rollcall/queue/chain"
)

// Topics under rollcall/v1/{tenant}/{terminal}/.
const (
	topicRecords  = "up/records"
	topicState    = "up/state"
	topicReceipt  = "down/receipt"
	topicPackages = "down/package/#" // one retained message per class
	topicCommand  = "down/command"   // retained until it is answered
)

const (
	connectTimeout = 10 * time.Second
	writeTimeout   = 10 * time.Second
	answerTimeout  = 10 * time.Second // of SUBACK and of the state's PUBACK
	keepAlive      = 60 * time.Second
	goodbyeTimeout = time.Second
	quiesce        = 250 // milliseconds, for MQTT DISCONNECT

	atLeastOnce  = 1
	subackRefuse = 0x80 // MQTT 3.1.1 3.9.3
	maxReceipts  = 16
)

// state is the retained message that says whether the terminal is there.
type state struct {
	State    string      `json:"state"`
	Software string      `json:"software"`
	Log      chain.LogID `json:"log"`
	Seq      chain.Seq   `json:"seq"`
}

func (u *Uplink) state(word string) []byte {
	log, last, _ := u.ledger.Marks()
	text, err := json.Marshal(state{State: word, Software: u.cfg.Software, Log: log, Seq: last})
	if err != nil {
		panic("mqtt: " + err.Error())
	}
	return text
}

// connection is one connection, from dialling to its end. paho clients are
// never used for a second one: with auto-reconnect it completes a publish that
// nobody acknowledged.
type connection struct {
	*Uplink
	address  string
	client   paho.Client
	receipts chan []byte // the oldest is dropped when full: receipts are cumulative
	lost     chan error  // holds one
	keep     func() bool // after the handshakes: ctx's end cuts no more; written by open
	receipt  bool        // one came that let records go
}

// connection runs one connection until it is lost or ctx ends. worked says
// whether the centre answered with a receipt or stayed for a while.
func (u *Uplink) connection(ctx context.Context, address string) (worked bool, err error) {
	c := &connection{Uplink: u, address: address, receipts: make(chan []byte, maxReceipts), lost: make(chan error, 1)}
	if err := c.connect(ctx); err != nil {
		return false, explain(address, err)
	}
	defer c.client.Disconnect(quiesce)
	began := time.Now()
	if err = c.greet(ctx); err == nil {
		u.report(true, nil)
		err = c.work(ctx)
	}
	if ctx.Err() != nil { // a clean end sends no last will
		c.client.Publish(u.prefix+topicState, atLeastOnce, true, u.state("offline")).WaitTimeout(goodbyeTimeout)
		return false, nil
	}
	return c.receipt || time.Since(began) > keepAlive, explain(address, err)
}

func (c *connection) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c.client = paho.NewClient(c.options(ctx))
	token := c.client.Connect()
	if !token.WaitTimeout(2 * connectTimeout) { // ctx ends it before
		return errSilent
	}
	if token.Error() == nil && !c.keep() {
		return ctx.Err()
	}
	return token.Error()
}

func (c *connection) options(ctx context.Context) *paho.ClientOptions {
	o := paho.NewClientOptions()
	o.AddBroker("ssl://" + c.address)
	o.SetClientID(string(c.cfg.Admission.Terminal))
	o.SetProtocolVersion(4) // 3.1.1, without falling back to 3.1
	o.SetCleanSession(true)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetOrderMatters(false)
	o.SetKeepAlive(keepAlive)
	o.SetPingTimeout(answerTimeout)
	o.SetConnectTimeout(connectTimeout)
	o.SetWriteTimeout(writeTimeout)
	o.SetBinaryWill(c.prefix+topicState, c.state("offline"), atLeastOnce, true)
	o.SetDefaultPublishHandler(c.heard)
	o.SetConnectionLostHandler(func(_ paho.Client, err error) {
		select {
		case c.lost <- err:
		default:
		}
	})
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return c.open(ctx) })
	return o
}

// open dials and shakes hands. From then on the end of ctx cuts the connection,
// until keep is called: paho's own wait for CONNACK knows no context.
func (c *connection) open(ctx context.Context) (net.Conn, error) {
	raw, err := c.dial(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	conf := c.tls.Clone()
	if conf.ServerName = c.cfg.ServerName; conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(c.address)
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	c.keep = context.AfterFunc(ctx, func() { _ = raw.Close() })
	return conn, nil
}

// heard takes what comes down. It is called by goroutines of paho's and only
// hands over.
func (c *connection) heard(_ paho.Client, m paho.Message) {
	if m.Topic() != c.prefix+topicReceipt {
		box := c.packages
		if m.Topic() == c.prefix+topicCommand {
			box = c.commands
		}
		if !box.put(m.Topic(), m.Payload()) {
			c.log.Warn("message dropped: too many wait", "bytes", len(m.Payload()))
		}
		return
	}
	for {
		select {
		case c.receipts <- m.Payload():
			return
		default:
		}
		select {
		case <-c.receipts:
		default:
		}
	}
}

// greet subscribes and says that the terminal is there.
func (c *connection) greet(ctx context.Context) error {
	topics := map[string]byte{
		c.prefix + topicReceipt: atLeastOnce, c.prefix + topicPackages: atLeastOnce, c.prefix + topicCommand: atLeastOnce,
	}
	subscribed := c.client.SubscribeMultiple(topics, nil)
	if err := c.await(ctx, subscribed); err != nil {
		return err
	}
	for topic, granted := range subscribed.(*paho.SubscribeToken).Result() {
		if granted == subackRefuse {
			return fmt.Errorf("%w: subscription to %s", errNotAllowed, topic)
		}
	}
	return c.await(ctx, c.client.Publish(c.prefix+topicState, atLeastOnce, true, c.state("online")))
}

// await waits for an answer of the broker's.
func (c *connection) await(ctx context.Context, token paho.Token) error {
	t := time.NewTimer(answerTimeout)
	defer t.Stop()
	select {
	case <-token.Done():
		return token.Error()
	case err := <-c.lost:
		return errors.Join(errLost, err)
	case <-t.C:
		return errSilent
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work sends batches, one at a time, and takes receipts. It returns when ctx
// ends, or why the connection is of no more use.
func (c *connection) work(ctx context.Context) error {
	log, _, at := c.ledger.Marks() // the centre has everything up to here
	patience := c.cfg.ReceiptTimeout
	for {
		changed := c.ledger.Changed()
		if now, last, receipted := c.ledger.Marks(); now != log || receipted < at { // the next epoch's turn, or records are to go again
			c.departure.begin(now, last, receipted)
			log, at = now, receipted
		}
		payload, last, err := c.ledger.Batch(at, chain.MaxBatchRecords, chain.MaxBatchBytes)
		if err != nil {
			return fmt.Errorf("%w: %w", errLedger, err)
		}
		if payload == nil {
			if ended, err := c.idle(ctx, changed); ended {
				return err
			}
			continue
		}
		c.departure.leave(log, last, c.cfg.Up())
		now, err := c.send(ctx, payload, at, patience)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if now > at {
			patience = c.cfg.ReceiptTimeout
		} else {
			patience = min(2*patience, max(c.cfg.RetryMax, c.cfg.ReceiptTimeout))
		}
		at = now
	}
}

// idle waits for something to send.
func (c *connection) idle(ctx context.Context, changed <-chan struct{}) (ended bool, err error) {
	select {
	case <-ctx.Done():
		return true, nil
	case err := <-c.lost:
		return true, errors.Join(errLost, err)
	case jws := <-c.receipts:
		c.take(jws)
	case <-changed:
	}
	return false, nil
}

// send publishes the records after at and waits for a receipt that covers
// some of them. It returns where to go on: there, or where it began if none
// came in time, or further back if a receipt says that the centre is there (it
// came back from an older copy of its data).
func (c *connection) send(ctx context.Context, payload []byte, at chain.Seq, patience time.Duration) (chain.Seq, error) {
	published := c.client.Publish(c.prefix+topicRecords, atLeastOnce, false, payload)
	answered := published.Done()
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case <-answered: // only the broker's word
			if err := published.Error(); err != nil {
				return at, errors.Join(errLost, err)
			}
			answered = nil
		case jws := <-c.receipts:
			r, ok := c.take(jws)
			if ok && r.Seq > at {
				c.receipt = true
				c.report(true, nil)
				return r.Seq, nil
			} else if ok && r.Seq < at {
				at = r.Seq
			}
		case <-t.C:
			if answered != nil {
				return at, errSilent
			}
			c.report(true, &Trouble{Code: NoReceipt, Address: c.address})
			return at, nil
		case err := <-c.lost:
			return at, errors.Join(errLost, err)
		case <-ctx.Done():
			return at, nil
		}
	}
}

// take hands a receipt to the ledger, which checks it.
func (c *connection) take(jws []byte) (chain.Receipt, bool) {
	r, err := c.ledger.Receipt(jws)
	if err != nil {
		c.report(true, &Trouble{Code: WrongReceipt, Address: c.address, Err: err})
		return r, false
	}
	if left, first := c.departure.of(r); first {
		c.cfg.Receipted(r.At.Time, left, c.cfg.Up())
	}
	return r, true
}

// departure is when the last record that ever went up went for the first time:
// a receipt that names it cannot be older.
type departure struct {
	log  chain.LogID
	seq  chain.Seq
	left time.Duration // since boot; 0 if nobody knows
}

// begin begins with a log. What stands in it may have gone up before this
// process began.
func (d *departure) begin(log chain.LogID, last, _ chain.Seq) {
	if log != d.log {
		*d = departure{log: log, seq: last}
	}
}

// leave notes that the records up to seq are sent.
func (d *departure) leave(log chain.LogID, seq chain.Seq, now time.Duration) {
	if log == d.log && seq > d.seq {
		d.seq, d.left = seq, now
	}
}

// of gives when the record of a receipt left; first is false if it may have
// left before, or was answered already.
func (d *departure) of(r chain.Receipt) (left time.Duration, first bool) {
	if r.Log != d.log || r.Seq != d.seq || d.left == 0 {
		return 0, false
	}
	left, d.left = d.left, 0
	return left, true
}

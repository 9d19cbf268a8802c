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
	topicAlert    = "up/alert"
	topicReceipt  = "down/receipt"
	topicPackages = "down/package/#" // one retained message per class
	topicCommand  = "down/command"   // retained until it is answered
)

const (
	connectTimeout = 10 * time.Second // of dialling, and of TLS; with CONNACK three times that
	writeTimeout   = 10 * time.Second
	answerTimeout  = 10 * time.Second // of SUBACK and of the state's PUBACK
	keepAlive      = 60 * time.Second
	goodbyeTimeout = time.Second
	quiesce        = 250 // milliseconds, for MQTT DISCONNECT

	atLeastOnce  = 1
	subackRefuse = 0x80 // MQTT 3.1.1 3.9.3
	maxReceipts  = 16
	// maxDown bounds what comes down in one packet; the largest class package has
	// a quarter of it. maxReceipt bounds a receipt.
	maxDown    = 8 << 20
	maxReceipt = 4 << 10

	// A batch that takes longer than slow, or gets no answer, is followed by
	// smaller ones, down to leastBatch; one that is answered quickly by larger
	// ones. At 16 kbit/s a full batch would take 33 s.
	slow       = 10 * time.Second
	quick      = slow / 2
	leastBatch = 4 << 10
	// moveOn is how many batches without a receipt end a connection, in favour of
	// the next address if there is one: the broker may have lost a subscription.
	moveOn = 3
	// rewindAfter is how long a receipt for less than the batch may be an old one
	// that is overtaken by the right one.
	rewindAfter = 2 * time.Second
	// lookEvery is how often a connection looks at what time alone changes: alerts
	// that are due again, and each hour its certificate.
	lookEvery       = time.Minute
	certificateLook = time.Hour
)

// state is the retained message that says whether the terminal is there.
type state struct {
	State    string      `json:"state"`
	Software string      `json:"software"`
	Log      chain.LogID `json:"log"`
	Seq      chain.Seq   `json:"seq"`
	Run      string      `json:"run"` // of the process: one that comes back after another was here is a second box
}

func (u *Uplink) state(word string) []byte {
	log, last, _ := u.ledger.Marks()
	text, err := json.Marshal(state{State: word, Software: u.cfg.Software, Log: log, Seq: last, Run: u.run})
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
	due      *answer     // a receipt that is checked, and stored while the next batch is under way
	known    chain.Seq   // up to where the ledger had a receipt when it was last asked
	told     map[chain.AlertKind]sent
	looked   time.Time // at the certificate
	ahead    batch     // read while the one before is under way
}

// connection runs one connection until it is lost or ctx ends. worked says
// whether the centre answered with a receipt or stayed for a while.
func (u *Uplink) connection(ctx context.Context, address string) (worked bool, err error) {
	c := &connection{Uplink: u, address: address, receipts: make(chan []byte, maxReceipts), lost: make(chan error, 1), told: map[chain.AlertKind]sent{}}
	if err := c.connect(ctx); err != nil {
		return false, err
	}
	defer c.client.Disconnect(quiesce)
	began := time.Now()
	c.looked = began
	if err = c.greet(ctx); err == nil {
		u.trouble(true, address, nil)
		err = errors.Join(c.work(ctx), c.settle())
	}
	if ctx.Err() != nil { // a clean end sends no last will
		c.client.Publish(u.prefix+topicState, atLeastOnce, true, u.state("offline")).WaitTimeout(goodbyeTimeout)
		return false, nil
	}
	return c.receipt || time.Since(began) > keepAlive && !errors.Is(err, errNoReceipt), err
}

func (c *connection) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*connectTimeout)
	defer cancel()
	c.client = paho.NewClient(c.options(ctx))
	token := c.client.Connect()
	if !token.WaitTimeout(4 * connectTimeout) { // ctx ends it before
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
	o.SetConnectTimeout(3 * connectTimeout)
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
	step, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := c.dial(step, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	conf := c.tls.Clone()
	if conf.ServerName = c.cfg.ServerName; conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(c.address)
	}
	conn := tls.Client(raw, conf)
	step, cancel = context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := conn.HandshakeContext(step); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	c.keep = context.AfterFunc(ctx, func() { _ = raw.Close() })
	return chain.LimitPackets(conn, maxDown), nil // paho makes room for whatever length a packet claims
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
	if len(m.Payload()) > maxReceipt {
		c.log.Warn("receipt dropped: too long", "bytes", len(m.Payload()))
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

// work sends alerts and batches, one at a time, and takes receipts. It returns
// when ctx ends, or why the connection is of no more use.
func (c *connection) work(ctx context.Context) error {
	log, _, at := c.ledger.Marks() // the centre has everything up to here
	c.known = at
	for patience, unanswered := c.cfg.ReceiptTimeout, 0; ; {
		if err := c.alertsFirst(ctx); err != nil {
			return err
		}
		changed := c.ledger.Changed()
		now, last, receipted := c.ledger.Marks()
		if now != log || receipted < c.known { // the next epoch's turn, or records are to go again
			if now == log {
				c.due = nil // from before that, and would end it; the centre says it again
			}
			c.departure.begin(now, last, receipted)
			log, at = now, receipted
		}
		c.known = receipted
		b, err := c.batch(log, at)
		if err != nil {
			return fmt.Errorf("%w: %w", errLedger, err)
		}
		if b.payload == nil {
			if c.due != nil {
				if err := c.settle(); err != nil {
					return err
				}
				continue // the next epoch may have its turn now
			}
			if ended, err := c.idle(ctx, changed); ended {
				return err
			}
			continue
		}
		c.departure.leave(log, b.last, c.cfg.Up())
		began := time.Now()
		next, err := c.send(ctx, b, patience)
		c.adapt(next != at && err == nil, time.Since(began))
		if err != nil || ctx.Err() != nil {
			return err
		}
		if next != at {
			patience, unanswered = c.cfg.ReceiptTimeout, 0
		} else {
			patience, unanswered = min(2*patience, max(c.cfg.RetryMax, c.cfg.ReceiptTimeout)), unanswered+1
		}
		if unanswered == moveOn {
			return errNoReceipt
		}
		at = next
	}
}

// batch is records on their way: those after at, up to last.
type batch struct {
	log      chain.LogID
	at, last chain.Seq
	payload  []byte
}

// batch gives the records after at, the ones that were read ahead if they are.
func (c *connection) batch(log chain.LogID, at chain.Seq) (batch, error) {
	b := c.ahead
	c.ahead = batch{}
	if b.payload != nil && b.log == log && b.at == at && len(b.payload) <= c.size {
		return b, nil
	}
	payload, last, err := c.ledger.Batch(at, chain.MaxBatchRecords, c.size)
	return batch{log, at, last, payload}, err
}

// readAhead reads what follows b while that is under way. What it cannot read
// comes to light when it is b's turn.
func (c *connection) readAhead(b batch) {
	if log, _, _ := c.ledger.Marks(); log == b.log {
		payload, last, _ := c.ledger.Batch(b.last, chain.MaxBatchRecords, c.size)
		c.ahead = batch{b.log, b.last, last, payload}
	}
}

// adapt fits the batches to what the way to the centre carries.
func (c *connection) adapt(answered bool, took time.Duration) {
	switch {
	case !answered || took > slow:
		c.size = max(c.size/2, leastBatch)
	case took < quick:
		c.size = min(2*c.size, chain.MaxBatchBytes)
	}
}

// idle waits for something to send.
func (c *connection) idle(ctx context.Context, changed <-chan struct{}) (ended bool, err error) {
	t := time.NewTimer(lookEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return true, nil
	case err := <-c.lost:
		return true, errors.Join(errLost, err)
	case jws := <-c.receipts:
		if c.check(jws) {
			err := c.settle()
			return err != nil, err
		}
	case <-changed:
	case <-c.alerts.changed:
	case <-t.C:
		return c.look()
	}
	return false, nil
}

// look looks at the certificate every hour. One that was renewed is used at
// once: the centre asks for it only when a connection begins.
func (c *connection) look() (ended bool, err error) {
	if time.Since(c.looked) < certificateLook {
		return false, nil
	}
	c.looked = time.Now()
	if c.lookAtCertificate() {
		return true, errRenewed
	}
	c.report(true)
	return false, nil
}

// send publishes a batch and waits for a receipt that covers
// some of them. It returns where to go on: there, or where it began if none
// came in time, or further back if a receipt says that the centre is there (it
// came back from an older copy of its data).
//
// The receipt for the batch before is stored once this one has left: on a long
// way that costs nothing. A crash before it is stored sends records again that
// the centre has.
func (c *connection) send(ctx context.Context, b batch, patience time.Duration) (chain.Seq, error) {
	published := c.client.Publish(c.prefix+topicRecords, atLeastOnce, false, b.payload)
	answered, at := published.Done(), b.at
	if err := c.settle(); err != nil {
		return at, err
	}
	c.readAhead(b)
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case <-answered: // only the broker's word
			if err := published.Error(); err != nil {
				return at, errors.Join(errLost, err)
			}
			if answered = nil; c.trusted != nil {
				c.trusted(b.last)
				return b.last, nil
			}
		case jws := <-c.receipts:
			if !c.check(jws) {
				continue
			}
			r := c.due.receipt
			if c.due.onward = r.Log == b.log && r.Seq > b.at; c.due.onward {
				return r.Seq, nil
			}
			if err := c.settle(); err != nil {
				return at, err
			}
			switch {
			case r.Log != b.log: // an older epoch's
			case r.Seq < b.at:
				at = r.Seq
				t.Reset(rewindAfter)
			case at < b.at: // what was below was an old one
				at = b.at
				t.Reset(patience)
			}
		case <-t.C:
			if at < b.at {
				return at, nil
			}
			if answered != nil {
				return at, errSilent
			}
			c.trouble(false, c.address, errNoReceipt)
			return at, nil
		case err := <-c.lost:
			return at, errors.Join(errLost, err)
		case <-ctx.Done():
			return at, nil
		}
	}
}

// answer is a receipt that was checked.
type answer struct {
	jws       []byte
	receipt   chain.Receipt
	left, got time.Duration // since boot: when its record went up for the first time, and when it came
	first     bool          // left is known
	onward    bool          // it lets records of a batch go
}

// check has the ledger check a receipt, which is due to be stored if it holds.
func (c *connection) check(jws []byte) bool {
	r, err := c.ledger.CheckReceipt(jws)
	if err != nil {
		c.Raise(chain.AlertWrongReceipt, "")
		c.trouble(false, c.address, fmt.Errorf("%w: %w", errReceipt, err))
		return false
	}
	c.due = &answer{jws: jws, receipt: r, got: c.cfg.Up()}
	c.due.left, c.due.first = c.departure.of(r)
	return true
}

// settle has the ledger store the receipt that is due, if one is.
func (c *connection) settle() error {
	a := c.due
	if c.due = nil; a == nil {
		return nil
	}
	if _, err := c.ledger.Receipt(a.jws); err != nil {
		return fmt.Errorf("%w: storing a receipt: %w", errLedger, err)
	}
	if a.onward {
		c.receipt = true
		c.trouble(true, c.address, nil)
	}
	if a.first {
		c.cfg.Receipted(a.receipt, a.left, a.got)
	}
	return nil
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

package mqtt

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"rollcall/queue/chain"
)

// Ledger is what the uplink asks of a ledger. Batch and Receipt may take as
// long as the disk does, and Receipt stores what CheckReceipt approves of;
// Changed is closed at the next change of Marks.
type Ledger interface {
	Marks() (log chain.LogID, last, receipted chain.Seq)
	Changed() <-chan struct{}
	Batch(after chain.Seq, maxRecords, maxBytes int) (payload []byte, last chain.Seq, err error)
	CheckReceipt(jws []byte) (chain.Receipt, error)
	Receipt(jws []byte) (chain.Receipt, error)
}

// Config is what an uplink needs. Zero durations take their defaults.
type Config struct {
	// Addresses are the brokers' "host:port", tried in turn.
	Addresses []string `toml:"addresses"`
	// ServerName is the name in the broker's certificate. Empty takes the host
	// of the address.
	ServerName string `toml:"server_name"`
	// RetryStart bounds the first pause after a lost connection, 1 s. Pauses
	// are a random part of a bound that doubles up to RetryMax, 5 min. Shorter
	// ones reconnect sooner and load a centre that comes back.
	RetryStart time.Duration `toml:"retry_start"`
	RetryMax   time.Duration `toml:"retry_max"`
	// ReceiptTimeout is how long a batch may go without the centre's receipt
	// before it is sent again, 30 s; doubled each time up to RetryMax.
	ReceiptTimeout time.Duration `toml:"receipt_timeout"`
	// StartSpread bounds the random wait before the first connection, so that
	// a town whose power comes back does not call at once. 0 waits for nothing;
	// the daemon gives 1 min while the machine has just started.
	StartSpread time.Duration `toml:"start_spread"`

	// Admission names tenant, terminal, authority and certificate.
	Admission chain.Admission `toml:"-"`
	// Key is the key of the admission's uplink certificate.
	Key crypto.Signer `toml:"-"`
	// SignAlert signs an alert with the ledger key in force, and gives what is sent
	// (chain.FormAlert).
	SignAlert func(chain.Alert) ([]byte, error) `toml:"-"`
	// Certificate reads the uplink certificate in PEM as it is on disk now: it is
	// asked before each connection and every hour. nil keeps the admission's.
	Certificate func() (string, error) `toml:"-"`
	// Software names this program and its version, for the state message.
	Software string `toml:"-"`
	// Now is the time by which certificates are judged and alerts dated. It should
	// not be before what is surely past, whatever the clock of the box says.
	Now func() time.Time `toml:"-"`
	// Package is handed each class package as it came, signature unchecked. It
	// is called by one goroutine, comes again after each reconnect, and may
	// take its time; of two for one class only the later may be seen.
	Package func(ctx context.Context, jws []byte) `toml:"-"`
	// Command is handed each command as it came, signature unchecked, by one
	// goroutine of its own. It comes again after each reconnect until the centre
	// has the answer.
	Command func(ctx context.Context, jws []byte) `toml:"-"`
	// Up is the time since boot, suspend included, from a clock that no one sets.
	Up func() time.Duration `toml:"-"`
	// Receipted is told of a receipt for records that went up for the first time
	// at sent and were answered at got, both by Up. It must not block.
	Receipted func(r chain.Receipt, sent, got time.Duration) `toml:"-"`
	// Report is told of each change: whether records reach the centre, as far
	// as is known, and what is wrong all the same, [Troubles] or nil. It must
	// not block.
	Report func(online bool, err error) `toml:"-"`
}

const (
	defaultRetryStart     = time.Second
	defaultRetryMax       = 5 * time.Minute
	defaultReceiptTimeout = 30 * time.Second
)

func (c *Config) check() error {
	for _, field := range []struct {
		key   string
		value *time.Duration
		usual time.Duration
	}{
		{"retry_start", &c.RetryStart, defaultRetryStart},
		{"retry_max", &c.RetryMax, defaultRetryMax},
		{"receipt_timeout", &c.ReceiptTimeout, defaultReceiptTimeout},
	} {
		if *field.value < 0 {
			return fmt.Errorf("uplink: %s = %s must be above 0", field.key, *field.value)
		}
		if *field.value == 0 {
			*field.value = field.usual
		}
	}
	if c.StartSpread < 0 {
		return fmt.Errorf("uplink: start_spread = %s must not be below 0", c.StartSpread)
	}
	if c.RetryStart > c.RetryMax {
		return fmt.Errorf("uplink: retry_start = %s is above retry_max = %s", c.RetryStart, c.RetryMax)
	}
	if len(c.Addresses) == 0 {
		return errors.New("uplink: addresses is empty: name the centre's broker as \"host:port\"")
	}
	for _, address := range c.Addresses {
		if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
			return fmt.Errorf("uplink: addresses: %q is not \"host:port\"", address)
		}
	}
	if !chain.ValidTenant(c.Admission.Tenant) || !c.Admission.Terminal.Valid() {
		return fmt.Errorf("uplink: the admission's tenant %q or terminal %q cannot stand in a topic", c.Admission.Tenant, c.Admission.Terminal)
	}
	if c.Key == nil || c.SignAlert == nil || c.Now == nil || c.Package == nil || c.Command == nil || c.Up == nil || c.Receipted == nil || c.Report == nil {
		return errors.New("uplink: key, sign alert, now, package, command, up, receipted and report must be given")
	}
	return nil
}

// Uplink carries one ledger to the centre.
type Uplink struct {
	cfg      Config
	ledger   Ledger
	log      *slog.Logger
	prefix   string // of all topics, with a slash at its end
	run      string // names this run: two boxes with one identity have two
	packages *inbox
	commands *inbox
	alerts   *alerts

	// dial opens the way to an address, jitter takes a random part of a pause;
	// tests give others.
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	jitter func(time.Duration) time.Duration
	// trusted lets go the records up to one on the broker's acknowledgement. It is
	// nil but in the control of make proof-offline, which must lose them.
	trusted func(last chain.Seq)

	// owned by Run
	departure departure
	tls       *tls.Config
	wrong     map[string]*Trouble // by address; "" is the terminal's own certificate
	said      string              // the last report
	size      int                 // bytes of the next batch, at most
}

// New makes an uplink; it connects when it runs.
func New(cfg Config, ledger Ledger, log *slog.Logger) (*Uplink, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	conf, err := tlsConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	return &Uplink{
		cfg:      cfg,
		ledger:   ledger,
		log:      log,
		tls:      conf,
		prefix:   "rollcall/v1/" + cfg.Admission.Tenant + "/" + string(cfg.Admission.Terminal) + "/",
		run:      strconv.FormatUint(rand.Uint64(), 16),
		packages: newInbox(),
		commands: newInbox(),
		alerts:   newAlerts(),
		dial:     newDialer().DialContext,
		jitter:   jitter,
		wrong:    map[string]*Trouble{},
		size:     chain.MaxBatchBytes,
	}, nil
}

// Run connects, sends and listens until ctx ends, and then says good-bye. It
// returns nil, after everything it started.
func (u *Uplink) Run(ctx context.Context) error {
	var down sync.WaitGroup
	down.Go(func() { u.packages.deliver(ctx, u.cfg.Package) })
	down.Go(func() { u.commands.deliver(ctx, u.cfg.Command) })
	defer down.Wait()

	u.departure.begin(u.ledger.Marks())
	pause(ctx, u.jitter(u.cfg.StartSpread))
	wait := u.cfg.RetryStart
	for next, failed := 0, 0; ctx.Err() == nil; {
		address := u.cfg.Addresses[next%len(u.cfg.Addresses)]
		u.lookAtCertificate()
		worked, err := u.connection(ctx, address)
		switch {
		case ctx.Err() != nil:
			continue
		case errors.Is(err, errRenewed):
			continue
		}
		u.trouble(false, address, err)
		if worked { // and stay with this address
			wait, failed = u.cfg.RetryStart, 0
		} else {
			next, failed = next+1, failed+1
			if failed%len(u.cfg.Addresses) != 0 {
				continue // another address may answer
			}
		}
		pause(ctx, u.jitter(wait))
		wait = min(2*wait, u.cfg.RetryMax)
	}
	u.report(false)
	return nil
}

// trouble notes what is wrong with an address, or that nothing is, and reports.
func (u *Uplink) trouble(online bool, address string, err error) {
	delete(u.wrong, address)
	if err != nil {
		u.wrong[address] = explain(address, err)
	}
	u.report(online)
}

// report tells of changes only. Two troubles of one kind at one address are one.
func (u *Uplink) report(online bool) {
	var wrong Troubles
	said := fmt.Sprint(online)
	for _, address := range append([]string{""}, u.cfg.Addresses...) {
		if t := u.wrong[address]; t != nil {
			wrong = append(wrong, t)
			said += " " + address + " " + string(t.Code)
		}
	}
	if said == u.said {
		return
	}
	u.said = said
	if wrong == nil {
		u.log.Info("uplink", "online", online)
		u.cfg.Report(online, nil)
		return
	}
	u.log.Warn("uplink", "online", online, "err", wrong)
	u.cfg.Report(online, wrong)
}

// jitter is full jitter: a random part of d.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

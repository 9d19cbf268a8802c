package mqtt

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"rollcall/queue/chain"
)

// Ledger is what the uplink asks of a ledger. Batch and Receipt may take as
// long as the disk does; Changed is closed at the next change of Marks.
type Ledger interface {
	Marks() (log chain.LogID, last, receipted chain.Seq)
	Changed() <-chan struct{}
	Batch(after chain.Seq, maxRecords, maxBytes int) (payload []byte, last chain.Seq, err error)
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

	// Admission names tenant, terminal, authority and certificate.
	Admission chain.Admission `toml:"-"`
	// Key is the key of the admission's uplink certificate.
	Key crypto.Signer `toml:"-"`
	// Software names this program and its version, for the state message.
	Software string `toml:"-"`
	// Now judges the validity of the broker's certificate.
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
	// Receipted is told the centre's time in a receipt for records that went up
	// for the first time at sent and were answered at got, both by Up. It must
	// not block.
	Receipted func(at time.Time, sent, got time.Duration) `toml:"-"`
	// Report is told of each change: whether there is a connection, and what
	// is wrong, a [*Trouble] or nil. It must not block.
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
	if c.Key == nil || c.Now == nil || c.Package == nil || c.Command == nil || c.Up == nil || c.Receipted == nil || c.Report == nil {
		return errors.New("uplink: key, now, package, command, up, receipted and report must be given")
	}
	return nil
}

// Uplink carries one ledger to the centre.
type Uplink struct {
	cfg      Config
	ledger   Ledger
	log      *slog.Logger
	tls      *tls.Config
	prefix   string // of all topics, with a slash at its end
	packages *inbox
	commands *inbox

	// dial opens the way to an address; tests give another.
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	// owned by Run
	departure departure
	online    bool
	code      Code
	reported  bool
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
	dialer := &net.Dialer{Timeout: connectTimeout}
	return &Uplink{
		cfg:      cfg,
		ledger:   ledger,
		log:      log,
		tls:      conf,
		prefix:   "rollcall/v1/" + cfg.Admission.Tenant + "/" + string(cfg.Admission.Terminal) + "/",
		packages: newInbox(),
		commands: newInbox(),
		dial:     dialer.DialContext,
	}, nil
}

// tlsConfig believes the centre's authority alone, and of its certificates
// only those for the centre: terminals hold some by the same authority.
func tlsConfig(cfg Config) (*tls.Config, error) {
	trust, err := cfg.Admission.Trust()
	if err != nil {
		return nil, err
	}
	cert, err := chain.ParseCertificate(cfg.Admission.Uplink)
	if err != nil {
		return nil, fmt.Errorf("uplink certificate: %w", err)
	}
	if pub, ok := cfg.Key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cert.PublicKey) {
		return nil, errors.New("the uplink certificate is for another key than this terminal's: ask the centre for a new admission")
	}
	roots := x509.NewCertPool()
	roots.AddCert(trust.CA)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: cfg.Key}},
		Time:         cfg.Now,
		VerifyConnection: func(state tls.ConnectionState) error {
			if role := chain.RoleOf(state.PeerCertificates[0]); role != chain.RoleCentre {
				return fmt.Errorf("%w: it is a %s certificate", chain.ErrUntrusted, role)
			}
			return nil
		},
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
	wait := u.cfg.RetryStart
	for next, failed := 0, 0; ctx.Err() == nil; {
		address := u.cfg.Addresses[next%len(u.cfg.Addresses)]
		worked, err := u.connection(ctx, address)
		if ctx.Err() != nil {
			break
		}
		u.report(false, err)
		if worked {
			wait, failed = u.cfg.RetryStart, 0
		} else {
			next, failed = next+1, failed+1
			if failed%len(u.cfg.Addresses) != 0 {
				continue // another address may answer
			}
		}
		pause(ctx, rand.N(wait))
		wait = min(2*wait, u.cfg.RetryMax)
	}
	u.report(false, nil)
	return nil
}

// report tells of changes only. Two troubles of one kind are one.
func (u *Uplink) report(online bool, err error) {
	code := codeOf(err)
	if u.reported && online == u.online && code == u.code {
		return
	}
	u.reported, u.online, u.code = true, online, code
	if err == nil {
		u.log.Info("uplink", "online", online)
	} else {
		u.log.Warn("uplink", "online", online, "err", err)
	}
	u.cfg.Report(online, err)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/reader"
)

// Report is told how a device fares: nil when it works, else an error that
// wraps a sentinel of reader. It is called from Run, once per change, and must
// not block.
type Report func(reader string, err error)

// Driver serves one serial device.
type Driver struct {
	cfg    Config
	now    func() time.Time
	log    *slog.Logger
	report Report
	open   func(path string, speed int) (port, error)

	// Owned by Run.
	taps     chan<- attendance.Tap
	presence presence
	trouble  string // reported and not taken back; "" none
	fresh    bool   // nothing was reported yet
}

// New checks cfg; it opens nothing. now is the clock that taps carry.
func New(cfg Config, now func() time.Time, log *slog.Logger, report Report) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Driver{
		cfg: cfg, now: now, log: log.With("reader", cfg.Name), report: report, open: openPort, fresh: true,
		presence: presence{debounce: cfg.Debounce, coolDown: cfg.CoolDown},
	}, nil
}

// Name is the device's name in taps and reports.
func (d *Driver) Name() string { return d.cfg.Name }

// Run sends taps until ctx ends, and then returns nil. A missing, busy, wrong or
// lost device is reported and tried again, up to ten seconds apart. When nobody
// takes the taps the driver waits with one in hand; what the device sends
// meanwhile is the system's to buffer, and in the end lost.
func (d *Driver) Run(ctx context.Context, taps chan<- attendance.Tap) error {
	d.taps = taps
	return device.Reopen(ctx, device.ReopenConfig{Max: 10 * time.Second, Lost: d.lost}, d.use)
}

// use opens the device and works with it until it is lost or ctx ends.
func (d *Driver) use(ctx context.Context) error {
	p, err := d.open(d.cfg.Path, d.cfg.speeds()[0])
	if err != nil {
		return fmt.Errorf("opening reader %q: %w", d.cfg.Name, err)
	}
	defer p.Close()
	l := &line{port: p}
	switch d.cfg.Kind {
	case KindIDCard:
		err = (&idModule{driver: d, line: l}).run(ctx)
	case KindQR:
		err = d.listen(ctx, l, &codes{})
	case KindGM65:
		err = (&gm65{driver: d, line: l}).run(ctx)
	default:
		err = d.listen(ctx, l, &serials{UIDFrames: reader.UIDFrames{Form: uidForms[d.cfg.Kind], Reversed: d.cfg.ByteOrder == Reversed}})
	}
	if d.presence.told && ctx.Err() == nil {
		d.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: d.now()})
	}
	d.presence.now, d.presence.told = "", false
	return fmt.Errorf("using reader %q: %w", d.cfg.Name, err)
}

func (d *Driver) lost(err error, wait time.Duration) {
	if d.trouble == err.Error() {
		return
	}
	d.trouble, d.fresh = err.Error(), false
	d.log.Warn("serial reader is down", "err", err, "wait", wait)
	d.report(d.cfg.Name, err)
}

// working says that the device is there and, if it can be asked, what it should
// be.
func (d *Driver) working() {
	if d.trouble == "" && !d.fresh {
		return
	}
	d.trouble, d.fresh = "", false
	d.log.Info("serial reader is up")
	d.report(d.cfg.Name, nil)
}

func (d *Driver) send(ctx context.Context, tap attendance.Tap) {
	tap.Reader = d.cfg.Name
	select {
	case d.taps <- tap:
	case <-ctx.Done():
	}
}

// sighting is one reading of whatever is there.
type sighting struct {
	key  string // tells it from others; empty with err
	cred attendance.Credential
	err  error
	at   time.Time // when it was first noticed
	seen bool      // CardSeen was sent already
}

// tell turns a sighting into the taps it is worth.
func (d *Driver) tell(ctx context.Context, s sighting) {
	if s.err != nil {
		s.key = unreadable
	}
	gone, fresh := d.presence.sight(s.key, time.Now())
	if gone {
		d.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: s.at})
	}
	if !fresh && !s.seen {
		return
	}
	d.presence.told = true
	if !s.seen {
		d.send(ctx, attendance.Tap{Kind: attendance.CardSeen, At: s.at})
	}
	if s.err != nil {
		fault := reader.FaultOf(s.err)
		d.log.Info("card not read", "fault", string(fault), "err", s.err)
		d.send(ctx, attendance.Tap{Kind: attendance.CardFailed, At: d.now(), Fault: fault})
		return
	}
	d.send(ctx, attendance.Tap{Kind: attendance.CardRead, At: d.now(), Credential: s.cred})
}

// unseen tells of what is not there any more.
func (d *Driver) unseen(ctx context.Context) {
	if d.presence.unseen(time.Now()) {
		d.send(ctx, attendance.Tap{Kind: attendance.CardGone, At: d.now()})
	}
}

// decoder takes credentials out of what a one-way device sends. next gives
// io.EOF when there is none.
type decoder interface {
	Write(b []byte) (int, error)
	Silence()
	next() (key string, cred attendance.Credential, err error)
}

// silence is how long a pause ends a frame that has no end mark.
const silence = 50 * time.Millisecond

// maxBad is how many damaged frames in a row count as something that was
// presented and could not be read: readers of serial numbers repeat them, and
// one by itself is noise.
const maxBad = 3

// listen serves a device that only sends, until the line is lost.
func (d *Driver) listen(ctx context.Context, l *line, dec decoder) error {
	if err := l.Flush(); err != nil {
		return lost(err)
	}
	d.working()
	for {
		b, err := l.read(ctx, silence)
		if err != nil {
			return err
		}
		d.hear(ctx, dec, b)
	}
}

// hear takes what came, or silence if nothing did, and tells how many things it
// saw.
func (d *Driver) hear(ctx context.Context, dec decoder, b []byte) (n int) {
	if len(b) > 0 {
		_, _ = dec.Write(b)
	} else {
		dec.Silence()
	}
	for ; ; n++ {
		key, cred, err := dec.next()
		if errors.Is(err, io.EOF) {
			break
		}
		d.tell(ctx, sighting{key: key, cred: cred, err: err, at: d.now()})
	}
	d.unseen(ctx)
	return n
}

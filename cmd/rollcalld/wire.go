package main

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/cmd/internal/probe"
	"rollcall/device"
	"rollcall/device/panel"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
	"rollcall/reader/pcsc"
	"rollcall/reader/serial"
	"rollcall/vision"
)

// maxTaps bounds the reader events that wait for the terminal; a reader that
// finds it full waits in turn.
const maxTaps = 16

// wire builds the terminal bottom up and starts nothing: keys, ledger, what the
// ledger remembers, panel, camera, readers, uplink, and the loop that joins
// them. If a part cannot be built, those before it are closed.
func wire(cfg config, zone *time.Location, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, built: builtAt(), taps: make(chan attendance.Tap, maxTaps)}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	keyDir := filepath.Join(cfg.State, "keys")
	if d.keys, err = device.OpenKeys(keyDir); err != nil {
		return nil, fmt.Errorf("%w: a new terminal gets its keys by rollcall terminal request", err)
	}
	if d.admission, err = device.LoadAdmission(keyDir); err != nil {
		return nil, err
	}
	trust, err := d.admission.Trust()
	if err != nil {
		return nil, err
	}
	if d.clock, err = device.SystemClock(zone); err != nil {
		return nil, err
	}
	d.health = device.NewHealth(d.clock.Now)
	if err = d.openLedger(trust); err != nil {
		return nil, err
	}
	if err = d.recall(trust); err != nil {
		return nil, err
	}
	cfg.Panel.Zone, cfg.Panel.Touch = zone, d.touched
	if d.panel, err = panel.New(cfg.Panel, d.health, log); err != nil {
		return nil, err
	}
	if err = d.openCamera(); err != nil {
		return nil, err
	}
	if err = d.openReaders(); err != nil {
		return nil, err
	}
	d.openCommands(trust)
	if err = d.openUplink(); err != nil {
		return nil, err
	}
	if d.door, err = control.Listen(cfg.State); err != nil {
		return nil, err
	}
	d.terminal = attendance.NewTerminal(sabotage(attendance.TerminalConfig{
		Ledger: d.ledger,
		Faces:  d.faces,
		Panel:  d,
		Taps:   d.taps,
		Roster: d.packages.roster.Load,
		Book:   d.book,
		Code:   codeOpener(trust, d.admission.Terminal),
		Now:    d.clock.Now,
		Log:    log,
	}))
	d.cameraFaults.append = d.terminal.Append
	return d, nil
}

// touched takes a touch on the screen. One that finds the events full is lost:
// many are served before it.
func (d *daemon) touched() {
	select {
	case d.taps <- attendance.Tap{Kind: attendance.Touched, At: d.clock.Now()}:
	default:
	}
}

func (d *daemon) openLedger(trust chain.Trust) (err error) {
	cfg := d.cfg.Ledger
	cfg.Dir = d.cfg.State
	if cfg.Ring, err = d.keys.Ring(d.admission); err != nil {
		return err
	}
	cfg.Terminal, cfg.Key, cfg.Keys, cfg.ReceiptKey = d.admission.Terminal, d.keys.Ledger(), d.keys, trust.Receipt
	cfg.Stamp, cfg.Software, cfg.Probe = d.clock.Stamp, software, probe.File
	d.ledger, err = queue.Open(cfg, d.log)
	return err
}

// recall rebuilds what the ledger and the state directory remember.
func (d *daemon) recall(trust chain.Trust) (err error) {
	d.alerts.begun = begunAnew(d.ledger)
	if err := d.recallBook(); err != nil {
		return err
	}
	if err = d.openGallery(); err != nil {
		return err
	}
	d.unerased = d.book.Unerased()
	d.packages, err = openPackages(&packages{
		dir: filepath.Join(d.cfg.State, "packages"), admission: d.admission, trust: trust,
		keys: d.keys, now: d.clock.Now, log: d.log,
	})
	if err != nil {
		return err
	}
	d.unanswered = d.packages.unanswered(d.book)
	return nil
}

// openGallery opens the templates and ends what a crash interrupted.
func (d *daemon) openGallery() error {
	subjects, err := device.OpenSubjectKeys(filepath.Join(d.cfg.State, "keys"), filepath.Join(d.cfg.State, "subjects"))
	if err != nil {
		return err
	}
	if subjects.SetAside() {
		d.log.Error("subject keys do not open: every trainee must be enrolled again, or keys and state restored from one backup")
	}
	if d.gallery, err = vision.OpenGallery(filepath.Join(d.cfg.State, "templates"), subjects); err != nil {
		return err
	}
	if err := d.gallery.TakeUp(d.book.Enrolments()); err != nil {
		return err
	}
	if d.keys.SealedTemplates() {
		d.reseal()
	}
	return nil
}

// reseal takes over the templates of the first builds, and ends the key that
// sealed them all. What cannot be done now is tried again at the next start.
func (d *daemon) reseal() {
	n, err := d.gallery.Reseal(d.keys.OpenTemplate, d.book.Enrolments())
	if err == nil {
		err = d.keys.DestroyTemplateKey()
	}
	if err != nil {
		d.log.Error("templates of an earlier build not taken over", "err", err)
		return
	}
	d.log.Info("templates of an earlier build taken over", "templates", n)
}

// openReaders makes the drivers of all readers. They report to one place.
func (d *daemon) openReaders() (err error) {
	report := newReaderHealth(d.health).report
	cards := d.cfg.Cards
	cards.Today = d.today
	if d.readers, err = pcsc.New(cards, d.clock.Now, d.log, report); err != nil {
		return err
	}
	named := map[string]bool{}
	for i, cfg := range d.cfg.Serial {
		cfg.Today = d.today
		r, err := serial.New(cfg, d.clock.Now, d.log, report)
		if err != nil {
			return fmt.Errorf("[[serial]] block %d: %w", i+1, err)
		}
		if named[r.Name()] {
			return fmt.Errorf("[[serial]] block %d: name = %q: another block has it, give each device its own", i+1, r.Name())
		}
		named[r.Name()] = true
		d.serial = append(d.serial, r)
	}
	return nil
}

// justStarted is how long after boot a terminal may be one of many that
// started together.
const justStarted = 5 * time.Minute

func (d *daemon) openUplink() (err error) {
	cfg := d.cfg.Uplink
	cfg.Admission, cfg.Key, cfg.SignAlert = d.admission, d.keys.Uplink(), d.ledger.SignAlert
	cfg.Software, cfg.Now = software, d.validAt
	cfg.Package, cfg.Command, cfg.Report = d.takePackage, d.commands.take, d.uplinkReport
	cfg.Up, cfg.Receipted = d.clock.Up, d.clock.Witness
	cfg.Certificate = func() (string, error) {
		a, err := device.LoadAdmission(filepath.Join(d.cfg.State, "keys"))
		return a.Uplink, err
	}
	if up := time.Duration(d.clock.Stamp().UpMS) * time.Millisecond; up > justStarted {
		cfg.StartSpread = 0
	}
	d.uplink, err = mqtt.New(cfg, d.ledger, d.log)
	return err
}

// daemon is the wired terminal.
type daemon struct {
	cfg config
	log *slog.Logger

	keys      *device.Keys
	admission chain.Admission
	clock     *device.Clock
	health    *device.Health
	ledger    *queue.Ledger
	book      *attendance.Book // the terminal's once it runs
	booked    chain.Link       // the record up to which it is written down
	gallery   *vision.Gallery
	packages  *packages
	commands  *commands
	panel     *panel.Panel
	faces     *vision.Checker

	cameraFaults *cameraFaults

	readers  *pcsc.Driver
	serial   []*serial.Driver
	uplink   *mqtt.Uplink
	door     net.Listener
	taps     chan attendance.Tap
	terminal *attendance.Terminal

	unanswered []attendance.ClassID   // packages that a kill left without their record
	unerased   []attendance.Withdrawn // withdrawals that a kill left without their erase record
	enrolling  sync.Mutex             // one template is kept or erased at a time
	built      time.Time              // this program; zero if nobody said
	started    time.Time
	screen     screenNow
	alerts     alerts
}

// close gives the ledger back after a start that did not come about.
func (d *daemon) close() {
	if d.ledger != nil {
		_ = d.ledger.Close()
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/cmd/internal/control"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
	"rollcall/queue/mqtt"
)

// part is something that runs as long as the daemon does.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// parts are listed in the order in which they are stopped, along the flow of a
// tap: readers first, then the terminal finishes its record, then the rest,
// and the ledger last.
func (d *daemon) parts() []part {
	parts := []part{{"readers", func(ctx context.Context) error { return d.readers.Run(ctx, d.taps) }}}
	for _, r := range d.serial {
		parts = append(parts, part{"reader " + r.Name(), func(ctx context.Context) error { return r.Run(ctx, d.taps) }})
	}
	return append(parts, []part{
		{"terminal", d.terminal.Run},
		{"class packages", d.answerPackages},
		{"camera faults", d.cameraFaults.run},
		{"erasures", d.finishErasures},
		{"commands", d.commands.answerLast},
		{"book", d.keepBook},
		{"control", d.serveControl},
		{"camera", d.faces.Run},
		{"uplink", d.uplink.Run},
		{"ledger watch", d.watchLedger},
		{"panel", d.panel.Run},
		{"ledger", d.ledger.Run},
	}...)
}

// run runs the daemon until ctx ends or a part fails. A part that fails takes
// the process with it: the next start repairs from what is on disk.
func (d *daemon) run(ctx context.Context) error {
	d.started = d.clock.Now()
	d.ledgerHealth(d.ledger.Status())
	d.log.Info("terminal ready", "panel", "http://"+d.panel.Addr().String(), "terminal", d.admission.Terminal, "last_seq", d.ledger.Status().Last)
	err := runParts(ctx, d.parts())
	if closeErr := d.ledger.Close(); closeErr != nil {
		err = errors.Join(err, closeErr)
	}
	d.log.Info("terminal stopped", "err", err)
	return err
}

// runParts runs all parts at once and stops them one after the other.
func runParts(ctx context.Context, parts []part) error {
	type ending struct {
		name string
		err  error
	}
	ended := make(chan ending, len(parts))
	stops := make([]context.CancelFunc, len(parts))
	done := make([]sync.WaitGroup, len(parts))
	for i, p := range parts {
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		stops[i] = stop
		done[i].Go(func() { ended <- ending{p.name, p.run(partCtx)} })
	}
	var err error
	select {
	case <-ctx.Done():
	case first := <-ended:
		err = fmt.Errorf("%s: %w", first.name, first.err)
		if first.err == nil {
			err = fmt.Errorf("%s ended by itself", first.name)
		}
	}
	for i := range parts {
		stops[i]()
		done[i].Wait()
	}
	close(ended)
	for e := range ended {
		if e.err != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", e.name, e.err))
		}
	}
	return err
}

// screenNow remembers the screen for the status.
type screenNow struct {
	mu  sync.Mutex
	now attendance.Screen
}

// Show implements attendance.Panel.
func (d *daemon) Show(s attendance.Screen) {
	d.screen.mu.Lock()
	d.screen.now = s
	d.screen.mu.Unlock()
	d.panel.Show(s)
}

// clockCheck is how often the clock is looked at while nothing is recorded.
const clockCheck = 10 * time.Second

// watchLedger keeps the panel's count of unsent records and the health of
// ledger and clock.
func (d *daemon) watchLedger(ctx context.Context) error {
	tick := time.NewTicker(clockCheck)
	defer tick.Stop()
	for {
		changed := d.ledger.Changed()
		status := d.ledger.Status()
		d.panel.Unsent(status.Unsent)
		d.ledgerHealth(status)
		d.ledgerAlerts(status)
		d.clockHealth()
		d.anchor(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

func (d *daemon) clockHealth() {
	switch level := d.clock.Stamp().Clock; level {
	case chain.ClockSynced, chain.ClockHoldover:
		d.health.OK(device.PartClock)
	default:
		d.health.Set(device.PartClock, device.StateDegraded, device.Sentence{
			Zh: "时间待校准：请接上网线或设置时间；签到记录仍然有效。",
			En: "The clock is " + string(level) + ": connect the network or set the time; records are valid all the same.",
		})
	}
}

// ledgerHealth tells of a full disk, of damage, and of records that pile up:
// from 70 percent of the capacity, more urgently from 95.
func (d *daemon) ledgerHealth(s queue.Status) {
	state, sentence := ledgerSentence(s)
	d.health.Set(device.PartLedger, state, sentence)
	if s.DiskFull {
		d.health.Set(device.PartDisk, device.StateDown, device.Sentence{
			Zh: "磁盘已满，无法保存记录。请清理磁盘空间，系统会自动恢复。",
			En: "The disk is full and no record can be stored. Free some space; records are taken again by themselves.",
		})
		return
	}
	d.health.OK(device.PartDisk)
}

func ledgerSentence(s queue.Status) (device.PartState, device.Sentence) {
	switch {
	case s.Unsent >= s.Capacity:
		return device.StateDown, device.Sentence{
			Zh: fmt.Sprintf("存储已满：%d 条记录未送达中心。请恢复网络。", s.Unsent),
			En: fmt.Sprintf("The ledger is full: %d records have not reached the centre. Restore the network.", s.Unsent),
		}
	case s.Unsent*100 >= s.Capacity*95:
		return device.StateDegraded, device.Sentence{
			Zh: fmt.Sprintf("存储即将用尽：%d 条记录未送达中心，仅剩 %d 条。请立即恢复网络。", s.Unsent, s.Capacity-s.Unsent),
			En: fmt.Sprintf("The ledger is nearly full: %d records have not reached the centre, room for %d is left. Restore the network now.", s.Unsent, s.Capacity-s.Unsent),
		}
	case s.SetAside > 0:
		return device.StateDegraded, device.Sentence{
			Zh: fmt.Sprintf("账本文件曾损坏：%d 个文件已隔离，%d 条记录无法读取且中心没有。请保留状态目录 ledger 中的 .bad 文件并联系技术支持。", s.SetAside, s.Lost),
			En: fmt.Sprintf("Ledger files were damaged: %d set aside, %d records can be read neither here nor at the centre. Keep the .bad files in the state directory's ledger for support, and move them away when told.", s.SetAside, s.Lost),
		}
	case s.Unsent*10 >= s.Capacity*7:
		return device.StateDegraded, device.Sentence{
			Zh: fmt.Sprintf("存储将满：%d 条记录未送达中心。请恢复网络。", s.Unsent),
			En: fmt.Sprintf("The ledger is filling up: %d records have not reached the centre. Restore the network.", s.Unsent),
		}
	}
	return device.StateOK, device.Sentence{}
}

// today is the day by which cards expire, or "" while the clock cannot say.
func (d *daemon) today() string {
	stamp := d.clock.Stamp()
	if stamp.Clock != chain.ClockSynced && stamp.Clock != chain.ClockHoldover {
		return ""
	}
	return d.clock.Now().Format(time.DateOnly)
}

// uplinkReport keeps the uplink's health. Records that go up are all right,
// even where another address or the certificate's end needs a look.
func (d *daemon) uplinkReport(online bool, err error) {
	var sentence device.Sentence
	troubles, ok := errors.AsType[mqtt.Troubles](err)
	switch {
	case ok:
		sentence.Zh, sentence.En = troubles.Sentence()
	case !online:
		sentence = device.Sentence{Zh: "尚未连接中心系统", En: "Not connected to the centre yet."}
	}
	state := device.StateDegraded
	if online {
		state = device.StateOK
	}
	d.health.Set(device.PartUplink, state, sentence)
}

// takePackage takes a class package that came down.
func (d *daemon) takePackage(ctx context.Context, jws []byte) {
	switch err := d.packages.accept(ctx, jws, d.terminal); {
	case err == nil:
		d.log.Info("class package accepted")
	case errors.Is(err, errAlreadyHere):
	default:
		d.log.Error("class package refused", "err", err)
		d.uplink.Raise(chain.AlertForgedDown, "package")
	}
}

// answerPackages records packages that were kept before a kill and not yet
// answered, and then waits for the end.
func (d *daemon) answerPackages(ctx context.Context) error {
	for _, id := range d.unanswered {
		if err := d.packages.answer(ctx, id, d.terminal); err != nil && ctx.Err() == nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// serveControl serves the operator's tool.
func (d *daemon) serveControl(ctx context.Context) error {
	server := &http.Server{Handler: control.Handler(d), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(d.door); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Status implements control.Daemon.
func (d *daemon) Status() control.Status {
	d.screen.mu.Lock()
	screen := d.screen.now
	d.screen.mu.Unlock()
	ledger := d.ledger.Status()
	pid, restarts := d.faces.Worker()
	return control.Status{
		Software: software, Terminal: string(d.admission.Terminal), Tenant: d.admission.Tenant,
		Started: d.started, Panel: "http://" + d.panel.Addr().String(), Screen: screen,
		Health: d.health.Snapshot(), Classes: d.packages.status(),
		Ledger: control.LedgerStatus{
			Log: string(ledger.Log), Last: uint64(ledger.Last), Receipted: uint64(ledger.Receipted), ReceiptAt: ledger.ReceiptedAt.Time,
		},
		Worker: control.WorkerStatus{PID: pid, Restarts: restarts},
	}
}

// Export implements control.Daemon.
func (d *daemon) Export(w io.Writer) error {
	cert, err := chain.ParseCertificate(d.admission.Ledger)
	if err != nil {
		return err
	}
	return d.ledger.Export(w, cert, d.keys.Handovers()...)
}

package main

import (
	"context"
	"log/slog"
	"time"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue/chain"
	"rollcall/vision"
)

// cameraFaults records when the camera begins to show a still or a repeated
// film. The check-ins that it spoils say so themselves; this record stands also
// where nobody was checking in.
type cameraFaults struct {
	began  chan time.Time // bounded: one that waits stands for those after it
	append func(context.Context, attendance.Record) (attendance.Stored, error)
	log    *slog.Logger
}

func newCameraFaults(log *slog.Logger) *cameraFaults {
	return &cameraFaults{began: make(chan time.Time, 1), log: log}
}

// suspect notes a beginning. It does not block.
func (c *cameraFaults) suspect(now time.Time) {
	select {
	case c.began <- now:
	default:
	}
}

// run records what is noted until ctx ends. A record that cannot be stored is
// logged: the ledger reports its own trouble.
func (c *cameraFaults) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case at := <-c.began:
			_, err := c.append(ctx, attendance.NewRecord(attendance.TypeFault, attendance.FaultBody{
				Part: "camera", Code: attendance.CameraSuspect, Tapped: at.Format(attendance.TimeLayout),
			}))
			if err != nil && ctx.Err() == nil {
				c.log.Error("camera fault not recorded", "err", err)
			}
		}
	}
}

func (d *daemon) openCamera() (err error) {
	cfg := d.cfg.Vision
	cfg.Report = func(state device.PartState, s device.Sentence) { d.health.Set(device.PartCamera, state, s) }
	cfg.Preview = d.panel.Preview
	d.cameraFaults = newCameraFaults(d.log)
	cfg.Suspect = d.cameraSuspect
	cfg.Now, cfg.Log = d.clock.Now, d.log
	d.faces, err = vision.New(cfg, d.gallery)
	return err
}

// cameraSuspect tells the centre, before any record that waits, and records the
// beginning.
func (d *daemon) cameraSuspect(now bool) {
	if !now {
		d.uplink.Settle(chain.AlertCamera)
		return
	}
	d.uplink.Raise(chain.AlertCamera, "")
	d.cameraFaults.suspect(d.clock.Now())
}

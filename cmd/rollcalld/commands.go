package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"rollcall/attendance"
	"rollcall/device"
	"rollcall/queue"
	"rollcall/queue/chain"
)

// commandsFile remembers the last command, in the state directory.
const commandsFile = "command.json"

// refusalPause is how long refusals for one reason are only counted after one
// was recorded, so that nobody fills the ledger with forgeries.
const refusalPause = time.Hour

// commands carries out what the centre orders, each order at most once:
//
//  1. Check signature, address, serial and expiry.
//  2. Note serial and hash on disk. From here on it is never begun again.
//  3. Carry it out.
//  4. Note the result on disk.
//  5. Record the answer.
//  6. Note on disk that it is answered.
//
// A start after a crash answers what is not answered: "interrupted" between 2
// and 4, else the result. What is refused in step 1 is recorded as well: an
// order of the centre's always, other bytes once an hour for each reason.
type commands struct {
	path     string
	tenant   string
	terminal chain.TerminalID
	key      crypto.PublicKey          // the centre's
	now      func() time.Time          // no later than it really is
	up       func() time.Duration      // since boot
	save     func(noted command) error // durably
	carryOut func(context.Context, attendance.Command) error
	record   func(context.Context, attendance.Record) error
	forged   func() // tells the centre before the records that wait
	log      *slog.Logger

	mu      sync.Mutex // guards what follows; held while a command is carried out
	last    command
	refused map[attendance.CommandReason]*refusals
}

// command is what stands on disk of the last one.
type command struct {
	Serial   uint64                   `json:"serial"`
	SHA256   string                   `json:"sha256"`
	Kind     attendance.CommandKind   `json:"kind"`
	Result   attendance.CommandResult `json:"result"` // empty while it is carried out
	Reason   attendance.CommandReason `json:"reason,omitempty"`
	Answered bool                     `json:"answered"`
}

// refusals are those for one reason.
type refusals struct {
	recorded time.Duration // since boot
	more     int           // since then
}

// openCommands reads what is noted. answered is the serial of the last command
// that the ledger holds an answer to. A note that is gone or damaged leaves the
// ledger's word.
func openCommands(c *commands, answered uint64) *commands {
	c.refused = map[attendance.CommandReason]*refusals{}
	if c.save == nil {
		c.save = c.saveFile
	}
	text, err := os.ReadFile(c.path)
	if err == nil {
		err = json.Unmarshal(text, &c.last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Error("note of the last command is damaged", "err", err)
		c.last = command{}
	}
	switch {
	case c.last.Serial < answered:
		c.last = command{Serial: answered, Result: attendance.CommandDone, Answered: true}
	case c.last.Serial == answered:
		c.last.Answered = true
	}
	if c.last.Serial > 0 && c.last.Result == "" {
		c.last.Result = attendance.CommandInterrupted
	}
	return c
}

func (c *commands) saveFile(noted command) error {
	text, err := json.Marshal(noted)
	if err != nil {
		return err
	}
	return device.WriteDurable(c.path, append(text, '\n'), 0o600)
}

// take takes what came as a command. It is called by one goroutine.
func (c *commands) take(ctx context.Context, jws []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256(jws)
	hash := hex.EncodeToString(sum[:])
	order, refusal := c.open(jws)
	switch {
	case refusal != nil && !ours(refusal.Reason):
		c.turnAway(ctx, hash, refusal)
	case order.Serial == c.last.Serial && hash == c.last.SHA256:
		c.answer(ctx) // retained at the broker: it comes with every connection
	case order.Serial <= c.last.Serial:
		c.turnAway(ctx, hash, &attendance.CommandError{Reason: attendance.CommandReplayed,
			Err: fmt.Errorf("serial %d, the last one was %d", order.Serial, c.last.Serial)})
	case !c.answer(ctx): // the one before comes first
	default:
		c.begin(ctx, order, hash, refusal)
	}
}

// open checks a command as far as that needs no memory.
func (c *commands) open(jws []byte) (attendance.Command, *attendance.CommandError) {
	refuse := func(reason attendance.CommandReason, err error) (attendance.Command, *attendance.CommandError) {
		return attendance.Command{}, &attendance.CommandError{Reason: reason, Err: err}
	}
	if len(jws) > attendance.MaxCommand {
		return refuse(attendance.CommandMalformed, fmt.Errorf("%d bytes, at most %d", len(jws), attendance.MaxCommand))
	}
	payload, err := chain.Open(c.key, chain.PurposeCommand, jws)
	switch {
	case errors.Is(err, chain.ErrSignature):
		return refuse(attendance.CommandSignature, err)
	case err != nil:
		return refuse(attendance.CommandMalformed, err)
	}
	order, err := attendance.ParseCommand(payload)
	refusal, _ := errors.AsType[*attendance.CommandError](err)
	switch {
	case refusal != nil && refusal.Reason == attendance.CommandMalformed:
	case order.Terminal != string(c.terminal) || order.Tenant != c.tenant:
		return refuse(attendance.CommandAddress, fmt.Errorf("for terminal %s of %s", order.Terminal, order.Tenant))
	case refusal == nil && !order.Expires.After(c.now()):
		refusal = &attendance.CommandError{Reason: attendance.CommandExpired, Err: fmt.Errorf("at %s", order.Expires)}
	}
	return order, refusal
}

// ours reports whether a refusal is of an order that the centre gave to this
// terminal, so that it is answered once and for all.
func ours(reason attendance.CommandReason) bool {
	switch reason {
	case attendance.CommandVersion, attendance.CommandExpired, attendance.CommandUnknown, attendance.CommandArgument:
		return true
	}
	return false
}

// begin carries out a command, or answers why not.
func (c *commands) begin(ctx context.Context, order attendance.Command, hash string, refusal *attendance.CommandError) {
	noted := command{Serial: order.Serial, SHA256: hash, Kind: order.Kind}
	if refusal != nil {
		noted.Result, noted.Reason = attendance.CommandRefused, refusal.Reason
	}
	if err := c.save(noted); err != nil { // it comes again with the next connection
		c.log.Error("command not begun: its serial cannot be noted", "serial", order.Serial, "err", err)
		return
	}
	c.last = noted
	if refusal == nil {
		err := c.carryOut(context.WithoutCancel(ctx), order)
		c.last.Result, c.last.Reason = resultOf(err)
		if err != nil {
			c.log.Error("command not carried out", "serial", order.Serial, "kind", string(order.Kind), "err", err)
		}
		if err := c.save(c.last); err != nil {
			c.log.Error("result of a command cannot be noted", "serial", order.Serial, "err", err)
		}
	}
	c.answer(context.WithoutCancel(ctx))
}

// resultOf names what became of a command that was begun.
func resultOf(err error) (attendance.CommandResult, attendance.CommandReason) {
	failed, known := errors.AsType[*attendance.CommandError](err)
	switch {
	case err == nil:
		return attendance.CommandDone, ""
	case known:
		return attendance.CommandFailed, failed.Reason
	case errors.Is(err, queue.ErrNotKept):
		return attendance.CommandFailed, attendance.CommandNotHere
	}
	return attendance.CommandFailed, attendance.CommandStorage
}

// answer records the result of the last command, once. It reports whether that
// is done.
func (c *commands) answer(ctx context.Context) bool {
	if c.last.Answered || c.last.Serial == 0 {
		return true
	}
	err := c.record(ctx, attendance.NewRecord(attendance.TypeAdmin, attendance.AdminBody{
		Serial: c.last.Serial, Kind: known(c.last.Kind), SHA256: c.last.SHA256, Result: c.last.Result, Reason: c.last.Reason,
	}))
	if err != nil {
		c.log.Error("command not answered", "serial", c.last.Serial, "err", err)
		return false
	}
	c.last.Answered = true
	c.log.Info("command answered", "serial", c.last.Serial, "kind", string(c.last.Kind), "result", string(c.last.Result), "reason", string(c.last.Reason))
	if err := c.save(c.last); err != nil { // the ledger says it too
		c.log.Error("answer to a command cannot be noted", "serial", c.last.Serial, "err", err)
	}
	return true
}

// known leaves out a kind of a later version: it is text of any length.
func known(kind attendance.CommandKind) attendance.CommandKind {
	for _, k := range attendance.CommandKinds {
		if k == kind {
			return k
		}
	}
	return ""
}

// turnAway records bytes that are no order to this terminal, or an old one, now
// and then.
func (c *commands) turnAway(ctx context.Context, hash string, refusal *attendance.CommandError) {
	if refusal.Reason == attendance.CommandSignature || refusal.Reason == attendance.CommandMalformed {
		c.forged()
	}
	before, again := c.refused[refusal.Reason]
	if again && c.up()-before.recorded < refusalPause {
		before.more++
		return
	}
	more := 0
	if again {
		more = before.more
	}
	err := c.record(context.WithoutCancel(ctx), attendance.NewRecord(attendance.TypeAdmin, attendance.AdminBody{
		SHA256: hash, Result: attendance.CommandRefused, Reason: refusal.Reason, More: more,
	}))
	c.log.Warn("command turned away", "reason", string(refusal.Reason), "err", refusal.Err, "recorded", err == nil)
	if err == nil {
		c.refused[refusal.Reason] = &refusals{recorded: c.up()}
	}
}

// answerLast answers what a crash left unanswered, and then waits for the end.
func (c *commands) answerLast(ctx context.Context) error {
	c.mu.Lock()
	c.answer(ctx)
	c.mu.Unlock()
	<-ctx.Done()
	return nil
}

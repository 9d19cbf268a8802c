package vision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rollcall/attendance"
)

// pictureDeadline is how long one picture may take: a group of people on an
// old board.
const pictureDeadline = 30 * time.Second

// mostLost is how many pictures in a row may cost a worker its life; then it is
// the worker that is broken, not the pictures.
const mostLost = 3

// Analyse has picture files checked by a worker, one after the other, exactly
// as frames of a camera are: same program, same nets, same steps. each is
// called with the place of a path in paths and the answer, [KindPicture] or
// [KindRefused], in the order of the paths. A picture that ends the worker is
// refused with [CodeLost], and a new worker goes on with the next.
//
// Analyse gives the SHA-256 of the nets by role. It returns when the worker has
// ended: after the last picture, with ctx, or because no worker will run.
func Analyse(ctx context.Context, worker, workerConfig string, paths []string, work Work, each func(int, Answer)) (map[Role]string, error) {
	var models map[Role]string
	next, lost := 0, 0
	for {
		before := next
		hello, err := analyse(ctx, worker, workerConfig, func(take func(Command) (Answer, error)) error {
			for next < len(paths) {
				a, err := take(Command{Do: DoPicture, ID: uint64(next) + 1, Path: paths[next], Work: work})
				if err != nil {
					return err
				}
				each(next, a)
				next++
			}
			return nil
		})
		if hello.Models != nil {
			models = hello.Models
		}
		switch {
		case err == nil:
			return models, nil
		case ctx.Err() != nil:
			return models, ctx.Err()
		case hello.Models == nil:
			return models, err
		case next > before:
			lost = 0
		}
		if lost++; lost > mostLost {
			return models, err
		}
		each(next, Answer{Kind: KindRefused, ID: uint64(next) + 1, Code: CodeLost, Text: "the face program did not survive it: " + err.Error()})
		next++
	}
}

// analyse is one life of a worker that is only asked for pictures. It gives
// the worker's hello.
func analyse(ctx context.Context, worker, workerConfig string, ask func(take func(Command) (Answer, error)) error) (hello Answer, err error) {
	p, err := start(worker, workerConfig)
	if err != nil {
		return Answer{}, err
	}
	hello, err = p.await(ctx, KindHello, 0)
	if err == nil && hello.Version != ProtocolVersion {
		hello, err = Answer{}, versionError(hello.Version)
	}
	if err == nil {
		err = ask(func(c Command) (Answer, error) { return p.ask(ctx, c) })
	}
	if err == nil || errors.Is(err, errGone) {
		p.end(endDeadline)
	} else {
		p.end(0)
	}
	if errors.Is(err, errGone) {
		err = p.why()
	}
	return hello, err
}

// ask gives an order and waits for its answer.
func (p *process) ask(ctx context.Context, c Command) (Answer, error) {
	p.timer.Reset(pictureDeadline)
	if err := p.commands.SetWriteDeadline(time.Now().Add(pictureDeadline)); err != nil {
		return Answer{}, errGone
	}
	if err := WriteCommand(p.commands, c); err != nil {
		return Answer{}, errGone
	}
	return p.await(ctx, KindPicture, c.ID)
}

// errLate means that a picture held the worker for too long.
var errLate = fmt.Errorf("it took more than %v", pictureDeadline)

// await waits for an answer of a kind, or a refusal, to the command id.
func (p *process) await(ctx context.Context, kind Kind, id uint64) (Answer, error) {
	for {
		select {
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		case <-p.timer.C:
			return Answer{}, errLate
		case a, ok := <-p.answers:
			if !ok {
				return Answer{}, errGone
			}
			if a.ID == id && (a.Kind == kind || a.Kind == KindRefused) {
				return a, nil
			}
		}
	}
}

// Advise is what a terminal with the default limits would ask of the person on
// a picture of so many pixels' width; AdviceNone if it would go on.
func Advise(faces []Face, width int) attendance.Advice {
	person, advice := Usable(faces)
	if person < 0 {
		return advice
	}
	limits, err := Quality{}.complete()
	if err != nil {
		panic("vision: default limits: " + err.Error())
	}
	g := gate{quality: limits}
	return g.advise(faces[person], width)
}

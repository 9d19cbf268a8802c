package main

import (
	"context"
	"fmt"

	"rollcall/simulator"
)

// measure plays rounds of a class that is always on time and prints where the
// time of a tap goes.
func measure(ctx context.Context, p *player) error {
	p.scenario = "bench"
	scenario, err := p.load()
	if err != nil {
		return err
	}
	stage, round, err := p.open(ctx, scenario)
	if err != nil {
		return err
	}
	defer stage.Close()
	taps := []simulator.TapSeen{}
	for {
		if err := stage.Play(ctx, round); err != nil {
			return err
		}
		taps = append(taps, round.Taps...)
		if round.Number == p.rounds {
			break
		}
		round = round.Next()
		if err := stage.Publish(ctx, round); err != nil {
			return err
		}
	}
	figures, err := stage.Measure(ctx, taps)
	if err != nil {
		return err
	}
	fmt.Fprint(p.Out, figures)
	return nil
}

package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// stageOfficer is the officer of every class on the stage.
const stageOfficer = "O1"

// officerHolder is what stands on the officer's card. No person of a scenario
// has it.
func officerHolder() Holder { return InventHolder(9_000_000) }

// classFile is the file an institution hands to `rollcall-centre package`.
type classFile struct {
	Class    classOf     `json:"class"`
	Sessions []sessionOf `json:"sessions"`
	Officers []officerOf `json:"officers"`
	Trainees []traineeOf `json:"trainees"`
}

type classOf struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type sessionOf struct {
	ID    string    `json:"id"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

type officerOf struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Ident string `json:"ssc_ident"`
}

type traineeOf struct {
	ID       string `json:"trainee"`
	Name     string `json:"name"`
	Ident    string `json:"ssc_ident"`
	CardNo   string `json:"card_no"`
	PersonNo string `json:"person_no"`
}

// Publish has the centre sign and send the packages of a round, and waits until
// the terminal works from them.
func (s *Stage) Publish(ctx context.Context, r *Round) error {
	before, err := s.status(ctx)
	if err != nil {
		return err
	}
	for _, class := range r.Scenario.Classes {
		name := s.path(fmt.Sprintf("class-%s-%d.json", class.ID, r.Number))
		text, err := json.MarshalIndent(r.classFile(class), "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return err
		}
		if _, err := s.tool(ctx, "rollcall-centre", "package", "-config", s.path("centre.toml"), "-terminal", stageTerminal, name); err != nil {
			return err
		}
	}
	var last uint64
	for _, c := range before.Classes {
		last = max(last, c.Serial)
	}
	return s.awaitStatus(ctx, "the class package", 20*time.Second, func(t terminalStatus) bool {
		fresh := 0
		for _, c := range t.Classes {
			if c.Serial > last {
				fresh++
			}
		}
		return fresh == len(r.Scenario.Classes)
	})
}

func (r *Round) classFile(class Class) classFile {
	start := r.start(class)
	file := classFile{
		Class:    classOf{class.ID, class.Name},
		Sessions: []sessionOf{{string(r.session(class.ID)), start, start.Add(class.Lasts.Duration)}},
		Officers: []officerOf{{stageOfficer, "周老师", officerHolder().Ident}},
	}
	for _, p := range r.Scenario.People {
		if p.Class == class.ID {
			h := r.Scenario.holder(p.ID)
			file.Trainees = append(file.Trainees, traineeOf{p.ID, h.Name, h.Ident, h.CardNo, h.PersonNo})
		}
	}
	return file
}

// start is when a class's session of this round began.
func (r *Round) start(class Class) time.Time {
	return r.Began.Add(-class.Began.Duration).Truncate(time.Second)
}

// holder is what stands on a person's card.
func (s *Scenario) holder(id string) Holder {
	for i, p := range s.People {
		if p.ID == id {
			return InventHolder(i)
		}
	}
	panic("simulator: no person " + id)
}

// Prepare does what comes before a first lesson: the terminal is admitted, the
// centre sends the class, and everybody who consents is enrolled.
func (s *Stage) Prepare(ctx context.Context, r *Round) error {
	for _, do := range []struct {
		what string
		how  func(context.Context) error
	}{
		{"the centre admits the terminal", s.Admit},
		{"the centre starts", s.StartCentre},
		{"the terminal starts", s.StartTerminal},
		{"the centre sends the classes", func(ctx context.Context) error { return s.Publish(ctx, r) }},
		{"everybody who consents is enrolled", func(ctx context.Context) error { return s.enrolAll(ctx, r) }},
	} {
		fmt.Fprintf(s.Out, "        -- %s --\n", do.what)
		if err := do.how(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) enrolAll(ctx context.Context, r *Round) error {
	for _, p := range r.Scenario.People {
		if p.Class == "" || p.Declined {
			continue
		}
		if err := s.Enrol(ctx, p); err != nil {
			return fmt.Errorf("enrolling %s: %w", p.ID, err)
		}
	}
	return nil
}

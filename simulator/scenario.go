package simulator

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/BurntSushi/toml"

	"rollcall/attendance"
)

// Scenarios are the scripted classes that come with the simulator.
//
//go:embed scenarios/*.toml
var scenarios embed.FS

// Scenario is a scripted class: who there is, who arrives in what order, what
// breaks meanwhile, and the truth that records and screens must equal.
type Scenario struct {
	Name    string    `toml:"name"`
	Classes []Class   `toml:"class"`
	People  []Trainee `toml:"person"`
	Steps   []Step    `toml:"step"`
}

// Class is a class with one session a round.
type Class struct {
	ID    string   `toml:"id"`
	Name  string   `toml:"name"`
	Began duration `toml:"began"` // before the round
	Lasts duration `toml:"lasts"` // from then on
}

// Trainee is somebody with a card and a face.
type Trainee struct {
	ID       string `toml:"id"`
	Class    string `toml:"class"`    // empty: on no roster
	Face     string `toml:"face"`     // label of a [Person]
	Declined bool   `toml:"declined"` // gave no consent: is not enrolled
}

// Step is one thing that happens.
type Step struct {
	Says  string `toml:"says"`  // what a bystander would say
	Who   string `toml:"who"`   // the trainee who taps; empty for a fault alone
	Face  string `toml:"face"`  // who stands before the camera: empty for the trainee, "none", or a label
	Card  Wear   `toml:"card"`  // how the card behaves
	Fault Fault  `toml:"fault"` // what breaks, before the tap unless it says otherwise
	Truth Truth  `toml:"truth"`
}

// Wear is how a card behaves.
type Wear string

const (
	CardGood       Wear = ""
	CardPulled     Wear = "pulled"     // out while it is being read
	CardUnreadable Wear = "unreadable" // its memory fails
	CardIdentOnly  Wear = "ident_only" // gives the card identification code and nothing else
)

// Fault is what breaks or mends.
type Fault string

const (
	FaultNone         Fault = ""
	FaultLinkCut      Fault = "link_cut"
	FaultLinkMended   Fault = "link_mended"
	FaultCentreKilled Fault = "centre_killed" // and started again
	FaultWorkerKilled Fault = "worker_killed" // as the face check begins
	FaultDaemonKilled Fault = "daemon_killed" // the moment the answer stands, and started again
)

// Truth is what a step must come to. Record is empty where nothing may be
// recorded.
type Truth struct {
	Record   attendance.RecordType  `toml:"record"`
	Decision attendance.Outcome     `toml:"decision"`
	Reason   attendance.Reason      `toml:"reason"`
	Screen   attendance.ScreenState `toml:"screen"`
}

type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// LoadScenario reads a scenario that comes with the simulator, or a file.
func LoadScenario(files fs.FS, name string) (*Scenario, error) {
	var s Scenario
	meta, err := toml.DecodeFS(files, name, &s)
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("scenario %s: unknown key %s", name, unknown[0])
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", name, err)
	}
	return &s, nil
}

// BuiltIn reads a scenario that comes with the simulator: "class", "control"
// or "bench".
func BuiltIn(name string) (*Scenario, error) {
	return LoadScenario(scenarios, "scenarios/"+name+".toml")
}

func (s *Scenario) check() error {
	for _, p := range s.People {
		if _, ok := s.class(p.Class); !ok && p.Class != "" {
			return fmt.Errorf("person %s: no class %q", p.ID, p.Class)
		}
	}
	for i, step := range s.Steps {
		if _, ok := s.person(step.Who); !ok && step.Who != "" {
			return fmt.Errorf("step %d: no person %q", i+1, step.Who)
		}
		if step.Who != "" && step.Truth.Screen == "" {
			return fmt.Errorf("step %d: a tap needs its truth", i+1)
		}
	}
	return nil
}

func (s *Scenario) class(id string) (Class, bool) {
	i := slices.IndexFunc(s.Classes, func(c Class) bool { return c.ID == id })
	if i < 0 {
		return Class{}, false
	}
	return s.Classes[i], true
}

func (s *Scenario) person(id string) (Trainee, bool) {
	i := slices.IndexFunc(s.People, func(p Trainee) bool { return p.ID == id })
	if i < 0 {
		return Trainee{}, false
	}
	return s.People[i], true
}

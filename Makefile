# Rollcall. `make help` lists what can be made.

TAGS    := opencv,gocv_specific_modules,gocv_calib3d,gocv_videoio
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILT   := $(shell git log -1 --format=%cI 2>/dev/null)
GO      := go
BUILD   := $(GO) build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '-X main.software=rollcalld/$(VERSION) -X main.built=$(BUILT)'
LINT    := $(GO) tool -modfile=tools/go.mod
comma   := ,
SIM     := bin/rollcall-sim

.DEFAULT_GOAL := help
.PHONY: help setup setup-test models build run demo demo-control proof-tamper proof-damage proof-crash proof-offline test soak lint bench fuzz arm64 clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and running needs (Debian packages, nets, pictures); does nothing when all is there
	@deploy/setup.sh run
	@deploy/fetch-models.sh

setup-test: ## the same for the tests: a broker and a browser as well
	@deploy/setup.sh test
	@deploy/fetch-models.sh

models: ## fetch the nets and the demonstration's pictures, checked by their sums
	@deploy/fetch-models.sh

build: setup ## all programs, into bin/
	@$(BUILD) -o bin/ ./cmd/...

run: build ## a classroom on this machine, again and again until Ctrl-C: open the address it prints
	@$(SIM) run

demo: build ## a scripted class, once: exit 0 only if screens, database and export equal the truth
	@$(SIM) demo

demo-control: build ## show that the demonstration notices a spoilt terminal
	@$(subst -tags $(TAGS),-tags $(TAGS)$(comma)control,$(BUILD)) -o bin/control/ ./cmd/rollcalld
	@deploy/demo-control.sh

test: setup-test ## all tests, on the real parts too, with the race detector
	$(GO) test -race -tags $(TAGS) ./...

lint: setup-test ## gofmt, vet and staticcheck, with and without C
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) vet -tags $(TAGS),control ./cmd/rollcalld
	$(LINT) staticcheck -tags $(TAGS) ./...

arm64: ## everything that needs no C, for ARM boards; the packages with C are built on the board's distribution
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

bench: build setup-test ## figures for docs/performance.md: taps through the whole stack, then the rooms
	@$(SIM) bench
	$(GO) test -run '^$$' -bench . -tags $(TAGS) ./...

# Packages that have tests of endurance; each has the flag -soak.
SOAK := ./reader ./reader/pcsc ./vision/opencv
soak: setup-test ## tests of endurance, which run for minutes and measure what a busy machine spoils
	$(GO) test -count 1 -timeout 1h -tags $(TAGS) -run Soak -v $(SOAK) -soak
	$(GO) test -count 1 -timeout 1h -run T13 -v ./centre -long

TAMPER := -tamper.rounds 10000 -tamper.seed 1
proof-tamper: setup-test ## 10,000 manipulations of ledgers, each found and named; TAMPER="-tamper.seed N -tamper.one I" plays one again
	$(GO) test ./queue/chain -run '^TestT9Tamper$$' -v -count 1 -timeout 30m $(TAMPER)
	$(GO) test ./centre -run '^(TestTamperedDisk|TestT10RetiredKey)' -v -count 1 -long

FUZZTIME := 20s
fuzz: ## every fuzz target for FUZZTIME each
	@deploy/fuzz.sh $(TAGS) $(FUZZTIME)

# Proofs run longer than the short versions in `make test`, and print their figures and those of a control that must fail.
# SEED names where to begin, so a proof that was broken off goes on; a failing seed names the file that replays it to the byte.
SEED := 1
DAMAGES := 2000
proof-damage: ## DAMAGES damaged ledgers, and one torn at every byte: the daemon starts, keeps what can be read, names what is lost
	$(GO) test ./queue -count 1 -v -timeout 2h -run '^TestF2[0157]|^TestF26' -damage $(DAMAGES) -damage-seed $(SEED) -torn-step 1

CUTS    := 10000
BLOCKS  := 1000
KILLS   := 900
DAEMONS := 100
JOURNAL :=
proof-crash: setup-test ## KILLS of the store, DAEMONS of rollcalld and as many at a command, CUTS of the power (BLOCKS more below ext4): nothing acknowledged is lost; on a disk that does not sync it must be
	$(GO) test ./queue -count 1 -v -timeout 6h -run '^TestF22|^TestF23|^TestF24' \
	  -rounds $(KILLS) -cuts $(CUTS) -block-cuts $(BLOCKS) -cut-seed $(SEED) -cut-journal '$(JOURNAL)'
	$(GO) test ./cmd/rollcalld -count 1 -v -timeout 1h -run '^TestF23|^TestT15Command' -kills $(DAEMONS) -command-kills $(DAEMONS)

DAYS     := 90
WEEKS    := 3
RECEIPTS := 10000
CENTRES  := 100
proof-offline: setup-test ## WEEKS rounds of DAYS virtual days offline, drained through a hostile broker and a crashing centre; RECEIPTS hostile receipts; CENTRES kills -9 of a centre's process in each of two drains: nothing lost, doubled or let go
	$(GO) test ./queue/mqtt -count 1 -v -timeout 3h -run '^TestOffline|^TestNoReceipt' \
	  -offline.days $(DAYS) -offline.rounds $(WEEKS) -offline.receipts $(RECEIPTS) -offline.seed $(SEED)
	$(GO) test ./cmd/rollcall-centre -count 1 -v -timeout 1h -run '^TestOffline' -offline.kills $(CENTRES) -offline.seed $(SEED)

clean: ## what was built and played; the fetched nets stay
	rm -rf bin build/stage build/control

# Tatami. `make help` lists what there is; `make demo` and `make test` install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED := 0
# sudo and su leave out directories where Go, runc and a snap lie.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin
GO ?= go
TOOLS := $(CURDIR)/.cache/tools
LINT_VERSION := v2.15.0
LINT := $(TOOLS)/golangci-lint-$(LINT_VERSION)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
PURE := scheduler/{placement,autoscale,keepalive,fleet,state,reconcile}/*.go
# The packages that hold tests on real containers or mounts.
E2E := ./tests/e2e/... ./tests/bench ./tests/power ./runtime/attach ./runtime/containerd ./runtime/egress ./runtime/listens

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build bin/tatami
	GOOS=linux $(GO) build -trimpath -ldflags '-s -w -E main.enter' -o runtime/attach/assets/init ./runtime/attach/init
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tatami ./cmd/tatami

.PHONY: demo
demo: deps-demo build ## Deploy, call, queue, scale to zero and back on this machine (root; KEEP=1 leaves it running)
	@KEEP='$(KEEP)' $(GO) run ./tests/demo -tatami bin/tatami -function functions/examples/hello

.PHONY: check
check: fmt-check lint vet unit cross ## Format, lint, vet, unit tests, cross builds (no root)
	@echo 'check: passed (format, lint, vet, unit tests, macOS and Windows builds)'

.PHONY: test
test: deps-test check e2e ## Everything: check, and the end-to-end tests on real containers (root)
	@echo 'test: passed (check, and the end-to-end tests on real containers)'

.PHONY: fmt
fmt: ## Format the code
	gofmt -w .

.PHONY: fmt-check
fmt-check:
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not formatted (run 'make fmt'):"; echo "$$bad"; exit 1; }

.PHONY: lint
lint: $(LINT) ## Lint: dependency direction, pure packages, file sizes and the usual
	$(LINT) run ./...
	@code=0; grep -nE '^[[:space:]]*(go|select) ' $(PURE) || code=$$?; [ $$code -eq 1 ] || { echo 'a pure package starts a goroutine or waits, or is not where it is looked for'; exit 1; }
	@find . -name '*_test.go' -print0 | xargs -0 wc -l | awk '$$2 != "total" && $$1 > 800 {print substr($$2, 3) ": " $$1 " lines, more than 800"; bad = 1} END {exit bad}'

$(LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e ./...

.PHONY: unit
unit: ## Unit tests (no root)
	$(GO) test ./...

.PHONY: cross
cross: ## Build the client verbs for macOS and Windows
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/tatami
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/tatami

.PHONY: e2e
e2e: deps-test build ## End-to-end tests on real containers (root)
	TATAMI_BINARY=$(CURDIR)/bin/tatami $(GO) test -tags e2e -count=1 -p 1 -timeout 20m $(E2E)

.PHONY: e2e-nomad
e2e-nomad: deps-test build ## Workers and servers in a real Nomad: agents of the program NOMAD_BINARY, or that of NOMAD_ADDR, whose clients are this machine (root; about 4 minutes)
	@test -n "$${NOMAD_BINARY:-}$${NOMAD_ADDR:-}" || { echo 'set NOMAD_BINARY to a nomad program, or NOMAD_ADDR, and NOMAD_TOKEN to a management token: make test has the same tests at a stand-in for Nomad' >&2; exit 2; }
	@echo 'time limit: 10 minutes'
	TATAMI_BINARY=$(CURDIR)/bin/tatami $(GO) test -tags e2e -count=1 -v -timeout 10m -run '^Test(Nomad|NomadAnswers|ServersInNomad)$$' ./tests/e2e

.PHONY: bench
bench: deps-test build ## Every figure beside its baselines, measured in one run; appends to out/bench.jsonl
	@echo 'time limit: 15 minutes, then those of the parts'
	@mkdir -p out
	timeout 900 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only noisy
	@$(MAKE) --no-print-directory bench-queue
	@$(MAKE) --no-print-directory bench-cold
	@$(MAKE) --no-print-directory bench-frozen
	@$(MAKE) --no-print-directory bench-warm
	@$(MAKE) --no-print-directory bench-overload
	@$(MAKE) --no-print-directory bench-scheduler
	@$(MAKE) --no-print-directory bench-keepalive
	@$(MAKE) --no-print-directory bench-control
	@$(MAKE) --no-print-directory bench-flood
	@$(MAKE) --no-print-directory bench-cluster

.PHONY: bench-queue
bench-queue: deps-test build ## Acceptance and completion of queued work beside JetStream alone, and with a real container (about 3 minutes); appends to out/bench.jsonl
	@echo 'time limit: 10 minutes'
	@mkdir -p out
	timeout 600 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only queue

.PHONY: bench-flood
bench-flood: ## One function beside a flood of 1e6 for another and one that fails, delayed work, a writer on the disk (about 8 minutes, no root); appends to out/bench.jsonl
	@echo 'time limit: 15 minutes'
	@mkdir -p out
	timeout 900 $(GO) run ./tests/bench flood -out out/bench.jsonl

.PHONY: bench-frozen
bench-frozen: deps-test build ## Calls to frozen instances, and what 300 of them take, with 1,000 functions deployed (about 4 minutes); appends to out/bench.jsonl
	@echo 'time limit: 8 minutes'
	@mkdir -p out
	timeout 480 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only frozen

.PHONY: bench-cold
bench-cold: deps-test deps-bench build ## Cold starts: spaced, in bursts and in an open loop, beside the kernel's floor and containerd's client (about 10 minutes); appends to out/bench.jsonl
	@echo 'time limit: 12 minutes'
	@mkdir -p out
	timeout 720 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only cold

.PHONY: bench-warm
bench-warm: deps-test build ## Warm calls beside a direct connection, nginx, ReverseProxy and a bare hop, and with 1,000 functions deployed (about 8 minutes)
	@echo 'time limit: 15 minutes'
	@mkdir -p out
	timeout 900 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only warm

.PHONY: bench-overload
bench-overload: deps-test build ## A function that is asked for five times what it can serve, for a minute (about 2 minutes)
	@echo 'time limit: 5 minutes'
	@mkdir -p out
	timeout 300 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only overload

.PHONY: bench-cluster
bench-cluster: deps-test build ## One joined worker, two and three: work, packing, and what a hop to another process costs, and the scheduler with 1,000 workers that joined beside 1,000 in its process (about 11 minutes); appends to out/bench.jsonl
	@echo 'time limit: 16 minutes'
	@mkdir -p out
	timeout 480 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only cluster
	timeout 480 $(GO) run ./tests/bench control -joined -out out/bench.jsonl

.PHONY: bench-noisy
bench-noisy: deps-test build ## What a namespace that asks for 100 times its quota does to another one (about 2 minutes); appends to out/bench.jsonl
	@echo 'time limit: 5 minutes'
	@mkdir -p out
	timeout 300 $(GO) run ./tests/bench -tatami bin/tatami -out out/bench.jsonl -only noisy

.PHONY: bench-scheduler
bench-scheduler: ## The scheduler's decisions and packing beside their baselines (no root); appends to out/bench.jsonl
	@echo 'time limit: 10 minutes'
	@mkdir -p out
	timeout 600 $(GO) run ./tests/bench scheduler -out out/bench.jsonl

.PHONY: bench-keepalive
bench-keepalive: ## Keep-alive beside fixed, hybrid and clairvoyant policies on generated traces (no root); appends to out/bench.jsonl
	@echo 'time limit: 10 minutes'
	@mkdir -p out
	timeout 600 $(GO) run ./tests/bench keepalive -out out/bench.jsonl

.PHONY: bench-control
bench-control: ## Cold starts through gateway, bus and scheduler with 1,000 workers that only wait (no root); appends to out/bench.jsonl
	@echo 'time limit: 3 minutes'
	@mkdir -p out
	timeout 180 $(GO) run ./tests/bench control -out out/bench.jsonl

.PHONY: mutate
mutate: build ## Break one promise after the other in a copy of the tree and show that the tests notice (root)
	@echo 'time limit: 60 minutes'
	timeout 3600 $(GO) run ./tests/mutate

.PHONY: soak
soak: deps-test build ## 10,000 starts and ends with random kills, 200 instances under churn, a full node (root)
	@echo 'time limit: 100 minutes'
	$(GO) test -tags e2e ./runtime/containerd -run '^Test(Cycles|Identity|FullNode|EscapePrecreated.*|ConformancePrecreated.*)$$' -count=1 -v -timeout 100m \
		-args -cycles.n 10000 -identity.instances 200 -identity.requests 100000 -full.instances 100 -precreated.whole

.PHONY: chaos-queue
chaos-queue: deps-test build ## 100,000 queued invocations under 60 kills, and 30 power losses of the queue's store (root)
	@echo 'time limit: 35 minutes (about 8 on two idle cores)'
	TATAMI_BINARY=$(CURDIR)/bin/tatami $(GO) test -tags e2e ./tests/e2e -run '^TestChaosQueue$$' -count=1 -v -timeout 25m \
		-args -chaos.invocations 100000 -chaos.kills 60
	$(GO) test -tags e2e ./tests/power -count=1 -v -timeout 10m -args -power.crashes 30

.PHONY: chaos-cluster
chaos-cluster: deps-test build ## Three servers and three workers killed, parted, every pair of them, and restarted under load (root)
	@echo 'time limit: 20 minutes'
	mkdir -p $(CURDIR)/out/chaos-cluster
	TATAMI_LOGS=$(CURDIR)/out/chaos-cluster TATAMI_BINARY=$(CURDIR)/bin/tatami $(GO) test -tags e2e ./tests/e2e -run '^TestFailover$$' -count=1 -v -timeout 20m \
		-args -failover.steps worker,scheduler,stream,gateway,worker,scheduler,stream,gateway,fence,pairs,restarts

.PHONY: test-v2
test-v2: deps-v2 build ## The sandboxes' suites on Debian's kernel with cgroup v2, in an emulated machine
	@echo 'time limit: 105 minutes'
	timeout 6300 $(GO) run ./tests/v2

.PHONY: soak-scheduler
soak-scheduler: ## 1e8 random steps of the placement engine, and again from the seeds (no root)
	@echo 'time limit: 40 minutes (about 6 on two idle cores)'
	$(GO) test ./scheduler/placement -run '^TestRandomSteps$$' -count=1 -v -timeout 40m -args -steps 100000000

.PHONY: deps-demo
deps-demo: ## Install the Debian packages that running functions needs
	@deploy/packages.sh runc

.PHONY: deps-test
deps-test: ## Install the Debian packages that the tests and benchmarks need
	@deploy/packages.sh runc runsc wrk chromium nginx busybox

.PHONY: deps-bench
deps-bench:
	@deploy/packages.sh mmdebstrap

.PHONY: deps-v2
deps-v2:
	@deploy/packages.sh runc qemu-system-x86_64

.PHONY: clean
clean: ## Remove what was built; the figures in out/bench.jsonl stay
	rm -rf bin .cache runtime/attach/assets/init
	@[ ! -d out ] || find out -mindepth 1 -not -path out/bench.jsonl -delete

CARGO ?= cargo
# Programs, test images and tests are of one profile, so that no dependency is compiled twice. All of the workspace is built at
# a time for the same reason: a part alone may get other features of a dependency.
PROGRAMS = $(or $(CARGO_TARGET_DIR),target)/release
DEV_CLUSTER = $(PROGRAMS)/dev-cluster

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build all programs and examples into target/release
	$(CARGO) build --locked --release --workspace --bins --examples

# Only when it is missing: to end a cluster, the code of the moment does not have to compile.
$(DEV_CLUSTER):
	$(MAKE) build

.PHONY: tools
tools: build ## Build the third-party programs of the test cluster into the cache
	$(DEV_CLUSTER) build-tools

.PHONY: test
test: build ## Run unit, property, API server and end-to-end tests; FILTER=text for those with it in their name
	$(PROGRAMS)/test-runner --filter '$(FILTER)'

.PHONY: test-long
test-long: build ## Run the tests that are too slow for every run (docs/development.md)
	$(PROGRAMS)/test-runner --long --filter '$(FILTER)'

.PHONY: fmt
fmt: ## Format the Rust code
	$(CARGO) fmt --all

.PHONY: crds
crds: tools ## Write what is generated: crds/, the charts' copies, the kustomize base, docs/reference.md
	.ci/generate

.PHONY: check
check: check-format check-layers check-lints check-docs check-drift ## Run all checks but the tests

.PHONY: check-format
check-format: ## Check that the Rust code is formatted and no file is too long
	$(CARGO) fmt --all --check
	.ci/check-sizes

.PHONY: check-layers
check-layers: ## Check that the core is pure and the sides do not know each other
	.ci/check-layers

.PHONY: check-lints
check-lints: ## Check that clippy has nothing to say
	$(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings

.PHONY: check-docs
# With the examples, so that the dependencies get the features that check-lints gave them.
check-docs: ## Check the documentation comments
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --locked --release --workspace --no-deps --lib --bins --examples --document-private-items

.PHONY: check-drift
check-drift: tools ## Check that what is generated is what would be generated
	.ci/generate --check

.PHONY: demo
TASKS ?= 40
demo: build ## Watch it work: everything from nothing, then a burst of real work; TASKS=n for its size (docs/demo.md)
	@$(DEV_CLUSTER) demo --tasks $(TASKS)

.PHONY: demo-polyglot
demo-polyglot: build ## Watch one Workflow use Workers in six languages, all of it encrypted (docs/demo.md)
	@$(DEV_CLUSTER) demo-polyglot

.PHONY: cluster-up
cluster-up: build ## Start a Kubernetes cluster on this machine and print KUBECONFIG (docs/test-cluster.md)
	@$(DEV_CLUSTER) up

.PHONY: cluster-down
cluster-down: $(DEV_CLUSTER) ## End that cluster, and the demo's, and remove everything of them
	@$(DEV_CLUSTER) down
	@$(DEV_CLUSTER) down --name demo

.PHONY: bench-push
bench-push: build ## Measure the way of a task to the replicas with the push endpoint and without; TRIALS=n (docs/benchmarks.md)
	$(PROGRAMS)/bench push $(if $(TRIALS),--trials $(TRIALS))

.PHONY: bench-decision
bench-decision: build ## Measure the time of a scaling decision on 10,000 busy lanes (docs/benchmarks.md)
	$(PROGRAMS)/bench decision

.PHONY: bench-cold-start
bench-cold-start: build ## Measure the way of a fleet from zero against its floor; TRIALS=n (docs/benchmarks.md)
	$(PROGRAMS)/bench cold-start $(if $(TRIALS),--trials $(TRIALS))

.PHONY: bench-autoscale
bench-autoscale: build ## Play recorded traffic on the real cluster, beside the simulator's prediction; LENGTH=n in seconds (docs/benchmarks.md)
	$(PROGRAMS)/bench autoscale $(if $(LENGTH),--seconds $(LENGTH))

.PHONY: bench-detection
bench-detection: build ## Measure how soon a task on an idle Task Queue is seen; TRIALS=n (docs/benchmarks.md)
	$(PROGRAMS)/bench detection $(if $(TRIALS),--trials $(TRIALS))

.PHONY: bench-scale
bench-scale: build ## Measure the operator with 1,000 fleets, at rest and after a restart; FLEETS=n, RESTARTS=n, TASKS=n (docs/benchmarks.md)
	$(CARGO) build --locked --profile small --package temporal-worker-operator --bins
	TMPDIR=$(firstword $(wildcard /dev/shm) /tmp) $(PROGRAMS)/bench scale $(if $(FLEETS),--fleets $(FLEETS)) $(if $(RESTARTS),--restarts $(RESTARTS)) $(if $(filter-out file,$(origin TASKS)),--tasks $(TASKS))

.PHONY: bench-sidecar
bench-sidecar: build ## Measure what the sidecar costs beside the same Go Worker without it; ROUNDS=n (docs/benchmarks.md)
	$(CARGO) build --locked --profile dist --package worker-runtime --bins
	$(PROGRAMS)/bench sidecar $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-stops
bench-stops: build ## Count the tasks that are lost while Workers of four SDKs are stopped, without the sidecar and with it; ROUNDS=n (docs/benchmarks.md)
	$(PROGRAMS)/bench stops $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-runtime
bench-runtime: build ## Measure the CPU time of a task on the runtime beside Workers on the Go SDK; ROUNDS=n (docs/benchmarks.md)
	$(CARGO) build --locked --profile dist --package worker-runtime --bins --example echo
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --profile dist --package enter-group
	$(PROGRAMS)/bench runtime $(if $(ROUNDS),--rounds $(ROUNDS))

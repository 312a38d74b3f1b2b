# Commands of the project. They install their dependencies: uv into .uv/ if it is not installed, Python packages
# into .venv/ from the lock.
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-packages
PACKAGES := wire service workers consumers operator simulator cli monitoring devtools simtest
SOURCES := $(addsuffix /src,$(PACKAGES))
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo tools tools-kafka tools-e2e tools-images test test-services test-kubernetes unit chaos fuzz retention-check simtest simtest-consumers simtest-mutants simtest-crashes lint format bench bench-ingest bench-sink generate dashboards images compose-test e2e e2e-full e2e-down charts platform install uninstall

help: ## show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	@python3 -m venv .uv || { echo "python3 with its venv module is required (Debian: python3-venv)"; exit 1; }
	@.uv/bin/pip install --quiet uv==$(UV_VERSION)

setup: $(filter .uv/bin/uv,$(UV)) ## install all dependencies into .venv
	@$(UV) sync --frozen --all-packages --quiet

demo: setup ## run a venue, Kafka, PostgreSQL and marketfeed on this machine for 30 s (ARGS="--seconds 60")
	@$(RUN) marketfeed demo $(ARGS)

tools: setup ## download or build once the tools of the tests: Kafka, the Kubernetes control plane
	@$(RUN) python scripts/test_tools.py

tools-kafka: setup
	@$(RUN) python scripts/test_tools.py kafka prometheus

tools-e2e: setup ## build once the tools of compose-test and e2e: the executables of a cluster's nodes
	@$(RUN) python scripts/test_tools.py e2e

tools-images: setup ## build once the third-party images of compose-test and e2e; Docker keeps running (make e2e-down stops it)
	@$(RUN) python scripts/test_tools.py images

test: tools ## run every test that this machine can run (ARGS="-k name")
	@$(RUN) pytest $(ARGS)

# The same in two parts: the first needs no tools that take minutes to build.
ON_KUBERNETES := operator tests/charts monitoring/tests/test_monitoring_proof.py
SERVICES := $(filter-out operator,$(PACKAGES)) tests/integration tests/repository $(addprefix --ignore=,$(ON_KUBERNETES))

test-services: tools-kafka ## run all tests that need no Kubernetes API server
	@$(RUN) pytest $(SERVICES) $(ARGS)

test-kubernetes: tools ## run the tests of the operator, the charts and the dashboards' queries on a Kubernetes API server
	@$(RUN) pytest $(ON_KUBERNETES) $(ARGS)

unit: setup ## run the tests that start no process, optionally on another Python (PYTHON=3.13, ARGS="-k name")
	@$(RUN) python scripts/unit_tests.py $(addprefix --python=,$(PYTHON)) -- $(ARGS)

chaos: tools ## chaos tests of the consumer: kills at every failpoint, two owners, 200 seeds (MARKETFEED_CHAOS_SEEDS=n, ARGS="-k killed")
	@$(RUN) python scripts/chaos.py $(ARGS)

SESSIONS ?= 1000
SEED ?= 0

simtest: setup ## simulate worker sessions in virtual time with seeded faults (SESSIONS=10000 SEED=n, ARGS="--no-shrink")
	@$(RUN) marketfeed-simtest run --sessions $(SESSIONS) --seed $(SEED) $(ARGS)

simtest-consumers: setup ## simulate consumer sessions with seeded faults (SESSIONS=2000 SEED=n POSTGRES=1 PLAN='{...}' ARGS="--no-shrink")
	@$(RUN) marketfeed-simtest consumers --sessions $(SESSIONS) --seed $(SEED) $(if $(POSTGRES),--postgres) $(if $(PLAN),--plan '$(PLAN)') $(ARGS)

retention-check: setup ## check retention and audit with generated interleavings against an oracle in SQL (RUNS=10000 SEED=1 ARGS="--case FILE")
	@$(RUN) python scripts/retention_check.py $(addprefix --runs=,$(RUNS)) $(addprefix --seed=,$(SEED)) $(ARGS)

fuzz: tools ## fuzz HTTP clients and specs, 10,000 rounds each (MARKETFEED_FUZZ_SEED=n, MARKETFEED_FUZZ_ROUNDS=n)
	@MARKETFEED_FUZZ_ROUNDS=$${MARKETFEED_FUZZ_ROUNDS:-10000} $(RUN) pytest -s --timeout=3600 $(wildcard */tests/test_*_fuzz*.py) $(ARGS)

simtest-mutants: setup ## verify that sessions find one-line mutants of worker and consumer (ARGS="-k gap", ARGS="-k consumer")
	@$(RUN) marketfeed-simtest mutants $(ARGS)

simtest-crashes: setup ## simulate short sessions with a crash at every write (SESSIONS=10 SEED=n)
	@$(RUN) marketfeed-simtest crash-points --sessions $(SESSIONS) --seed $(or $(filter-out 0,$(SEED)),1) $(ARGS)

lint: setup ## check format, lint, types and import contracts
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy $(SOURCES) tests scripts
	@$(RUN) lint-imports

format: setup ## format the code and apply the linter's fixes
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

generate: setup ## write generated files: wire/schemas, settings, dashboards and rules, the charts' schemas and tables
	@$(RUN) python -m marketfeed_wire.schema wire/schemas
	@$(RUN) python scripts/settings_docs.py --write
	@$(RUN) marketfeed-monitoring charts/marketfeed/files
	@$(RUN) python scripts/charts_values.py --write

dashboards: tools ## write dashboards and rules to the chart, and their pictures with data of running services to docs/images (minutes)
	@$(RUN) marketfeed-monitoring charts/marketfeed/files
	@$(RUN) python scripts/dashboards.py $(ARGS)

charts: tools ## write the charts' schemas, tables and manifests, and run the charts' tests (ARGS="-k schemas")
	@$(RUN) python scripts/charts_values.py --write
	@$(RUN) python scripts/charts_manifests.py --write
	@$(RUN) pytest tests/charts $(ARGS)

STEP = $(RUN) python scripts/charts_install.py $@ $(addprefix --namespace=,$(NAMESPACE))

platform: setup ## Kubernetes, step 1: install Strimzi, the CockroachDB operator, Prometheus (VALUES="file…", NAMESPACE=, ARGS=--label-nodes)
	@$(STEP) $(addprefix --values=,$(VALUES)) $(ARGS)

install: setup ## Kubernetes, step 2: install marketfeed (VALUES=charts/marketfeed/values-local.yaml, NAMESPACE=, ARGS="--set key=value")
	@$(STEP) $(addprefix --values=,$(VALUES)) $(ARGS)

uninstall: setup ## Kubernetes: uninstall marketfeed and list kept objects (NAMESPACE=)
	@$(STEP) $(ARGS)

images: ## build the container images (BASE_IMAGE=…, IMAGE_PREFIX=registry/team/, ARGS="worker"; scripts/images.sh --help)
	@scripts/images.sh $(ARGS)

compose-test: setup ## test the compose stack with kills of each service (needs root and Docker)
	@$(RUN) pytest tests/e2e/images tests/e2e/compose $(ARGS)

E2E := -o timeout_func_only=true --timeout=1200 -v

e2e: setup ## test the whole system on a kind cluster: install, symbols, upgrades, single kills (E2E_KEEP=1, E2E_KUBECONFIG=file)
	@E2E_COMMAND="make $@" $(RUN) pytest $(E2E) $(wildcard tests/e2e/test_e2e_[1-4]_*.py) $(ARGS)

e2e-full: setup ## e2e, and venue faults, several feeds, hot-hot, nodes and random kills; writes docs/reliability.md
	@E2E_COMMAND="make $@" E2E_DOCUMENT=docs/reliability.md $(RUN) pytest $(E2E) $(wildcard tests/e2e/test_e2e_*.py) $(ARGS)

e2e-down: setup ## delete the cluster kept by E2E_KEEP=1, and stop the Docker engine if e2e started it
	@$(RUN) python tests/e2e/kind/kind_cluster.py down
	@$(RUN) python tests/e2e/images/docker_engine.py stop

bench: bench-ingest bench-sink ## run all benchmarks

bench-ingest: setup ## measure frames per second and CPU per frame, compared with a minimal loop and cryptofeed
	@$(RUN) python benchmarks/ingest.py $(ARGS)

bench-sink: setup ## measure rows per second into PostgreSQL, compared with plain COPY and Debezium
	@$(RUN) python benchmarks/sink.py $(ARGS)

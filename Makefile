# Every command of the project. Bare `make` lists them; hooks and CI call the same recipes.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
BIN := .venv/bin
HOST ?= 127.0.0.1
PORT ?= 8000
SCALE ?= small
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled modules are kept even where the surroundings say not to: starting would take several times as long.
export PYTHONDONTWRITEBYTECODE :=

COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help run test test-thorough check fix test-live revision openapi reference bench lock clean

help:
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

##@ Use
run: export QUILL_DATA_DIR ?= data
run: .venv/.run-stamp ## serve a demo clinic on http://127.0.0.1:8000 (HOST=, PORT=, QUILL_DATA_DIR=)
	@exec $(BIN)/quill serve --demo --host $(HOST) --port $(PORT)

##@ Change
# A test that hangs beyond its timeout, clean-up included, says where and ends as failed, instead of the run never ending.
test: .venv/.dev-stamp ## run the suite, in parallel, in random order, network blocked (ARGS=)
	$(BIN)/pytest -n auto --dist worksteal -m "not thorough and not live" \
		-o faulthandler_timeout=150 -o faulthandler_exit_on_timeout=true $(ARGS)

test-thorough: .venv/.dev-stamp ## the tests that take their time: faults, processes, generated input (QUILL_SCHEMATHESIS_EXAMPLES=50)
	$(BIN)/pytest -n auto -m thorough -o faulthandler_timeout=3000 -o faulthandler_exit_on_timeout=true $(ARGS)

check: .venv/.dev-stamp ## everything CI checks besides tests: format, lint, types, layers, migrations, documents
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/quill migrate --check
	$(BIN)/quill reference --check
	$(BIN)/quill openapi --check docs/reference/openapi.json
	$(BIN)/python tools/check_changelog.py
	$(BIN)/python -m tools.check_deploy

fix: .venv/.dev-stamp ## format and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-live: .venv/.dev-stamp ## run the tests against real servers: PostgreSQL, Redis, HAPI FHIR, EHRbase (ARGS=)
	bash tests/live/run $(ARGS)

bench: .venv/.dev-stamp ## measure the hot paths beside a bare floor and hold them to bench/budgets.toml (SCALE=large, ARGS=)
	$(BIN)/python bench/run.py --scale $(SCALE) $(ARGS)

##@ Generate
revision: .venv/.dev-stamp ## write a migration from the models (NAME="add the table of grants")
	@test -n "$(NAME)" || { echo 'Say what it does: make revision NAME="add the table of grants"'; exit 2; }
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && export QUILL_DATA_DIR="$$scratch" && \
		$(BIN)/alembic upgrade head && $(BIN)/alembic revision --autogenerate -m "$(NAME)"

openapi: .venv/.dev-stamp ## write docs/reference/openapi.json
	$(BIN)/quill openapi docs/reference/openapi.json

reference: .venv/.dev-stamp ## write the reference pages: settings, errors, permissions, commands
	$(BIN)/quill reference

lock: ## resolve pyproject.toml into requirements/*.lock, hashes included (needs uv; UPGRADE=1 takes newer versions)
	@command -v uv >/dev/null || { echo 'make lock needs uv; nothing else here does.'; exit 2; }
	@mkdir -p requirements
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(COMPILE) $(if $(UPGRADE),--upgrade) --group build -o requirements/run.lock
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(COMPILE) $(if $(UPGRADE),--upgrade) --group build --group dev \
		--constraint requirements/run.lock -o requirements/dev.lock
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(COMPILE) $(if $(UPGRADE),--upgrade) --extra otel \
		--constraint requirements/run.lock -o requirements/otel.lock

clean: ## remove the virtual environment and every cache (never the data directory)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis dist build
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# The two stamps say which lock the environment was last made from. Only hash-locked packages are installed; the
# project itself goes in last, built by the hash-locked build tools, without asking any index.
.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'Quill needs Python 3.11 or newer, and none was found.'; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.run-stamp: requirements/run.lock pyproject.toml | .venv/bin/python
	@echo 'Installing Quill into .venv (once)'
	$(BIN)/pip install --quiet --require-hashes -r requirements/run.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev-stamp: requirements/dev.lock .venv/.run-stamp
	@echo 'Installing the tools for tests and checks into .venv (once)'
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

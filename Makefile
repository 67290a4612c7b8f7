# Every target installs what it needs first. PYTHON picks the interpreter, e.g. `make up PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAAS_ARGS ?=

.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "EverythingFaaS needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## Create .venv and install the appliance into it

up: install ## Start everything on this machine, run a first function, stay up (FAAS_ARGS="--port 9000")
	@exec $(BIN)/faas up --then examples/hello.py $(FAAS_ARGS)

format: $(VENV)/.installed-dev ## Format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.installed-dev ## Format, lint, types and imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed-dev ## Everything that tests, but for what takes long
	$(BIN)/pytest -m 'not slow'

test-slow: $(VENV)/.installed-dev ## What the target above leaves out: real waits, whole machines
	$(BIN)/pytest -m slow

compose-test: $(VENV)/.installed-dev ## The appliance in containers, for real; SKIPPED where there is no engine
	.ci/compose-test

chaos: $(VENV)/.installed-dev ## Hostile functions, kills, real processes under faults; takes ten minutes
	$(BIN)/python -m tests.chaos

bench: install ## Measure an appliance of its own; takes three minutes
	$(BIN)/python benchmarks/run.py

clean: ## Remove what the targets above have made, but no data
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help install up format check test test-slow chaos compose-test bench clean

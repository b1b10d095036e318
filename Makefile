# Everything one does with a checkout. `make` alone lists it.
#
# The virtual environment is .venv, made with $(PYTHON) if that is given, else with the first supported one
# of python3, python3.12 and python3.11. Two stamps say what is installed in it, so that `make run` need not wait for
# the tools that only developing needs, and nothing is installed twice.

SHELL := /bin/sh
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.12 python3.11)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# old_client_checks.py runs in an environment of its own, against another package that is called statehouse too.
TYPED_TOOLS := $(filter-out tools/old_client_checks.py,$(wildcard tools/*.py tools/*/*.py))

.DEFAULT_GOAL := help
.PHONY: help run test check demo prove prove-long bench bench-edge clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run-installed ## Start the daemon on its embedded store in ./statehouse-data (ARGS='--listen HOST:PORT ...').
	@exec $(BIN)/statehoused $(ARGS)

test: $(VENV)/dev-installed ## Run all tests (ARGS='-k name' for some; ARGS='-n auto --dist loadfile' on all cores).
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/dev-installed ## What must hold before a change lands: format, lint, types, layering, generated code, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict $(TYPED_TOOLS)
	$(BIN)/mypy --strict --package examples
	$(BIN)/python tools/tidy.py
	$(BIN)/python tools/gen_proto.py --check
	$(BIN)/python tools/settings_table.py --check
	@$(MAKE) --no-print-directory test

demo: $(VENV)/run-installed ## Carry out a recorded agent run, kill the daemon in the middle, and finish it.
	$(BIN)/python -m examples.resumable_agent.demo

prove: $(VENV)/dev-installed ## Try to break every promise, at the size that CI runs (docs/reliability.md; ARGS='--only bytes' for one proof).
	$(BIN)/python tools/prove.py $(ARGS)

prove-long: $(VENV)/dev-installed ## The same at full size: hours.
	$(BIN)/python tools/prove.py --long $(ARGS)

bench: $(VENV)/run-installed ## Measure the engine; prints JSON (docs/benchmarks.md).
	$(BIN)/python tools/bench_engine.py $(ARGS)

bench-edge: $(VENV)/dev-installed ## Measure the gRPC edge against purerpc as shipped; prints JSON (ARGS='--only calls ...').
	$(BIN)/python tools/bench_edge.py $(ARGS)

clean: ## Remove what was built or installed here; the data in ./statehouse-data stays.
	rm -rf $(VENV) .venv-proto build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find statehouse tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    echo "making $(VENV) with $$python ($$("$$python" -V))"; \
	    "$$python" -m venv --clear $(VENV) || exit 1; \
	    touch $@; \
	    exit 0; \
	  fi; \
	done; \
	echo "Statehouse needs CPython 3.11 or 3.12, and found: $$(for python in $(PYTHONS); do "$$python" -V 2>&1; done)" >&2; \
	echo "Name one with: make PYTHON=/path/to/python3.12 ..." >&2; \
	echo "(On 3.13 and newer plyvel has no wheel; CONTRIBUTING.md says what it takes.)" >&2; \
	exit 1

$(VENV)/run-installed: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev-installed: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/run-installed

# agentkit: every command people need. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

COVERAGE_FLOOR := 67

.PHONY: coverage mutants help install install-dev demo check format test-unit test test-slow cookbook bench bench-payments bench-planner bench-memory bench-inference peers soak clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv with agentkit, the embedded network and its models
install-dev: $(VENV)/.installed-dev ## and what tests and checks need

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "agentkit needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded]'
	$(BIN)/python -m agentkit.pool.models
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed tests/npm/package.json
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	PATH="$(abspath $(BIN)):$$PATH" tests/npm/install
	@touch $@

demo: install ## run the main job on the embedded network; ARGS=--json for figures
	$(BIN)/agentkit demo $(ARGS)

check: install-dev ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --package support
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/lint-imports

format: install-dev ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-unit: install-dev ## the tests without sockets and child processes, in a minute; ARGS="-k name" for some
	PATH="$(abspath $(BIN)):$$PATH" tests/run --unit $(ARGS)

test: check ## every check and every test but the slow ones; ARGS="tests/unit -k name" for some
	PATH="$(abspath $(BIN)):$$PATH" tests/run $(ARGS)

test-slow: install-dev ## what takes minutes: notebooks, the wheel in empty environments; .ci/run does it too
	$(BIN)/pytest -m slow $(ARGS)

coverage: install-dev ## the lines and branches that `make test-unit` reaches; fails below today's share
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group coverage
	# The tracer makes code several times slower, so the tests' limits on processor time grow with it.
	AGENTKIT_TEST_SLOWNESS=4 PATH="$(abspath $(BIN)):$$PATH" pytest -n 2 --dist loadfile \
		-m "not slow and not lengthy and not alone" --hypothesis-profile=quick \
		tests/unit tests/property --cov --cov-fail-under=$(COVERAGE_FLOOR) $(ARGS)

mutants: install-dev ## change money.py and budget.py in one place at a time: do unit tests notice? (ten minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group mutants
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/mutants.py

cookbook: install-dev ## run the notebooks and write .ipynb files beside them
	$(BIN)/python cookbook/run.py

bench: install ## what the executor costs for each node, and what hedging does to slow calls
	$(BIN)/python benchmarks/runtime.py --shape fan --nodes 1000
	$(BIN)/python benchmarks/runtime.py --shape layered --nodes 10000 --store memory
	$(BIN)/python benchmarks/runtime.py --shape chain --nodes 1000
	$(BIN)/python benchmarks/hedging.py

bench-payments: install-dev ## what paying costs in gas and time, and what goes wrong with it (some minutes)
	$(BIN)/python benchmarks/payments.py $(ARGS)

bench-planner: install ## how near the best plans are, beside simple routers; ARGS="--set hundred"
	$(BIN)/python benchmarks/planner.py $(ARGS)

bench-memory: install-dev ## what remembering costs, on disk and on chain, and how fast it comes back (some minutes)
	$(BIN)/python benchmarks/memory.py $(ARGS)

bench-inference: install ## what asking a model costs beside the model, references beside it (a minute)
	$(BIN)/python benchmarks/inference.py $(ARGS)

peers: install ## the executor beside other engines (installs them, some minutes)
	$(BIN)/python benchmarks/peers/run.py $(ARGS)

soak: install-dev ## 200 kills of agents and 100 of their memory at random moments
	AGENTKIT_KILLS=200 $(BIN)/pytest tests/crash -k random -s $(ARGS)
	AGENTKIT_MEMORY_KILLS=50 $(BIN)/pytest tests/crash/test_memory.py -s $(ARGS)

clean: ## forget .venv and build products
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache mutants .coverage tests/npm/node_modules

# The commands of this project. `make demo` and `make test` work on a fresh machine with Python ≥ 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock

.DEFAULT_GOAL := help
.PHONY: help demo demo-gateway simulate simulate-twice mutants test test-all contract contract-gateway bench lock dist clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# Both stamps depend on the lock file, so an upgrade reaches a checkout that exists already.
$(VENV)/.run: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run ## The well-known complaint, first as people do it, then through Sluicegate (two minutes)
	$(BIN)/python examples/demo.py

demo-gateway: $(VENV)/.run ## Five applications, one limit, the gateway between them (a minute)
	$(BIN)/python examples/demo_gateway.py

test: $(VENV)/.dev ## Everything that guards a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# Against the emulator by default; `make contract BASE_URL=https://NAME.openai.azure.com DIALECT=azure API_KEY=… MODEL=…`
# against any other server (docs/contract.md). TESTS=slow adds the clients that are installed for it.
contract: $(VENV)/.dev ## The contract of the Batch API, against the emulator or any BASE_URL
	@CONTRACT_BASE_URL="$(BASE_URL)" CONTRACT_DIALECT="$(or $(DIALECT),openai)" CONTRACT_KEY="$(API_KEY)" \
	CONTRACT_MODEL="$(MODEL)" CONTRACT_API_VERSION="$(API_VERSION)" CONTRACT_POLL_S="$(POLL_S)" CONTRACT_PATIENCE_S="$(PATIENCE_S)" CONTRACT_PAY="$(PAY)" \
	$(BIN)/python -m pytest tests/contract $(if $(filter slow,$(TESTS)),,-m "not slow")

contract-gateway: $(VENV)/.dev ## The same contract against the gateway; TESTS=slow adds the clients that are installed for it
	CONTRACT_SLOW=$(if $(filter slow,$(TESTS)),1) $(BIN)/python -m pytest tests/web/test_contract.py

test-all: $(VENV)/.dev ## The slow suites too
	$(BIN)/python -m pytest

SEEDS ?= 1000
FIRST ?= 1

simulate: $(VENV)/.dev ## Simulated worlds with crashes: SEEDS=10000 FIRST=1 (docs/simulation.md)
	PYTHONHASHSEED=0 PYTHONWARNINGS=ignore $(BIN)/python -m tests.simulation simulate --seeds $(SEEDS) --first $(FIRST)

simulate-twice: $(VENV)/.dev ## The same seeds twice: equal traces, byte for byte
	PYTHONHASHSEED=0 PYTHONWARNINGS=ignore $(BIN)/python -m tests.simulation same --seeds 100

mutants: $(VENV)/.dev ## Planted bugs, each of which the simulation must find
	PYTHONHASHSEED=0 PYTHONWARNINGS=ignore $(BIN)/python -m tests.simulation mutants

bench: $(VENV)/.dev ## The benchmarks of README.md and docs/benchmarks.md (half an hour)
	$(BIN)/python -m benchmarks.makespan
	$(BIN)/python -m benchmarks.check_speed

lock: ## Pin versions anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate --extra azure -o $(LOCK) pyproject.toml requirements-build.in
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate --group dev -c $(LOCK) -o requirements-dev.lock pyproject.toml

dist: $(VENV)/.dev ## Build the wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

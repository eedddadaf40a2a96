# shoestring: the two commands are `make reproduce` and `make test`; `make help` lists the rest.
# Everything lives in .venv, .var and the user's cache; nothing else outside this folder is written.

PYTHON ?= python3
SUITE ?= smoke
MODEL ?= pypi:gemma3-270m
ENGINE ?= auto
OUT ?= results/local

# A misspelt variable would be ignored in silence, and the default measured instead.
KNOWN := PYTHON SUITE MODEL ENGINE OUT
UNKNOWN := $(filter-out $(KNOWN) MAKEFLAGS MFLAGS,$(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
ifneq ($(UNKNOWN),)
$(error unknown $(UNKNOWN): known are $(KNOWN))
endif

BIN := .venv/bin
STAMP := .venv/.ready

# Jupyter, IPython and matplotlib would write into the home folder.
export JUPYTER_CONFIG_DIR := $(CURDIR)/.var/jupyter/config
export JUPYTER_DATA_DIR := $(CURDIR)/.var/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.var/jupyter/runtime
export IPYTHONDIR := $(CURDIR)/.var/ipython
export MPLCONFIGDIR := $(CURDIR)/.var/matplotlib
export JUPYTER_PLATFORM_DIRS := 1

.DEFAULT_GOAL := help
.PHONY: help reproduce test engines node node-down setup lint page format figures bench kaggle lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

reproduce: $(STAMP) ## Measure MODEL with SUITE on ENGINE, print the path of the HTML report (last line)
	@$(BIN)/shoestring notebook 01_measure -p suite '$(SUITE)' -p model '$(MODEL)' -p engine '$(ENGINE)' -p out '$(OUT)'

test: $(STAMP) ## Run all tests in two processes, with the real engine and the small real model
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

engines: $(STAMP) ## Install Ollama and llama.cpp into the cache, pinned by version and hash (once, minutes)
	@$(BIN)/shoestring engines install

node: engines ## Bring up Ollama and Open WebUI on loopback (installs them once); `make node-down` ends them
	@$(BIN)/shoestring up

node-down: $(STAMP) ## End what `make node` started
	@$(BIN)/shoestring down

setup: $(STAMP) ## Install everything for work on the project, and the pre-commit hooks
	@$(BIN)/pre-commit install

lint: $(STAMP) ## Check style, types, the order of the rooms, and known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src scripts
	@$(BIN)/python scripts/audit.py

page: ## Check, test and build the gateway's dashboard anew (needs Node 20.19 or later)
	@cd src/shoestring/gateway/dashboard && npm ci --no-audit --no-fund --silent && npm run --silent lint && npm test --silent \
		&& npm run --silent build

format: $(STAMP) ## Mend style where a machine can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

figures: $(STAMP) ## Rebuild the published figures, tables and HTML from the committed runs
	@$(BIN)/shoestring report --published

bench: engines ## All campaigns: clock, faults, costs, agreement, shapes, node, planner, gateway, swarm (six hours); writes results/benchmarks/
	@$(BIN)/python benchmarks/clock.py
	@$(BIN)/python benchmarks/faults.py
	@$(BIN)/python benchmarks/costs.py
	@$(BIN)/python benchmarks/agreement.py
	@$(BIN)/python benchmarks/shapes.py
	@$(BIN)/python benchmarks/nothing_leaves.py
	@$(BIN)/python benchmarks/node_starts.py --figures results/figures/node
	@$(BIN)/python benchmarks/node_sessions.py --figures results/figures/node
	@$(BIN)/python benchmarks/node_webui.py
	@$(BIN)/python benchmarks/node_faults.py
	@$(BIN)/python benchmarks/planner_split.py
	@$(BIN)/python benchmarks/planner_memory.py
	@$(BIN)/python benchmarks/planner_promise.py
	@$(BIN)/python benchmarks/planner_speed.py --measure
	@$(BIN)/python benchmarks/note_table.py
	@$(BIN)/python benchmarks/gateway_overhead.py
	@$(BIN)/python benchmarks/gateway_crowd.py
	@$(BIN)/python benchmarks/gateway_campaign.py --seconds 900
	@$(BIN)/python benchmarks/swarm_overhead.py
	@$(BIN)/python benchmarks/swarm_chain.py
	@$(BIN)/python benchmarks/swarm_faults.py
	@$(BIN)/python benchmarks/swarm_loads.py
	@$(BIN)/python benchmarks/swarm_scaling.py
	@$(BIN)/python benchmarks/swarm_parts.py
	@$(BIN)/python benchmarks/swarm_timeline.py
	@$(BIN)/python benchmarks/swarm_examples.py
	@$(BIN)/python benchmarks/swarm_receipts.py --model pypi:gemma3-270m --pairs 4 --answers 4
	@$(BIN)/python benchmarks/swarm_audit.py
	@$(BIN)/python benchmarks/swarm_routing.py
	@$(BIN)/python benchmarks/swarm_ledger.py
	@$(BIN)/python benchmarks/swarm_vouchers.py
	@$(BIN)/python benchmarks/swarm_simulation.py
	@$(BIN)/python benchmarks/swarm_economy.py

kaggle: $(STAMP) ## Write the self-contained Kaggle notebook into dist/kaggle/
	@$(BIN)/python scripts/build_kaggle.py

lock: $(STAMP) ## Pin every dependency with its hashes, naming no registry
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --extra gateway --extra swarm --extra vouchers --output-file requirements.lock pyproject.toml
	@cd src/shoestring/stack/open_webui && $(CURDIR)/$(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --override left_out.txt \
		--output-file requirements.lock requirements.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --constraint requirements.lock --output-file deployment/gateway/requirements.lock \
		deployment/gateway/requirements.in
	@cd src/shoestring/quality && $(CURDIR)/$(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --override converter_left_out.txt \
		--output-file converter.lock converter.in
	@cd benchmarks/note_service && $(CURDIR)/$(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate \
		--override ../../src/shoestring/quality/converter_left_out.txt --output-file requirements.lock requirements.in

clean: ## Remove the environment and what tools left; keeps the cache of models and engines
	@rm -rf .venv .var dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/bin/uv: requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "shoestring needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "setting up .venv (once)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock

# One environment, one lock: `make reproduce` and `make test` use the same versions.
$(STAMP): requirements.lock pyproject.toml | .venv/bin/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirements requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

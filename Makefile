# Every target works from a fresh clone: .venv is made, and pinned requirements installed, when missing.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export OMP_NUM_THREADS ?= 1
export DS_ACCELERATOR ?= cpu
# Tests start hundreds of processes; without compiled modules each compiles ours anew, and pytest all its tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick tools robustness scale fuzz bench bench-check bench-signal bench-overhead bench-overload bench-scrape bench-page bench-scale screenshots soak proto lint format debian help

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "pathwatch needs $(PYTHON); set PYTHON=… to another Python >= 3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -e examples/plugin
	@touch $@

demo: $(READY) ## Trains a small MoE model with DeepSpeed, watched by the sidecar: about 5 minutes, results in demo-out/
	$(BIN)/pathwatch demo --out demo-out

# `PATHWATCH_SEED=n make test` draws other examples; the same for the same n.
SEED := $(if $(PATHWATCH_SEED),--hypothesis-seed=$(PATHWATCH_SEED))

test: $(READY) debian ## All tests but those of `make tools`, `make robustness` and `make scale`
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not tools and not robustness and not scale' $(SEED)

# Whose tests import PyTorch, most of them a whole training framework, render charts, or measure.
HEAVY := bench client/test_data_loader.py examples helm integrations server/report

quick: $(READY) debian ## The tests that take about a second at most, without those that import PyTorch, render charts or measure: under 90 seconds
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile=quick -m 'not slow and not tools and not robustness and not scale' $(HEAVY:%=--ignore=tests/%) $(SEED)

tools: $(READY) debian ## The status page in a real browser; rules, dashboards and notifications with a real Prometheus and Alertmanager
	$(BIN)/python -m pytest -n 2 --dist worksteal -m tools

robustness: $(READY) ## Faults injected at length: kills, cuts, full disks, hostile input
	$(BIN)/python -m pytest -n 2 --dist worksteal -m robustness $(SEED)

# One test at a time: each has eight ranks, three servers and Redis of its own. What it did is printed.
scale: $(READY) debian ## Several servers over a Redis: killed, frozen, cut off, replaced; against one that lived
	$(BIN)/python -m pytest -s -m scale

FUZZ_SECONDS ?= 60

fuzz: $(READY) ## Fuzzes every decoder, guided by coverage, FUZZ_SECONDS (60) each
	$(BIN)/python tests/fuzz/fuzz.py $(FUZZ_SECONDS)

BENCHES := $(patsubst bench/%/__main__.py,bench.%,$(wildcard bench/*/__main__.py))

lint: $(READY) ## ruff, mypy (strict), buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pathwatch.client -p pathwatch.server -p pathwatch.integrations
	MYPYPATH=.:tests/support $(BIN)/mypy $(BENCHES:%=-p %)
	cd proto && ../$(BIN)/buf lint

format: $(READY) ## Formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(READY) ## Writes the Python of proto/ anew
	PYTHON=$(BIN)/python proto/generate.sh

bench: $(READY) ## Measures speed, memory and growth of server and client: under 15 minutes, on a machine that does nothing else
	$(BIN)/python bench/every

bench-check: $(READY) ## The same quickly: fails where a ratio or a footprint is more than 20 % worse than recorded
	$(BIN)/python bench/every --check

bench-signal: $(READY) ## Scores the detector over the recorded runs of tests/data/traces
	$(BIN)/python bench/signal --traces tests/data/traces

bench-overhead: $(READY) ## Measures what watching costs a training job: about 9 minutes, on a machine that does nothing else
	$(BIN)/python bench/overhead

bench-overload: $(READY) ## Measures whether a run that floods slows another's signals: about 7 minutes
	$(BIN)/python bench/overload

bench-scrape: $(READY) ## Measures what a scrape of 100 runs takes, and what it costs those who send: about 5 minutes
	$(BIN)/python bench/scrape

bench-page: $(READY) debian ## Measures how long one waits for the status page with 50 runs: about a minute
	$(BIN)/python bench/page

bench-scale: $(READY) debian ## Measures shards over one Redis, takeovers and a relay, and what fits a shard: about 6 minutes
	$(BIN)/python bench/scale

screenshots: $(READY) debian ## Takes the pictures of the status page in docs/images anew
	$(BIN)/python tests/support/screenshots.py docs/images

soak: $(READY) ## Full load for 20 minutes: memory below its bound, nothing grows; less with SOAK='--minutes 3'
	$(BIN)/python bench/soak $(SOAK)

# What tests call of Debian: command → package.
DEBIAN := promtool=prometheus prometheus-alertmanager=prometheus-alertmanager chromium=chromium redis-server=redis-server redis-sentinel=redis-sentinel

debian: ## Installs the Debian packages that tests need: prometheus (with promtool), alertmanager, chromium, redis
	@missing=(); for pair in $(DEBIAN); do command -v "$${pair%%=*}" >/dev/null || missing+=("$${pair##*=}"); done; \
	  if [ $${#missing[@]} = 0 ]; then exit 0; fi; \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$${missing[@]}"; \
	  else echo "the tests need Debian packages: apt-get install $${missing[*]}" >&2; exit 1; fi

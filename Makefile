# make demo: see the five policies at work. make test: install and run all tests.
# Each target makes its own virtual environment; only Python >= 3.11 and a package registry are needed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(foreach folder,$(wildcard plugins/*/pyproject.toml),--editable ./$(dir $(folder)))

.PHONY: demo test lint types check bench docs train clean

demo: $(STAMP)
	$(BIN)/freshkv compare

test: $(STAMP)
	$(BIN)/python -m pytest -n auto -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# minutes; hours with BENCH=full. Results: benchmarks/results/, and a picture for the docs
BENCH ?= quick
bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks -q --benchmark-only --bench-profile=$(BENCH) \
		--benchmark-json=benchmarks/results/bench-$(BENCH).json
	$(BIN)/python -m benchmarks.plot benchmarks/results/bench-$(BENCH).json

docs: $(STAMP)
	$(BIN)/python -m docs.tools.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

TINY := freshkv/models/tiny

train: $(STAMP)
	$(BIN)/python -m training.train tiny-llada --output $(TINY)/tiny-llada & \
	$(BIN)/python -m training.train tiny-dream --output $(TINY)/tiny-dream & wait
	$(BIN)/python -m training.frequencies
	$(BIN)/python -m training.gates $(TINY)/tiny-llada $(TINY)/tiny-dream

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' $(PLUGINS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps ./integrations/lm-eval
	touch $(STAMP)

# make demo    install, train consistency models on handwritten digits, draw samples
# make test    install with the developer's tools, run the tests
# make check   lint, types and tests: what CI runs
# make results  every method on digits for the same time, and a table of quality (half an hour)
# make ring     every method on the ring for 60 CPU-seconds, three seeds (half an hour)
# make cost     what a step costs beside a plain forward and backward

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint check format clean results ring cost
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@$(BIN)/cmbench show @latest:ct_edm- --json 2>/dev/null | grep -q '"state":"finished"' \
		|| $(BIN)/cmbench run recipes/ct_edm.toml
	@$(BIN)/cmbench sample @latest:ct_edm- --steps 1
	@echo "next: $(BIN)/cmbench show, $(BIN)/cmbench ls, $(BIN)/cmbench recipe list"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

results: $(VENV)/.installed
	$(BIN)/python benchmarks/results.py

ring: $(VENV)/.installed
	$(BIN)/python benchmarks/ring.py --jobs 2

cost: $(VENV)/.installed
	$(BIN)/python benchmarks/step_cost.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("cmbench needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# attacks on the program, ten minutes of two cores; prints how many tries were made and what was lost
.PHONY: torture
torture: $(VENV)/.installed-dev
	$(BIN)/python tests/torture/run.py

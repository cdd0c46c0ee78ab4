# make demo        install, train consistency models on handwritten digits, draw samples
# make test        install with the developer's tools, run the tests, but for the longest
# make check       lint, types and all tests
# make ci          what a change must pass: the oldest and the newest Python here, and the newest packages
# make test-newest, make test-oldest    the tests with the newest and the lowest versions that pyproject.toml allows
# make torture     attacks on the program, ten minutes; counts what was tried and what was lost
# make update      renew the tested versions, constraints.txt
# make results     every method on digits for the same time, and a table of quality (half an hour)
# make ring        every method on the ring for 60 CPU-seconds, three seeds (half an hour)
# make cost        what a step costs beside a plain forward and backward
# make gpu         check cmbench on the GPU of this machine, and measure it: eight minutes with the install
# make growth      how that grows with batch, width, pictures, rows, bins, averages and ranks (five minutes)
#
# PYTHON=python3.12    the Python to make the environment with; else python3, and for test-newest and test-oldest the
#                      newest and the oldest here
# TORCH=own            keep the torch of that Python: a GPU box with a build of its own
# VENV=folder          another place for the environment
# TESTS="tests/tui -k chart"    what pytest is given
# MINUTES=20           the time for make gpu; else 8

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= tested
TESTS ?=
MINUTES ?= 8

NAMED := $(filter-out file default,$(origin PYTHON))

# an environment of another Python is made anew where a Python was named
OPTIONS := scripts/install.py $(if $(filter own,$(TORCH)),--own-torch) $(if $(NAMED),--this-python)
INSTALL := $(PYTHON) $(OPTIONS)

.PHONY: demo test test-newest test-oldest lint check ci format update clean results ring cost gpu growth torture installed installed-dev

demo: installed
	@$(BIN)/python scripts/demo.py

test: installed-dev
	$(BIN)/python -m pytest -m "not long" $(TESTS)

test-newest test-oldest: test-%:
	@$(if $(NAMED),$(PYTHON),$$($(PYTHON) scripts/pythons.py $*)) $(OPTIONS) $(VENV)-$* --dev --packages $*
	$(VENV)-$*/bin/python -m pytest -m "not long" $(TESTS)

lint: installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest $(TESTS)

ci:
	@.ci/run

format: installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

update: installed-dev
	$(BIN)/python scripts/update.py

results: installed
	$(BIN)/python benchmarks/results.py

ring: installed
	$(BIN)/python benchmarks/ring.py --jobs 2

torture: installed-dev
	$(BIN)/python tests/torture/run.py --spoilt
	$(BIN)/python tests/torture/run.py

cost: installed
	$(BIN)/python benchmarks/step_cost.py

# a machine without a GPU is told so before the install
gpu:
	@began=$$(date +%s) && $(PYTHON) scripts/on_gpu/driver.py $(if $(filter own,$(TORCH)),--own-torch) \
		&& $(INSTALL) $(VENV) && $(BIN)/python scripts/gpu.py --minutes $(MINUTES) --began $$began

growth: installed-dev
	$(BIN)/python benchmarks/growth.py

installed:
	@$(INSTALL) $(VENV)

installed-dev:
	@$(INSTALL) $(VENV) --dev

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-oldest $(VENV)*.before build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# make demo   set up, train, generate, check and draw: see demo/
# make test   set up and run the tests
# make fuzz   read damaged files (make fuzz N=10000)
# make kills  kill runs at random moments
# make oldest the tests with the oldest dependencies
# make docs   build the documentation site in build/docs
# make lint   ruff, mypy and the documentation site
# make help   the rest
# On a machine without a GPU add TORCH_INDEX=https://download.pytorch.org/whl/cpu (see below).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Byte code is compiled on first import; compiling all of torch takes longer than running the tests.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install --no-compile
SETUP := pyproject.toml constraints.txt

# The index of torch's builds to install from, if not pip's default, whose build for CUDA has gigabytes.
TORCH_INDEX ?=

N ?= 1000
RUNS ?= 50
# Sources are read from the root of the repository, so that links are the same in both places.
SITE = $(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees -c docs . build/docs

.PHONY: help demo test test-slow fuzz kills oldest lint docs install clean

help:
	@echo "make demo       train on a small sample, generate, check, draw (about 5 minutes)"
	@echo "make test       run the tests"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make fuzz       read N=1000 damaged files of every kind"
	@echo "make kills      kill RUNS=50 generations and trainings at random moments"
	@echo "make oldest     the tests with the oldest versions of the dependencies, in build/oldest"
	@echo "make docs       build the documentation site in build/docs; any warning is an error"
	@echo "make lint       ruff, mypy and the documentation site"
	@echo "make clean      remove .venv, demo/ and caches"

demo: $(VENV)/.installed
	@$(BIN)/python examples/demo.py

# Two workers with one thread each: small networks gain nothing from more threads. No test takes a
# minute; one that waits for ever is ended, shown as R, and repeated once.
test: $(VENV)/.installed-test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile \
		--timeout 240 --reruns 1 --only-rerun Timeout -rR

test-slow: $(VENV)/.installed-test
	@$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed-test
	@$(BIN)/python -m tests.fuzz.campaign -n $(N)

kills: $(VENV)/.installed-test
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.kills --runs $(RUNS)

oldest: $(VENV)/.installed
	@OMP_NUM_THREADS=1 $(BIN)/python tests/oldest.py --environment build/oldest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(SITE)

docs: $(VENV)/.installed-dev
	$(SITE)
	@echo "build/docs/docs/index.html"

install: $(VENV)/.installed

$(VENV)/.installed: $(SETUP)
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hepgen-ml needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(PIP) --upgrade "pip>=25.1"
	@$(if $(TORCH_INDEX),$(PIP) -c constraints.txt --index-url $(TORCH_INDEX) torch)
	@$(PIP) -c constraints.txt -e ".[plots,pythia]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(PIP) -c constraints.txt --group test
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	@$(PIP) -c constraints.txt --group dev
	@touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

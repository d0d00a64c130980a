# Two commands matter: `make demo` and `make test`. Each does all the set-up on a machine with Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Suites that need other programs, other environments or much time have a target of their own.
OWN_TARGETS := browser interop demo crash power slurm docs install plugin examples

.PHONY: demo test lint docs test-docs test-examples test-install test-plugin test-demo test-crash test-power test-slurm test-browser test-interop test-data-large pictures schemas clean

demo: $(STAMP)
	$(BIN)/pico demo

test: $(STAMP) lint
	$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(OWN_TARGETS:%=--ignore=tests/%)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, offline, without warnings: docs/_build/html/index.html
docs: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

# The site, and every code block of the README, the documentation and the notebooks.
test-docs: docs
	$(BIN)/pytest tests/docs

# The examples that draw a figure of the paper, on fewer updates than their pages quote.
test-examples: $(STAMP)
	$(BIN)/pytest tests/examples

# The package as others install it: a wheel in an environment of its own, without the repository and without extras.
test-install: $(STAMP)
	$(BIN)/python tests/install/make_environment.py
	$(BIN)/pytest tests/install

# A foreign package adds one of each sort of extension: both wheels in a fresh environment, used from YAML.
test-plugin: $(STAMP)
	$(BIN)/python tests/plugin/make_environment.py
	$(BIN)/pytest tests/plugin

# The README's first command as a newcomer runs it, with what it must have done: about five minutes.
test-demo: $(STAMP)
	$(BIN)/pytest tests/demo

# A save is killed at every file system call; needs root, strace and Linux.
test-crash: $(STAMP)
	$(BIN)/pytest tests/crash

# The power goes while a run on a disk image saves; needs root and Linux.
test-power: $(STAMP)
	$(BIN)/pytest tests/power

# Training under a real Slurm of two virtual nodes; needs root and Debian's slurmctld, slurmd, slurm-client and munge.
test-slurm: $(STAMP)
	$(BIN)/pytest tests/slurm

# The report in a real browser; needs Debian's chromium.
test-browser: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[browser]"
	$(BIN)/pytest tests/browser

# Other tools open our folders, in environments of their own: several gigabytes, ten minutes the first time.
test-interop: $(STAMP)
	$(BIN)/python tests/interop/make_environments.py
	$(BIN)/pytest tests/interop

# A gigabyte of text within the memory bound, killed and continued: many minutes.
test-data-large: $(STAMP)
	$(BIN)/pytest tests/data/large_input.py

pictures: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[browser]"
	$(BIN)/pico demo
	$(BIN)/python docs/pictures/make.py demo/runs/demo/report/index.html

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("picolm needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

# What editors complete and check YAML with; a test holds the shipped files to the settings in the code.
schemas: $(STAMP)
	$(BIN)/python -m picolm.schemas

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Two commands matter: `make demo` and `make test`. Each does all the set-up on a machine with Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Suites that need other programs, other environments or much time have a target of their own.
OWN_TARGETS := browser interop demo crash

.PHONY: demo test lint test-demo browser pictures clean

demo: $(STAMP)
	$(BIN)/pico demo

test: $(STAMP) lint
	$(BIN)/pytest $(OWN_TARGETS:%=--ignore=tests/%)

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

test-demo: $(STAMP)
	$(BIN)/pytest tests/demo

browser: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[browser]"
	$(BIN)/pytest tests/browser

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("picolm needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

pictures: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[browser]"
	$(BIN)/pico demo
	$(BIN)/python docs/pictures/make.py demo/runs/demo/report/index.html

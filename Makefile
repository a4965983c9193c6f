# Two commands do everything on a bare machine with Python 3.11 or newer:
#   make demo   the main job, on real input, with real failures; installs no tools of developers
#   make test   the whole test suite, with types and lint

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PLUGINS := plugins/storage_sqlite plugins/storage_fs plugins/transport_curl plugins/transport_zmq

.PHONY: demo fmt test test-all check bench house dist dist-check changelog clean

# One stamp: installed anew whenever a project file changed.
$(VENV)/.installed: pyproject.toml $(PLUGINS:%=%/pyproject.toml) Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(PLUGINS:%=--editable %)
	touch $(VENV)/.runtime $@

# The same without the tools of developers: what a node needs and nothing more. The demo must run where no linter can
# be installed.
$(VENV)/.runtime: pyproject.toml $(PLUGINS:%=%/pyproject.toml) Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . $(PLUGINS:%=--editable %)
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/dropr demo

fmt: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest

# Every supported Python that this machine has (on the PATH, or kept by pyenv), each in an environment of its own.
test-all: check
	@for version in 3.11 3.12 3.13; do \
	  found=; \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python$$version; do \
	    if $$python -c '' 2>/dev/null; then found=$$python; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "python$$version: not on this machine, skipped"; continue; fi; \
	  echo "python$$version: $$found"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$found .venv-$$version/.installed && \
	  .venv-$$version/bin/python -m pytest || exit 1; \
	done

bench: $(VENV)/.installed
	$(BIN)/python bench/run.py

# Rooms, floors, arrows and sizes: docs/architecture.md says what they should be.
house:
	@$(PYTHON) tools/house.py

# Wheels and source packages of all distributions, in dist/.
dist: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.25'
	rm -rf dist
	for project in . $(PLUGINS); do \
	  (cd $$project && $(abspath $(BIN))/python -m hatchling build -d $(CURDIR)/dist) || exit 1; \
	done

# Installs them into an empty environment and runs the demo there, away from this repository.
dist-check: dist
	rm -rf dist/check && $(PYTHON) -m venv dist/check
	dist/check/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd / && $(CURDIR)/dist/check/bin/dropr plugins && $(CURDIR)/dist/check/bin/dropr demo

# What the next release would say of itself, from changelog.d/.
changelog: $(VENV)/.installed
	$(BIN)/towncrier build --draft --version next

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis

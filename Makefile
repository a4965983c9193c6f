# Two commands do everything on a bare machine with Python 3.11 or newer: `make demo` and `make test`. `make help` lists
# all; what stands there are the texts after ## below.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PLUGINS := plugins/storage_sqlite plugins/storage_fs plugins/storage_postgres plugins/transport_curl plugins/transport_zmq \
  plugins/gateway_beanstalk plugins/gateway_gearman plugins/gateway_http plugins/gateway_memcache \
  plugins/gateway_sqs plugins/gateway_stomp plugins/kombu_dropr plugins/django_dropr plugins/observer_opentelemetry
# On the application's side: they bring the frameworks that they are for, which no node needs.
INTEGRATIONS := plugins/kombu_dropr plugins/django_dropr
NODE_PLUGINS := $(filter-out $(INTEGRATIONS),$(PLUGINS))
# Tests wait more than they compute: one worker more than there are processors. JOBS=0 runs them one after the other.
JOBS   ?= $(shell expr 1 + $$(nproc 2>/dev/null || echo 1))
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.PHONY: help demo fmt check unit test test-all own-suite django6 stress bench docs house dist dist-check version release-data changelog clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

# One stamp: installed anew whenever a project file changed.
$(VENV)/.installed: pyproject.toml $(PLUGINS:%=%/pyproject.toml) Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(PLUGINS:%=--editable %)
	touch $(VENV)/.runtime $@

# The same without the tools of developers: what a node needs and nothing more. The demo must run where no linter can
# be installed.
$(VENV)/.runtime: pyproject.toml $(NODE_PLUGINS:%=%/pyproject.toml) Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . $(NODE_PLUGINS:%=--editable %)
	touch $@

demo: $(VENV)/.runtime ## the main job on real input, with real failures; installs no tools of developers
	$(BIN)/dropr demo

fmt: $(VENV)/.installed ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.installed ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(VENV)/.installed ## the tests without processes and sockets, in less than a minute
	$(PYTEST) tests/unit tests/protocol

test: check ## the whole test suite, with format, lint and types: what CI calls
	$(PYTEST)

# Those on the PATH, or kept by pyenv, each in an environment of its own.
test-all: check ## the whole suite with every supported Python that this machine has
	@for version in 3.11 3.12 3.13; do \
	  found=; \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python$$version; do \
	    if $$python -c '' 2>/dev/null; then found=$$python; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "python$$version: not on this machine, skipped"; continue; fi; \
	  echo "python$$version: $$found"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$found .venv-$$version/.installed && \
	  .venv-$$version/bin/python -m pytest -n $(JOBS) --dist worksteal || exit 1; \
	done

# Django 6 has the tasks framework inside and needs Python 3.12; CI runs 3.11 with the package django-tasks.
.venv-django6/.installed: pyproject.toml plugins/django_dropr/pyproject.toml Makefile
	@for python in python3.13 python3.12 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[23].*/bin/python; do \
	  if $$python -c '' 2>/dev/null; then exec $$python -m venv .venv-django6; fi; \
	done; echo "needs Python 3.12 or newer"; exit 1
	.venv-django6/bin/python -m pip install --quiet --disable-pip-version-check 'django>=6' hypothesis httpx2 pytest \
	  pytest-timeout pytest-xdist selenium --editable . --editable plugins/storage_sqlite --editable plugins/django_dropr \
	  --editable plugins/transport_curl
	touch $@

django6: .venv-django6/.installed ## the tests and the example of dropr-django with Django 6, on Python 3.12 or newer
	.venv-django6/bin/python -m pytest -q plugins/django_dropr
	.venv-django6/bin/python -m pytest -q tests/examples -k django

stress: $(VENV)/.installed ## ten thousand idle connections at a gateway, and what each costs: some minutes
	$(BIN)/python -m pytest -m stress -s tests/gateways/test_idle_connections.py

# Some of those suites assert timings of 50 ms: for a machine that has nothing else to do.
own-suite: $(VENV)/.installed ## a client's own test suite against our doors: SUITE=celery|greenstalk|kombu|stomp-py SOURCE=its tree
	$(BIN)/python tests/gateways/own_suites.py $(SUITE) $(SOURCE) -- -q

# matplotlib and the clients of others are wanted here alone. Without them the bench goes on: no pictures, nothing to
# compare with. Apart, because one package that cannot be had must not cost the others.
$(VENV)/.bench: $(VENV)/.installed
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[peers]'
	touch $@

BENCH ?=
bench: $(VENV)/.bench ## what it costs and how fast it is, on this machine: all figures, in less than 15 minutes
	$(BIN)/python bench/run.py $(BENCH)

# In an environment of its own: a client that the tests use holds docutils at a version that no current Sphinx takes.
.venv-docs/.installed: pyproject.toml Makefile
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: .venv-docs/.installed ## the documentation as a site in site/; a link that leads nowhere is an error
	.venv-docs/bin/python tools/docs_site.py site

# docs/architecture.md says what they should be.
house: ## rooms, floors, arrows and sizes of files
	@$(PYTHON) tools/house.py

dist: $(VENV)/.runtime ## wheels and source packages of all distributions, in dist/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.25'
	rm -rf dist
	for project in . $(PLUGINS); do \
	  (cd $$project && $(abspath $(BIN))/python -m hatchling build -d $(CURDIR)/dist) || exit 1; \
	done

dist-check: dist ## installs them into an empty environment and runs the demo there, away from this repository
	rm -rf dist/check && $(PYTHON) -m venv dist/check
	dist/check/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd / && $(CURDIR)/dist/check/bin/dropr plugins && $(CURDIR)/dist/check/bin/dropr demo

VERSION ?=
version: ## the version, and where another one stands; VERSION=0.3.0.dev0 writes it into every place
	@$(PYTHON) tools/version.py $(VERSION)

COMMIT ?= v$(shell $(PYTHON) tools/version.py)
release-data: $(VENV)/.installed ## after a release: its wheels as the data of the tests of upgrades, COMMIT=its tag
	$(BIN)/python tools/release_data.py $(COMMIT)

changelog: $(VENV)/.installed ## what the next release would say of itself, from changelog.d/
	$(BIN)/towncrier build --draft --version next

clean: ## remove environments and caches
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis

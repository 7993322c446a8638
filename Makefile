# make demo and make test need only python3, make and a package registry. For example:
#   PYTHON=python3.12 make test     another interpreter
#   PYTEST='-k hooks' make test     some of the tests
#   BENCH=--quick make bench        a short benchmark

PYTHON ?= python3
# One environment for each interpreter.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(subst /,-,$(PYTHON)))
EXTRAS ?= examples,test
# More extras for tests. One is installed only if all its packages have wheels; otherwise its tests are skipped.
OPTIONAL ?= dqn mpi numba
# More packages for a new environment, such as numpy==1.22.0.
WITH ?=
PYTEST ?= -n auto
# Extras for the benchmark and the libraries that it compares with. It leaves out libraries that are not installed.
PEERS ?= bench,nvrtc
BENCH ?=

BIN := $(VENV)/bin
SOURCES := pyproject.toml README.md build-constraints.txt $(shell find rmsprop_graves -name '*.py*' -not -name '*.pyc')
# Chainer is built from source, which fails with setuptools 82. build-constraints.txt excludes it: old pips read
# PIP_CONSTRAINT, new ones PIP_BUILD_CONSTRAINT.
INSTALL := PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt \
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

# Otherwise an interrupted installation would look complete.
.DELETE_ON_ERROR:
.PHONY: demo test test-long test-search coverage lint bench clients train-clients chainer-record record docs docs-test figures dist gpu \
	matrix clean

demo: $(VENV)/examples
	$(BIN)/python docs/examples/train_digits.py

test: $(VENV)/$(EXTRAS) $(OPTIONAL:%=$(VENV)/wheels-%)
	$(BIN)/pytest $(PYTEST)

test-long: $(VENV)/$(EXTRAS) $(OPTIONAL:%=$(VENV)/wheels-%)
	$(BIN)/pytest $(PYTEST) -m long

test-search: $(VENV)/$(EXTRAS) $(OPTIONAL:%=$(VENV)/wheels-%)
	$(BIN)/pytest $(PYTEST) -m search

coverage: $(VENV)/$(EXTRAS),coverage $(OPTIONAL:%=$(VENV)/wheels-%)
	$(BIN)/coverage run $(BIN)/pytest -p no:xdist
	$(BIN)/coverage combine
	$(BIN)/coverage report

lint: $(VENV)/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/$(PEERS)
	$(BIN)/python -m benchmarks $(BENCH)

# In a separate environment, because ChainerRL needs an older Gym.
clients:
	$(MAKE) train-clients VENV='$(VENV)-clients'

# Clients that cannot be installed are skipped: pip prints why, and the table at the end lists them.
train-clients: $(VENV)/examples,numba,test
	-$(MAKE) '$(VENV)/clients,dqn'
	-$(MAKE) '$(VENV)/chainerrl'
	cd tests && '$(abspath $(BIN))/python' -m clients
	$(BIN)/pytest $(PYTEST) tests/test_shared_memory.py

# Records the results of plain Chainer, without this package, on versions that it was written for. The tests compare
# with this record. Needs Python 3.8.
chainer-record:
	$(MAKE) record VENV=.venv-reference PYTHON=$(if $(filter python3,$(PYTHON)),python3.8,$(PYTHON))

record: $(VENV)/reference
	cd tests && '$(abspath $(BIN))/python' -m chainer7.probes

# The site is in docs/_build/html.
docs: $(VENV)/docs,numba
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env -d docs/_build/doctrees docs docs/_build/html

# Runs the commands and the Python code that the site shows, and opens it in Chromium.
docs-test: $(VENV)/browser,docs,examples,mpi,numba,oracle,test
	$(BIN)/pytest -p no:xdist tests/docs/test_docs.py tests/docs/test_site.py

# Builds and checks the files to upload. Then runs tests of the source distribution in a new environment, to find
# missing files. It installs no optional extras, because `make test` covers them.
dist: $(VENV)/dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	mkdir dist/unpacked
	tar -xzf dist/*.tar.gz -C dist/unpacked --strip-components=1
	$(MAKE) -C dist/unpacked test OPTIONAL= PYTEST='$(PYTEST) --ignore=tests/gpu --ignore=tests/kernels --ignore=tests/optimizer --ignore=tests/plan --ignore=tests/test_lives.py'

# Draws the pictures in docs/images. Each script makes its own runs; benchmark.py draws the last `make bench`.
FIGURES := $(filter-out style,$(basename $(notdir $(wildcard docs/figures/*.py))))
figures: $(VENV)/examples,numba
	set -e; for figure in $(FIGURES); do $(BIN)/python docs/figures/$$figure.py; done

# On a machine with a GPU: runs its tests and its benchmark, with an interpreter that has CuPy and Chainer.
gpu:
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) -m benchmarks --gpu $(BENCH)

matrix:
	./tests/matrix.sh

clean:
	rm -rf .venv* dist result docs/_build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Without dependencies: Gym requires a pyglet and a cloudpickle of 2020, and ChainerRL installs a Gym that breaks it.
# The extra `clients` has the dependencies that are used.
$(VENV)/chainerrl: | $(BIN)/python
	$(INSTALL) --no-deps chainerrl==0.8.0 gym==0.17.3
	touch '$@'

$(VENV)/reference: | $(BIN)/python
	$(INSTALL) chainer==7.8.1 numpy==1.22.4 scipy==1.10.1 protobuf==3.20.3 h5py==3.11.0 pillow==10.4.0 \
		matplotlib==3.7.5
	touch '$@'

# Chainer has no wheel, but $(EXTRAS) has installed it before.
$(VENV)/wheels-%: pyproject.toml | $(VENV)/$(EXTRAS)
	@$(INSTALL) --only-binary=:all: '.[$*]' $(WITH) || echo 'make: no wheels for the extra $*; tests that need it are skipped'
	@touch '$@'

# A file for each installed set of extras. If a source is newer, the extras are installed again.
$(VENV)/%: $(SOURCES) | $(BIN)/python
	@echo "Installing '.[$*]' in $(VENV). The first time, this takes a few minutes."
	@$(INSTALL) '.[$*]' $(WITH)
	@touch '$@'

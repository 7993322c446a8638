# make demo and make test need only python3, make and a package registry.
# PYTHON=python3.12 make test picks an interpreter, PYTEST='-k hooks' make test picks tests, and BENCH=--quick make
# bench a short benchmark.

PYTHON ?= python3
# One environment for each interpreter.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(subst /,-,$(PYTHON)))
EXTRAS ?= examples,test
# Extras that tests need too, installed where all of one's packages have wheels. Elsewhere these tests are skipped.
OPTIONAL ?= dqn mpi numba
# What else to install in a new environment, such as numpy==1.22.0.
WITH ?=
PYTEST ?= -n auto
# What the benchmark needs and compares with. The extras of the tests will do, without PyTorch.
PEERS ?= bench,nvrtc
BENCH ?=

BIN := $(VENV)/bin
SOURCES := pyproject.toml README.md build-constraints.txt $(shell find rmsprop_graves -name '*.py*' -not -name '*.pyc')
# Chainer is built from source, which setuptools 82 cannot do. Older pips read the first of the two, newer the second.
INSTALL := PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt \
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

# A virtual environment that could not be made whole is not taken for one.
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

# In an environment of their own, for ChainerRL wants an older Gym.
clients:
	$(MAKE) train-clients VENV='$(VENV)-clients'

# Those that cannot be installed are not run: pip says why, and then the table says what is missing.
train-clients: $(VENV)/examples,numba,test
	-$(MAKE) '$(VENV)/clients'
	-$(MAKE) '$(VENV)/chainerrl'
	cd tests && '$(abspath $(BIN))/python' -m clients
	$(BIN)/pytest $(PYTEST) tests/test_shared_memory.py

# What the tests compare Chainer with: the record of plain Chainer on the stack that it was written for, without this
# package. It needs Python 3.8.
chainer-record:
	$(MAKE) record VENV=.venv-reference PYTHON=$(if $(filter python3,$(PYTHON)),python3.8,$(PYTHON))

record: $(VENV)/reference
	cd tests && '$(abspath $(BIN))/python' -m chainer7.probes

# The site is in docs/_build/html.
docs: $(VENV)/docs,numba
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env -d docs/_build/doctrees docs docs/_build/html

# Runs the commands and the Python code that the site shows, and opens it in a Chromium.
docs-test: $(VENV)/browser,docs,examples,mpi,numba,oracle,test
	$(BIN)/pytest -p no:xdist tests/docs/test_docs.py tests/docs/test_site.py

# Build what would be uploaded and check it. Then run the source distribution's tests in a new environment: without the
# optional extras, for `make test` runs their tests, and this is about files that are missing.
dist: $(VENV)/dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	mkdir dist/unpacked
	tar -xzf dist/*.tar.gz -C dist/unpacked --strip-components=1
	$(MAKE) -C dist/unpacked test OPTIONAL= PYTEST='$(PYTEST) --ignore=tests/kernels --ignore=tests/test_lives.py'

# Each script's pictures, in docs/images, from runs of their own; but those of the benchmark are of its last run.
FIGURES := $(filter-out style,$(basename $(notdir $(wildcard docs/figures/*.py))))
figures: $(VENV)/examples,numba
	set -e; for figure in $(FIGURES); do $(BIN)/python docs/figures/$$figure.py; done

# On a machine with a GPU, by an interpreter that has CuPy and Chainer: its tests, then its benchmark.
gpu:
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) -m benchmarks --gpu $(BENCH)

matrix:
	./tests/matrix.sh

clean:
	rm -rf .venv* dist result docs/_build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Without their dependencies, which the extra of clients has as far as they are used: Gym asks for a pyglet and a
# cloudpickle of 2020, and ChainerRL would take a Gym that it cannot work with.
$(VENV)/chainerrl: | $(BIN)/python
	$(INSTALL) --no-deps chainerrl==0.8.0 gym==0.17.3
	touch '$@'

$(VENV)/reference: | $(BIN)/python
	$(INSTALL) chainer==7.8.1 numpy==1.22.4 scipy==1.10.1 protobuf==3.20.3 h5py==3.11.0 pillow==10.4.0 \
		matplotlib==3.7.5
	touch '$@'

# Chainer, which has no wheel, is installed by then.
$(VENV)/wheels-%: pyproject.toml | $(VENV)/$(EXTRAS)
	$(INSTALL) --only-binary=:all: '.[$*]' $(WITH) || echo 'make: no wheels for the extra $*, tests that need it are skipped'
	touch '$@'

# A file for each set of extras that is installed, newer than the sources that it was installed from.
$(VENV)/%: $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[$*]' $(WITH)
	touch '$@'

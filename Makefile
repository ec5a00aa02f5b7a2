# One command, `make all`, from nothing but Python 3.11, a C compiler and make to the book.
#
# msa3d itself knows what is current (data, every product of a step, notebooks, the book) and makes the rest, so that a
# second `make all` takes seconds, and one that was killed continues where it stopped.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# ------------------------------------------------------------------------------------------ what can be chosen
DATASET ?= demo
ROOT ?=
WORKERS ?=
# paper: jwst 1.14.0 and what it was delivered with; today: jwst 3.0.0; newest: of everything, whatever it is.
PIPELINE ?= paper
# Values of a user reach the commands through the environment, where neither make nor the shell reads them as code.
override DATASET := $(value DATASET)
override ROOT := $(value ROOT)
override WORKERS := $(value WORKERS)
override PIPELINE := $(value PIPELINE)
export DATASET ROOT WORKERS
PYTESTARGS ?=
# Test files at a time.
TESTERS ?= 2
# An image or a conda environment that has the lock already says so here, and is then used as it is.
MSA3D_ENV ?=

# ------------------------------------------------------------------------------------------ the environment
# Each pipeline has locks, an environment and runs of its own; names of those of the paper have no ending.
$(if $(filter $(PIPELINE),paper today newest),,$(error PIPELINE is paper, today or newest))
ENDING := $(patsubst %,-%,$(filter-out paper,$(PIPELINE)))
LOCK := requirements$(ENDING).lock
TESTLOCK := requirements-test$(ENDING).lock
ENV := .venv$(ENDING)
VAR := $(CURDIR)/$(ENV)/var
ifeq ($(strip $(MSA3D_ENV)),)
VENV := $(ENV)/.complete
TESTVENV := $(ENV)/.tested
BIN := $(CURDIR)/$(ENV)/bin
else
VENV :=
TESTVENV :=
BIN := $(patsubst %/,%,$(dir $(shell command -v python)))
endif
# The code beside this file, whichever copy of it an image or a conda environment has installed.
SOURCE := $(CURDIR)/src

# What matplotlib, Jupyter, IPython, astropy, numba, dask and the rest like to keep in a home directory goes to
# $(VAR) instead. The user's own git configuration is still read, for safe.directory. What follows is shown.
IN := @mkdir -p "$(VAR)/home"; \
	unset XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR \
		JUPYTER_PATH JUPYTER_CONFIG_PATH PYTHONHOME; \
	ROOT="$${ROOT/\#\~\//$${HOME:-}/}" DATASET="$${DATASET/\#\~\//$${HOME:-}/}"; \
	$(if $(ENDING),name="$$(basename -- "$$DATASET")"; ROOT="$${ROOT:-runs/$${name%.*}$(ENDING)}";) \
	export GIT_CONFIG_GLOBAL="$${GIT_CONFIG_GLOBAL:-$${HOME:-}/.gitconfig}" \
		HOME="$(VAR)/home" MPLCONFIGDIR="$(VAR)/matplotlib" IPYTHONDIR="$(VAR)/ipython" \
		JUPYTER_CONFIG_DIR="$(VAR)/jupyter/config" JUPYTER_DATA_DIR="$(VAR)/jupyter/data" \
		JUPYTER_RUNTIME_DIR="$(VAR)/jupyter/runtime" NUMBA_CACHE_DIR="$(VAR)/numba" \
		COVERAGE_FILE="$(VAR)/coverage" MPLBACKEND=agg PYTHONPATH="$(SOURCE)" PYTHONHASHSEED=0 PYTHONNOUSERSITE=1 PATH="$(BIN):$$PATH"; \
	set -x;

PYTHON ?= $(shell for p in python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && command -v "$$p" && break; done)
# The entries of some packages in a lock, hashes included.
locked = awk -v names=" $(1) " '/^[^ \#]/ { split($$0, name, /==/); take = index(names, " " name[1] " ") } take' $(2)
COMPILE := uv pip compile --no-cache --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links -q

# Of every command on a run. Without a root msa3d takes runs/<dataset> (and make, of another pipeline than the paper's,
# runs/<dataset>-<pipeline>: one root, one pipeline).
OPTIONS := $${ROOT:+"$$ROOT"} --dataset "$$DATASET" $${WORKERS:+--workers "$$WORKERS"}

.PHONY: help all env data notebooks book test bench lint lock image clean

help: ## This list
	@echo "make all          from nothing to the book of DATASET=$$DATASET in $${ROOT:-runs/} and book/_build/html/"
	@echo
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo "  DATASET=demo      tiny, survey, go2136, or the path of a YAML of your own"
	@echo "  ROOT=runs/demo    where the run is kept (for go2136: where the rates and the metafile are)"
	@echo "  PIPELINE=paper    today (jwst 3.0.0), or newest; each has an environment and runs of its own"
	@echo "  WORKERS=          processes, or dask://host:port; as many as cores and memory allow if left out"
	@echo "  PYTHON=           the Python 3.11 that the environment is made with"
	@echo "  MSA3D_ENV=        say anything here to use the environment that is active instead"

all: book ## Environment, data, notebooks and book

env: $(VENV) ## The locked environment, .venv (or .venv-<pipeline>)

data: $(VENV) ## The simulated observation (or a check of the real one)
	$(IN) msa3d data $(OPTIONS)

notebooks: data ## The four notebooks, executed
	$(IN) msa3d notebook all $(OPTIONS)

book: notebooks ## The book of the executed notebooks
	$(IN) msa3d book $${ROOT:+"$$ROOT"} --dataset "$$DATASET"

# uv installs the lock in half a minute, pip in five; pip is asked only where uv cannot reach the package index.
# Nothing is built with a package that is not in the lock, and nothing is cached in the home directory.
# (pip asks rustc for its version, which rustup answers by writing into the home directory: hence RUSTUP_HOME.)
$(ENV)/.complete: export RUSTUP_HOME := $(VAR)/rustup
$(ENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 was not found; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(ENV)/bin/python || "$(PYTHON)" -m venv $(ENV)
	@mkdir -p "$(VAR)"
	@$(call locked,uv,requirements.lock) > "$(VAR)/uv.txt"
	@$(ENV)/bin/python -m pip install -q --no-cache-dir --no-deps --require-hashes -r "$(VAR)/uv.txt"

$(ENV)/.complete: $(LOCK) pyproject.toml | $(ENV)/bin/uv
	@echo "The environment: $(ENV), from $(LOCK)"
	@$(call locked,numpy packaging setuptools setuptools-scm typing-extensions vcs-versioning wheel,$(LOCK)) > "$(VAR)/build.txt"
	@$(ENV)/bin/python -m pip install -q --no-cache-dir --no-deps --require-hashes -r "$(VAR)/build.txt"
	@$(ENV)/bin/uv pip sync -q --python $(ENV)/bin/python --no-cache --require-hashes --no-build-isolation $(LOCK) \
		|| $(ENV)/bin/python -m pip install --no-cache-dir --require-hashes --no-build-isolation -r $(LOCK)
	@$(ENV)/bin/python -m pip install -q --no-cache-dir --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(ENV)/.tested: $(ENV)/.complete $(TESTLOCK)
	@echo "What tests and style need: into $(ENV), from $(TESTLOCK)"
	@$(ENV)/bin/uv pip install -q --python $(ENV)/bin/python --no-cache --require-hashes -r $(TESTLOCK) \
		|| $(ENV)/bin/python -m pip install --no-cache-dir --require-hashes -r $(TESTLOCK)
	@touch $@

# Of the newest the locks are made when they are wanted, and kept nowhere.
requirements-newest.lock requirements-test-newest.lock: requirements-newest.in requirements-test.in | $(ENV)/bin/uv
	@PATH="$(BIN):$$PATH"; $(COMPILE) requirements-newest.in -o requirements-newest.lock; \
		$(COMPILE) -c requirements-newest.lock requirements-test.in -o requirements-test-newest.lock

# (PYTESTARGS=--cov counts the lines of src that tests run, and takes half as long again.)
test: $(TESTVENV) ## Unit tests, and the whole way end to end on the smallest dataset
	$(IN) python -m pytest -p no:cacheprovider -n $(TESTERS) --dist loadfile $(PYTESTARGS)

bench: $(TESTVENV) ## What the steps cost
	$(IN) python -m pytest -p no:cacheprovider -o python_files='bench_*.py' --benchmark-only tests/benchmarks $(PYTESTARGS)

lint: $(TESTVENV) ## Style, docstrings, no outputs in notebooks
	$(IN) ruff check --no-cache
	$(IN) ruff format --no-cache --check
	$(IN) find src -name '*.py' -print0 | xargs -0 numpydoc lint --config .
	$(IN) nbstripout --verify notebooks/*.ipynb
	$(IN) lint-imports --no-cache
	$(IN) mypy --cache-dir=/dev/null $(addprefix src/msa3d/,config.py runs.py pipeline cubes pointing)

lock: $(TESTVENV) ## Renew the locks from requirements*.in, keeping what still fits
	$(IN) for ending in "" -today; do $(COMPILE) requirements$$ending.in -o requirements$$ending.lock; \
		$(COMPILE) -c requirements$$ending.lock requirements-test.in -o requirements-test$$ending.lock; done; \
		cd tests/extra; for name in viewers hub browser audit; do \
			$(COMPILE) requirements-$$name.in -o requirements-$$name.lock; done

IMAGE ?= msa3d
IMAGEARGS ?=
# The first that is there and can work here (a docker without its daemon cannot).
BUILDER ?= $(shell for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done)
image: ## The container image, with docker, podman or buildah
	@test -n "$(BUILDER)" || { echo "None of docker, podman and buildah works here; name one: make image BUILDER=" >&2; exit 1; }
	$(BUILDER) build --build-arg REVISION="$$(git describe --always --dirty --abbrev=12 2>/dev/null)" \
		--build-arg PIPELINE=$(PIPELINE) --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" $(IMAGEARGS) -t $(IMAGE) .

clean: ## The environment and the book away; runs/ stays, as it may hold data of yours
	rm -rf .venv .venv-* .cache book/_build book/_extra book/notebooks src/msa3d.egg-info build .hypothesis .benchmarks
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

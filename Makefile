# `make demo` and `make test` set up everything on a fresh machine; `make help` lists the other commands.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help env demo test lint test-fast docs tables pictures notebook compat upstream count clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/base: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt -e .
	touch $@

$(VENV)/installed: $(VENV)/base
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt -e '.[dev]'
	touch $@

env: $(VENV)/installed ## create the environment in .venv

demo: $(VENV)/base ## train, fine-tune, validate and predict on the demo sets (about 6 minutes on 2 cores)
	$(BIN)/python -m benchmarks.demo

pictures: env ## draw the pictures of docs, and render those of the demo's detections
	$(BIN)/python -m docs.tools.pictures

test: env ## run all tests (about 8 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: env ## run the quick tests: no browser, no Ray and none marked slow (about 90 s on 2 cores)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not browser and not ray"

lint: env ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: env ## build the documents as a site, site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: env ## run docs/notebook.ipynb and keep its outputs
	YOLO_VERBOSE=false $(BIN)/jupyter nbconvert --config docs/tools/nbconvert_config.py --to notebook --execute --inplace docs/notebook.ipynb

tables: env ## write the tables of docs/models.md and docs/arguments.md
	$(BIN)/python -m docs.tools.tables

compat: env ## run the contract tests with the pinned and the newest Ultralytics (from the package index)
	$(BIN)/python -m tests.upstream.compat

upstream: env ## run upstream's own tests with and without the overlay
	$(BIN)/python -m tests.upstream.own_tests

count: ## count the lines of Python by folder, to compare with the limits in tests/test_architecture.py
	@for d in ultralytics src tests benchmarks docs; do printf '%-12s%6d\n' $$d $$(find $$d -name '*.py' -exec cat {} + | wc -l); done

clean: ## remove the environment, runs, the site and demo data
	rm -rf $(VENV) runs site datasets/*-demo/images datasets/*-demo/labels

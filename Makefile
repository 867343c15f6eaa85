# `make demo` and `make test` set up everything they need on a fresh machine; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help env demo test lint tables pictures clean

help: ## list the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt -e '.[dev]'
	touch $@

env: $(VENV)/installed ## make the environment in .venv

# Short trainings for a few minutes on a CPU: small batches make the most steps of them. All processors are used, where
# upstream by default would use one.
TRAIN = OMP_NUM_THREADS=$$($(BIN)/python -c 'import os; print(os.cpu_count())') $(BIN)/yolo detect train \
	model=ultralytics/cfg/models/11/yolo11.yaml optimizer=AdamW warmup_epochs=1 scale=0.3 val=False cache=ram

demo: env ## train, fine-tune, validate and predict on the demo sets (at most 15 minutes on 2 cores)
	$(TRAIN) data=datasets/ASS1-demo/ASS1-demo.yaml imgsz=416 batch=2 nbs=2 epochs=9 lr0=0.002 \
		pretrained=False project=runs/ASS1 name=demo exist_ok=True
	$(TRAIN) data=datasets/ASS2-demo/ASS2-demo.yaml imgsz=1280 rect=True batch=1 nbs=1 epochs=8 lr0=0.001 \
		pretrained=runs/ASS1/demo/weights/best.pt project=runs/ASS2 name=demo exist_ok=True
	$(BIN)/yolo detect val model=runs/ASS2/demo/weights/best.pt data=datasets/ASS2-demo/ASS2-demo.yaml \
		imgsz=1280 project=runs/val name=ASS2-demo exist_ok=True
	$(BIN)/python predict1.py --models demo
	$(BIN)/python predict2.py --models demo
	@echo
	@echo 'Done. Open the pictures in runs/predict/ASS1/demo/ and runs/predict/ASS2/demo/, for example:'
	@ls runs/predict/ASS1/demo/*.jpg runs/predict/ASS2/demo/*.jpg | awk 'NR % 12 == 1'

pictures: env ## write the picture of the README from what the demo found
	$(BIN)/python benchmarks/pictures.py

test: env ## run the tests
	$(BIN)/python -m pytest

lint: env ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

tables: env ## write the tables in docs/
	$(BIN)/python benchmarks/model_table.py

clean: ## remove the environment, runs and demo data
	rm -rf $(VENV) runs datasets/*-demo/images datasets/*-demo/labels

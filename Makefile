# Everything works from an empty folder: `make demo` alone makes the environment it needs.
#   make demo         compare architectures on built-in data, then look in runs/demo
#   make tensorboard  the same comparison in TensorBoard (RUNS=folder for another one)
#   make test lint    what has to pass before a change goes in
#   make bench        the benchmarks
#   make clean        away with the environment and everything made

PYTHON    ?= $(shell command -v python3.11 || command -v python3)
VENV      ?= .venv
RUNS      ?= runs/demo
# TensorFlow takes 5 s to import in each worker and uses several threads: two workers are best.
WORKERS   ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?= forecasting --data builtin:co2 --lookback 104 --horizon 26 \
	--architectures linear,mlp,tcn,lstm,gru,attention_rnn,transformer,segment_rnn \
	--parameters 20000 --epochs 10 --out runs/demo --resume

BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format tensorboard bench clean

help:
	@sed -n '2,6s/^# *//p' Makefile

# A stamp is newer than pyproject.toml when the environment is as it says.
$(VENV)/.installed: pyproject.toml
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "keras-seq needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: run make PYTHON=/path/to/python3.11" % v)'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed tests/plugin_demo/pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,onnx]'
	$(BIN)/python -m pip install --quiet --no-deps --editable tests/plugin_demo
	@touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/keras-seq compare $(DEMO_ARGS)
	@echo "Next: make tensorboard, or open runs/demo/leaderboard.html"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tensorboard: $(VENV)/.installed
	$(BIN)/keras-seq tensorboard $(RUNS)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/windows.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/dropout.py

clean:
	rm -rf $(VENV) build dist *.egg-info tests/plugin_demo/*.egg-info tests/plugin_demo/build
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/demo
	find keras_seq tests recipes tutorials benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What a developer types; `make help` lists it. Everything runs in .venv, which make builds itself and
# renews when pyproject.toml (dependencies) or a source file (sprat, installed as users do) changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
EXTRAS := llama,train,bench,dev
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet --quiet

# Folders too (as `proto/.`, since `proto` is a target): their time changes when a file goes away.
SOURCES := setup.py $(shell find runtime/. kernels/. quantize/. proto/. benchmarks/. \
	-not -path '*__pycache__*' -not -name '*.so' -not -path '*/results*')
CPP := $(shell find kernels tests/kernels/cpp -name '*.cpp' -o -name '*.hpp')
PYX := $(shell find kernels -name '*.pyx')

unexport PYTHONPATH PYTHONHOME

# Many a g++ compiles llama.cpp's kernels for Intel's AMX wrongly: see runtime/engine/llama_lib.py.
# Empty where the compiler does not know the flag.
NO_AMX := $(shell g++ -mno-amx-int8 -fsyntax-only -x c++ /dev/null 2>/dev/null && echo -mno-amx-int8)

.PHONY: help setup demo test test-reference lint format bench proto clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/sprat.stamp ## Make .venv, with sprat and every tool in it

demo: setup ## Pull two small models, train and tune a cascade, serve both over gRPC and ask them
	@$(BIN)/python -m sprat.demo

test: lint $(VENV)/torch.stamp ## Lint, then run every test
	@$(BIN)/python -m pytest

test-reference: setup $(VENV)/torch.stamp ## Run every test on the Python twins of the kernels
	@SPRAT_KERNELS=reference $(BIN)/python -m pytest

lint: setup ## Check style, types and generated files
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CPP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint $(PYX)
	@$(BIN)/python proto/generate.py --check

format: setup ## Rewrite the sources in the house style
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(CPP)

bench: setup ## Measure on a quiet machine; writes benchmarks/results/*.json and the README's tables
	@status=0; $(BIN)/python -m sprat.benchmarks || status=$$?; \
	$(BIN)/python -m sprat.benchmarks.report README.md; \
	exit $$status

proto: setup ## Generate the modules of the .proto files again
	@$(BIN)/python proto/generate.py

clean: ## Remove build output and caches; .venv and the models stay
	@rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find kernels -name '*.so' -delete
	@find runtime kernels quantize proto benchmarks tests -name __pycache__ -prune -exec rm -r {} +

# What fine-tuning needs, for its tests alone: gigabytes where torch comes with a GPU's libraries.
$(VENV)/torch.stamp: $(VENV)/sprat.stamp
	@if ! $(BIN)/python -c 'import torch, transformers, peft' 2>/dev/null; then \
		echo "Installing torch, transformers and peft into $(VENV)"; \
		$(PIP) install torch==2.13.0; \
		$(PIP) install accelerate peft transformers; \
	fi
	@touch $@

$(VENV)/venv.stamp:
	@missing() { echo "make: $$1" >&2; exit 1; }; \
	command -v $(PYTHON) >/dev/null \
		|| missing "no $(PYTHON) here. Try: apt-get install python3 python3-venv python3-dev"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| missing "sprat needs Python 3.10 or newer, this is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| missing "$(PYTHON) cannot make environments. Try: apt-get install python3-venv"; \
	$(PYTHON) -c 'import os, sysconfig as s; os.stat(os.path.join(s.get_path("include"), "Python.h"))' 2>/dev/null \
		|| missing "the headers of $(PYTHON) are missing. Try: apt-get install python3-dev"; \
	command -v g++ >/dev/null \
		|| missing "no C++ compiler here. Try: apt-get install g++"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# What was built before stays in build/ so that only changed kernels compile again; a module that was
# deleted must not.
$(VENV)/sprat.stamp: $(VENV)/venv.stamp pyproject.toml $(SOURCES)
	@if [ -d build ]; then find build -path 'build/lib*' -type f -not -name '*.so' -delete; fi
	@if [ -z "$(filter $(VENV)/venv.stamp pyproject.toml,$?)" ]; then \
		echo "Installing sprat into $(VENV)"; \
		$(PIP) install --no-deps --no-build-isolation --force-reinstall .; \
	else \
		echo "Installing sprat and its dependencies into $(VENV)"; \
		$(BIN)/python -c 'import llama_cpp' 2>/dev/null \
			|| echo "The first time, llama-cpp-python is compiled: about 6 minutes (pip keeps the result)"; \
		CMAKE_ARGS="$${CMAKE_ARGS:-} -DCMAKE_C_FLAGS=$(NO_AMX) -DCMAKE_CXX_FLAGS=$(NO_AMX)" \
			$(PIP) install '.[$(EXTRAS)]'; \
	fi
	@touch $@

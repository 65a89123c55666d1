# The two commands of the README: `make demo` and `make test`. Each sets everything up itself, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What the installed package is built from; a change of any of these installs it again.
NATIVE := $(wildcard glyph_rt/typeset/raster/*) $(wildcard glyph_rt/language/core/*)

.PHONY: demo test test-all lint bench proto clean

demo: $(READY)
	@bash examples/demo.sh $(BIN)/glyph-rt

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

# Also the slow tests: what .ci/run runs.
test-all: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes glyph_rt/v1 from proto/; a test says when that was forgotten.
proto: $(READY)
	$(BIN)/python proto/generate.py

bench: $(READY)
	$(BIN)/python bench/reader_quality.py
	$(BIN)/python bench/first_question.py

$(READY): pyproject.toml CMakeLists.txt $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build

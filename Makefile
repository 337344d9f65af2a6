# make verify   set up and run every claim and its planted defects; report under evidence/local/
# make test     set up and pass the project's own tests
# PYTHON=python3.12 chooses the interpreter, VENV=dir the environment, ARGS='--require cuda' options.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: verify test lint install fetch
verify: $(STAMP)
	-$(BIN)/aprverify fetch
	$(BIN)/aprverify verify $(ARGS)

test: $(STAMP) fetch
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/aprverify lint
	$(BIN)/aprverify evidence index --check
	$(BIN)/python -m pytest tests -n auto -q $(ARGS)

fetch: $(STAMP)
	$(BIN)/aprverify fetch

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aprverify needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

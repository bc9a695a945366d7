# make demo: search, train and report on embedded data.  make test: the tests.  make quick: those
# that take a minute and a half.  All set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test quick lint setup clean

# Installed again only when the project's requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all,dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	rm -rf $(DEMO)
	$(BIN)/gradnas search digits --out $(DEMO)
	$(BIN)/gradnas train $(DEMO) --random-cells 5
	$(BIN)/gradnas evaluate $(DEMO)
	$(BIN)/gradnas report $(DEMO)
	@echo "The report with cells, alphas, curves and the comparison with random cells: $(DEMO)/report.html"

test: setup
	$(BIN)/python -m pytest --numprocesses 2

quick: setup
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

lint: setup
	$(BIN)/ruff check gradnas tests benchmarks examples docs/rooms.py
	$(BIN)/ruff format --check gradnas tests benchmarks examples docs/rooms.py
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs dist

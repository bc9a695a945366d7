# make demo: search, train and report on embedded data.  make test: the tests, of slow ones with many
# cases a part.  make test-all: every case.  make quick: a few tests of every file.  All set up .venv
# first.
# make docs: the documentation site, build/site/index.html, with the examples run anew.
# make test-lowest, make test-newest: those that are not slow, each in an environment of its own, with the
# lowest versions that are allowed and with the newest that there are.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
TASK := examples/scattered_digits.py
# Two processes of tests on two cores, and what they start: more threads would wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1
QUIETLY := --quiet --disable-pip-version-check
TORCH = $(shell grep '^torch==' constraints.txt)
# A file's tests share what they set up: one process has them all. tests/conftest.py orders the files.
WORKERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo docs test test-all quick test-lowest test-newest lint setup compiled clean

# Installed again only when the project's requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIETLY) --no-compile --constraint constraints.txt --editable ".[all,dev]"
	touch $@

setup: $(VENV)/.installed

# Byte code for the many processes that tests start, also where Python is told to write none. By two
# processes, where pip has one, and without what no test needs; some files are of other Pythons.
$(VENV)/.compiled: $(VENV)/.installed
	$(BIN)/python -m compileall -q -j 2 -x '/(tests|models)/' $(VENV)/lib > $(VENV)/compiled.txt || true
	touch $@

compiled: $(VENV)/.compiled
	$(BIN)/python -m compileall -q gradnas

demo: setup
	rm -rf $(DEMO)
	$(BIN)/gradnas search $(TASK) --epochs 12 --alpha-lr 0.01 --out $(DEMO)
	$(BIN)/gradnas train $(DEMO) --task $(TASK) --epochs 15 --random 5
	$(BIN)/gradnas evaluate $(DEMO) --task $(TASK)
	$(BIN)/gradnas report $(DEMO)
	@echo "The report with choices, curves and the comparison with random networks: $(DEMO)/report.html"

test: setup compiled
	$(ONE_THREAD) $(BIN)/python -m pytest $(WORKERS)

test-all: setup compiled
	GRADNAS_ALL_TESTS=1 $(ONE_THREAD) $(BIN)/python -m pytest $(WORKERS)

quick: setup compiled
	GRADNAS_QUICK_TESTS=1 $(ONE_THREAD) $(BIN)/python -m pytest --numprocesses 2

# Old releases warn of the newer ones below them, so that a warning is no failure here.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install $(QUIETLY) --constraint constraints-lowest.txt --editable ".[all,test]"
	$(ONE_THREAD) .venv-lowest/bin/python -m pytest --numprocesses 2 -m "not slow" -W default

# torch stays: a newer one may be a build of several gigabytes.
test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install $(QUIETLY) "$(TORCH)"
	.venv-newest/bin/python -m pip install $(QUIETLY) --upgrade --upgrade-strategy eager "$(TORCH)" --editable ".[all,test]"
	$(ONE_THREAD) .venv-newest/bin/python -m pytest --numprocesses 2 -m "not slow"

# The examples run first: their pages show what they print and draw.
docs: setup
	mkdir -p build
	$(ONE_THREAD) $(BIN)/python docs/gallery.py > build/gallery.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: setup
	$(BIN)/ruff check gradnas tests benchmarks examples docs/*.py
	$(BIN)/ruff format --check gradnas tests benchmarks examples docs/*.py
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest runs dist build

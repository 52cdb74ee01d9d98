# make demo  : compare methods on the embedded spectra; writes demo/report.html
# make test  : the test suite (under ten minutes on two cores)
# Both create .venv and install everything they need. Other targets: test-slow, test-oldest, test-wheel,
# lint, dist, bench, doc.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.skspec-installed

.PHONY: demo test test-slow test-oldest test-wheel lint dist bench doc clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

demo: $(STAMP)
	$(BIN)/skspec compare --n-jobs $(JOBS) --out demo

# workers are as many as cores: more threads would only fight for them
test test-slow test-oldest: export OMP_NUM_THREADS = 1

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m slow

# the lower bounds of pyproject.toml, on the oldest Python
OLDEST_PYTHON ?= python3.11
OLDEST ?= .venv-oldest
OLDEST_STAMP := $(OLDEST)/.skspec-installed

$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt -e ".[test]"
	touch $@

test-oldest: $(OLDEST_STAMP)
	$(OLDEST)/bin/python -m pytest -n $(JOBS) -m "not slow"

# sdist and wheel in dist/
dist: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	rm -rf build dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*

# both, used outside the checkout as a newcomer would
test-wheel: dist
	PYTHON="$(PYTHON)" .ci/wheel

lint: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt ruff mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks

doc: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[doc]"
	$(BIN)/sphinx-build -W --keep-going -b html doc doc/_build/html

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info demo doc/_build .pytest_cache .ruff_cache .hypothesis

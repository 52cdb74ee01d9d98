# make demo  : compare methods on the embedded spectra; writes demo/report.html
# make test  : the test suite (under ten minutes on two cores)
# Both create .venv and install everything they need. Other targets: test-slow, lint, bench, doc.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.skspec-installed

.PHONY: demo test test-slow lint bench doc clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

demo: $(STAMP)
	$(BIN)/skspec compare --n-jobs $(JOBS) --out demo

# workers are as many as cores: more threads would only fight for them
test test-slow: export OMP_NUM_THREADS = 1

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m slow

lint: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(STAMP)
	$(BIN)/python -m benchmarks

doc: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[doc]"
	$(BIN)/sphinx-build -W --keep-going -b html doc doc/_build/html

clean:
	rm -rf $(VENV) build dist *.egg-info demo doc/_build .pytest_cache .ruff_cache .hypothesis

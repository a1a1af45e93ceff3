# Everything begins with the clone, Python >= 3.11 and make. .venv is made on first use and renewed when a lock changes.
PYTHON := .venv/bin/python
BIN := .venv/bin
# More arguments for the command behind a target:  make demo ARGS=--traffic   make test ARGS="-k keeper -x"
ARGS ?=
COMPILE := $(BIN)/uv pip compile -q --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help demo test check lint floors types dashboards image images status-picture lock lock-check bench fmt clean

help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

demo: .venv/runtime.installed ## The gateway in front of a sandbox platform, until Ctrl-C (ARGS=--traffic: with requests)
	@exec $(PYTHON) -m proxy demo $(ARGS)

test: .venv/dev.installed ## All tests; those with a real Keycloak need Java 17 and Maven, and are skipped without
	$(PYTHON) -m pytest $(ARGS)

check: lint floors types lock-check ## Lint, format, import floors, types, locks

lint: .venv/dev.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/hadolint Dockerfile

floors: .venv/dev.installed
	$(BIN)/lint-imports --no-logo

types: .venv/dev.installed
	$(BIN)/mypy proxy tests grafana

dashboards: .venv/dev.installed ## Write the Grafana dashboard's JSON from its source; ARGS=--check only looks
	$(PYTHON) -m grafana $(ARGS)

images: .venv/dev.installed ## Measure and draw the pictures of docs/images; needs Debian's prometheus, 4 minutes
	$(PYTHON) -m tests.pictures $(ARGS)

status-picture: .venv/dev.installed ## Take the README's picture of the status page; needs Debian's chromium
	$(PYTHON) -m tests.support.status_picture

image: ## The container image, by docker, podman or buildah (ARGS="--build-arg BASE=..."): docs/deploy.md
	.ci/image $(ARGS)

lock-check: .venv/dev.installed ## Do the locks satisfy pyproject.toml, hashed and without an address?
	$(PYTHON) -m tests.support.lockfile

lock: .venv/dev.installed ## Write the locks anew from pyproject.toml; ARGS=--upgrade takes newer versions
	$(COMPILE) $(ARGS) pyproject.toml --extra redis -o requirements.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra dev --extra redis -c requirements.lock -o requirements-dev.lock
	$(PYTHON) -m tests.support.lockfile

soak: .venv/dev.installed ## The long runs of faults, attacks, kills and replicas, with their figures: half an hour
	SOAK=1 $(PYTHON) -m pytest tests/integration/test_fault_matrix.py tests/integration/test_fault_crowds.py \
		tests/integration/test_attack_slow.py tests/integration/test_proxy_responses_flow.py \
		tests/unit/test_attack_requests.py tests/unit/test_attack_responses.py \
		tests/e2e/test_kills.py tests/e2e/test_replicas.py tests/e2e/test_replicas_faults.py $(ARGS)

bench: .venv/dev.installed ## CPU per request, side by side with nginx, Caddy and Envoy
	$(PYTHON) -m tests.bench $(ARGS)

fmt: .venv/dev.installed ## Format, and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Back to the clone
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/runtime.installed: requirements.lock .ci/venv
	@.ci/venv runtime

.venv/dev.installed: requirements-dev.lock pyproject.toml .ci/venv
	@.ci/venv dev

# Needs git, make and Python 3.11 or newer with its venv module. Everything else is fetched, by hash, into
# .uv/ and .venv/ of this folder; nothing is written to the system's Python or to the user's.

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter of .venv (a version range, a version or a path) and the one that fetches uv.
PYTHON ?= >=3.11,<3.15
BOOTSTRAP_PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
LOCAL_UV := .uv/bin/uv
UV := $(if $(shell uv --version 2>/dev/null),uv,$(LOCAL_UV))
UV_READY := $(filter $(LOCAL_UV),$(UV))

# Two environments, one folder: what is locked for running, and a superset of it for developing. Once the
# larger one is there it serves both, so that `make serve` and `make test` never undo each other's work.
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
INSTALLED := $(if $(wildcard $(DEV)),$(DEV),$(RUNTIME))

# What would take another build of torch than the one that is locked, or lead uv or pip elsewhere.
unexport UV_TORCH_BACKEND VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME
export UV_CUSTOM_COMPILE_COMMAND := make lock

define install
	$(UV) pip sync --python $(BIN)/python --require-hashes $(1) $(2)
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --offline --quiet --editable .
	touch $@
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with what running needs, exactly as locked

.PHONY: setup-dev
setup-dev: $(DEV) ## Make .venv with what testing needs, exactly as locked

.PHONY: serve
serve: $(INSTALLED) ## Start the service and its page (ARGS="--port 9000")
	@exec $(BIN)/specsem serve $(ARGS)

.PHONY: score
score: $(INSTALLED) ## Score a file or folder: make score VIDEO=clip.mp4
	@test -n "$${VIDEO:-}" || { echo 'Say which: make score VIDEO=clip.mp4' >&2; exit 2; }
	@exec $(BIN)/specsem score $(ARGS) -- "$$VIDEO"

.PHONY: test
test: $(DEV) ## Run the tests, two files at a time (ARGS="-k cli -n 0")
	@OMP_NUM_THREADS=1 exec $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

.PHONY: fuzz
fuzz: $(DEV) ## Damage clips for an hour and see what breaks (ARGS="--seconds 600 --seed 7")
	@exec $(BIN)/python tests/fuzzing.py $(ARGS)

.PHONY: lint
lint: $(DEV) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(INSTALLED) ## Make docs/openapi.json, the tables of docs/operations.md and the card for Coop anew
	$(BIN)/python -m app.reference
	$(BIN)/python -m app.connectors.coop

.PHONY: screenshots
screenshots: $(DEV) ## Take the pictures of the page in docs/ anew (needs chromium)
	$(BIN)/python tests/integration/screenshots.py

.PHONY: bench
bench: $(DEV) ## Measure throughput and time per stage (ARGS="--json")
	@exec $(BIN)/specsem bench $(ARGS)

# What `docker images`, /version and the labels tell of a build.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMIT = $(shell git rev-parse HEAD 2>/dev/null)

.PHONY: image
image: ## Build the container image (ARGS="--build-arg TORCH_INDEX=https://...")
	docker build --tag specsem:$(VERSION) --tag specsem:latest --build-arg VERSION=$(VERSION) \
		--build-arg COMMIT=$(COMMIT) --build-arg CREATED=$$(date --utc +%FT%TZ) $(ARGS) .

.PHONY: image-check
image-check: ## Build it without Docker, start it confined and score a clip in it (ARGS="--ca-bundle FILE")
	@exec $(BOOTSTRAP_PYTHON) deploy/check_image.py $(ARGS)

AUDIT := .venv-audit

.PHONY: sbom
sbom: $(AUDIT)/.ready ## List what the image holds in build/sbom.cdx.json (CycloneDX)
	mkdir -p build
	PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements requirements/image.txt --pyproject pyproject.toml \
		--output-reproducible --output-file build/sbom.cdx.json

.PHONY: audit
audit: $(AUDIT)/.ready ## Ask what is known against it (pip-audit; needs the advisories of a package index)
	@mkdir -p build && rm -f build/audit.json
	@$(AUDIT)/bin/pip-audit --requirement requirements/image.txt --disable-pip --require-hashes --strict \
		--format json --output build/audit.json || test -s build/audit.json || \
		{ echo 'No advisories could be fetched, so this says nothing; above is why.' >&2; exit 2; }
	@! grep --quiet '"vulns": \[{' build/audit.json || { echo 'build/audit.json lists what is known.' >&2; exit 1; }

# Tools that look at what is locked live in an environment of their own.
$(AUDIT)/.ready: requirements/audit.txt | $(UV_READY) $(BIN)/python
	$(UV) venv --quiet --clear --python $(BIN)/python $(AUDIT)
	$(UV) pip sync --python $(AUDIT)/bin/python --require-hashes $<
	touch $@

SERVERS := .venv-servers

.PHONY: bench-servers
bench-servers: $(DEV) $(SERVERS)/.ready ## Measure the service beside LitServe and Ray Serve (benchmarks/servers.py)
	@exec $(BIN)/python benchmarks/servers.py $(ARGS)

# What is compared with lives in an environment of its own, on the same versions of all that both need.
$(SERVERS)/.ready: requirements/servers.txt pyproject.toml | $(UV_READY) $(BIN)/python
	$(UV) venv --quiet --clear --python $(BIN)/python $(SERVERS)
	$(UV) pip sync --python $(SERVERS)/bin/python --require-hashes $<
	$(UV) pip install --python $(SERVERS)/bin/python --no-deps --no-build-isolation --offline --quiet --editable .
	touch $@

COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--quiet $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(UV_READY) ## Lock requirements/*.txt anew (UPGRADE=1 takes newer versions)
	$(COMPILE) pyproject.toml requirements/build.in --output-file requirements/runtime.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra dev --constraints requirements/runtime.txt \
		--output-file requirements/dev.txt
	$(COMPILE) requirements/build.in --constraints requirements/runtime.txt --output-file requirements/build.txt
	$(COMPILE) pyproject.toml --extra client --extra postgres --extra otel --constraints requirements/runtime.txt \
		--output-file requirements/image.txt
	$(COMPILE) requirements/audit.in --output-file requirements/audit.txt
	$(COMPILE) pyproject.toml requirements/build.in requirements/servers.in \
		--constraints requirements/runtime.txt --output-file requirements/servers.txt
	$(COMPILE) requirements/uv.in --output-file requirements/uv.txt

.PHONY: clean
clean: ## Remove all that make made
	rm -rf .venv .venv-audit .venv-servers .uv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find app specsem tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(LOCAL_UV): requirements/uv.txt
	$(BOOTSTRAP_PYTHON) -m venv --clear .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(BIN)/python: | $(UV_READY)
	$(UV) venv --quiet --python '$(PYTHON)' $(VENV)

$(RUNTIME): requirements/runtime.txt pyproject.toml | $(UV_READY) $(BIN)/python
	$(call install,$<)

# Compiled at once: the tests start hundreds of processes, some where Python may not write what it compiled.
$(DEV): requirements/dev.txt pyproject.toml | $(UV_READY) $(BIN)/python
	$(call install,$<,--compile-bytecode)

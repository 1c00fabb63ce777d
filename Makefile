# make quickstart | results | rehearse | test | check | tools | images | format | lock | clean.
# Targets that need .venv build it first, in about two minutes.
PYTHON ?= python3.11
BIN := .venv/bin
UV = $(or $(shell command -v uv),.tools/uv/bin/uv)
# uv stops if it cannot write to its cache, for example in a read-only home directory. In this case,
# UV_PIP runs uv without a cache.
CACHE = $(or $(UV_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/uv)
UV_PIP = $(UV) pip $(shell mkdir -p "$(CACHE)" 2>/dev/null && test -w "$(CACHE)" || echo --no-cache)
COMPILE = $(UV_PIP) compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate
LOCK = $(COMPILE) pyproject.toml --extra mini --extra dev --extra wandb --extra mlflow \
	--override platform/requirements/overrides.txt -c platform/requirements/constraints.txt
CHECKOV := checkov==3.3.30
INSTALLED := .venv/installed

.PHONY: quickstart results rehearse test check tools format lock clean

quickstart: $(INSTALLED)
	$(BIN)/awares quickstart $(if $(AWARES_SEED),run.seed=$(AWARES_SEED)) $(ARGS)

# Runs the quickstart with each seed, and writes the README's table and picture.
SEEDS ?= 0 1 2
results: $(INSTALLED)
	for seed in $(SEEDS); do \
		$(BIN)/awares quickstart run.name=quickstart-$$seed run.seed=$$seed $(ARGS) || exit; \
	done
	$(BIN)/python .ci/results_table.py $(SEEDS:%=runs/quickstart-%/results.json)

# Runs the 7B setup's jobs with one layer of the model at its real widths, and compares the measured
# memory and work with `awares plan`. Takes up to 18 GB of memory. ARGS="sft grpo" runs only these
# two jobs.
rehearse: $(INSTALLED)
	PYTHONPATH=.:platform $(BIN)/python -m tests.rehearsal.run $(ARGS)
	PYTHONPATH=.:platform $(BIN)/python -m tests.rehearsal.table > runs/rehearsal/table.md
	mv runs/rehearsal/table.md tests/rehearsal/README.md

# Runs the tests in two processes. All tests of one file run in the same process. For one test or a
# debugger, use .venv/bin/pytest FILE. If .ci/tools.py fails, pytest skips the chart's tests and
# says so.
test: $(INSTALLED)
	$(PYTHON) .ci/tools.py || true
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Fetches helm 4, helm 3 and kubectl into .tools/bin, and checkov into .tools/checkov. The tests in
# tests/unit/helm and tests/e2e run these tools.
tools:
	$(PYTHON) .ci/tools.py

# Locks the packages for machines with and without GPUs. If both lock files contain a package, its
# version is the same. checkov has a venv of its own, and therefore a lock file of its own.
lock: | $(UV)
	$(LOCK) --extra cpu --output-file platform/requirements/cpu.txt > /dev/null
	$(LOCK) --extra gpu -c platform/requirements/cpu.txt \
		--output-file platform/requirements/gpu.txt > /dev/null
	echo $(CHECKOV) | $(COMPILE) - --output-file platform/requirements/tools.txt > /dev/null

clean:
	rm -rf .venv .tools .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find awares platform jobs tests -name __pycache__ -prune -exec rm -rf {} +

# Builds both container images with docker, podman or buildah. IMAGE is the name of the images, and
# PYTHON_DIGEST=sha256:... pins the base image.
ENGINE = $(firstword $(foreach name,docker podman buildah,$(shell command -v $(name))))
IMAGE ?= awares-train
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REMEDY := install docker, podman or buildah, or build platform/images/*.Dockerfile elsewhere
BUILD = $(ENGINE) build --build-arg VERSION=$(VERSION) \
	--build-arg REVISION=$(shell git rev-parse HEAD) \
	$(if $(PYTHON_DIGEST),--build-arg PYTHON_DIGEST=$(PYTHON_DIGEST)) $(ARGS)

.PHONY: images
images:
	$(if $(ENGINE),,$(error no container engine: $(REMEDY)))
	$(BUILD) --file platform/images/gpu.Dockerfile --tag $(IMAGE):$(VERSION) .
	$(BUILD) --file platform/images/cpu.Dockerfile --tag $(IMAGE):$(VERSION)-cpu .

$(INSTALLED): pyproject.toml platform/requirements/cpu.txt | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --no-cache --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv $(UV_PIP) sync --quiet --require-hashes --compile-bytecode \
		platform/requirements/cpu.txt
	VIRTUAL_ENV=.venv $(UV_PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.tools/uv/bin/uv:
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/pip install --quiet uv

# `make demo` and `make test` are all a new user needs; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Nothing of the developer's shell gets into the tests.
PYTEST := $(BIN)/python -m pytest

WEB := serving/web
PAGE := serving/http/static/app/index.html

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/runtime.stamp web ## set everything up, caption a real photo, serve on 127.0.0.1:8000
	$(BIN)/trendrag demo

.PHONY: test
test: .venv/dev.stamp models ## set everything up and run the tests, in up to four processes
	$(PYTEST) -n auto --maxprocesses 4 --dist loadscope

.PHONY: gate
gate: .venv/dev.stamp models ## measure what needs no model server, and fail where it has become worse (half a minute)
	$(BIN)/trendrag evals run retrieval highlight safety merge phrases > /dev/null
	$(BIN)/trendrag evals gate

.PHONY: lint
lint: .venv/dev.stamp $(WEB)/node_modules/.stamp ## format and lint checks, types, import arrows; the page's too
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	npm --prefix $(WEB) run --silent lint

.PHONY: format
format: .venv/dev.stamp ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: openapi
openapi: .venv/dev.stamp ## write the description of the API to docs/openapi.json
	$(BIN)/python -m serving.openapi > docs/openapi.json

.PHONY: web
web: $(PAGE) ## build the page that the server shows at / (Node >= 20)

.PHONY: test-web
test-web: .venv/dev.stamp models web ## drive the page in a real Chromium against the real server
	TRENDRAG_TEST_WEB=1 $(PYTEST) tests/web

.PHONY: vllm-env
vllm-env: .venv/dev.stamp ## build the CPU environment of a real vLLM server under var/ (3.5 GB)
	$(BIN)/python tests/vllm/environment.py

.PHONY: test-vllm
test-vllm: vllm-env models web ## run the suite, the page in Chromium too, against a real vLLM server on the CPU
	TRENDRAG_TEST_VLLM=1 $(PYTEST) tests/vllm

.PHONY: test-services
test-services: .venv/dev.stamp models ## run the suites of databases, limits and caches on a real PostgreSQL and Redis
	TRENDRAG_TEST_SERVICES=1 $(PYTEST) -m services

.PHONY: test-crash
test-crash: .venv/dev.stamp models ## kill refreshes and batches 50 times at random moments, and look at what is left
	TRENDRAG_TEST_CRASH=1 $(PYTEST) tests/ingest/test_killed.py tests/batch/test_killed.py

.PHONY: test-corpus
test-corpus: .venv/dev.stamp ## read feedparser's feeds and praw's recorded answers (24 MB, fetched into var/)
	$(BIN)/python tests/corpus/fetch.py
	TRENDRAG_TEST_CORPUS=1 $(PYTEST) tests/corpus

.PHONY: test-week
test-week: .venv/dev.stamp models ## live through a made-up week and look for lies and growth
	TRENDRAG_TEST_WEEK=1 $(PYTEST) tests/week

.PHONY: bench-week
bench-week: .venv/dev.stamp models ## the same, with a report in benchmarks/week.md
	TRENDRAG_TEST_WEEK=1 TRENDRAG_WEEK_REPORT=benchmarks/week.md $(PYTEST) tests/week

.PHONY: test-soak
test-soak: .venv/dev.stamp models ## a minute of readers while snapshots change every second
	TRENDRAG_TEST_SOAK=1 $(PYTEST) tests/soak

.PHONY: bench-soak
bench-soak: .venv/dev.stamp models ## the same, with a report in benchmarks/soak.md
	TRENDRAG_TEST_SOAK=1 TRENDRAG_SOAK_REPORT=benchmarks/soak.md $(PYTEST) tests/soak

.PHONY: bench
bench: bench-retrieval ## measure what queries and refreshes cost, into benchmarks/*.md (some 20 minutes, 2 GB in var/)
	$(BIN)/python benchmarks/refresh.py

.PHONY: bench-retrieval
bench-retrieval: .venv/dev.stamp models ## the same for queries alone, into benchmarks/retrieval.md
	$(BIN)/python benchmarks/retrieval.py

.PHONY: bench-images
bench-images: .venv/dev.stamp ## measure what an uploaded photo costs, and streams beside it, into benchmarks/images.md
	$(BIN)/python benchmarks/images.py

.PHONY: bench-judge
bench-judge: vllm-env ## measure what the model's last look at trends costs, into benchmarks/judge.md (some minutes)
	$(BIN)/python benchmarks/judge.py

.PHONY: bench-serving
bench-serving: .venv/dev.stamp models ## measure what the service adds to a model server, into benchmarks/serving.md (half an hour)
	$(BIN)/python -m benchmarks.serving

.PHONY: bench-web
bench-web: .venv/dev.stamp web ## measure the page's frames while captions stream (a minute; needs Chromium)
	$(BIN)/python -m benchmarks.page

.PHONY: bench-batch
bench-batch: .venv/dev.stamp ## measure what `trendrag batch` makes of a server's pace, into benchmarks/batch.md (ARGS=--vllm: a real vLLM)
	$(BIN)/python -m benchmarks.batch $(ARGS)

.PHONY: models
models: .venv/runtime.stamp ## fetch the model weights into var/models
	$(BIN)/trendrag models fetch

.PHONY: lock
lock: .venv/dev.stamp ## resolve the locks again, newest versions that fit pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra build --output-file locks/runtime.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header \
		--constraint locks/runtime.txt pyproject.toml --extra build --extra otel --extra postgresql \
		--extra reddit --extra redis --extra s3 --output-file locks/image.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header \
		--constraint locks/image.txt pyproject.toml --extra build --extra dev --output-file locks/dev.txt

.PHONY: clean
clean: ## remove the environment and caches; var/ with weights and trends stays
	rm -rf .venv $(WEB)/node_modules serving/http/static/app .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "TrendRAG needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# Hashes are checked for every package; the build backend is locked too, so the last step downloads nothing.
.venv/runtime.stamp: locks/runtime.txt pyproject.toml | .venv/python.stamp
	@echo "Installing the locked packages into .venv ..."
	$(PIP) install --quiet --require-hashes -r locks/runtime.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: locks/dev.txt .venv/runtime.stamp
	@echo "Installing the locked development tools into .venv ..."
	$(PIP) install --quiet --require-hashes -r locks/dev.txt
	@touch $@

# What npm installs is what package-lock.json has the hashes of.
$(WEB)/node_modules/.stamp: $(WEB)/package-lock.json $(WEB)/package.json
	@node -e 'const [major, minor] = process.versions.node.split("."); process.exit(+(major * 100 + +minor < 2019))' 2>/dev/null || { \
		echo "The page needs Node 20.19 or newer, with npm, to be built; $$(node --version 2>/dev/null || echo none) is on the PATH."; exit 1; }
	@echo "Installing the locked packages that build the page ..."
	npm --prefix $(WEB) ci --silent
	@touch $@

$(PAGE): $(WEB)/node_modules/.stamp docs/openapi.json \
		$(shell find $(WEB) -path '*/node_modules' -prune -o -path '*/schema.d.ts' -prune -o -type f -print)
	npm --prefix $(WEB) run --silent build
	@touch $@

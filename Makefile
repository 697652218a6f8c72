# `make demo` and `make test` are all a newcomer needs; each sets up what it lacks (.ci/setup).
# PYTHON=/path/to/python3 chooses the interpreter that .venv is made with.

PY := .venv/bin/python
PROTO := helper/telehelper/rpc/manager.proto
GRPC_TOOLS := grpcio-tools==1.76.0
export PYTHON

.PHONY: help venv demo test lint proto lock sbom clean
.DEFAULT_GOAL := help

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' $(MAKEFILE_LIST)

venv:  ## make .venv, or bring it up to date
	@.ci/setup venv

demo:  ## run notebooks/01-quickstart.ipynb against the embedded cluster and print the results
	@.ci/setup demo
	@$(PY) -m telemagic.demo.shell --no-cluster -- $(PY) notebooks/run.py notebooks/01-quickstart.ipynb

test:  ## set up, then run all checks and tests
	@.ci/setup test
	@$(MAKE) --no-print-directory checks
	@$(PY) .ci/test.py

lint: venv checks  ## formatting, lint and types only

.PHONY: checks
checks:
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m mypy --no-error-summary notebooks/run.py

# The oldest grpcio-tools whose output the oldest grpcio and protobuf of pyproject.toml can load; newer ones read it too.
proto:  ## regenerate helper/telehelper/rpc from manager.proto
	@set -eu; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	python=$${PYTHON:-$$(command -v python3)}; \
	echo "proto: $(GRPC_TOOLS) in a throw-away environment"; \
	$$python -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check $(GRPC_TOOLS); \
	"$$tools/bin/python" -m grpc_tools.protoc -Ihelper \
	    --python_out=helper --pyi_out=helper --grpc_python_out=helper $(PROTO)

# By uv, in a throw-away environment; one file for all Pythons from 3.11 on.
lock:  ## pin what the tests install, with hashes, in tests/requirements.txt
	@set -eu; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	python=$${PYTHON:-$$(command -v python3)}; \
	echo "lock: uv in a throw-away environment"; \
	$$python -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.5'; \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --extra test --extra manager --custom-compile-command 'make lock' pyproject.toml -o tests/requirements.txt

sbom: venv  ## write the bill of materials, dist/telemagic.cdx.json
	@$(PY) -m tests.supply --sbom dist/telemagic.cdx.json

clean:  ## remove .venv and everything else that can be made again
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find telemagic helper tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
	find helper -name .ruff_cache -type d -prune -exec rm -rf {} +

# The commands a newcomer meets. `make help` lists them; README.md says what to expect of each.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
UV := .local/uv/bin/uv

# Without KUBECONFIG the local cluster is ours to start; with it, that cluster is used and nothing is built.
LOCAL_KUBECONFIG := .local/kubeconfig
CLUSTER := $(if $(KUBECONFIG),,cluster-up)
export KUBECONFIG ?= $(CURDIR)/$(LOCAL_KUBECONFIG)
export RUNWAY_POLICY ?= $(CURDIR)/config/policy.local.yaml
# The local cluster brings its own kubectl; another cluster's is the one on the PATH.
export PATH := $(CURDIR)/.local/bin:$(PATH)

.PHONY: help setup check static test cluster-up cluster-down serve demo deploy-local undeploy-local bench format requirements

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | column -t -s "$$(printf '\t')"

setup: $(READY) ## make .venv from the hashed requirements

$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml
	@echo "setup: python environment in .venv"
	@[ -x $(UV) ] || { python3 -m venv .local/uv && .local/uv/bin/pip install --quiet --require-hashes -r requirements/uv.txt; }
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$$(command -v python3)" .venv
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

check: static ## format, lint, types, import layers, fast tests, secrets: under a minute
	@$(BIN)/pytest -q tests/unit tests/http

static: $(READY)
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && echo "format, lint: ok"
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 2
	@$(BIN)/deptry . 2>&1 | tail -n 1
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline && echo "secrets: none"

# The recovery tests, which kill and rebuild the local cluster, come last (tests/cluster/conftest.py).
test: static cluster-up ## everything, on the real local Kubernetes too
	@KUBECONFIG=$(CURDIR)/$(LOCAL_KUBECONFIG) $(BIN)/pytest tests

cluster-up: $(READY) ## a real Kubernetes on this machine; kubeconfig at .local/kubeconfig
	@$(BIN)/python -m localcluster up

cluster-down: ## stop it and leave nothing behind
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m localcluster down

serve: $(READY) $(CLUSTER) ## Runway at 127.0.0.1:8000
	@$(BIN)/runway tenants render | kubectl apply -f -
	@exec env RUNWAY_INSTANCE=serve $(BIN)/uvicorn main:app --host 127.0.0.1 --port 8000 --no-access-log

demo: $(READY) $(CLUSTER) ## run every scenario and show the evidence; DEPLOYED=1: against Runway in the cluster
	@$(BIN)/python -m demo $(if $(DEPLOYED),--deployed)

deploy-local: $(READY) cluster-up ## Runway in the local cluster, under its own RBAC
	@$(BIN)/python -m deploy up

undeploy-local: $(READY) ## take it away again
	@$(BIN)/python -m deploy down

bench: $(READY) cluster-up ## the measurements of docs/performance.md, each beside its baseline
	@$(BIN)/python -m bench

format: $(READY) ## format and fix what can be fixed
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

requirements: $(READY) ## pin and hash what pyproject.toml asks for
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/runtime.txt pyproject.toml
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/runtime.txt --group dev -o requirements/dev.txt pyproject.toml

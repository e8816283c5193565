# The commands a newcomer meets. `make help` lists them; README.md says what to expect of each.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
# What bounds the bytes of a client; `runway serve` and the image have the same.
UVICORN := --http runway.http_server.protocol:BoundedHttpProtocol --ws none
READY := .venv/.ready
UV := .local/uv/bin/uv
# Debian's own where there is one: the image has it, and it is compiled with profile-guided optimisation, which one that
# was built by hand mostly is not (docs/performance.md).
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3)

# Tools of the Terraform checks live in the user's cache, named by what pins them: tflint is built from source, checkov
# has a Python environment of its own, since it brings ninety packages (220 MB) that Runway has no use for.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/runway
TFLINT = $(CACHE)/tflint-$(shell cat infra/tools/go.mod infra/tools/go.sum | sha256sum | cut -c1-12)
CHECKOV = $(CACHE)/checkov-$(shell sha256sum requirements/checkov.txt | cut -c1-12)
AUDIT = $(CACHE)/audit-$(shell sha256sum requirements/audit.txt | cut -c1-12)

# Without KUBECONFIG, or with that of the local cluster as README exports it, the local cluster is ours to start; with
# another one, that cluster is used and nothing is built.
LOCAL_KUBECONFIG := .local/kubeconfig
CLUSTER := $(if $(filter-out $(CURDIR)/$(LOCAL_KUBECONFIG),$(KUBECONFIG)),,cluster-up)
export KUBECONFIG ?= $(CURDIR)/$(LOCAL_KUBECONFIG)
# Another cluster needs neither GPUs nor the local images.
export RUNWAY_POLICY ?= $(CURDIR)/config/$(if $(CLUSTER),policy.local.yaml,policy.any-cluster.yaml)
ifeq ($(CLUSTER),)
export DEMO_IMAGE ?= docker.io/library/busybox:1.36
endif
# The local cluster brings its own kubectl; another cluster's is the one on the PATH.
export PATH := $(CURDIR)/.local/bin:$(PATH)
# Some images set it. Each of the hundreds of Python processes of the tests would then compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Three processes of about equal time. Workers of xdist would each import and collect all tests, a quarter more CPU.
FAST := fast-api fast-unit-a-to-i fast-unit-j-to-z

.PHONY: help setup check static types secrets fast $(FAST) test alone alone-isolated beside browser cluster-up cluster-down \
	serve demo deploy-local undeploy-local deploy-tools bench soak simulate format requirements terraform-tools coverage audit

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | column -t -s "$$(printf '\t')"

setup: $(READY) ## make .venv from the hashed requirements

$(UV):
	@python3 -m venv .local/uv && .local/uv/bin/pip install --quiet --require-hashes -r requirements/uv.txt

$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml | $(UV)
	@echo "setup: python environment in .venv"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

# Its parts need little of each other and some mostly wait, so they run side by side; each shows its output when it is done.
check: $(READY) ## format, lint, types, import layers, fast tests, secrets: under a minute
	@$(MAKE) --no-print-directory --jobs --output-sync=target types secrets $(FAST)

static: types secrets

types: $(READY)
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && echo "format, lint: ok"
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 2
	@$(BIN)/deptry . 2>&1 | tail -n 1

# A scan of all files takes ten seconds. Files that have not changed since the last scan without a finding are left out;
# the time of the last status change (ctime) shows files that were moved here as well.
SCANNED := .local/secrets-scanned
secrets: $(READY)
	@mkdir -p .local; touch $(SCANNED).now
	@[ $(SCANNED) -nt .secrets.baseline ] && [ $(SCANNED) -nt $(READY) ] || touch -d @0 $(SCANNED)
	@git ls-files -z --cached --others --exclude-standard --deduplicate \
		| { xargs -0 sh -c 'find "$$@" -newercm $(SCANNED) -print0' find 2>/dev/null || true; } \
		| xargs -0 -r $(BIN)/detect-secrets-hook --baseline .secrets.baseline && echo "secrets: none"
	@mv $(SCANNED).now $(SCANNED)

# In random order; `--randomly-seed=N`, with the seed that is printed, repeats it.
fast: $(READY) ## unit and HTTP tests
	@$(MAKE) --no-print-directory --jobs --output-sync=target $(FAST)

fast-api: $(READY)
	@$(BIN)/pytest tests/api
fast-unit-a-to-i: $(READY)
	@$(BIN)/pytest tests/unit/[a-i]*/
fast-unit-j-to-z: $(READY)
	@$(BIN)/pytest tests/unit/[j-z]*/ tests/unit/test_*.py

PARALLEL := --dist worksteal -n

# Measured minus one point.
COVERAGE_FLOOR := 91
coverage: $(READY) ## line and branch coverage of the unit and HTTP tests, with a floor
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(PARALLEL) 2 tests/unit tests/api
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report --fail-under=$(COVERAGE_FLOOR)

audit: $(UV) ## known vulnerabilities of the pinned packages; asks the package index
	@[ -e $(AUDIT)/.ready ] || { $(UV) venv --quiet --clear --python "$$(command -v $(PYTHON))" $(AUDIT) \
		&& $(UV) pip sync --quiet --require-hashes --python $(AUDIT)/bin/python requirements/audit.txt \
		&& touch $(AUDIT)/.ready; }
	@$(AUDIT)/bin/pip-audit --require-hashes --disable-pip -r requirements/runtime.txt -r requirements/dev.txt

# The cluster tests mostly wait, so five processes run them side by side. Those marked `alone` disturb what all share. They
# run one by one, in a cluster of their own beside the first. What needs no cluster follows.
REPORTS := .local/reports
CLUSTER_TESTS := $(BIN)/pytest -p no:randomly tests/cluster
SECOND_KUBECONFIG := $(LOCAL_KUBECONFIG)-isolated

test: cluster-up terraform-tools deploy-tools browser ## everything, on the real local Kubernetes too
	@rm -rf $(REPORTS); mkdir -p $(REPORTS); failed=; began=$$SECONDS; \
	$(MAKE) --no-print-directory alone > .local/alone.log 2>&1 & alone=$$!; \
	KUBECONFIG=$(CURDIR)/$(LOCAL_KUBECONFIG) $(CLUSTER_TESTS) -m "not alone" -n 5 --junitxml=$(REPORTS)/cluster.xml \
		|| failed="$$failed cluster"; \
	$(MAKE) --no-print-directory beside || failed="$$failed beside"; \
	wait $$alone || failed="$$failed alone"; cat .local/alone.log; \
	$(BIN)/python -m tests.support.summary $(REPORTS)/*.xml; \
	echo "make test: $$((SECONDS - began)) s, failed:$${failed:- nothing}"; [ -z "$$failed" ]

alone: $(READY)
	@$(BIN)/python -m localcluster isolated $(MAKE) --no-print-directory alone-isolated

alone-isolated: export KUBECONFIG := $(CURDIR)/$(SECOND_KUBECONFIG)
alone-isolated:
	@failed=0; $(BIN)/python -m localcluster up && $(CLUSTER_TESTS) -m alone --junitxml=$(REPORTS)/alone.xml || failed=1; \
	$(BIN)/python -m localcluster down; exit $$failed

beside: static
	@$(BIN)/pytest $(PARALLEL) 2 --junitxml=$(REPORTS)/beside.xml \
		tests/unit tests/api tests/fuzz tests/hostile tests/browser tests/proxy tests/model tests/observability tests/packaging \
		tests/chart tests/terraform

browser: $(READY) ## Debian's Chromium, a font, nginx and Alertmanager, for the tests of console, streams and pages
	@$(BIN)/python -m tests.support.chromium
	@$(BIN)/python -m testbed.nginx
	@$(BIN)/python -m tests.support.alertmanager

terraform-tools: $(UV) ## tflint and checkov, for tests/terraform
	@mkdir -p $(CACHE) .local/bin
	@[ -x $(TFLINT) ] || { echo "setup: tflint, built once, up to 2 minutes on 2 cores" \
		&& (cd infra/tools && CGO_ENABLED=0 GOFLAGS= GOWORK=off GOGC=off GOMEMLIMIT=512MiB go build -buildvcs=false -trimpath \
			-gcflags=all=-dwarf=false -ldflags '-s -w' -o $(TFLINT).unfinished github.com/terraform-linters/tflint) \
		&& mv $(TFLINT).unfinished $(TFLINT); }
	@[ -e $(CHECKOV)/.ready ] || { echo "setup: checkov, in an environment of its own" \
		&& $(UV) venv --quiet --clear --python "$$(command -v python3)" $(CHECKOV) \
		&& $(UV) pip sync --quiet --require-hashes --python $(CHECKOV)/bin/python requirements/checkov.txt \
		&& touch $(CHECKOV)/.ready; }
	@ln -sfn $(TFLINT) .local/bin/tflint
	@ln -sfn $(CHECKOV)/bin/checkov .local/bin/checkov

# It needs no .venv, so on a first run `setup` runs beside its builds. Not $(MAKE) in the recipe, which `make -n` would run.
SETUP := $(MAKE) --no-print-directory setup
cluster-up: ## a real Kubernetes on this machine; kubeconfig at .local/kubeconfig
	@$(PYTHON) -m localcluster up $(SETUP)

cluster-down: ## stop it and leave nothing behind
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m localcluster down

# Only the local cluster brings a Prometheus of its own.
ifeq ($(CLUSTER),cluster-up)
serve demo: export RUNWAY_PROMETHEUS_URL ?= http://127.0.0.1:16290
endif

# `make serve RUNWAY_LOG_LEVEL=info` shows each request.
serve: export RUNWAY_LOG_LEVEL ?= warning
serve: $(or $(CLUSTER),$(READY)) ## Runway at 127.0.0.1:8000
	@$(BIN)/runway tenants apply > /dev/null
	@$(if $(CLUSTER),$(BIN)/python -m testbed.storage $(RUNWAY_POLICY))
	@printf '%s\n' "Console: http://127.0.0.1:8000, API: http://127.0.0.1:8000/docs. Ctrl-C stops Runway. For kubectl:" \
		"export KUBECONFIG=$$KUBECONFIG"
	@exec env RUNWAY_INSTANCE=serve $(BIN)/uvicorn main:app --host 127.0.0.1 --port 8000 --no-access-log \
		--log-level warning $(UVICORN)

demo: $(or $(CLUSTER),$(READY)) ## run every scenario, show the evidence, write a report; DEPLOYED=1: against Runway in the cluster
	@$(BIN)/python -m demo $(if $(DEPLOYED),--deployed)

deploy-tools: $(READY) ## helm and actionlint, built once from source, for the chart and the workflows
	@$(BIN)/python -m deploy tools

deploy-local: cluster-up ## Runway in the local cluster, under its own RBAC
	@$(BIN)/python -m deploy up

undeploy-local: $(READY) ## take it away again
	@$(BIN)/python -m deploy down

bench: cluster-up ## the measurements of docs/performance.md, each beside its baseline; PARTS="submit history": only those
	@$(BIN)/python -m bench $(PARTS)

soak: cluster-up ## 30 minutes of hostile clients and faults: nothing may grow, leak or be answered wrongly; MINUTES=5
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),30)

simulate: cluster-up ## 20,000 jobs on a thousand SIMULATED nodes; JOBS=2000
	@$(BIN)/python -m bench.simulate --jobs $(or $(JOBS),20000)

format: $(READY) ## format and fix what can be fixed
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

requirements: $(READY) ## pin and hash what pyproject.toml asks for
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra server -o requirements/runtime.txt pyproject.toml
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/runtime.txt --extra server --group dev -o requirements/dev.txt pyproject.toml
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/checkov.txt requirements/checkov.in
	@$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/audit.txt requirements/audit.in

# `make` alone prints the targets. LANE chooses the Airflow version: 3.3.2 (default, .venv) or 3.1.8 (.venv-3.1.8).
# Paths are relative on purpose: make cannot handle a clone whose own path has spaces, the recipes can.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LANE ?= 3.3.2
PYTHON ?= python3.11
PYTEST_ARGS ?=
HADOOP ?= 3.5.0
CHAOS ?= 500

VENV := .venv$(if $(filter-out 3.3.2,$(LANE)),-$(LANE))
LOCK := requirements/airflow-$(LANE).lock
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
# Airflow of this clone and of nobody else; tests make their own.
export AIRFLOW_HOME := $(CURDIR)/.airflow
export MAYFLY_HOME := $(CURDIR)
# No news from elsewhere while we work: no update checks, no usage reports.
export SCARF_ANALYTICS := false

.PHONY: chaos-cloud killpoints help install demo demo-yarn demo-cloud cloud-up cloud-down data test check format up bench bench-yarn bench-cloud verdict wheel lock compose-env yarn-up yarn-down test-hadoop test-libhdfs clean

help:  ## this text
	@echo "Mayfly: a Python/Dask job on a cluster that lives exactly as long as the job"
	@echo
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	    printf '%-20s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  LANE=3.1.8           the other tested Airflow (default: 3.3.2), e.g. make test LANE=3.1.8"
	@echo "  PYTHON=/path/to/...  the Python 3.11 that makes the environment (default: python3.11)"
	@echo "  HADOOP=3.3.6         the version of yarn-up and test-hadoop (default: 3.5.0; there are 3.3.6, 3.4.3, 3.5.0)"
	@echo "  PYTEST_ARGS='...'    more arguments for pytest, e.g. PYTEST_ARGS='-k units -x'"

$(LOCK):
	@echo "error: no lane '$(LANE)'; there are: $$(cd requirements && ls airflow-*.lock | sed -E 's/airflow-(.*).lock/\1/' | xargs)" >&2; exit 1

$(STAMP): $(LOCK) requirements/bootstrap.lock requirements.txt requirements/yarn.txt pyproject.toml scripts/install.sh
	@PYTHON="$(PYTHON)" bash scripts/install.sh $(VENV) $(LOCK)
	@touch $@

install: $(STAMP)  ## make or update the environment of the lane

demo: data  ## run the example job `flights` by Airflow on this machine, from nothing, and show what came of it
	@$(BIN)/python -m mayfly.airflow.dagstest flights

demo-yarn: data  ## the same on a real Hadoop on this machine (yarn-up): its workers run in YARN containers
	@[ -e .hadoop/pids ] || $(MAKE) --no-print-directory yarn-up
	@$(BIN)/python -m mayfly env build flights --target edge
	@. .hadoop/env.sh && $(BIN)/python -m mayfly.airflow.dagstest flights --conf '{"target": "edge"}'

demo-cloud: data  ## the same on a Dataproc cluster (cloud-up): real nodes are made for the run, and gone after it
	@[ -e .cloud/pids ] || $(MAKE) --no-print-directory cloud-up
	@. .cloud/env.sh && $(BIN)/python -m mayfly env build flights --target gcp-demo
	@. .cloud/env.sh && $(BIN)/python -m scripts.cloud demo

data: $(STAMP)  ## make the demo's input (336,776 flights) below data/
	@$(BIN)/python scripts/make_demo_data.py

test: $(STAMP)  ## all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

killpoints: $(STAMP)  ## kill or stop an actor at every call of a run, in every mode; prints the points (`make test` tries a share)
	TEST_ALL_KILLPOINTS=1 $(BIN)/python -m pytest tests/killpoints -s $(PYTEST_ARGS)

chaos-cloud: $(STAMP)  ## 500 random fault schedules of the Dataproc API, seeded, some 5 minutes (CHAOS=50: fewer)
	TEST_CHAOS=$(CHAOS) $(BIN)/python -m pytest tests/chaos -s $(PYTEST_ARGS)

check: $(STAMP)  ## lint, formatting, types, shell scripts
	@bash scripts/check.sh $(VENV)

format: $(STAMP)  ## let ruff format and sort everything
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

up: $(STAMP)  ## a local Airflow with its UI on loopback; Ctrl-C stops it
	@$(BIN)/python -m mayfly.airflow.standalone

bench: $(STAMP)  ## every promised speed, measured in pairs, some 12 minutes (PAIRS=3: a quick look)
	@for file in benchmarks/*.py; do echo "=== $$file"; $(BIN)/python "$$file" $(PAIRS) || exit 1; done

bench-yarn: $(STAMP)  ## the same for Dask on YARN, on a Hadoop of its own
	@for file in benchmarks/yarn/*.py; do echo "=== $$file"; PYTHONPATH=benchmarks:. $(BIN)/python "$$file" $(PAIRS) || exit 1; done

bench-cloud: $(STAMP)  ## the same for Dataproc, on an emulated API: what its protocol costs, and hundreds of runs at a time
	@for file in benchmarks/cloud/*.py; do echo "=== $$file"; PYTHONPATH=benchmarks:. $(BIN)/python "$$file" $(PAIRS) || exit 1; done

verdict: $(STAMP)  ## everything that can happen to a run, under a real Airflow (VERDICT_ARGS='--write', '--only TEXT')
	@PYTHONPATH=plugins $(BIN)/python -m tests.verdict $(VERDICT_ARGS)

wheel: $(STAMP)  ## dist/mayfly-*.whl: all of it, for Airflows without a plugins folder
	@bash scripts/wheel.sh $(VENV) dist

lock: $(STAMP)  ## renew the lock files; make lock LOCK_ARGS=--upgrade takes newer versions
	@PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh $(LOCK_ARGS)

compose-env: $(STAMP)  ## make .env with fresh secrets for docker-compose.yaml
	@$(BIN)/python scripts/compose_env.py

yarn-up: $(STAMP)  ## a real Hadoop on this machine: HDFS, ResourceManager, two nodes (HADOOP_ARGS='--scheduler fair')
	@$(BIN)/python -m scripts.hadoop up --version $(HADOOP) $(HADOOP_ARGS)

yarn-down: $(STAMP)  ## stop it and remove what it has written
	@$(BIN)/python -m scripts.hadoop down

cloud-up: $(STAMP)  ## Dataproc's API and an object store on loopback, clusters of real nodes (CLOUD_ARGS='--machines none')
	@$(BIN)/python -m scripts.cloud up $(CLOUD_ARGS)

cloud-down: $(STAMP)  ## end them, with all their clusters
	@$(BIN)/python -m scripts.cloud down

test-hadoop: $(STAMP)  ## the tests on a real Hadoop, with another version: make test-hadoop HADOOP=3.3.6
	TEST_HADOOP=$(HADOOP) $(BIN)/python -m pytest tests/yarn tests/launchers $(PYTEST_ARGS)

test-libhdfs: $(STAMP)  ## hdfs:// by Arrow on a real Hadoop; takes a C compiler, so `make test` leaves it out
	$(BIN)/python -m pytest tests/yarn/libhdfs.py $(PYTEST_ARGS)

clean:  ## remove environments, caches, demo data and the local Airflow; refuses while a run is alive
	@bash scripts/clean.sh

# make demo    from a fresh clone to a small dataset, its report, and a small model trained on it
# make test    what CI runs: ruff, mypy, pytest
# make quick   while editing: ruff, mypy, and the tests that start no process, in under a minute
# make tools   Flink and the servers that tests run against (Java 11+, Maven, Go); their tests are skipped without
PYTHON ?= python3
UV_VERSION := 0.13.9
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0
FAKE_GCS := github.com/fsouza/fake-gcs-server@v1.56.1
PRISM := github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0
DATATROVE := datatrove[processing,io]==0.10.1

VENV := .venv
PIP := $(VENV)/bin/uv pip install --quiet
BIN := .cache/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test quick lint tools bench-peers bench-loaders constraints clean

help:
	@sed -n 's/^# //p' Makefile

venv: $(INSTALLED)

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "Gristmill needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: install it (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(PIP) --compile-bytecode --python $(VENV)/bin/python --constraints constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(VENV)/bin/python -m pipeline.demo
	$(VENV)/bin/python -m trainer.demo

lint: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test: lint
	$(VENV)/bin/python -m pytest

quick: lint
	$(VENV)/bin/python -m pytest -q -m "not process and not slow"

# Each tool leaves a stamp with its version, so that a new pin builds it anew.
tools: $(INSTALLED) $(BIN)/.$(notdir $(VERSITYGW)) $(BIN)/.$(notdir $(FAKE_GCS)) $(BIN)/.$(notdir $(PRISM)) .cache/flink/job-server.jar

define go_install
	@command -v go >/dev/null || { echo "make tools needs Go 1.24 or newer: install it, or leave its tests skipped"; exit 1; }
	GOBIN=$(CURDIR)/$(BIN) go install $(1)
	@touch $@
endef

$(BIN)/.$(notdir $(VERSITYGW)): ; $(call go_install,$(VERSITYGW))
$(BIN)/.$(notdir $(FAKE_GCS)): ; $(call go_install,$(FAKE_GCS))
$(BIN)/.$(notdir $(PRISM)): ; $(call go_install,$(PRISM))

.cache/flink/job-server.jar: deploy/flink/pom.xml deploy/flink/jars.py
	$(PYTHON) deploy/flink/jars.py

bench-peers: $(VENV)/bin/uv
	$(VENV)/bin/uv venv --quiet --python $(VENV)/bin/python .cache/peers
	$(PIP) --python .cache/peers/bin/python '$(DATATROVE)' spacy trafilatura datasketch rensa tiktoken tokenizers

bench-loaders: $(VENV)/bin/uv
	$(VENV)/bin/uv venv --quiet --python $(VENV)/bin/python .cache/peers-trainer
	$(PIP) --python .cache/peers-trainer/bin/python litdata==0.2.76 mosaicml-streaming==0.13.0

constraints: $(VENV)/bin/uv
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
	  --no-header --no-annotate --no-emit-index-url --quiet --output-file constraints.txt

clean:
	rm -rf $(VENV) .cache demo build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

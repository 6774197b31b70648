# Everything happens in .venv, which is made on first use and follows pyproject.toml.
# Nothing outside this folder and the package caches is written.

PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
VENV := .venv
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
ROOT := $(filter 0,$(shell id -u))

# Servers, molds and tests start Python hundreds of times: without its caches each would compile the SDKs anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test lint bench clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 \2/p' Makefile | awk '{ printf "%-4s %-6s", $$1, $$2; $$1 = $$2 = ""; print }'

run: $(DEMO) ## a simulated Amazon account and an appliance that follows it, until Ctrl-C
	@$(VENV)/bin/miq demo $(ARGS)

test: $(DEV) ## the whole suite; ARGS="-k queue" for a part of it
ifeq ($(ROOT),)
	@$(VENV)/bin/python -m pytest --collect-only -q -p no:cacheprovider 2>&1 | sed -n \
	  's/.*(\([0-9]*\) deselected).*/\1 tests of the suite are left out: they need root (namespaces, other users)/p'
	$(VENV)/bin/python -m pytest -m "not root" $(ARGS)
else
	$(VENV)/bin/python -m pytest $(ARGS)
endif

lint: $(DEV) ## style, types and the floors of the house
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(DEV) ## the benchmarks; ISSUE=A for one theme
	$(VENV)/bin/python benchmarks/run_all.py $(if $(ISSUE),--issue $(ISSUE)) $(ARGS)

clean: ## remove .venv and the caches; the appliance's state in .miq stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@for python in $(PYTHONS); do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then echo "miq needs Python 3.11 or newer with its venv module; tried: $(PYTHONS)" >&2; exit 1; fi; \
	echo "making $(VENV) with $$python"; \
	$$python -m venv $(VENV)

# uv is ten times as fast as pip; where it cannot be had, or does not find what pip finds, pip does it. It does not read
# pip's configuration, so it is told of a package index that is named there.
define install
	@echo "installing miq[$(1)] into $(VENV)"
	@$(VENV)/bin/uv --version >/dev/null 2>&1 || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv || true
	@index=$${PIP_INDEX_URL:-$$($(VENV)/bin/python -m pip config get global.index-url 2>/dev/null || true)}; \
	if [ -n "$$index" ]; then UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$$index}; export UV_DEFAULT_INDEX; fi; \
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -e '.[$(1)]' || { \
	  echo "uv did not do it; installing with pip"; \
	  $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]'; }
endef

$(DEMO): pyproject.toml | $(VENV)/bin/python
	$(call install,demo)
	@touch $@

$(DEV): pyproject.toml | $(VENV)/bin/python
	$(call install,demo$(,)dev$(,)bench)
	@touch $(DEMO) $@

, := ,

# Copyright (c) mmseg_attn contributors.
# `make help` lists the commands. Each works in an environment of its own in
# this folder, made when it is first needed and again when what it is made
# from has changed. Nothing outside this folder is written, but for the
# cache of the compiled mmcv (~/.cache/mmseg_attn).

export PYTHON ?= python3
export PIP_ARGS ?=
export OPS ?= 1
JOBS ?= 2

TEST_ENV := .venv-test$(if $(filter 0,$(OPS)),-noops)
MADE_FROM := pyproject.toml setup.py requirements/constraints.txt \
	.dev/environment.sh .dev/mmcv_wheel.sh
# Files are handed out in the order that tests/conftest.py gives them.
WORKERS := -n $(JOBS) --dist loadfile --no-loadscope-reorder
DEMO_ARGS := $(if $(IMAGES),--images "$(IMAGES)") \
	$(if $(MASKS),--masks "$(MASKS)")

.PHONY: help demo test lint docs pages wheel clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo                         compare FCN and CCNet on drawn scenes'
	@echo 'make demo IMAGES=dir MASKS=dir    the same on your own pictures'
	@echo 'make test OPS=0                   the tests, but for slow ones and those that need compiled mmcv'
	@echo 'make test                         all tests, as CI runs them (the first time, mmcv is compiled)'
	@echo 'make test OPS=0 ARGS="-k info"    arguments for pytest'
	@echo 'make test OPS=0 JOBS=0            in one process, for a debugger'
	@echo 'make lint                         code style'
	@echo 'make docs                         the site, in site/ (warnings are errors)'
	@echo 'make pages OPS=0                  write anew what is generated in README.md and docs/'
	@echo 'make wheel                        dist/mmseg_attn-*.whl and .tar.gz'
	@echo 'make clean                        remove environments and builds (no results)'
	@echo
	@echo 'Variables: PYTHON=python3.12, PIP_ARGS="--extra-index-url ..." (added'
	@echo 'to pip install, for example for a build of torch without CUDA).'

demo: .venv-demo/.made
	.venv-demo/bin/python -m mmseg_attn demo $(DEMO_ARGS) $(ARGS)

# What is offered first leaves the long trainings, and mim, to CI.
ifeq ($(OPS),0)
test: $(TEST_ENV)/.made
	$(TEST_ENV)/bin/python -m pytest $(WORKERS) -m 'not slow' $(ARGS)
	@echo 'OPS=0: without the tests that need compiled mmcv or mim, and those' \
		'marked slow (ARGS="-m slow" runs these).'
else
test: $(TEST_ENV)/.made .venv-mim/.made
	MMSEG_ATTN_MIM=$(CURDIR)/.venv-mim/bin/python \
		$(TEST_ENV)/bin/python -m pytest $(WORKERS) $(ARGS)
endif

lint: .venv-lint/.made
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .

docs: .venv-docs/.made
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --clean
	@echo 'Open site/index.html.'

pages: $(TEST_ENV)/.made
	$(TEST_ENV)/bin/python docs/generate.py

wheel: .venv-wheel/.made
	.venv-wheel/bin/python -m build --outdir dist

.venv-%/.made: $(MADE_FROM)
	@bash .dev/environment.sh .venv-$* $(firstword $(subst -, ,$*))
	@touch $@

clean:
	rm -rf .venv-* build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

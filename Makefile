# `make help` lists the targets.
PYTHON ?= python3
PY := .venv/bin/python
# Python compiles a module when it is first imported; pip would compile all, which takes a minute.
PIP_INSTALL = $(PY) -m pip install --quiet --no-compile --constraint requirements.lock
# The number of processes that share a sweep, with one thread each.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
ARGS ?=
A ?=
B ?=
# Neither make nor a shell must expand these: recipes use them only in quotes.
override ARGS := $(value ARGS)
override A := $(value A)
override B := $(value B)
export ARGS A B
# "python -m MODULE WORDS..." with the words of ARGS, which may be quoted as in a shell.
define RUN
import os, runpy, shlex, sys
try:
    sys.argv = [*sys.argv[1:], *shlex.split(os.environ["ARGS"])]
except ValueError as error:
    print(f"error: ARGS: {error}", file=sys.stderr)
    sys.exit(2)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
endef
export RUN
run = $(PY) -c "$$RUN"
quoted = $(foreach word,$(1),'$(subst ','\'',$(word))')
# SWEEP keeps your runs apart from the committed ones; ARGS may set another results.root.
SWEEP = $(PY) -m scripts.sweep --jobs $(call quoted,$(JOBS)) results.root=results/reproduced --args "$$ARGS"

.PHONY: help reproduce paper tables figures report compare status notebooks test fuzz torture test-examples bench bench-optim lint check build format clean distclean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/study: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ..."; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) --editable '.[study]'
	@touch $@

.venv/dev: .venv/study
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

reproduce: .venv/study  ## ml-100k, six variants, three seeds: the table in under 10 minutes
	@$(PY) -m data.prepare ml-100k $(call quoted,$(filter data.root=%,$(ARGS)))
	@exec $(SWEEP) experiment=reproduce

paper: .venv/study  ## Beauty in the note's setting, six variants, five seeds: hours; resumes where it stopped
	@$(PY) -m data.prepare beauty $(call quoted,$(filter data.root=%,$(ARGS)))
	@exec $(SWEEP) experiment=ablation

.PHONY: csv
csv: .venv/study
	@$(PY) -m scripts.aggregate $(call quoted,$(filter results.root=%,$(ARGS)))

tables: csv  ## CSV files and tables from the committed records
	@$(PY) -m scripts.make_tables $(call quoted,$(filter results.root=%,$(ARGS)))

figures: csv  ## the figures from the committed records
	@$(PY) -m scripts.make_figures $(call quoted,$(filter results.root=%,$(ARGS)))

compare: .venv/study  ## compare two variants, user by user: make compare A=finalists/lion_8bit B=ablation/lion
	@$(run) scripts.compare "$$A" "$$B"

status: .venv/study  ## how far your runs are: make status ARGS="--watch experiment=ablation"
	@$(run) scripts.status results.root=results/reproduced

report: csv  ## results/report.html: all results in one page, from the committed records
	@$(PY) -m scripts.report $(call quoted,$(filter results.root=%,$(ARGS)))

notebooks: .venv/dev  ## execute the notebooks from their .py halves; the last one trains on ml-100k
	cd notebooks && ../$(PY) -m jupytext --quiet --to ipynb --update 0*.py
	cd notebooks && ../$(PY) -m nbconvert --to notebook --inplace --execute \
		--log-level ERROR --ExecutePreprocessor.record_timing=False *.ipynb

test: .venv/dev  ## the tests in minutes; SLOW=1 adds the slow ones, COV=1 reports which lines run
	OMP_NUM_THREADS=1 $(run) pytest -n $(call quoted,$(JOBS)) --dist worksteal $(if $(or $(SLOW),$(ARGS)),,-m 'not slow') $(if $(COV),--cov --cov-report=term-missing:skip-covered)

N ?= 10000
fuzz: .venv/dev  ## N=10000 random files through data.prepare: each is read or gives a one-line error
	OMP_NUM_THREADS=1 $(PY) -W error -m tests.fuzz_data $(N)

torture: N = 200
torture: .venv/study  ## trainings killed N=200 times, at random moments: the records stay the same
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.torture $(N)

.venv/bench: .venv/study
	$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

bench-optim: .venv/bench  ## an optimizer's step: time and bytes, compared with other libraries; then trains two small tasks: tens of minutes
	OMP_NUM_THREADS=1 $(run) benchmarks.optim
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.memory
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.convergence

bench: .venv/study  ## training speed, compared with other libraries (python -m benchmarks.peers installs them), and its growth with data: minutes
	$(run) benchmarks.speed
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.scale

test-examples:  ## the examples for Lightning and Hugging Face, in an environment of their own
	test -x .venv-examples/bin/python || $(PYTHON) -m venv .venv-examples
	.venv-examples/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[examples]' pytest numpy
	.venv-examples/bin/python -m pytest tests/test_docs.py

lint: .venv/dev  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: .venv/dev  ## put the code into ruff's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: lint test  ## lint and test

build: .venv/dev  ## wheel and sdist in dist/; the wheel is installed alone and takes a step
	rm -rf build dist .venv-build
	$(PY) -m build
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/python -m pip install --quiet --constraint requirements.lock dist/*.whl
	.venv-build/bin/python -I -W ignore -c 'import simba, torch; p = torch.nn.Parameter(torch.ones(2)); \
		p.sum().backward(); simba.Simba([p]).step(); print("simba", simba.__version__, simba.__file__)'

clean:  ## remove environments and caches, nothing that was trained or fetched
	rm -rf .venv .venv-peers .venv-examples .venv-build build dist *.egg-info .coverage* \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis data/prepared
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

OWN := data/raw results/reproduced results/checkpoints results/wandb
distclean:  ## remove downloads and your own runs, too; it asks first
	@du -sh $(wildcard $(OWN)) /dev/null | grep -v /dev/null || true
	@printf 'Delete $(OWN), environments and caches? [y/N] '; read -r answer || true; \
		test "$$answer" = y || { echo "nothing deleted"; exit 2; }
	rm -rf $(OWN)
	@$(MAKE) --no-print-directory clean

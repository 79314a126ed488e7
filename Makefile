# `make demo` runs an example job through everything; `make test` tests everything; `make up` keeps an instance running;
# `make bench` measures (ARGS="run status --rounds 3" only some of it); `make chaos` kills every part while jobs run.
# They need make and Python 3.11-3.13, and make .venv themselves.
.DEFAULT_GOAL := help
.PHONY: help up demo test bench chaos chain screenshots lint clean
SHELL := /bin/sh
RIGHT := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c '$(RIGHT)' 2>/dev/null && echo "$$name" && break; done)
PROCESSES ?= $(shell .venv/bin/python -c 'import os; print(max(2, len(os.sched_getaffinity(0))))' 2>/dev/null || echo 2)

help:
	@sed -n '1,3s/^# //p' Makefile
	@echo "PORT (8000), HOST (127.0.0.1), WORKERS (1), HEARTH_HOME (var) and LOG=1 are read from the environment."

# The process of `make up` ends when make is killed, even by kill -9.
up: .venv/done
	@exec .venv/bin/python -m hearth.local up --with-parent

demo: .venv/done
	@exec .venv/bin/python -m hearth.local demo --with-parent

test: .venv/done
	@exec .venv/bin/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/done
	@exec .venv/bin/python -m benchmarks $(ARGS)

# ARGS="--seed 7" kills in the same order again; --jobs, --tenants, --workers and --seconds make it shorter.
chaos: .venv/done
	@exec .venv/bin/python -m tests.chaos --with-parent $(ARGS)

# Two Hearths, of which one plays RunPod, with a faulty proxy between; both are killed. ARGS="--seed 7 --jobs 100"
chain: .venv/done
	@exec .venv/bin/python -m tests.chain $(ARGS)

# The README's pictures of the admin, in docs/screenshots; needs chromium.
screenshots: .venv/done
	@exec .venv/bin/python -m tests.screenshots $(ARGS)

lint: .venv/done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/js/node_modules

.venv/done: requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11-3.13 with venv was found. Install one (Debian: apt-get install \
	python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@echo "Setting up .venv with $$("$(PYTHON)" --version), once; it takes a minute or two"
	@"$(PYTHON)" -m venv .venv
	@{ .venv/bin/python -m pip install --progress-bar off --disable-pip-version-check \
	-r requirements.txt -c constraints.txt 2>&1 || echo FAILED; } | tee .venv/pip.log | awk '\
	/^Collecting/ { if (++found % 20 == 0) { print "  " found " packages found"; fflush() } } \
	/^Installing collected/ { print "  installing " found " packages"; fflush() } \
	/^ERROR/ { print } /^FAILED$$/ { print "pip failed: see .venv/pip.log"; failed = 1 } END { exit failed }'
	@touch .venv/done

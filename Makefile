# Everything from a clean clone, on Debian or Ubuntu with Python 3.11 or newer:
#
#   make demo     the call centre on this machine, with live calls
#   make test     all tests                 (one file: make test ARGS=tests/test_calls.py)
#   make check    format, lint, types, imports
#   make bench    the benchmarks, as JSON
#   make secrets  .env with passwords of your own, for docker compose
#   make lock     resolve the dependencies anew      make clean    remove what make has made
#
# The first run fetches Python packages and, where none is installed, Debian's Asterisk, all below this folder.
# With root rights (or sudo without a password) missing Debian packages are installed; else you are told which.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test check bench secrets lock clean setup sipp browser asterisk

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PAGE := cti/phone_page/phone.js
WORKERS ?= 3
ARGS ?=
DEMO_ARGS ?=

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

demo: setup asterisk
	@exec $(BIN)/cti demo $(DEMO_ARGS)

test: setup sipp browser asterisk
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	if [ -d web/node_modules ]; then cd web && npm run --silent check; else [ -z "$${CI:-}" ]; fi

bench: setup asterisk
	@$(BIN)/python -m benchmarks $(ARGS)

# ---------------------------------------------------------------------------------------------- set-up

setup: $(STAMP) $(PAGE)
	@:

# Runs a command as root: as it is, or by sudo without a password; fails where neither works.
define AS_ROOT
as_root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo -n "$$@"; fi; }
apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	command -v apt-get >/dev/null || return 1
	as_root true 2>/dev/null || return 1
	echo "Installing Debian packages: $$*"
	as_root apt-get -qq update >/dev/null && as_root apt-get -qq -y --no-install-recommends install "$$@" >/dev/null
}
endef

$(STAMP): requirements/dev.txt pyproject.toml
	@$(AS_ROOT)
	python=
	for name in $${PYTHON:-} python3.13 python3.12 python3.11 python3 python3.14; do
		if command -v "$$name" >/dev/null && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			python=$$name; break
		fi
	done
	if [ -z "$$python" ] && apt_install python3 python3-venv && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		python=python3
	fi
	if [ -z "$$python" ]; then
		echo "Python 3.11 or newer is needed. On Debian 12 or Ubuntu 24.04 and later: sudo apt-get install python3 python3-venv" >&2
		exit 1
	fi
	version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	if [ ! -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
		if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then
			apt_install "python$$version-venv" || apt_install python3-venv || {
				echo "Python's venv is missing and may not be installed without root. Type:" >&2
				echo "    sudo apt-get install python$$version-venv      and then the same make command again" >&2
				exit 1
			}
		fi
		echo "Making $(VENV) with Python $$version"
		rm -rf $(VENV)
		$$python -m venv $(VENV)
	fi
	echo "Installing the pinned Python packages"
	export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The page /phone: built by Node.js, and without it there is no such page; everything else works (in CI it fails).
$(PAGE): web/package-lock.json web/package.json web/build.mjs web/tsconfig.json $(wildcard web/*/*.ts web/page/*.*)
	@$(AS_ROOT)
	if ! { command -v node && command -v npm; } >/dev/null; then apt_install nodejs npm || true; fi
	say() { echo "The phone in the browser (/phone) is not available: $$1. All else works."; [ -z "$${CI:-}" ]; }
	if ! { command -v node && command -v npm; } >/dev/null; then
		say "Node.js is missing (sudo apt-get install nodejs npm, then make setup)"
	elif ! node -e 'process.exit(+process.versions.node.split(".")[0] < 18 ? 1 : 0)'; then
		say "Node.js 18 or newer is needed"
	else
		echo "Building the page /phone"
		if ! (cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error 2>&1 && node build.mjs ../$(@D)) >web.log; then
			tail -5 web.log
			say "its packages could not be installed or built"
		fi
		rm -f web.log
	fi

# SIPp plays the phones and callers of some tests. Without it those are skipped, loudly (in CI they fail).
sipp:
	@$(AS_ROOT)
	if ! command -v sipp >/dev/null; then
		apt_install sip-tester || echo "SIPp is missing: tests with SIP phones are skipped. To run them: sudo apt-get install sip-tester"
	fi

# Chromium plays the agent's browser in some tests.
browser:
	@$(AS_ROOT)
	if ! { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then
		apt_install chromium || echo "Chromium is missing: tests of the phone in the browser are skipped. To run them: sudo apt-get install chromium"
	fi

asterisk: setup
	@$(BIN)/python -m cti.embedded

# ------------------------------------------------------------------------------------------------ upkeep

secrets:
	@umask 077
	[ -e .env ] || cp .env.example .env
	for name in DATABASE_PASSWORD AMI_SECRET PHONE_SECRET SECRET_KEY; do
		secret=$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
		sed -i "s/^$$name=$$/$$name=$$secret/" .env
	done
	chmod 600 .env
	echo ".env has its passwords; look at PUBLIC_ADDRESS, CARRIER_HOST and REGION in it"

LOCK := --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --quiet

lock: setup
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	uv=$$(command -v uv || echo $(BIN)/uv)
	$$uv pip compile $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements/base.txt
	$$uv pip compile $(LOCK) $(if $(UPGRADE),--upgrade) --extra dev -c requirements/base.txt pyproject.toml -o requirements/dev.txt

clean:
	@rm -rf $(VENV) .local build dist web/node_modules cti/phone_page *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

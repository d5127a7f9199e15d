# Everything runs in .venv, made from requirements.lock by uv. Nothing needs to be installed beforehand but Python 3.11
# to 3.13, make and git. `make ARGS="..."` hands arguments on.
SHELL := /bin/sh
.DEFAULT_GOAL := help
ENVIRONMENT := .venv/.made-from-lock
RUN := .venv/bin
PYTHON_VERSIONS := >=3.11,<3.14
# Tests wait for servers a third of their time: three at once fill two cores.
WORKERS ?= 3
# A file's tests share their servers; the order of the files is conftest.py's.
PYTEST = $(RUN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Interpreters are found, never downloaded.
export UV_PYTHON_DOWNLOADS := never
# A company's own certificate authority lives in the system's bundle.
CA_BUNDLE := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(CA_BUNDLE),)
export UV_SYSTEM_CERTS ?= true
export PIP_CERT ?= $(CA_BUNDLE)
endif

.PHONY: help demo install uninstall test test-fast test-versions lint format format-check types imports lock up down \
	start-database stop-database reset-database migrate-database check-database clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(ENVIRONMENT) ## Run backup, verification and recovery on the embedded stack
	@$(RUN)/tmi-ops demo $(ARGS)

# Root installs for everybody, whose services may run as another user; anybody else for himself.
ifeq ($(shell id -u),0)
export UV_TOOL_DIR ?= /opt/tmi-ops
export UV_TOOL_BIN_DIR ?= /usr/local/bin
else
export UV_TOOL_BIN_DIR ?= $(HOME)/.local/bin
endif

install: ## Put tmi-ops and dagster on PATH, in a virtual environment of their own
	@uv=$$(.ci/find-uv) && .ci/waiting "Installing tmi-ops" $$uv tool install --quiet --force --reinstall-package tmi-ops \
		--python '$(PYTHON_VERSIONS)' --constraints requirements.lock --with-executables-from dagster,dagster-webserver \
		'.[stack]'
	@case ":$$PATH:" in \
		*":$$UV_TOOL_BIN_DIR:"*) echo "Installed. Try: tmi-ops --help" ;; \
		*) echo "Installed in $$UV_TOOL_BIN_DIR, which is not on PATH. Add it: export PATH=\"$$UV_TOOL_BIN_DIR:\$$PATH\"" ;; \
	esac

uninstall: ## Remove these commands; no data is touched
	@uv=$$(.ci/find-uv) && $$uv tool uninstall --quiet tmi-ops && echo "Uninstalled. Data in .tmi-ops and in the store is kept."

test: $(ENVIRONMENT) ## Run all tests, on real servers
	@$(PYTEST) $(ARGS)

test-fast: $(ENVIRONMENT) ## Run the fast tests, in two and a half minutes
	@$(PYTEST) -m "not slow" $(ARGS)

# Directories whose tests ask PostgreSQL something that its versions may answer differently.
VERSIONED := $(addprefix tmi_ops_tests/,postgres schema health access diagnosis backup recovery)
OTHER_POSTGRESQL := from tmi_ops.postgres.programs import found_programs as found; \
	print(*(p.bindir for p in found() if p.major != 17 and (p.bindir / "initdb").is_file()))

test-versions: $(ENVIRONMENT) ## Run the tests of PostgreSQL on every other version found here: Debian's, and the wheel's 18
	@for bindir in $$($(RUN)/python -c '$(OTHER_POSTGRESQL)'); do \
		echo "$$("$$bindir/postgres" --version) in $$bindir"; \
		TMI_OPS_TEST_PG_BINDIR="$$bindir" $(PYTEST) $(VERSIONED) $(ARGS) || exit 1; \
	done

up: $(ENVIRONMENT) ## Start the embedded stack with Dagster's UI; Ctrl-C stops it
	@$(RUN)/tmi-ops up $(ARGS)

down: $(ENVIRONMENT) ## Stop the embedded stack and keep its data
	@$(RUN)/tmi-ops down

start-database: $(ENVIRONMENT) ## Start PostgreSQL, S3 and Valkey in the background
	@$(RUN)/tmi-ops up --detach --no-dagster

stop-database: down ## Stop them (the same as down)

reset-database: $(ENVIRONMENT) ## DESTRUCTIVE: empty the stack's TMI database; asks first. Backups are kept
	@$(RUN)/tmi-ops stack reset --database $(ARGS)

migrate-database: $(ENVIRONMENT) ## Migrate the database's schema, online, and validate it
	@$(RUN)/tmi-ops migrate $(ARGS)

check-database: $(ENVIRONMENT) ## Compare the database with the schema TMI needs
	@$(RUN)/tmi-ops check $(ARGS)

lint: $(ENVIRONMENT) ## Run ruff
	@$(RUN)/ruff check .

format: $(ENVIRONMENT) ## Format the code
	@$(RUN)/ruff format .

format-check: $(ENVIRONMENT) ## Check the format of the code
	@$(RUN)/ruff format --check .

types: $(ENVIRONMENT) ## Check types strictly
	@$(RUN)/mypy

imports: $(ENVIRONMENT) ## Check that imports point one way
	@$(RUN)/lint-imports

lock: ## Update requirements.lock from pyproject.toml
	@uv=$$(.ci/find-uv) && $$uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		--all-extras --group dev --quiet pyproject.toml -o requirements.lock

clean: ## Remove the environment, tools and caches; keep the stack's data
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find tmi_ops tmi_ops_tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(ENVIRONMENT): requirements.lock pyproject.toml
	@# Compiled at once: where bytecode is not kept (PYTHONDONTWRITEBYTECODE), every command would compile it anew.
	@uv=$$(.ci/find-uv) \
		&& { [ -x $(RUN)/python ] || $$uv venv --quiet --python '$(PYTHON_VERSIONS)' .venv; } \
		&& .ci/waiting "Making .venv from requirements.lock" $$uv pip sync --quiet --compile-bytecode \
			--python $(RUN)/python --require-hashes requirements.lock \
		&& $$uv pip install --quiet --python $(RUN)/python --no-deps --editable .
	@touch $@

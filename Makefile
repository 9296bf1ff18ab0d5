# `make demo` shows the whole idea, `make test` runs the suite, `make` alone lists the rest.
# Needs make and Python 3.11 or later, nothing else. Written for GNU make 3.81 (macOS) and later.

# The Python that a new .venv is made of; `make clean` first to change it.
PYTHON ?= python3
VENV ?= .venv
# Other Pythons that `make test-all` runs the suite on.
PYTHONS ?= $(shell sh .ci/pythons)
# The lowest version that pyproject.toml allows, so that the stubs load with all later ones.
GRPC_TOOLS := 1.80.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STUBS_VENV := .venv-stubs
STUBS_STAMP := $(STUBS_VENV)/.grpcio-tools-$(GRPC_TOOLS)
STUBS_OUT := $(STUBS_VENV)/out
PROTOC := $(STUBS_VENV)/bin/python -m grpc_tools.protoc -Iactors/_wire=proto
STUBS := distributed_comm_pb2.py distributed_comm_pb2.pyi distributed_comm_pb2_grpc.py
MINOR := -c 'import sys; print("%d.%d" % sys.version_info[:2])'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two installs into one environment would trip over each other
.PHONY: help demo test test-all test-ray soak simulate bench lint format types imports stubs stubs-check docs dist clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

# Most tests wait for processes, so two modules run side by side, each with a state folder of its own; JOBS=0 runs one
# after the other.
JOBS ?= 2

# In CI what failed (status 1) runs once more by itself, with nothing beside it: what passes then is told as flaky, and is
# to be mended; what fails twice fails the run. Elsewhere nothing is repeated.
pytest = $(BIN)/python -m pytest --durations 30 --numprocesses $(JOBS) --dist loadfile $(1) || ( code=$$?; test $$code -eq 1 -a -n "$$CI" || exit $$code; \
	  echo "== once more, what failed; it is flaky if it passes now"; \
	  $(BIN)/python -m pytest $(1) --last-failed --last-failed-no-failures=none )

# --- what people run -------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo ## installs into .venv and runs `actors demo`
	$(BIN)/actors demo

test: $(VENV)/.test ## installs into .venv and runs the suite on one Python, about 12 minutes
	$(call pytest,$(PYTEST))

# Left out on the other Pythons: what tests processes, networks, kernels, browsers and instruments rather than the
# interpreter.
NOT_ELSEWHERE := actors_cleanup bench benchmarks call_steps cli_models cli_views collective_mlx dashboard demo devices discovery_netlab \
  doctor_netlab elastic ends_of_resources examples faults_netlab jupyterlab lan_netlab launch launch_netlab mixed_netlab \
  models_architectures models_smol notebook notebook_pictures notebooks packaging promises serving serving_clients soak \
  soak_faults standstill typing wire_faults
ELSEWHERE := $(foreach part,$(NOT_ELSEWHERE),--ignore=tests/test_$(part).py)

# What users see of calls, once more with all of it by gRPC.
BY_GRPC := $(foreach part,actors_basic actors_methods actors_errors actors_faults leading references map,tests/test_$(part).py)

# Status 5 is pytest's word for "none selected".
test-all: $(VENV)/.test ## what `make test` leaves out: slow tests, calls all by gRPC, then the suite on the other Pythons found
	$(call pytest,--run-slow -m slow) || test $$? -eq 5
	export ACTORS_TRANSPORT=grpc; $(call pytest,$(BY_GRPC))
	@own=$$($(BIN)/python $(MINOR)); echo "Pythons beside $$own:" $(or $(PYTHONS),none found); \
	for python in $(PYTHONS); do \
	  minor=$$($$python $(MINOR)) || exit 1; \
	  test "$$minor" = "$$own" || $(MAKE) test VENV=.venv-$$minor PYTHON=$$python PYTEST='$(ELSEWHERE)' || exit 1; \
	done

# Collectives once more where all processes have torch, by whose gloo ranks then talk.
test-ray: .venv-ray/.done .venv-ray/torch/.done ## the black-box tests of actors on a Ray cluster, in an environment of its own
	.venv-ray/bin/python tests/on_ray.py
	ACTORS_TEST_TORCH=$(CURDIR)/.venv-ray/torch .venv-ray/bin/python tests/on_ray.py $(BY_GLOO)

BY_GLOO := tests/test_ray_engine.py tests/test_groups.py tests/test_collective_groups.py

SOAK := 3600
soak: $(VENV)/.test ## every fault at random for an hour (SOAK=SECONDS), then a thousand actors made and ended
	$(BIN)/python tests/soak.py --seconds $(SOAK) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m pytest --run-slow -s tests/test_soak.py

SEEDS := 10000
CROWDS := 500
simulate: $(VENV)/.test ## 10,000 seeds each of all that is simulated, on a simulated network (SEEDS=N); SEED=N shows one
	for what in calls names ownership collectives membership; do \
	  $(BIN)/python -m actors.testing.replay $(or $(SEED),0) --of $$what $(if $(SEED),,--many $(SEEDS)) || exit 1; \
	done
	$(BIN)/python -m actors.testing.replay $(or $(SEED),0) --of crowd $(if $(SEED),,--many $(CROWDS))

# One that fails does not keep the others from running. `lan.py` needs root and Linux.
bench: $(VENV)/.test ## all benchmarks beside their peers, which are installed apart: an hour; figures in build/bench
	@mkdir -p build/bench; failed=; \
	for one in "calls.py --peers --json build/bench/calls.json --plot build/bench/calls.svg" journey.py \
	  "collectives.py --peers --ranks 2 4 8 --memory --json build/bench/collectives.json --plot build/bench/collectives.svg" \
	  collective_programs.py models.py beyond.py membership_simulation.py mesh_simulation.py gossip_simulation.py scale.py lan.py; do \
	  echo "== $$one"; $(BIN)/python benchmarks/$$one || failed="$$failed $${one%% *}"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

lint: $(VENV)/.lint ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint ## ruff, mending what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test $(VENV)/.lint ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.lint ## import-linter: which part may import which
	$(BIN)/lint-imports --no-logo --no-cache

# Their messages are in a descriptor pool of their own: a program may have stubs of the same schema beside them, which the
# default pool would refuse, as it holds each name once.
OWN_POOL := s/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/
define generate
rm -rf $(STUBS_OUT) && mkdir $(STUBS_OUT)
$(PROTOC) --python_out=$(STUBS_OUT) --pyi_out=$(STUBS_OUT) --grpc_python_out=$(STUBS_OUT) proto/distributed_comm.proto
sed '$(OWN_POOL)' $(STUBS_OUT)/actors/_wire/distributed_comm_pb2.py > $(STUBS_OUT)/messages.py
mv $(STUBS_OUT)/messages.py $(STUBS_OUT)/actors/_wire/distributed_comm_pb2.py
endef

stubs: $(STUBS_STAMP) ## regenerates actors/_wire from proto/
	$(generate)
	cp $(addprefix $(STUBS_OUT)/actors/_wire/,$(STUBS)) actors/_wire/

stubs-check: $(STUBS_STAMP) ## fails where actors/_wire is not what proto/ gives
	$(generate)
	@for stub in $(STUBS); do diff -u actors/_wire/$$stub $(STUBS_OUT)/actors/_wire/$$stub || \
	  { echo "actors/_wire/$$stub is not what proto/ gives: run 'make stubs' and commit what changes"; exit 1; }; done
	@echo "actors/_wire is what proto/ gives."

docs: $(VENV)/.docs ## builds the pages into docs/_build; a warning fails it
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "Open docs/_build/index.html"

dist: $(VENV)/.lint ## builds the wheel and the sdist into dist/
	rm -rf dist
	$(BIN)/python -m build

clean: ## removes all that make made
	rm -rf .venv .venv-3.* .venv-ray $(STUBS_VENV) dist build docs/_build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find actors discovery tests benchmarks -name __pycache__ -type d -exec rm -rf {} +

# --- environments ----------------------------------------------------------------------------------------------------

define check-python
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  found=$$($(PYTHON) -V 2>/dev/null); \
  echo "mlx-actors needs Python 3.11 or later; $(PYTHON) is $${found:-not there}."; \
  echo "Name another one, for example: make demo PYTHON=python3.12"; exit 1; } >&2
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing."; \
  echo "On Debian and Ubuntu install them as root: apt-get install python3-venv"; \
  echo "(for a Python other than the system's: apt-get install python$$($(PYTHON) $(MINOR))-venv)"; exit 1; } >&2
endef

# Also made anew where the Python it was made of has been removed: make follows the link.
$(VENV)/bin/python:
	$(check-python)
	$(PYTHON) -m venv --clear $(VENV)

# The demo needs neither the HTTP server nor JupyterLab, which would double the install: `pip install '.[all]'` has both.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[models]'
	@touch $@

# Dependency groups need pip 25.1, later than what any of our Pythons brings.
$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --editable '.[models,serve]' --group test
	@$(BIN)/python -m compileall -q actors discovery # pip does so where it installs a copy; many processes load it
	@touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --editable . --group lint
	@touch $@

.venv-ray/.done: pyproject.toml
	$(check-python)
	$(PYTHON) -m venv --clear .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check --editable . 'ray[client]==2.60.0' \
	  hypothesis pytest pytest-timeout
	@touch $@

# PyPI's torch for Linux brings gigabytes of CUDA, which gloo has no use for. Of one version pip prefers a build that is
# marked, as 2.13.0+cpu; all else comes from where pip is set to look, which may have that build as well.
.venv-ray/torch/.done: .venv-ray/.done
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --retries 1 \
	  --target .venv-ray/torch --find-links https://download.pytorch.org/whl/cpu/torch/ torch==2.13.0
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --editable '.[models,serve]' --group docs
	@touch $@

$(STUBS_STAMP):
	$(check-python)
	$(PYTHON) -m venv --clear $(STUBS_VENV)
	$(STUBS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==$(GRPC_TOOLS)
	@touch $@

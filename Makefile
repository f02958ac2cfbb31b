# Everything starts here. `make demo` and `make test` set up a fresh Debian or Ubuntu by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two busy processes with the default number of OpenMP threads each are several times slower than with one.
export OMP_NUM_THREADS ?= 1

.PHONY: setup system demo demo-pixels test test-all check format bench docs clean

setup: $(READY)  ## install into .venv

$(READY): pyproject.toml constraints.txt | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "serl_suite needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@echo "compiling the control code, once"
	$(BIN)/python -c 'import gymnasium, serl_envs; env = gymnasium.make("FrankaReach-v0"); env.reset(seed=0); env.step(env.action_space.sample()); env.close()'
	touch $@

system:  ## check the system libraries that rendering needs; as root, install them
	@.ci/system-libraries

demo: setup  ## teach the twin to pick up a cube, live
	$(BIN)/serl train FrankaPickCube-v0

PICK64 := weights/pick64.safetensors

demo-pixels: $(PICK64)  ## the same from two cameras of 64 x 64, on the CPU
	$(BIN)/serl train FrankaPickCube-v0 --obs pixels --actor.image-size 64 \
		--agent.encoder.frozen --agent.encoder.weights $(PICK64) --agent.encoder.stored-shifts 4 --agent.encoder.width 64 \
		--agent.num-critics 2 --agent.hidden 128 128 --agent.batch-size 128 --agent.utd 4 --agent.learning-rate 1e-3 \
		--evaluation.attempt-at 0.8 --evaluation.attempt-episodes 50 --evaluation.attempt-pass-at 0.9 \
		--evaluation.pass-at 0.8

$(PICK64): | setup
	$(BIN)/serl encoder pretrain --task FrankaPickCube-v0 --renders 2000 --side 64 --out $@

# Processes that keep time: nothing else may run beside them.
ALONE := tests/servers tests/faults tests/envs/test_remote_tasks.py

test: setup  ## the test suite without its slow part
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest -m "not slow" $(ALONE)

test-all: setup  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

check: setup  ## lint, types, import rules, wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy serl_suite envs/serl_envs robot_servers/serl_servers hardware/serl_hardware
	$(BIN)/lint-imports --no-cache
	.ci/wheel-smoke-test $(BIN)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure every claim beside its baseline
	@failed=; for script in benchmarks/[a-z]*.py; do \
		$(BIN)/python $$script || [ $$? -eq 2 ] || failed="$$failed $$script"; done; \
		[ -z "$$failed" ] || { echo "missed:$$failed"; exit 1; }

docs: setup  ## render the pictures of the pages again, and check links and commands
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache

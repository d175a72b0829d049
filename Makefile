PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Threads that spin while they wait make every other process crawl on small machines.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo evidence gpu test test-slow test-browser lint docs resolve clean

demo: $(VENV)/installed
	$(BIN)/python -m demo

# Hours on a CPU; an interrupted run continues. JOBS experiments run at the same time, with one thread each.
JOBS ?= 1
evidence: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[evidence]'
	$(BIN)/python -m experiments.run all --jobs $(JOBS)
	$(BIN)/python -m experiments.report
	$(BIN)/python -m experiments.emoji_data
	$(BIN)/python -m experiments.train_banks emoji emoji-classes cartoons-30k cartoons-100k
	$(BIN)/python -m experiments.run quality category classes --jobs $(JOBS)
	$(BIN)/python -m experiments.report

# At most 8 minutes on a GPU. make gpu DEVICE=cpu SMALL=1 only shows that every part runs.
# Elsewhere than in .venv: python -m benchmarks gpu
DEVICE ?= cuda
gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks gpu --device $(DEVICE) $(if $(SMALL),--small)

# As many processes as there are cores, and one thread in each. One that has nothing left takes tests from the others.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations=20

test-slow: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[docs,notebook]'
	$(BIN)/python -m pytest -m slow

# Chromium comes from the system: apt-get install chromium
test-browser: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The site, in work_dirs/site
docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

# The package installs beside current versions of what MMagic's editors were once bound to.
resolve: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed '.[all]' \
	    'diffusers>=0.40' 'transformers>=5' 'huggingface_hub>=1' 'numpy>=2.2' 'opencv-python>=4.12'

$(VENV)/installed: setup.cfg pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c requirements/constraints.txt -e '.[demo,dev]'
	touch $@

clean:
	rm -rf work_dirs data/demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

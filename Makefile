# make demo: three real models over a real sequence.  make test: every test that needs nothing else, in minutes.
# make test-all: the browser, Slurm, S3 and older MLflow servers, too.  make bench: ratios, measured here.
# Nothing but python3 and make is needed.

PYTHON ?= python3
BIN := .venv/bin
GROUPS := browser or slurm or s3 or servers
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint envs/lock.txt

.PHONY: demo test test-groups test-all coverage check docs bench lock clean

demo: .venv/core
	$(BIN)/python scripts/make_demo.py demo
	$(BIN)/snakemake --cores 1 --resources gpu=1

test: .venv/dev
	$(PYTEST) -m "not ($(GROUPS))"

test-groups: .venv/dev
	$(PYTEST) -m "$(GROUPS)"

test-all: test test-groups

# the share of lines that make test runs, also in the processes that tests start, and those that it does not
coverage: .venv/dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "not ($(GROUPS))"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --skip-covered --precision 2

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile rules
	PYTHONPATH=scripts $(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/snakemake --lint

# config/config.schema.yaml and the tables of keys in config/README.md from the settings; tests/messages.txt from the source
docs: .venv/core
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/messages.py

.venv/core: envs/requirements.txt envs/lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dailies needs Python 3.11 or newer, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(INSTALL) --requirement envs/requirements.txt
	@touch $@

.venv/dev: .venv/core envs/requirements-dev.txt
	$(INSTALL) --requirement envs/requirements-dev.txt
# spandrel asks for torchvision, which brings gigabytes of CUDA along; tests/stand_ins has what it uses of it
	$(INSTALL) --no-deps spandrel
# what metrics have to equal: lpips asks for torchvision, too
	$(INSTALL) --no-deps pytorch-msssim flip-evaluator lpips
	@touch $@

# ratios, in a few minutes; docs/benchmarks.md has figures and the longer ones
bench: .venv/dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/tiling.py
	$(BIN)/python benchmarks/discovery.py 100
	$(BIN)/python benchmarks/planning.py 10

# a fresh environment of the newest versions that the requirements allow, written down
lock:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement envs/requirements.txt --requirement envs/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps spandrel pytorch-msssim flip-evaluator lpips
	sed -i '/^#/!d' envs/lock.txt
	$(BIN)/python -m pip freeze | sed 's/+.*//' >> envs/lock.txt

clean:
	rm -rf .venv .snakemake .coverage* demo output_inference

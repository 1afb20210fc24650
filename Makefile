# cdc_flower. Type `make` for the list of targets.
PYTHON ?= python3
OUT ?= results/demo
MINUTES ?= 60
TESTERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo docs bench bench-fleet bench-models bench-speed bench-gpu bench-deploy test test-deploy soak lint lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## .venv with the exact versions of requirements.lock (PYTHON=python3.12 chooses another Python)

$(STAMP): requirements.lock pyproject.toml $(wildcard cdc_flower/weights/*/pair.json)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; allowed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/python -c "from cdc_flower.models import folders; folders.install()"  # into the cache, where flwr run finds it
	@touch $@

demo: install ## compare three methods on the embedded data; OUT=folder for the results, RESUME=1 to go on after Ctrl-C
	@$(BIN)/cdc-flower compare --methods static,cdc,fedavg_lora --set run.rounds=12 --set run.eval-every=3 --out "$(OUT)" $(if $(RESUME),--resume)

bench: install ## how near the wire is to its limits; with OUT=folder also bench.json there
	@$(BIN)/python -m experiments.bench.wire $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

bench-fleet: install ## what a device-task costs, beside Flower's own simulation; with OUT=folder also bench-fleet.json
	@$(BIN)/python -m experiments.bench.fleet $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

bench-speed: install ## words a second of every compression at the shapes of Qwen2-0.5B (3 GiB); with OUT=folder also bench-speed.json
	@$(BIN)/python -m experiments.bench.speed $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

bench-models: install ## what models of real sizes take (14 GiB, minutes); with OUT=folder also bench-models.json there
	@$(BIN)/python -m experiments.bench.models $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

bench-gpu: install ## teacher, cloud and nf4 student at 13B and 7B on a GPU, beside its limits; with OUT=folder also bench-gpu.json
	@$(BIN)/python -m experiments.bench.gpu $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

bench-deploy: install ## what a deployment costs beside Flower alone (minutes); with OUT=folder also bench-deploy.json
	@$(BIN)/python -m experiments.bench.deploy $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

test: install ## the tests, a file at a time on each of TESTERS processes (2)
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

test-deploy: install ## the short tests of a deployment, against real processes of this machine
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deploy tests/clients/device tests/strategies/served \
	  tests/experiments/deploy tests/experiments/controls

soak: install ## kills parts of a deployment for MINUTES (60) and counts samples; soak.json in OUT=folder
	@$(BIN)/python -m experiments.controls.soak --minutes $(MINUTES) $(if $(filter file,$(origin OUT)),,--out "$(OUT)")

docs: install ## the documents and the reference as a site, in OUT (results/site); installs Sphinx
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@$(BIN)/python docs/build.py $(if $(filter file,$(origin OUT)),,"$(OUT)")

lint: install ## ruff, pyright, and whether every test can be imported
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@found=$$($(BIN)/python -m pytest --collect-only -qq 2>&1) || { echo "$$found"; exit 1; }

lock: install ## write requirements.lock again from what is installed in .venv
	@$(BIN)/python .ci/lock.py > .lock.tmp && mv .lock.tmp requirements.lock

clean: ## remove .venv and results
	rm -rf .venv results

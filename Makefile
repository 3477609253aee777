# The front door. Every target a person may call carries a `##` sentence; `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

# uv is installed on first use; nothing before that touches the machine.
UV = $$(tools/bootstrap.sh)
RUN = UV_PYTHON_DOWNLOADS=never $(UV) run --frozen --all-packages
PYTHON_FOLDERS = api operator trainer generator server local tests bench examples
MYPY_FOLDERS = api/src operator/src trainer/src generator/src server/src local/src tests/support

.PHONY: help
help: ## What can be done here
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

##@ Use it
.PHONY: demo demo-gitops demo-down check render
demo: ## The whole loop on a local cluster: a ten-line FineTuneJob becomes a served adapter (YES=1 asks nothing)
	@$(RUN) tuneyard-local demo $(if $(YES)$(CI),--yes)

demo-gitops: ## The same from git: Argo CD brings the operator up from environments/demo.yaml, a FineTuneJob in git trains
	@$(RUN) tuneyard-local demo-gitops $(if $(YES)$(CI),--yes)

demo-down: ## Remove everything that the demos started; caches stay (see `make clean`)
	@$(RUN) tuneyard-local demo-down

check: ## Say everything that is wrong with environments/*.yaml; needs no cluster
	@$(RUN) tuneyard check

render: ## Write argocd-apps/ and manifests/ of every environment; needs no cluster
	@$(RUN) tuneyard render

##@ Work on it
.PHONY: setup fmt lint type test test-all test-unit generate verify survive removals
setup: ## The development environment, PyTorch included (5 GB)
	@UV_PYTHON_DOWNLOADS=never $(UV) sync --frozen --all-packages --group torch --compile-bytecode

fmt: ## Format and fix what ruff can
	@$(RUN) ruff format $(PYTHON_FOLDERS) && $(RUN) ruff check --fix $(PYTHON_FOLDERS)

lint: ## ruff, import contracts, module sizes, shell scripts, Dockerfiles
	@$(RUN) ruff check $(PYTHON_FOLDERS)
	@$(RUN) ruff format --check --quiet $(PYTHON_FOLDERS)
	@$(RUN) lint-imports --no-logo
	@$(RUN) python tools/module_sizes.py
	@$(RUN) shellcheck tools/bootstrap.sh images/build.sh .ci/run
	@$(RUN) hadolint images/operator/Dockerfile images/trainer/Dockerfile images/server/Dockerfile

type: ## mypy --strict
	@$(RUN) mypy $(MYPY_FOLDERS)

generate: ## Rewrite everything that is generated and committed
	@$(RUN) python tools/generated.py write

verify: ## Fail when a generated file is stale
	@$(RUN) python tools/generated.py check

test: setup lint type verify ## Set up and run every tier that this machine can run
	@$(RUN) --group torch pytest -n 2 --dist loadscope --no-loadscope-reorder

test-all: ## As `make test`, and that the order on Argo CD breaks without the gate and without the waves (5 to 15 minutes more)
	@TUNEYARD_LONG=1 $(MAKE) --no-print-directory test

test-unit: ## The tests that need no cluster and no PyTorch
	@TUNEYARD_TIERS=unit $(RUN) pytest

survive: ## 50,000 steps of faults, edits and deletions against the operator's decisions, in memory
	@TUNEYARD_SURVIVE_STEPS=50000 $(RUN) pytest -q tests/reconcile/test_survival_machine.py -k every_sequence

removals: ## Remove the handling of each fault, in a copy, and see its tests fail (ONLY="nan watch-cut")
	@$(RUN) --group torch python tools/removals.py $(ONLY)

##@ Measure it
.PHONY: bench-operator bench-generator bench-trainer soak
bench-operator: ## 500 FineTuneJobs against the same chain as plain Jobs: bench/results/operator.json
	@$(RUN) python bench/operator_throughput.py

bench-generator: ## Our render beside kustomize and helm template: bench/results/generator.json
	@$(RUN) python -c "from tuneyard_local.parts import build_parts; from tuneyard_local.progress import Progress; build_parts(['helm'], Progress())"
	@$(RUN) python bench/generator_speed.py

bench-trainer: ## Full fine-tuning and LoRA of 1.1 billion parameters on this machine's GPUs: bench/results/trainer-<gpu>-x<n>.json
	@$(RUN) --group torch python bench/trainer_gpu.py

soak: ## 20 jobs on real nodes under 100 random kills (a quarter of an hour, root): bench/results/soak.json
	@PYTHONPATH=tests $(RUN) python bench/soak.py

##@ Ship it
.PHONY: images clean
images: ## Build and push the images: make images REGISTRY=registry.example.com/tuneyard
	@images/build.sh "$(REGISTRY)"

clean: ## Remove caches of this project on this machine (built parts, PyTorch, images)
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/tuneyard" .venv

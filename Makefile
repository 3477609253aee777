# The front door. Every target a person may call carries a `##` sentence; `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

# uv is installed on first use; nothing before that touches the machine.
UV = $$(tools/bootstrap.sh)
RUN = UV_PYTHON_DOWNLOADS=never $(UV) run --frozen --all-packages
# One for each core of a small machine.
TEST_PROCESSES ?= 2
PYTHON_FOLDERS = api operator data trainer workflows generator server sync local tests bench examples tools
MYPY_FOLDERS = api/src operator/src data/src trainer/src workflows/src generator/src server/src sync/src local/src tests/support tools

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

##@ Use it
.PHONY: demo demo-gitops demo-pipeline demo-down check render
demo: ## Show the whole loop on a local cluster: a ten-line FineTuneJob becomes a served adapter (YES=1 asks nothing)
	@$(RUN) tuneyard-local demo $(if $(YES)$(CI),--yes)

demo-gitops: ## Show the same from git: Argo CD installs the operator from environments/demo.yaml, a FineTuneJob in git trains
	@$(RUN) tuneyard-local demo-gitops $(if $(YES)$(CI),--yes)

demo-pipeline: ## Show one form of Argo Workflows: raw records become a curated, trained, evaluated, approved and served adapter
	@$(RUN) tuneyard-local demo-pipeline $(if $(YES)$(CI),--yes)

demo-down: ## Remove everything that the demos started, but keep the caches (see `make clean`)
	@$(RUN) tuneyard-local demo-down

check: ## Report every problem of environments/*.yaml; needs no cluster
	@$(RUN) tuneyard check

render: ## Write argocd-apps/ and manifests/ of every environment; needs no cluster
	@$(RUN) tuneyard render

##@ Work on it
.PHONY: setup fmt lint type docs test test-all test-unit generate verify survive removals
setup: ## Install the development environment with PyTorch (5 GB)
	@UV_PYTHON_DOWNLOADS=never $(UV) sync --frozen --all-packages --group torch --group docs --compile-bytecode

fmt: ## Format and fix what ruff can
	@$(RUN) ruff format $(PYTHON_FOLDERS) && $(RUN) ruff check --fix $(PYTHON_FOLDERS)

lint: ## Check style, import contracts, module sizes, shell scripts and Dockerfiles
	@$(RUN) ruff check $(PYTHON_FOLDERS)
	@$(RUN) ruff format --check --quiet $(PYTHON_FOLDERS)
	@$(RUN) lint-imports --no-logo
	@$(RUN) python tools/module_sizes.py
	@$(RUN) shellcheck krew/kubectl-tuneyard tools/bootstrap.sh images/build.sh .ci/run findings/*.sh
	@$(RUN) hadolint images/operator/Dockerfile images/trainer/Dockerfile images/server/Dockerfile

type: ## Check types with mypy --strict
	@$(RUN) mypy $(MYPY_FOLDERS)

docs: ## Check every link, and build the documentation site into site/
	@$(RUN) --group docs python tools/documentation.py

generate: ## Rewrite everything that is generated and committed
	@$(RUN) python tools/generated.py write

verify: ## Fail when a generated file is stale
	@$(RUN) python tools/generated.py check

test: setup ## Set up, check, build the docs, and run every tier that this machine can run
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint type verify docs
	@$(RUN) --group torch pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

test-all: ## Run also the long tests: Argo CD without health check or waves, two nodes, more of vLLM and of model families (an hour more)
	@TUNEYARD_LONG=1 $(MAKE) --no-print-directory test

test-unit: ## Run the tests that need no cluster and no PyTorch
	@TUNEYARD_TIERS=unit $(RUN) pytest

survive: ## Try 50,000 steps of faults, edits and deletions against the operator's decisions, in memory
	@TUNEYARD_SURVIVE_STEPS=50000 $(RUN) pytest -q tests/reconcile/test_survival_machine.py -k every_sequence

removals: ## Remove the handling of each fault in a copy and report whether its tests fail (ONLY="nan watch-cut")
	@$(RUN) --group torch python tools/removals.py $(ONLY)

##@ Measure it
.PHONY: bench-operator bench-generator bench-data bench-trainer families soak dashboard
bench-operator: ## Compare 500 FineTuneJobs with the same chain as plain Jobs: bench/results/operator.json
	@$(RUN) python bench/operator_throughput.py

bench-generator: ## Compare rendering with kustomize and helm template: bench/results/generator.json
	@$(RUN) python -c "from tuneyard_local.parts import build_parts; from tuneyard_local.progress import Progress; build_parts(['helm'], Progress())"
	@$(RUN) python bench/generator_speed.py

bench-data: ## Compare the stage prepare with trl's preparation of the same chats: bench/results/data.json (RECORDS=1000000)
	@$(RUN) --group torch python bench/data_speed.py --records $(or $(RECORDS),1000000)

bench-trainer: ## Measure LoRA and full fine-tuning of 1.1 billion parameters on this machine's GPUs: bench/results/trainer-<gpu>-x<n>.json
	@$(RUN) --group torch python bench/trainer_gpu.py
	@$(RUN) --group torch python bench/lora_side_by_side.py

families: ## Train a tiny model of every causal family, and write what keeps packed records apart in each (15 minutes)
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(RUN) --group torch python tests/support/family_matrix.py $(ONLY)
	@$(RUN) python tools/families_page.py

soak: ## Run 20 jobs on real nodes under 100 random kills (15 minutes, root): bench/results/soak.json
	@PYTHONPATH=tests $(RUN) python bench/soak.py

dashboard: ## Ask Prometheus every query of the dashboard over a run of the operator, and draw it: docs/images/dashboard.svg
	@TUNEYARD_RECORD=1 TUNEYARD_LONG=1 TUNEYARD_TIERS=unit,cluster $(RUN) pytest -q tests/cluster/test_dashboard.py -k real_run
	@$(RUN) python tools/observability_files.py

##@ Ship it
.PHONY: images release clean
images: ## Build and push the images: make images REGISTRY=registry.example.com/tuneyard
	@images/build.sh "$(REGISTRY)"

release: ## Write a version everywhere, date the changelog, commit and tag; pushes nothing: make release VERSION=1.2.3
	@$(RUN) python tools/release.py "$(VERSION)"

clean: ## Remove caches of this project on this machine (built parts, PyTorch, images)
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/tuneyard" .venv

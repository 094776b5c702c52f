# Steps of workflows, the MLflow server, Feast's registry and the console: everything but serving.
#   docker build -f deploy/images/pipelines.Dockerfile -t ghcr.io/fairlead/pipelines:0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
# TORCH=yes adds what neural recipes, chat models and federations train with. PyPI's build is CUDA's, which is the GPU variant; the CPU's comes from
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
WORKDIR /src
# What is installed changes seldom: its layers come before any code.
COPY deploy/images/requirements.py pyproject.toml constraints.txt ./
RUN python requirements.py pipelines mongodb feature-store streams search console > requirements.txt \
 && /opt/venv/bin/pip install --no-compile -c constraints.txt -r requirements.txt
ARG TORCH=no
ARG TORCH_INDEX=
RUN if [ "$TORCH" = yes ]; then \
      python requirements.py torch finetune federation > torch.txt \
      && /opt/venv/bin/pip install --no-compile ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt -r torch.txt; \
    fi
# Ray, for runs whose data are computed by several pods (data.engine=ray): yes, or kuberay with what KubeRay asks of an image.
ARG RAY=no
RUN if [ "$RAY" != no ]; then \
      python requirements.py "$(echo "$RAY" | sed 's/^yes$/ray/')" > ray.txt && /opt/venv/bin/pip install --no-compile -c constraints.txt -r ray.txt; \
    fi
# JupyterLab, for the variant of people's workbenches.
ARG WORKBENCH=no
RUN if [ "$WORKBENCH" = yes ]; then \
      python requirements.py workbench > workbench.txt && /opt/venv/bin/pip install --no-compile -c constraints.txt -r workbench.txt; \
    fi
COPY deploy/images/trim.sh ./
RUN sh trim.sh /opt/venv
# What is inside, for scanners; made by a tool that stays out of the result.
ARG SBOM_TOOL=cyclonedx-bom==7.5.0
RUN python -m venv /opt/sbom && /opt/sbom/bin/pip install --quiet "$SBOM_TOOL" \
 && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/venv/sbom.cdx.json /opt/venv/bin/python

FROM ${BASE}
COPY deploy/images/base.sh /tmp/
# LightGBM and torch are built with OpenMP.
RUN sh /tmp/base.sh libgomp1
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp MPLCONFIGDIR=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true FEAST_USAGE=False GIT_PYTHON_REFRESH=quiet ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1
WORKDIR /app
COPY pyproject.toml ./
COPY contracts contracts
COPY feature_repo feature_repo
COPY services services
COPY pipelines pipelines
COPY deploy deploy
COPY fairlead fairlead
COPY notebooks notebooks
# The command, as an installed package has it, for people in a workbench.
RUN printf '#!/opt/venv/bin/python\nimport sys\n\nfrom deploy.cli.app import main\n\nsys.exit(main())\n' > /opt/venv/bin/fairlead \
 && chmod 755 /opt/venv/bin/fairlead
# Compiled, and proven to load: a container's root is read-only. What is imported here has its bytecode in the image, or
# each step would compile its libraries again, half of its start.
RUN export PYTHONDONTWRITEBYTECODE= \
 && python -m compileall -q /app \
 && python -c 'import pipelines.workflows, deploy.cli.app, fairlead, mlflow, feast, lightgbm, sklearn.linear_model, pandera, duckdb' \
 && python -c 'from importlib import import_module, util; [import_module(name) for name in ("torch", "transformers", "ray") if util.find_spec(name)]' \
 && rm -rf /tmp/*
USER 10001:10001
ARG REVISION=unknown
ARG VERSION=0.1.0
ENV FAIRLEAD_CODE_VERSION=$REVISION
LABEL org.opencontainers.image.title="fairlead pipelines" \
      org.opencontainers.image.description="Trains and registers Fairlead models; runs MLflow and Feast" \
      org.opencontainers.image.source="https://github.com/fairlead/fairlead" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION

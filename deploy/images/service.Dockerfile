# The model server: any bundle of the modalities that it is built for. The chart's command is `python -m services.server.launch MODALITY`.
#   docker build -f deploy/images/service.Dockerfile -t ghcr.io/fairlead/service:0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
# MODALITIES=tabular leaves out what only texts and images need; MODALITIES=chat has llama.cpp (100 MB), which the others do without.
# EXTRAS= leaves out TenSEAL (6 MB), which answers encrypted rows where config.encrypted.enabled asks for it.
# VARIANT=gpu puts ONNX Runtime's CUDA build in the place of the CPU's, and adds torch for bundles of engine torch.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
WORKDIR /src
# What is installed changes seldom: its layers come before any code.
COPY deploy/images/requirements.py pyproject.toml constraints.txt ./
ARG MODALITIES="tabular text image recommend drawing answers"
ARG EXTRAS=encrypted
RUN python requirements.py serving $MODALITIES $EXTRAS > requirements.txt \
 && /opt/venv/bin/pip install --no-compile -c constraints.txt -r requirements.txt
ARG VARIANT=cpu
# Its releases are not always those of the CPU's build.
ARG ONNXRUNTIME_GPU=1.31.1
# In one call, because both bring CUDA's libraries and must agree on them.
RUN if [ "$VARIANT" = gpu ]; then \
      python requirements.py torch diffusion > torch.txt \
      && /opt/venv/bin/pip uninstall -y onnxruntime \
      && /opt/venv/bin/pip install --no-compile -c constraints.txt \
           "onnxruntime-gpu[cuda,cudnn]==$ONNXRUNTIME_GPU" -r torch.txt; \
    fi
COPY deploy/images/trim.sh ./
RUN sh trim.sh /opt/venv
# What is inside, for scanners; made by a tool that stays out of the result.
ARG SBOM_TOOL=cyclonedx-bom==7.5.0
RUN python -m venv /opt/sbom && /opt/sbom/bin/pip install --quiet "$SBOM_TOOL" \
 && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/venv/sbom.cdx.json /opt/venv/bin/python

FROM ${BASE}
COPY deploy/images/base.sh /tmp/
# LightGBM and llama.cpp are built with OpenMP.
RUN sh /tmp/base.sh libgomp1
COPY --from=build /opt/venv /opt/venv
# CUDA's libraries are packages of the GPU variant, and ONNX Runtime asks the loader for them.
RUN find /opt/venv -type d -path '*/nvidia/*/lib' > /etc/ld.so.conf.d/cuda.conf && ldconfig
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    BENTOML_DO_NOT_TRACK=true ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1
WORKDIR /app
COPY contracts contracts
COPY feature_repo feature_repo
COPY services services
# Compiled, and proven to load: a container's root is read-only. What is imported here has its bytecode in the image, or
# each start would compile its libraries again, two thirds of it.
ARG MODALITIES="tabular text image recommend drawing answers"
RUN export PYTHONDONTWRITEBYTECODE= \
 && python -m compileall -q /app \
 && python -c 'import sys, boto3, services.server.bento; from services.server.lifecycle import MODALITIES; [MODALITIES.get(name) for name in sys.argv[1:]]' $MODALITIES \
 && python -c 'from importlib import import_module, util; [import_module(name) for name in ("lightgbm", "onnxruntime", "tokenizers", "PIL", "tenseal", "usearch", "xllamacpp") if util.find_spec(name)]' \
 && rm -rf /tmp/*
USER 10001:10001
ARG REVISION=unknown
ARG VERSION=0.1.0
ENV FAIRLEAD_CODE_VERSION=$REVISION
LABEL org.opencontainers.image.title="fairlead service" \
      org.opencontainers.image.description="Serves one Fairlead model over HTTP" \
      org.opencontainers.image.source="https://github.com/fairlead/fairlead" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION

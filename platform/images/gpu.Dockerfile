# This image is for GPU nodes: learner, rollout actors, endpoint and their heads. `make images`
# builds it, with the repository as the build context. The locked packages contain CUDA and the node
# has the driver, so the base image is plain Python.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The tag of the base image may point to a newer image later. To build on the same base image again,
# pass its digest: make images PYTHON_DIGEST=sha256:...
ARG PYTHON_DIGEST=

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS base

FROM base AS build
# Debian's archive keeps only one version of a package, so apt-get cannot pin versions here. Pin the
# base image instead. The final stage copies only /opt from this stage, and so leaves out g++.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m pip install --no-cache-dir --root-user-action ignore uv==0.13.8
ENV VIRTUAL_ENV=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 DS_BUILD_OPS=0
COPY platform/requirements/gpu.txt /tmp/requirements.txt
RUN uv venv --python /usr/local/bin/python /opt/venv \
    && uv pip sync --require-hashes /tmp/requirements.txt
WORKDIR /opt/awares
COPY pyproject.toml README.md LICENSE ./
COPY awares awares
COPY platform/awares_platform platform/awares_platform
COPY jobs jobs
COPY platform/images/development.py /tmp/development.py
# The install is editable. The command `awares` therefore imports the same source tree as jobs/*.py,
# which put this tree on sys.path. Then remove the packages that only development or builds need.
RUN uv pip install --no-deps --no-build-isolation --editable . \
    && python /tmp/development.py pyproject.toml > /tmp/development.txt \
    && uv pip uninstall --requirement /tmp/development.txt \
    && python -m compileall -q awares platform jobs
# At run time Triton would compile one C file on every node. The result is always the same, so
# compile the file here.
COPY platform/images/prebuild_triton.py /tmp/prebuild_triton.py
RUN /opt/venv/bin/python /tmp/prebuild_triton.py /opt/triton

FROM base AS final
# vLLM needs libnuma1. KubeRay's probes of Ray containers need wget.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/bin/pip* \
        /usr/local/lib/python3.11/ensurepip \
    && groupadd --gid 1000 awares \
    && useradd --uid 1000 --gid 1000 --create-home --home-dir /home/awares \
        --shell /bin/bash awares \
    && echo "export PATH=/opt/venv/bin:\$PATH" > /etc/profile.d/awares.sh
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/triton /opt/triton
COPY --from=build /opt/awares /opt/awares
# LD_LIBRARY_PATH lists the directories in which GKE and NVIDIA's container toolkit put the driver's
# libraries. FlashInfer's sampler is off, because the sampler would need nvcc on the node. The root
# file system may be read-only, so programs write only below /home/awares and /tmp.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/home/awares TMPDIR=/tmp XDG_CACHE_HOME=/home/awares/.cache \
    HF_HOME=/home/awares/.cache/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/home/awares/.cache/inductor \
    TRITON_CACHE_DIR=/home/awares/.cache/triton \
    VLLM_CACHE_ROOT=/home/awares/.cache/vllm NUMBA_CACHE_DIR=/home/awares/.cache/numba \
    CC=/opt/triton/cc LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu \
    VLLM_USE_FLASHINFER_SAMPLER=0 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 \
    HF_HUB_DISABLE_TELEMETRY=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="awares-train" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /opt/awares
USER 1000:1000
CMD ["awares", "--help"]

# The four commands on NVIDIA GPUs, with torch-cuda; the host needs a driver for CUDA 13 and NVIDIA's
# container toolkit:
#   docker build --file docker/cuda.Dockerfile --tag stpm:cuda .
#   docker run --rm --gpus all --volume "$PWD:/work" --user "$(id -u):$(id -g)" stpm:cuda \
#     stpm-run bottle.stpm line/ --engine torch-cuda
# CUDA and cuDNN come with torch's wheels, so that an image of NVIDIA would bring them twice.
FROM python:3.12.8-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/stpm
COPY LICENSE README.md pyproject.toml ./
COPY runtime runtime
COPY train train
COPY export export
COPY benchmarks benchmarks
COPY fleet fleet
ARG EXTRAS=export,openvino,torch-cuda
RUN /opt/stpm/bin/pip install --no-cache-dir --disable-pip-version-check \
      --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.12.8-slim-bookworm
# Triton compiles a launcher for each kernel with the C compiler at hand.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 stpm && install --directory --owner stpm /work
COPY --from=build /opt/stpm /opt/stpm
# The caches also where docker run --user names one who has no home.
ENV PATH=/opt/stpm/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache \
    TRITON_CACHE_DIR=/tmp/cache/triton TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /work
CMD ["stpm-run", "--engines"]

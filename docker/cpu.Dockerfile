# The four commands on processors:
#   docker build --file docker/cpu.Dockerfile --tag stpm .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" stpm stpm-run bottle.stpm line/
# --build-arg EXTRAS=export,openvino,report brings torch as well, to train and to export.
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
ARG EXTRAS=openvino
RUN /opt/stpm/bin/pip install --no-cache-dir --disable-pip-version-check \
      --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.12.8-slim-bookworm
RUN useradd --create-home --uid 1000 stpm && install --directory --owner stpm /work
COPY --from=build /opt/stpm /opt/stpm
# The caches also where docker run --user names one who has no home.
ENV PATH=/opt/stpm/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache
USER 1000
WORKDIR /work
CMD ["stpm-run", "--help"]

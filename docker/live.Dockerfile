# A station, stpm-live, with GenICam cameras. Debian's Python, for which Debian's Aravis is made:
#   docker build --file docker/live.Dockerfile --tag stpm:live .
#   docker run --rm --network host --stop-timeout 30 --volume /etc/stpm:/etc/stpm:ro \
#     --volume stpm:/var/lib/stpm stpm:live
# GigE Vision cameras are found by broadcast, which needs the host's network; those of USB3 Vision need
# --device /dev/bus/usb. Bundles and line.toml lie in /etc/stpm, its record belongs in /var/lib/stpm.
FROM debian:12.9-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
RUN python3 -m venv /opt/stpm
COPY LICENSE README.md pyproject.toml ./
COPY runtime runtime
COPY train train
COPY export export
COPY benchmarks benchmarks
COPY fleet fleet
ARG EXTRAS=live,openvino
RUN /opt/stpm/bin/pip install --no-cache-dir --disable-pip-version-check \
      --constraint constraints.txt ".[${EXTRAS}]"

FROM debian:12.9-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gir1.2-aravis-0.8 python3 python3-gi \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 stpm && install --directory --owner stpm /var/lib/stpm
COPY --from=build /opt/stpm /opt/stpm
# The caches also where docker run --user names one who has no home.
ENV PATH=/opt/stpm/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache
USER 1000
WORKDIR /var/lib/stpm
CMD ["stpm-live", "/etc/stpm/line.toml", "--record", "/var/lib/stpm/record"]

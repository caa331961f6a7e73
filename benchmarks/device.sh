#!/usr/bin/env bash
# Measures everything on a machine with a GPU; it needs no network, see docs/gpu.md.
#   WHEELS=folder benchmarks/device.sh --model NAME.pt --out FILE.json [more options]
# PYTHON is an interpreter with torch; WHEELS holds what else it lacks (at least setuptools).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
wheels=${WHEELS:-wheels}
if compgen -G "$wheels/*.whl" >/dev/null; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --target "$site" "$wheels"/*.whl
fi
# ONNX Runtime's CUDA wheel, where all its parts have arrived; see scripts/device-wheels.
if [ -f "$wheels/parts.sha256" ] && (cd "$wheels" && sha256sum --quiet --check parts.sha256); then
  cat "$wheels"/parts/* | tar -C "$site" -xJ
fi
# Some images come without the bytecode that an installation has, and torch imports slowly then.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX="$site/bytecode"
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
# From a copy: a build leaves files in the folder that it builds.
mkdir "$site/source"
cp -r "$root"/{runtime,train,export,benchmarks,fleet,pyproject.toml,README.md,LICENSE} "$site/source"
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
  --no-build-isolation --target "$site" --upgrade "$site/source"
commit=$(git -C "$root" describe --always --dirty --abbrev=40 2>/dev/null || true)
"$python" -m stpm.benchmarks.measure.gpu.cli --commit "$commit" "$@"

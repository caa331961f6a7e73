"""The cases of `stpm-bench latency` under pytest-benchmark: pytest benchmarks/ [--bundle PATH]."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stpm.benchmarks.measure.latency import SCENARIOS, Case, open_workloads
from stpm.runtime.backends import installed_engines
from stpm.runtime.bundle.archive import Bundle


@pytest.mark.parametrize("engine", installed_engines())
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_query(benchmark: BenchmarkFixture, bundle: Path, scenario: str, engine: str) -> None:
    manifest = Bundle(bundle).manifest
    if engine not in manifest.engines:
        pytest.skip(f"{bundle.name} has no threshold for {engine}")
    streams = 1 if scenario == "single_stream" else 2
    case = Case(bundle, engine, scenario, manifest.input.size, streams=streams)
    (workload,) = open_workloads([case], [])
    benchmark.extra_info["images_per_query"] = case.images_per_query
    times = benchmark(workload.query)
    assert times["total"] > 0

"""The station's counts and times, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stpm.runtime.live.station import Station


class _StationCollector(Collector):
    def __init__(self, station: Station) -> None:
        self._station = station

    def collect(self) -> Iterator[Metric]:
        verdicts = CounterMetricFamily(
            "stpm_verdicts", "Verdicts so far.", labels=["camera", "verdict"]
        )
        latency = GaugeMetricFamily(
            "stpm_latency_seconds",
            "Quantiles of the last verdicts' latency by stage.",
            labels=["camera", "stage", "quantile"],
        )
        evidence = GaugeMetricFamily(
            "stpm_drift_log10_evidence",
            "Decimal logarithm of the evidence that a value has changed.",
            labels=["camera", "test"],
        )
        alarms = GaugeMetricFamily(
            "stpm_drift_alarm", "1 if a change was detected.", labels=["camera", "test"]
        )
        up = GaugeMetricFamily(
            "stpm_camera_up", "1 if the camera delivers frames.", labels=["camera"]
        )
        for camera in self._station.cameras:
            for verdict, count in camera.counts.items():
                verdicts.add_metric([camera.name, verdict], count)
            for stage, values in camera.latencies.quantiles().items():
                for quantile, value in zip(("0.5", "0.99"), values, strict=True):
                    latency.add_metric([camera.name, stage, quantile], value / 1e3)
            for name, state in (camera.drift.states if camera.drift else {}).items():
                evidence.add_metric([camera.name, name], state.log10_evidence)
                alarms.add_metric([camera.name, name], int(state.alarm))
            up.add_metric([camera.name], int(not camera.source.state))
        yield from (verdicts, latency, evidence, alarms, up)
        sent = CounterMetricFamily("stpm_sink_sent", "Verdicts delivered.", labels=["sink"])
        lost = CounterMetricFamily("stpm_sink_lost", "Verdicts not delivered.", labels=["sink"])
        waiting = GaugeMetricFamily(
            "stpm_sink_waiting", "Verdicts waiting for delivery.", labels=["sink"]
        )
        for delivery in self._station.deliveries:
            sent.add_metric([delivery.address], delivery.sent)
            lost.add_metric([delivery.address], delivery.lost)
            waiting.add_metric([delivery.address], delivery.waiting)
        late = CounterMetricFamily("stpm_late", "Verdicts later than the cycle time.")
        late.add_metric([], self._station.late)
        yield from (sent, lost, waiting, late)


def metrics(station: Station) -> bytes:
    """Return the station's metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_StationCollector(station))
    return generate_latest(registry)

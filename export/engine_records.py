"""What an export found of each engine: agreement, thresholds, and the line that says so."""

from __future__ import annotations

from dataclasses import asdict

from stpm.export.scoring import GoodImages
from stpm.runtime.backends import ENGINES, BuiltEngine, Engine, Outputs
from stpm.runtime.bundle.archive import EngineRecord
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.runtime.errors import ParityError
from stpm.runtime.output.console import counted
from stpm.runtime.site.rule import Scored
from stpm.runtime.site.thresholds import from_good_images

DEFAULT_FALSE_ALARM_RATE = 0.01


def verify_engine(
    name: str, reference: Outputs, outputs: Outputs, precision: str
) -> dict[str, float]:
    """Hold an engine's outputs against the reference's; ParityError beyond the tolerance."""
    parity = compare(*reference, *outputs)
    tolerance = TOLERANCES[precision]
    if not parity.holds(tolerance):
        raise ParityError(
            f"{name} differs from the torch reference by {parity.map_difference:.2g} of a "
            f"map's maximum and {parity.score_difference:.2g} of a score, expected at most "
            f"{tolerance:.2g} in {precision}; no bundle was written, export in another "
            "precision."
        )
    return asdict(parity)


def thresholds_of(scored: Scored, good: GoodImages, rate: float | None) -> Calibration:
    """Set thresholds from an engine's outputs for the good images."""
    return from_good_images(scored, good.rule, rate, None, DEFAULT_FALSE_ALARM_RATE)


def record_of(
    name: str,
    thresholds: Calibration,
    parity: dict[str, float],
    engine: Engine | None,
    built: BuiltEngine | None,
) -> EngineRecord:
    """Put together what the manifest holds of an engine; None where it could not be opened."""
    built_with = (engine.built_with() if engine else {}) | (built.built_with if built else {})
    return EngineRecord(
        thresholds,
        parity,
        built_with,
        verified=engine is not None,
        file=ENGINES[name].file if built else None,
        layer_precisions=built.layer_precisions if built else {},
    )


def engine_line(name: str, record: EngineRecord) -> str:
    """Say what was found, in one line for a person."""
    low, high = record.calibration.false_alarm_interval
    agreement = (
        f"largest difference {record.parity['map_difference']:.1e} of a map's maximum, "
        f"{record.parity['score_difference']:.1e} of a score"
        if record.verified
        else f"{_built_for(record)}not verified: there is no GPU here; it is checked with the "
        "golden images where it is opened, with the FP32 reference's thresholds"
    )
    if "good_map_ratio" in record.parity:
        agreement += f"; good images' maps {record.parity['good_map_ratio']:.2f} times FP32's"
    lost = {n: v for n, v in record.parity.items() if n.endswith("_loss")}
    agreement += "".join(f", {n.removesuffix('_loss')} {-v:+z.4f}" for n, v in lost.items())
    return (
        f"{name}: {agreement}; threshold "
        f"{record.calibration.image_threshold:.4g} for {record.calibration.false_alarm_rate:.2%} "
        f"false alarms (95% interval {low:.2%} to {high:.2%}, "
        f"{counted(record.calibration.image_count, 'images')})"
    )


def _built_for(record: EngineRecord) -> str:
    return f"built ({record.built_with['device']}), " if record.built_with else ""

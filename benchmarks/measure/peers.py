"""Our bundles beside what else one could use: the same maps first, then the time, in one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from stpm.benchmarks.measure.contenders import Contender, Map, contenders, timed
from stpm.benchmarks.measure.latency import percentiles
from stpm.benchmarks.measure.rates import rates
from stpm.benchmarks.measure.timing import paired_ratio, steadiness
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.paper import latency_figures
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.speed import PeersRecord
from stpm.runtime.backends import Outputs, installed_engines
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.runtime.detector import Detector
from stpm.runtime.output.console import note, progress
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import Sample, read_image, read_mask
from stpm.train.evaluate import checkpoint_scorer
from stpm.train.metrics import Metrics, evaluate_maps

WARM_UP = 3
"""Images each before the first round, unless told otherwise."""
SMALLEST_CORRELATION = 0.999
"""Least correlation of the scores with the reference's, to count as the same method at work."""

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How close maps are to FP32 torch, after one common factor.

    Attributes:
        factor: median ratio of the reference's scores to these; others leave constants in or out.
        rank_correlation: Spearman's, of the scores.
        map_difference, score_difference: see `stpm.runtime.bundle.parity.Parity`.
    """

    factor: float
    rank_correlation: float
    map_difference: float
    score_difference: float

    def holds(self, precision: str) -> bool:
        """Whether these are the reference's maps, within what the precision may differ."""
        close = max(self.map_difference, self.score_difference) <= TOLERANCES[precision]
        return close and self.rank_correlation >= SMALLEST_CORRELATION


def agreement(reference: Maps, maps: Maps) -> Agreement:
    """Compare maps (N,h,w) with the reference's, up to one factor."""
    wanted, got = (found.max(axis=(1, 2)) for found in (reference, maps))
    factor = float(np.median(wanted / np.maximum(got, np.finfo(np.float32).tiny)))
    scaled = (maps * factor).astype(np.float32)
    parity = compare(reference, wanted, scaled, scaled.max(axis=(1, 2)))
    correlation = float(spearmanr(wanted, got).statistic) if len(wanted) > 1 else 1.0
    return Agreement(factor, correlation, parity.map_difference, parity.score_difference)


def peers_result(
    checkpoint_path: Path,
    bundles: Sequence[Path],
    samples: Sequence[Sample],
    *,
    anomalib_python: Path | None = None,
    teacher_weights: Path | None = None,
    bundles_only: bool = False,
    images: int = 200,
    rounds: int = 20,
    warm_up: int = WARM_UP,
) -> PeersRecord:
    """Check everyone's maps on every image, then time all in interleaved rounds.

    Args:
        checkpoint_path: the network, for torch, the straightforward graph and anomalib.
        bundles: exported from it, or of other methods; each on every engine that is installed. The
            first is the reference of the ratios. Those of other methods are compared with FP32
            torch on their golden images.
        samples: labelled images of one size.
        anomalib_python: interpreter of an environment with anomalib; None leaves it out.
        teacher_weights: for the authors' checkpoints.
        bundles_only: leaves out torch, the straightforward graph and anomalib.
        images: that each scores while timed.
        rounds: interleaved.
        warm_up: images each before the first round.

    Returns:
        The content of a result file of kind "peers".

    Raises:
        CheckpointError, BundleError, BackendError, DataError: what is ours cannot be used. What
            others lack is noted in "left_out".
    """
    checkpoint = load_checkpoint(checkpoint_path, teacher_weights)
    frames = [read_image(sample.path, checkpoint.bit_depth) for sample in samples]
    reference, _ = checkpoint_scorer(checkpoint)(frames)
    left_out = []
    with ExitStack() as stack:
        running = list(_ours(bundles, frames))
        others = {} if bundles_only else contenders(checkpoint, frames, anomalib_python)
        for name, opener in others.items():
            try:
                running.append(stack.enter_context(opener()))
            except Exception as error:
                # Whatever one of them lacks here, the others are still worth comparing.
                reason = " ".join(str(error).split()) or type(error).__name__
                left_out.append({"name": name, "reason": reason})
                note(f"{name}: left out: {reason}")
        outputs = [_outputs(contender, frames) for contender in running]
        times = interleaved(running, len(frames), images, rounds, warm_up)
    anomalous = np.array([sample.is_anomalous for sample in samples])
    entries = []
    for contender, (found, scores), taken in zip(running, outputs, times, strict=True):
        agreed = _agreement(contender, checkpoint.config.method, reference, found)
        masks = _masks(samples, found.shape[1:])
        metrics = evaluate_maps(anomalous, scores, masks, found)
        entries.append(_entry(contender, agreed, metrics) | _timing(taken, times[0]))
    content = header("peers", [checkpoint_path, *bundles]) | {
        "reference": running[0].name,
        "image_count": len(frames),
        "image_size": list(frames[0].shape[:2]),
        "rates": rates(),
        "peers": entries,
        "left_out": left_out,
        "paper": latency_figures(),
    }
    record: PeersRecord = checked(content)
    return record


def _masks(samples: Sequence[Sample], size: tuple[int, ...]) -> NDArray[np.bool_] | None:
    if any(sample.mask is None for sample in samples if sample.is_anomalous):
        return None
    return np.stack([read_mask(sample, (size[0], size[1])) for sample in samples])


def _agreement(contender: Contender, method: str, reference: Maps, maps: Maps) -> Agreement:
    """Compare with the checkpoint's maps, or, where the method is another, with golden ones."""
    detector = contender.detector
    if detector is None or detector.bundle.manifest.method == method:
        return agreement(reference, maps)
    golden = detector.bundle.golden()
    found, _ = detector.infer(golden.images)
    return agreement(golden.anomaly_maps, found)


def _ours(bundles: Sequence[Path], frames: Sequence[NDArray[np.uint8]]) -> Iterator[Contender]:
    for path in bundles:
        bundle = Bundle(path)
        for engine in installed_engines():
            if engine in bundle.manifest.engines:
                detector = Detector(bundle, engine)

                def infer(frame: NDArray[np.uint8], detector: Detector = detector) -> Map:
                    return detector(frame).anomaly_map

                name = f"{path.name} {engine}"
                score = timed(infer, frames)
                yield Contender(name, bundle.manifest.precision, score, detector)


def _outputs(contender: Contender, frames: Sequence[NDArray[np.uint8]]) -> Outputs:
    """Return everyone's maps, and as scores ours, or the maxima of others' maps."""
    maps, scores = [], []
    with progress(contender.name, len(frames)) as on_images:
        for index, frame in enumerate(frames):
            if contender.detector is None:
                maps.append(contender.score(index)[1])
                scores.append(float(maps[-1].max()))
            else:
                result = contender.detector(frame)
                maps.append(result.anomaly_map)
                scores.append(result.score)
            on_images(1)
    return np.stack(maps), np.array(scores, dtype=np.float32)


def interleaved(
    running: Sequence[Contender], count: int, images: int, rounds: int, warm_up: int
) -> list[list[list[float]]]:
    """Time contenders in turns; every other round goes backwards.

    Args:
        running: each scores frames by their index.
        count: of frames.
        images: that each scores in all.
        rounds: that they are divided among.
        warm_up: images each before the first round.

    Returns:
        Of each, its times in ms by round.
    """
    for contender in running:
        for index in range(warm_up):
            contender.score(index % count)
    per_round = -(-images // rounds)
    times: list[list[list[float]]] = [[] for _ in running]
    with progress(f"{len(running)} contenders, {rounds} rounds", rounds, "rounds") as on_round:
        for number in range(rounds):
            chosen = [(number * per_round + i) % count for i in range(per_round)]
            order = range(len(running))
            for i in order if number % 2 == 0 else reversed(order):
                times[i].append([running[i].score(index)[0] for index in chosen])
            on_round(1)
    return times


def _entry(contender: Contender, agreed: Agreement, metrics: Metrics) -> dict[str, Any]:
    manifest = contender.detector.bundle.manifest if contender.detector else None
    return {
        "name": contender.name,
        "method": manifest.method if manifest else None,
        "config": manifest.provenance.get("config") if manifest else None,
        "training": manifest.provenance.get("training") if manifest else None,
        "precision": contender.precision,
        "agreement": asdict(agreed),
        "correct": agreed.holds(contender.precision),
        "image_auroc": metrics.image_auroc,
        "pixel_auroc": metrics.pixel_auroc,
        "aupro": metrics.aupro,
    }


def _timing(rounds: list[list[float]], reference: list[list[float]]) -> dict[str, Any]:
    total = np.concatenate([np.array(taken) for taken in rounds])
    return {
        "latency_ms": percentiles(total),
        "images_per_second": len(total) / (float(total.sum()) / 1e3),
        "ratio": asdict(paired_ratio(rounds, reference)),
        "steadiness": asdict(steadiness(total)),
        "rounds_ms": [[round(t, 4) for t in taken] for taken in rounds],
    }

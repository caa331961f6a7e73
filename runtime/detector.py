"""`Detector`: a bundle, an engine, and the decision."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.backends import (
    ENGINES,
    BulkEngine,
    DeviceEngine,
    Engine,
    Outputs,
    installed_engines,
)
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.batches import fit_input, run_in_batches
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.errors import (
    BackendError,
    DataError,
)
from stpm.runtime.forks import PerProcess
from stpm.runtime.images.preprocess import ImageSource, load_image
from stpm.runtime.output.map_score import MapScore, Views
from stpm.runtime.output.result import Result, RoiResult, verdict_of
from stpm.runtime.replay import aligner_of, map_score_of, verified_engine
from stpm.runtime.store import local


class Detector:
    """Scores images with a verified bundle. Threads may share one, and processes may.

    A forked child opens the engine again when it first scores; a pickled detector is its bundle's
    path and its options, and is opened where it is unpickled.

    Attributes:
        bundle: the opened bundle.
        engine_name: the engine in use.
        calibration: that engine's thresholds and how they were found.
        map_score: what the maps are scored by; None for the graph's own scores.
        aligner: what brings parts to the bundle's reference; None for images that are scored as
            they are.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        engine: str | None = None,
        *,
        threads: int = 0,
        rebuild: bool = True,
    ) -> None:
        """Open a bundle, check its hashes, and replay its golden images.

        Args:
            bundle: the folder NAME.stpm, its address in a store such as s3://..., or one opened
                before.
            engine: a key of `stpm.runtime.backends.ENGINES`; None takes the fastest one that is
                installed and that the bundle names. Whether it also ran at export stands in the
                manifest (`verified`); either way it has to reproduce the golden images here.
            threads: processor threads of one run; 0 leaves the choice to the engine.
            rebuild: whether an engine in the bundle that does not fit this machine may be built
                again from the graph and kept in the user's cache folder.

        Raises:
            BundleError: the bundle is malformed or altered.
            BackendError: no engine that the bundle names is installed, or it cannot run here; the
                store cannot be reached; or the bundle aligns parts and OpenCV is not installed.
            DataError: the store has no such bundle.
            ParityError: on this machine the engine does not reproduce the golden images.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(local(bundle))
        self.engine_name = engine or self._fastest_engine()
        self.calibration = calibration_of(self.bundle, self.engine_name)
        self.map_score = map_score_of(self.bundle, self.calibration.roi_weights)
        self.aligner = aligner_of(self.bundle)
        self._options: dict[str, Any] = {"threads": threads, "rebuild": rebuild}
        # No method of this object: a circle would keep a dropped detector's engine in memory.
        self._engines = PerProcess(
            partial(verified_engine, self.bundle, self.engine_name, os.getpid(), **self._options)
        )

    def __reduce__(self) -> tuple[Callable[[], Detector], tuple[()]]:
        """Pickle what opens the same detector elsewhere."""
        path = self.bundle.path.absolute()
        return partial(type(self), path, self.engine_name, **self._options), ()

    def _load(self, images: Iterable[ImageSource]) -> list[NDArray[np.uint8]]:
        contract = self.bundle.manifest.input
        return [load_image(image, contract.bit_depth, contract.channels) for image in images]

    @property
    def _engine(self) -> Engine:
        return self._engines.get()

    def __call__(self, image: ImageSource) -> Result:
        """Score one image; see `batch`."""
        return self.batch([image])[0]

    def batch(self, images: Iterable[ImageSource]) -> list[Result]:
        """Score images.

        Args:
            images: paths, binary file objects, Pillow images, or arrays uint8 or uint16 (H,W),
                (H,W,1), (H,W,3) or (H,W,4) in RGB(A) order; sizes may differ unless
                the graph resizes. A bundle of `--grey` takes colours whose channels are equal.

        Returns:
            A result an image, in order.

        Raises:
            DataError: an image cannot be decoded or does not fit, or the images are not several.
        """
        _check_several(images)
        loaded = self._load(images)
        if not loaded:
            return []
        inputs, views = self.align(self.prepare(loaded))
        return self.decide(_sizes(loaded), self.infer(inputs), views)

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> Outputs:
        """Return the maps and the scores that `batch` decides by.

        Args:
            images: uint8 (H,W,1) or (H,W,3), at least one.

        Returns:
            float32 (N,h,w) and (N,).
        """
        inputs, views = self.align(self.prepare(images))
        outputs = self.infer(inputs)
        if self.map_score is None:
            return outputs
        weighted, roi_scores = self.map_score(outputs[0], _sizes(images), views)
        return weighted, roi_scores.max(axis=1)

    def scores(self, images: Iterable[ImageSource]) -> NDArray[np.float32]:
        """Score images without looking at their maps, which a GPU then need not send back.

        Args:
            images: as of `batch`.

        Returns:
            float32 (N,), in order, to be held against `calibration.image_threshold`.

        Raises:
            DataError: an image cannot be decoded or does not fit, or the images are not several.
        """
        _check_several(images)
        loaded = self._load(images)
        if not loaded:
            return np.empty(0, np.float32)
        if self.map_score is None and isinstance(self._engine, BulkEngine):
            inputs, contract = self.prepare(loaded), self.bundle.manifest.input
            return run_in_batches(self._engine, inputs, contract, scores_only=True)[1]
        return self.outputs(loaded)[1]

    def score_on_device(self, images: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Score a batch that lies on the GPU, on an engine that runs there; nothing is copied.

        Args:
            images: uint8 (N,H,W,C) of the graph's input size, contiguous, with `__dlpack__` or
                `__cuda_array_interface__`; N within the bundle's batch.
            out: float32 (N,h,w) and (N,) on the GPU to write into; None makes new ones.

        Returns:
            The anomaly maps and the scores on the GPU.

        Raises:
            BackendError: the engine takes no arrays on the GPU, or the bundle's scores are not
                the graph's own.
            DataError: an array does not fit.
        """
        if self.map_score is not None:
            raise BackendError(
                f"{self.bundle.path}: scores regions of interest, a smallest defect or aligned "
                "parts, which is computed on the host; call batch, or calibrate with "
                "--whole-image --min-area 0 --no-align."
            )
        if not isinstance(self._engine, DeviceEngine):
            raise BackendError(
                f"the engine {self.engine_name} does not accept arrays on the GPU; use tensorrt, "
                "tensorrt-rtx or torch-cuda."
            )
        return self._engine.run_on_device(images, out)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Bring images uint8 (H,W,1) or (H,W,3) to the graph's input, uint8 (N,height,width,C).

        Raises:
            DataError: see `fit_input`.
        """
        contract = self.bundle.manifest.input
        return np.stack([fit_input(image, contract) for image in images])

    def align(self, inputs: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Views | None]:
        """Bring the parts in inputs from `prepare` to the bundle's reference, if it has one.

        Returns:
            The inputs, and how the camera sees them; None without a reference.
        """
        return (inputs, None) if self.aligner is None else self.aligner(inputs)

    def infer(self, inputs: NDArray[np.uint8]) -> Outputs:
        """Run the engine on inputs from `align`; see `run_in_batches`."""
        return run_in_batches(self._engine, inputs, self.bundle.manifest.input)

    def decide(
        self,
        image_sizes: Sequence[tuple[int, int]],
        outputs: Outputs,
        views: Views | None = None,
    ) -> list[Result]:
        """Hold maps and scores against the thresholds.

        Args:
            image_sizes: (height, width) of the images before `prepare`.
            outputs: from `infer`.
            views: from `align`.

        Raises:
            BackendError: the bundle aligns parts, and there are no views.
        """
        if self.aligner is not None and views is None:
            raise BackendError(
                f"{self.bundle.path}: got maps without views, expected those of align; call batch."
            )
        maps, scores = outputs
        rois: Sequence[tuple[RoiResult, ...]] = [()] * len(scores)
        if self.map_score is not None:
            maps, roi_scores = self.map_score(maps, image_sizes, views)
            scores = roi_scores.max(axis=1)
            rois = [self._rois(self.map_score, row) for row in roi_scores]
        return [
            Result(
                score=float(score),
                # Else one kept result keeps its whole batch.
                anomaly_map=anomaly_map.copy() if len(image_sizes) > 1 else anomaly_map,
                threshold=self.calibration.image_threshold,
                pixel_threshold=self.calibration.pixel_threshold,
                image_size=size,
                warn_threshold=self.calibration.warn_threshold,
                min_area=self.bundle.manifest.scoring.min_area,
                rois=of_rois,
            )
            for size, anomaly_map, score, of_rois in zip(
                image_sizes, maps, scores, rois, strict=True
            )
        ]

    def _rois(self, map_score: MapScore, roi_scores: NDArray[np.float32]) -> tuple[RoiResult, ...]:
        """Say of each region what it has by its own pixels and its own threshold."""
        limits = self.calibration.image_threshold, self.calibration.warn_threshold
        return tuple(
            RoiResult(name, float(score) / weight, limits[0] / weight, verdict_of(score, *limits))
            for name, weight, score in zip(
                map_score.names, map_score.weights, roi_scores.tolist(), strict=False
            )
        )

    def _fastest_engine(self) -> str:
        named = self.bundle.manifest.engines
        for name in installed_engines():
            if name in named:
                return name
        known = [ENGINES[name] for name in named if name in ENGINES]
        if known and all(spec.needs_gpu for spec in known) and not gpu_count():
            raise BackendError(
                f"{self.bundle.path}: contains only engines for NVIDIA GPUs "
                f"({', '.join(named)}), and there is no GPU here; run it on a machine with "
                "one, or export again with --engine onnxruntime."
            )
        wanted = " or ".join(spec.install for spec in known)
        raise BackendError(
            f"{self.bundle.path}: made for {', '.join(named) or 'no engine'}, none of which "
            f"is installed; run {wanted or 'stpm-export again'}."
        )


def calibration_of(bundle: Bundle, engine: str) -> Calibration:
    """Return an engine's own thresholds; BackendError where the bundle has none."""
    record = bundle.manifest.engines.get(engine)
    if record is None:
        raise BackendError(
            f"{bundle.path}: has no threshold for the engine {engine}, only for "
            f"{', '.join(bundle.manifest.engines)}; export again with {engine} installed."
        )
    return record.calibration


def _sizes(images: Sequence[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    return [(image.shape[0], image.shape[1]) for image in images]


def _check_several(images: object) -> None:
    """Refuse one image where several are expected; an array's items would be its rows."""
    is_one = isinstance(images, np.ndarray) and images.ndim < 4
    is_one = (
        is_one or isinstance(images, str | bytes | Path | Image.Image) or hasattr(images, "read")
    )
    if is_one or not isinstance(images, Iterable):
        raise DataError(
            f"batch got one {type(images).__name__}, expected images such as a list of them; call "
            "detector(image), or batch([image])."
        )

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
    BuiltEngine,
    BulkEngine,
    DeviceEngine,
    Engine,
    Outputs,
    installed_engines,
    open_engine,
)
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.bundle.archive import MODEL, Bundle, InputContract
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.bundle.parity import compare
from stpm.runtime.errors import (
    BackendError,
    BundleError,
    DataError,
    ParityError,
    StpmError,
)
from stpm.runtime.forks import PerProcess, no_fork
from stpm.runtime.images.preprocess import ImageSource, load_image, resize
from stpm.runtime.output.result import Result


class Detector:
    """Scores images with a verified bundle. Threads may share one, and processes may.

    A forked child opens the engine again when it first scores; a pickled detector is its bundle's
    path and its options, and is opened where it is unpickled.

    Attributes:
        bundle: the opened bundle.
        engine_name: the engine in use.
        calibration: that engine's thresholds and how they were found.
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
            bundle: the folder NAME.stpm, or one opened before.
            engine: a key of `stpm.runtime.backends.ENGINES`; None takes the fastest one that is
                installed and that the bundle names. Whether it also ran at export stands in the
                manifest (`verified`); either way it has to reproduce the golden images here.
            threads: processor threads of one run; 0 leaves the choice to the engine.
            rebuild: whether an engine in the bundle that does not fit this machine may be built
                again from the graph and kept in the user's cache folder.

        Raises:
            BundleError: the bundle is malformed or altered.
            BackendError: no engine that the bundle names is installed, or it cannot run here.
            ParityError: on this machine the engine does not reproduce the golden images.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self.engine_name = engine or self._fastest_engine()
        self.calibration = calibration_of(self.bundle, self.engine_name)
        self._options: dict[str, Any] = {"threads": threads, "rebuild": rebuild}
        # No method of this object: a circle would keep a dropped detector's engine in memory.
        self._engines = PerProcess(
            partial(_verified_engine, self.bundle, self.engine_name, os.getpid(), **self._options)
        )

    def __reduce__(self) -> tuple[Callable[[], Detector], tuple[()]]:
        """Pickle what opens the same detector elsewhere."""
        path = self.bundle.path.absolute()
        return partial(type(self), path, self.engine_name, **self._options), ()

    @property
    def _bit_depth(self) -> int:
        return self.bundle.manifest.input.bit_depth

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
                the graph resizes.

        Returns:
            A result an image, in order.

        Raises:
            DataError: an image cannot be decoded or does not fit, or the images are not several.
        """
        _check_several(images)
        loaded = [load_image(image, self._bit_depth) for image in images]
        if not loaded:
            return []
        sizes = [(image.shape[0], image.shape[1]) for image in loaded]
        return self.decide(sizes, self.infer(self.prepare(loaded)))

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
        loaded = [load_image(image, self._bit_depth) for image in images]
        return self.infer_scores(self.prepare(loaded)) if loaded else np.empty(0, np.float32)

    def score_on_device(self, images: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Score a batch that lies on the GPU, on an engine that runs there; nothing is copied.

        Args:
            images: uint8 (N,H,W,3) of the graph's input size, contiguous, with `__dlpack__` or
                `__cuda_array_interface__`; N within the bundle's batch.
            out: float32 (N,h,w) and (N,) on the GPU to write into; None makes new ones.

        Returns:
            The anomaly maps and the scores on the GPU.

        Raises:
            BackendError: the engine takes no arrays on the GPU.
            DataError: an array does not fit.
        """
        if not isinstance(self._engine, DeviceEngine):
            raise BackendError(
                f"the engine {self.engine_name} takes no arrays on the GPU; use tensorrt, "
                "tensorrt-rtx or torch-cuda."
            )
        return self._engine.run_on_device(images, out)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Bring images uint8 (H,W,3) to the graph's input, uint8 (N,height,width,3).

        Raises:
            DataError: the graph resizes by itself and an image is not of the camera's size.
        """
        contract = self.bundle.manifest.input
        return np.stack([fit_input(image, contract) for image in images])

    def infer(self, inputs: NDArray[np.uint8]) -> Outputs:
        """Run the engine on inputs from `prepare`; see `run_in_batches`."""
        return run_in_batches(self._engine, inputs, self.bundle.manifest.input)

    def infer_scores(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the engine on inputs from `prepare` for their scores alone, float32 (N,)."""
        if not isinstance(self._engine, BulkEngine):
            return self.infer(inputs)[1]
        return run_in_batches(self._engine, inputs, self.bundle.manifest.input, scores_only=True)[1]

    def decide(self, image_sizes: Sequence[tuple[int, int]], outputs: Outputs) -> list[Result]:
        """Hold maps and scores against the thresholds.

        Args:
            image_sizes: (height, width) of the images before `prepare`.
            outputs: from `infer`.
        """
        return [
            Result(
                score=float(score),
                # Else one kept result keeps its whole batch.
                anomaly_map=anomaly_map.copy() if len(image_sizes) > 1 else anomaly_map,
                threshold=self.calibration.image_threshold,
                pixel_threshold=self.calibration.pixel_threshold,
                image_size=size,
                warn_threshold=self.calibration.warn_threshold,
            )
            for size, anomaly_map, score in zip(image_sizes, *outputs, strict=True)
        ]

    def _fastest_engine(self) -> str:
        named = self.bundle.manifest.engines
        for name in installed_engines():
            if name in named:
                return name
        known = [ENGINES[name] for name in named if name in ENGINES]
        if known and all(spec.needs_gpu for spec in known) and not gpu_count():
            raise BackendError(
                f"{self.bundle.path}: holds only engines for NVIDIA GPUs ({', '.join(named)}), "
                "and there is no GPU here; run it where one is, or export again with --engine "
                "onnxruntime."
            )
        wanted = " or ".join(spec.install for spec in known)
        raise BackendError(
            f"{self.bundle.path}: made for {', '.join(named) or 'no engine'}, of which "
            f"none is installed; run {wanted or 'stpm-export again'}."
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


def fit_input(image: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    """Bring an image (H,W,3) to the graph's input size.

    Raises:
        DataError: the graph resizes by itself and the image is not of the camera's size.
    """
    if contract.resize == "graph" and image.shape[:2] != contract.size:
        raise DataError(
            f"got an image of {image.shape[0]}x{image.shape[1]} pixels, expected the "
            f"{contract.size[0]}x{contract.size[1]} that the bundle was exported for; export "
            "again with that --camera-size, or without it."
        )
    return resize(image, contract.size)


def run_in_batches(
    engine: Engine,
    images: NDArray[np.uint8],
    contract: InputContract,
    *,
    scores_only: bool = False,
) -> Outputs:
    """Score any number of inputs (N,H,W,3), at least one, with a graph of limited batch.

    A last batch that is smaller than the graph's smallest is filled up and its surplus dropped.

    Args:
        engine: that scores.
        images: inputs.
        contract: of the graph.
        scores_only: leave out the maps where the engine can; they are then (N,0,0).

    Raises:
        DataError: there is no image.
        BackendError: the engine fails, or an output is not finite.
    """
    if not len(images):
        raise DataError("got no images, expected at least one; leave the call out.")
    smallest, largest = contract.batch
    step = max(len(images), smallest) if isinstance(engine, BulkEngine) else largest
    outputs = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        count = len(batch)
        if count < smallest:
            batch = np.concatenate([batch, np.repeat(batch[-1:], smallest - count, axis=0)])
        maps, scores = _run(engine, np.ascontiguousarray(batch), scores_only=scores_only)
        outputs.append((maps[:count], scores[:count]))
    anomaly_maps, pred_scores = (
        outputs[0] if len(outputs) == 1 else map(np.concatenate, zip(*outputs, strict=True))
    )
    if not (np.isfinite(anomaly_maps).all() and np.isfinite(pred_scores).all()):
        raise BackendError(
            "the engine returned a score or map that is not finite, expected finite numbers; "
            "export again in FP32."
        )
    return anomaly_maps, pred_scores


def _run(engine: Engine, batch: NDArray[np.uint8], *, scores_only: bool) -> Outputs:
    try:
        with no_fork():
            if scores_only and isinstance(engine, BulkEngine):
                return np.empty((len(batch), 0, 0), np.float32), engine.run_scores(batch)
            return engine.run(batch)
    except StpmError:
        raise
    except Exception as error:
        # The engines' exceptions share no base class but Exception.
        raise BackendError(
            f"the engine cannot score a batch of shape {batch.shape} "
            f"({' '.join(str(error).split())}); export again."
        ) from error


def _verified_engine(
    bundle: Bundle, name: str, first_process: int, *, threads: int, rebuild: bool
) -> Engine:
    """Open an engine in this process and replay the golden images."""
    if ENGINES[name].needs_gpu and os.getpid() != first_process:
        raise BackendError(
            f"{bundle.path}: was opened on the GPU before this process was forked, and CUDA does "
            "not survive a fork; open the Detector in each worker, or start workers by spawn or "
            "forkserver."
        )
    engine = open_engine(
        name,
        bundle.read(MODEL),
        threads=threads,
        batch=bundle.manifest.input.batch,
        built=_built(bundle, name),
        rebuild=rebuild,
    )
    golden = bundle.golden()
    outputs = run_in_batches(engine, golden.images, bundle.manifest.input)
    parity = compare(golden.anomaly_maps, golden.pred_scores, *outputs)
    tolerance = bundle.manifest.tolerance
    if not parity.holds(tolerance):
        raise ParityError(
            f"{bundle.path}: {name} differs from the golden maps by "
            f"{parity.map_difference:.2g} of their maximum and from the scores by "
            f"{parity.score_difference:.2g}, expected at most {tolerance:.2g}; export again "
            "on this machine or choose another engine."
        )
    return engine


def _built(bundle: Bundle, name: str) -> BuiltEngine | None:
    """Read the engine that the bundle brings; what does not match its hash is left unread."""
    record = bundle.manifest.engines[name]
    if record.file is None:
        return None
    try:
        content = bundle.read(record.file)
    except BundleError:
        content = None
    return BuiltEngine(content, record.built_with, record.layer_precisions)

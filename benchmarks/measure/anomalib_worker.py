"""anomalib's STFPM in an environment of its own, exported and run with its own tools.

`stpm.benchmarks.measure.peers` starts this file with that environment's Python; it imports
nothing of stpm.
Reads lines of JSON from stdin, answers each with one line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.deploy import OpenVINOInferencer
from anomalib.models.image import Stfpm
from anomalib.models.image.stfpm import torch_model
from PIL import Image


def main(weights: Path, frames: Path, settings: dict[str, Any]) -> None:
    """Export the network, then score frames as asked.

    Args:
        weights: state dicts "teacher" and "student" in timm's names, from `torch.save`.
        frames: uint8 (N,H,W,3) in a .npy file.
        settings: "levels", "backbone", "input_size" and OpenVINO's "config".
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries print to stdout; only answers may stand there
    with tempfile.TemporaryDirectory() as folder, os.fdopen(answers, "w") as out:
        os.chdir(folder)  # the inferencer leaves a cache in the working folder
        inferencer = _inferencer(weights, settings)
        images = np.load(frames)
        height, width = settings["input_size"]
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            start = time.perf_counter_ns()
            frame = Image.fromarray(images[request["index"]])
            resized = np.asarray(frame.resize((width, height), Image.Resampling.BILINEAR))
            prediction = inferencer.predict(resized)
            elapsed_ms = (time.perf_counter_ns() - start) / 1e6
            anomaly_map = np.asarray(prediction.anomaly_map, np.float32).reshape(height, width)
            if request["map"]:
                np.save(request["map"], anomaly_map)
            print(json.dumps({"ms": elapsed_ms}), file=out, flush=True)


def _inferencer(weights: Path, settings: dict[str, Any]) -> OpenVINOInferencer:
    extractor = torch_model.TimmFeatureExtractor

    def without_download(*args: Any, **kwargs: Any) -> Any:
        return extractor(*args, **(kwargs | {"pre_trained": False}))

    torch_model.TimmFeatureExtractor = partial(without_download)
    # Its post-processor needs the statistics of a training run; the map is what we compare.
    model = Stfpm(settings["backbone"], settings["levels"], post_processor=False)
    state = torch.load(weights, weights_only=True)
    for name in ("teacher", "student"):
        features = getattr(model.model, f"{name}_model").feature_extractor
        missing, unexpected = features.load_state_dict(state[name], strict=False)
        left = [key for key in missing if not key.endswith("num_batches_tracked")]
        if left or unexpected:
            sys.exit(f"{name}: weights do not fit: {left + list(unexpected)}")
    model.eval()
    path = model.to_openvino(export_root=Path.cwd(), input_size=tuple(settings["input_size"]))
    return OpenVINOInferencer(path, device="CPU", config=settings["config"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))

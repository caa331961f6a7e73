"""Writes what the tests of libstpm replay: inputs, and what stpm.runtime makes of them.

python tests/c/golden.py DIR
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from drift_values import write_drift
from noise import CHANNELS, FORMATS, image, pixels, row_bytes
from PIL import Image
from record_values import write_record_values

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime import Detector
from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    Golden,
    InputContract,
    npz_bytes,
    write_bundle,
)
from stpm.runtime.errors import BundleError
from stpm.runtime.images.preprocess import load_image, resize
from stpm.runtime.output.map_score import MapScore, percent_of
from stpm.runtime.output.result import Result
from stpm.train.backbones import pyramid, state_hash
from stpm.train.checkpoint import Checkpoint
from stpm.train.methods.stpm.network import ModelConfig

DEPTHS = (16, 12, 10)
"""Bits that a camera uses of samples of 16."""
NETWORK_SIZE = (64, 64)
VERDICTS = 400
VERDICT_NUMBERS = {"ok": 0, "warn": 1, "anomalous": 2, "unaligned": 3}
"""As in stpm.h."""


def python_tests() -> ModuleType:
    """The tests of runtime/bundle/archive.py in one name space, for their malformed bundles.

    Beside them what is in `bundles` and `aligned`.
    """
    tests = Path(__file__).parents[1]
    sys.path.insert(0, str(tests / "support"))
    merged = ModuleType("python_tests")
    for name in ("test_bundle", "test_bundle_golden", "test_bundle_damage"):
        spec = importlib.util.spec_from_file_location(name, tests / "runtime/bundle" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        vars(merged).update(vars(module))
    for name in ("bundles", "aligned"):
        vars(merged).update(vars(importlib.import_module(name)))
    return merged


def write_resize(out: Path) -> None:
    """Every format at sizes from 1x1 to 4096x3000, with odd strides and each bit depth."""
    draw = random.Random(0)
    cases = []
    for form in range(len(FORMATS)):
        fixed = [(1, 1, 256, 256), (256, 256, 256, 256), (4096, 3000, 256, 256)]
        fixed += [(1024, 1024, 256, 256), (255, 257, 256, 256), (1, 700, 64, 48), (700, 1, 48, 64)]
        fixed += [(3, 5, 1, 1), (31, 33, 7, 33), (31, 33, 31, 9)]
        drawn = [tuple(int(2 ** draw.uniform(0, 9)) for _ in range(4)) for _ in range(30)]
        cases += [(form, *sizes, draw.randrange(8)) for sizes in fixed + drawn]
    with (out / "resize.bin").open("wb") as file, (out / "resize.txt").open("w") as index:
        for seed, (form, height, width, to_height, to_width, gap) in enumerate(cases):
            stride = row_bytes(form, width) + gap
            depth = DEPTHS[seed % len(DEPTHS)]
            source = load_image(image(form, height, width, stride, seed, depth), depth)
            file.write(resize(source, (to_height, to_width)).tobytes())
            sizes = f"{form} {height} {width} {stride} {to_height} {to_width}"
            index.write(f"{sizes} {depth} {seed}\n")


def write_regions(out: Path) -> None:
    """Maps from empty to full, with ties, and the regions that Python finds."""
    with (out / "regions.bin").open("wb") as file, (out / "regions.txt").open("w") as index:
        for seed in range(60):
            random_state = np.random.default_rng(seed)
            height, width, image_height, image_width = random_state.integers(1, 40, 4).tolist()
            values = random_state.random((height, width), np.float32)
            if seed % 2:
                values = np.round(values * 8) / np.float32(8)
            threshold = float(random_state.choice([0.0, 0.3, 0.5, 0.7, 0.9, 2.0]))
            result = Result(0, values, 0, threshold, (image_height, image_width))
            file.write(values.tobytes())
            sizes = f"{height} {width} {image_height} {image_width}"
            index.write(f"{sizes} {threshold!r} {len(result.regions)}\n")
            for region in result.regions:
                index.write(f"{' '.join(map(str, region.box))} {region.area!r} {region.peak!r}\n")


def write_map_scores(out: Path) -> None:
    """Maps, regions of interest with weights, and what Python makes of them."""
    kinds = ("max", "max", "top0.5%", "top20%", "top100%")
    with (out / "map_scores.bin").open("wb") as file, (out / "map_scores.txt").open("w") as index:
        for seed in range(120):
            draw = np.random.default_rng(seed)
            size, image_size = draw.integers(2, 60, 2), draw.integers(1, 90, 2)
            values = draw.random(size, np.float32)
            if seed % 3 == 0:
                values = np.round(values * 8) / np.float32(8)
            count = 1 + seed % 3
            labels = draw.integers(0, 1 + count, size).astype(np.uint8)
            if seed % 4 == 0:
                labels = np.sort(labels, axis=1)  # connected regions
            labels.ravel()[: 1 + count] = range(1 + count)
            kind = kinds[seed % len(kinds)]
            area = int(draw.integers(0, 400)) if kind == "max" else 0
            weights = tuple(draw.uniform(0.2, 3, count).tolist())
            names = tuple(f"r{i}" for i in range(count))
            scored = MapScore(labels, weights, names, kind, area)
            weighted = scored.weigh(values)
            scores = scored.roi_scores(weighted, (int(image_size[0]), int(image_size[1])))
            for array in (values, labels, weighted, scores):
                file.write(array.tobytes())
            percent = percent_of(kind)
            sizes = " ".join(map(str, (*size, *image_size)))
            index.write(f"{sizes} {percent!r} {area} {count} {' '.join(map(repr, weights))}\n")


def write_fakes(out: Path, tests: ModuleType) -> None:
    """Bundles for the engine of the tests, whose map is the red channel over 255."""
    for name, batch, resizes, bit_depth in [
        ("single", (1, 1), "host", 16),
        ("batch", (1, 4), "host", 16),
        ("pairs", (2, 4), "host", 16),
        ("camera", (1, 2), "graph", 16),
        ("deep", (1, 1), "host", 12),
    ]:
        contract = InputContract((24, 32), batch, resizes, bit_depth)
        images = pixels(3 * 24 * 32 * 3, 7).reshape(3, 24, 32, 3)
        maps, scores = tests.fake_outputs(images)
        manifest = replace(tests.WISHED, input=contract, map_size=(12, 16), name=name)
        golden = npz_bytes(Golden(images, maps, scores))
        write_bundle(out / f"{name}.stpm", manifest, {MODEL: b"fake", GOLDEN: golden})
        wrong = npz_bytes(Golden(images, maps + np.float32(1e-3), scores))
        write_bundle(out / f"{name}_drifted.stpm", manifest, {MODEL: b"fake", GOLDEN: wrong})
        maps[0, 0, 0] = np.nan
        wrong = npz_bytes(Golden(images, maps, scores))
        write_bundle(out / f"{name}_nan.stpm", manifest, {MODEL: b"fake", GOLDEN: wrong})


def write_malformed(out: Path, tests: ModuleType) -> None:
    """The malformed bundles of the Python tests, with a word that the error must have."""
    words = []

    def add(word: str, manifest: Any = None, golden: bytes | None = None) -> Path:
        path = out / f"{len(words):03}.stpm"
        files = tests.FILES | ({} if golden is None else {GOLDEN: golden})
        write_bundle(path, tests.WISHED, files)
        if manifest is not None:
            keys, value = manifest
            tests.change_manifest(path, keys, value)
        words.append(word)
        return path

    for keys in tests.REQUIRED:
        add(keys[-1], (keys, tests.REMOVED))
    for keys, values in tests.WRONG.items():
        for value in values:
            # C refuses as no JSON what no 64-bit float can hold.
            is_json = not isinstance(value, float) or np.isfinite(value)
            is_json = is_json and value != 10**400
            add(keys[-1] if is_json else "is not JSON", (keys, value))
    for version in (0, 3, -1, 1.0, "1", True, None, [1], {"major": 1}):
        add("schema version", (("schema_version",), version))
    for name in tests.FOREIGN_NAMES + tests.ODD_NAMES:
        entry = {"sha256": "0" * 64, "size_bytes": 0}
        add("plain file name", (("files", name), entry))
    for golden in tests.BROKEN_GOLDEN.values():
        add("golden.npz", golden=golden)
    for content in (b"", b"{", b"stpm", b"\xff\xfe\x00", b'{"schema_version": 1,}', b"[" * 100_000):
        (add("is not JSON") / MANIFEST).write_bytes(content)
    for content in (b"null", b"[]", b"1", b'"text"', b"{}"):
        (add("schema version none") / MANIFEST).write_bytes(content)
    (add("is larger than") / MANIFEST).write_bytes(b" " * ((1 << 20) + 1))
    for damage in (tests.cut_model, tests.emptied_model, tests.altered_model, tests.longer_model):
        damage(add("differs from the manifest's hash"))
    for damage in (tests.linked_model, tests.terabyte_model, tests.smaller_size):
        damage(add("differs from the manifest's hash"))
    for damage in (tests.no_manifest, tests.folder_as_manifest, tests.dangling_manifest):
        damage(add("cannot be read"))
    tests.no_folder(add("there is no such bundle"))
    (out / "words.txt").write_text("\n".join(words) + "\n")


def mutations(values: Any, tests: ModuleType) -> Iterator[Any]:
    """Manifests with one to three random changes."""
    draw = random.Random(1)
    pool = [None, True, 0, 1, -1, 2, 4096, 0.5, 1.0, 1e-3, 1e300, "", "host", "fp16", [], {}]
    pool += [[1, 1], [2, 4], [0.0, 1.0], {"a": "b"}, "\u00e4" * 1000, "\u00e4" * 1001, 10**30]
    while True:
        changed = copy.deepcopy(values)
        for _ in range(draw.randint(1, 3)):
            keys = draw.choice(list(tests.places(changed)))
            value = draw.choice([*pool, tests.REMOVED])
            if draw.random() < 0.1 and isinstance(keys[-1], str):
                keys = (*keys[:-1], "surplus")
                value = draw.choice(pool)
            changed = tests.changed(changed, keys, value)
        yield changed


def write_verdicts(out: Path, tests: ModuleType) -> None:
    """Changed manifests, and whether Python accepts them."""
    folder = out / "scratch.stpm"
    write_bundle(folder, tests.WISHED, tests.FILES)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / "wished.json").write_text(json.dumps(values))
    verdicts = []
    source = mutations(values, tests)
    for number in range(VERDICTS):
        text = json.dumps(next(source), ensure_ascii=number % 2 == 0)
        (folder / MANIFEST).write_text(text)
        try:
            Bundle(folder)
            verdicts.append("accepted")
        except BundleError:
            verdicts.append("refused")
        (out / f"{number:03}.json").write_text(text)
    assert min(verdicts.count(word) for word in ("accepted", "refused")) > VERDICTS // 20
    (out / "verdicts.txt").write_text("\n".join(verdicts) + "\n")


def checkpoint(bit_depth: int = 16, tile: int = 0) -> Checkpoint:
    """A teacher and a student with random weights."""
    config = ModelConfig(input_size=NETWORK_SIZE)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(pyramid(config.backbone, config.levels).state_dict())
    teacher_id = {"source": "random", "sha256": state_hash(states[0])}
    training = {"options": {"bit_depth": bit_depth, "tile": tile}}
    return Checkpoint(config, states[1], states[0], teacher_id, training=training)


def write_real(out: Path) -> None:
    """Exported bundles, and what Python's Detector makes of images on the same engine."""
    folders = {
        "small": draw_good(out / "good", 9, (80, 96)),
        "large": draw_good(out / "large", 3, (344, 392)),
        "small grey": draw_good(out / "grey", 9, (80, 96), form=0),
        "large grey": draw_good(out / "large_grey", 3, (344, 392), form=0),
    }
    exports = {
        "fp32": ExportOptions(),
        "fp16": ExportOptions("fp16", batch=(1, 4)),
        "bf16": ExportOptions("bf16", engines=("openvino",)),
        "int8": ExportOptions("int8"),
        "camera": ExportOptions(camera_size=(80, 96), batch=(1, 2)),
        "tiles": ExportOptions(tile=288, batch=(2, 3)),
        "rois": ExportOptions(batch=(1, 4), rois=(str(draw_rois(out)),), min_area=20),
        "deep": ExportOptions(),
        "grey": ExportOptions(grey=True, batch=(1, 4)),
        "grey_tiles": ExportOptions(tile=288, grey=True),
    }
    for name, options in exports.items():
        path = out / f"{name}.stpm"
        paths = folders[f"{'large' if options.tile else 'small'}{' grey' * options.grey}"]
        export_bundle(
            checkpoint(12 if name == "deep" else 16, options.tile),
            path,
            options,
            verify=paths,
            calibration=paths,
            quantization=paths,
            report=lambda _: None,
        )
        # The highest of more noise is higher.
        set_thresholds(path, *((2.08, 2.0) if options.tile else (1.95, 1.864)))
        for engine in Bundle(path).manifest.engines:
            write_scores(out / f"{name}_{engine}", Detector(path, engine))


def draw_good(folder: Path, count: int, size: tuple[int, int], form: int = 1) -> list[Path]:
    """Photographs of noise, (height, width) each, of a form of `FORMATS`."""
    folder.mkdir()
    paths = [folder / f"{seed}.png" for seed in range(count)]
    for seed, path in enumerate(paths):
        noise = image(form, *size, row_bytes(form, size[1]), seed) // 8 + 100
        Image.fromarray(noise.squeeze().astype(np.uint8)).save(path)
    return paths


def draw_rois(out: Path) -> Path:
    """Two regions of interest, beside each other, of images of 80x96 pixels."""
    polygons = {
        "left": [[[0, 0], [40, 0], [40, 79], [0, 79]]],
        "right": [[[50, 10], [90, 10], [95, 70], [50, 70]]],
    }
    path = out / "rois.json"
    path.write_text(json.dumps(polygons))
    return path


def set_thresholds(path: Path, threshold: float, warn_threshold: float) -> None:
    """Set thresholds amid the scores and maps of noise, so that each verdict occurs."""
    bundle = Bundle(path)
    engines = {
        name: replace(
            record,
            calibration=replace(
                record.calibration,
                image_threshold=threshold,
                pixel_threshold=1.6,
                warn_threshold=warn_threshold,
                warn_rate=0.9,
            ),
        )
        for name, record in bundle.manifest.engines.items()
    }
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(path, replace(bundle.manifest, engines=engines), files)


def write_scores(out: Path, detector: Detector) -> None:
    """Images by form, size, stride and seed; score, map and regions of each."""
    contract = detector.bundle.manifest.input
    draw = random.Random(2)
    forms = [form for form, count in enumerate(CHANNELS) if contract.channels in (count, 3)]
    with out.with_suffix(".bin").open("wb") as file, out.with_suffix(".txt").open("w") as index:
        for seed in range(20):
            form = forms[seed % len(forms)]
            free = contract.resize == "host"
            size = (draw.randint(20, 300), draw.randint(20, 300)) if free else contract.size
            stride = row_bytes(form, size[1]) + draw.randrange(8)
            result = detector(image(form, *size, stride, seed, contract.bit_depth))
            file.write(result.anomaly_map.tobytes())
            verdict = VERDICT_NUMBERS[result.verdict]
            sizes = f"{form} {size[0]} {size[1]} {stride} {contract.bit_depth} {seed}"
            rois = [
                f"{roi.name} {roi.score!r} {roi.threshold!r} {VERDICT_NUMBERS[roi.verdict]}"
                for roi in result.rois
            ]
            counts = f"{len(result.regions)} {len(rois)}"
            index.write(" ".join([sizes, repr(result.score), str(verdict), counts, *rois]) + "\n")


def main() -> None:
    """Write everything, into a folder that is not there yet."""
    out = Path(sys.argv[1]).resolve()  # for the links that it writes
    out.mkdir(parents=True)
    tests = python_tests()
    write_resize(out)
    write_regions(out)
    write_map_scores(out)
    write_drift(out)
    write_record_values(out)
    for name, write in [("fake", write_fakes), ("malformed", write_malformed)]:
        (out / name).mkdir()
        write(out / name, tests)
    (out / "aligned").mkdir()
    tests.write_aligned(out / "aligned", tests.WISHED)
    (out / "verdicts").mkdir()
    write_verdicts(out / "verdicts", tests)
    (out / "real").mkdir()
    write_real(out / "real")


if __name__ == "__main__":
    main()

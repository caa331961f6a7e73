"""What a record's lines are made of, as Python writes it: hashes of images, numbers and texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from noise import FORMATS, image, row_bytes

from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.verdict import pixels_hash


def write_record_values(out: Path) -> None:
    """Images of every format from a camera of 12 bits, numbers and texts, as a record has them."""
    draw = np.random.default_rng(12)
    with (out / "hashes.txt").open("w") as index:
        for form in range(len(FORMATS)):
            for height, width in ((1, 1), (24, 32), (7, 1001)):
                stride = row_bytes(form, width) + 2 * form
                made = load_image(image(form, height, width, stride, form, 12), 12)
                index.write(f"{form} {height} {width} {stride} {form} {pixels_hash(made)}\n")
    numbers = [*draw.normal(size=2000), *np.exp(draw.uniform(-60, 60, 2000))]
    numbers += [float(np.float32(number)) for number in numbers[:1000]]
    numbers += [round(number, 3) for number in numbers[:500]]
    numbers += [0.0, -0.0, 1e-4, 9.999e-5, 1e15, 1e16, 123456789012345680.0, 5e-324, 2.0**-44, 100]
    texts = ["", "Prüfung/Teil 1.ppm", '"\\/\b\f\n\r\t\x00\x1f\x7f~', "部品 \U0001f529 \uffff"]
    with (out / "json.txt").open("wb") as file:
        for value in numbers:
            file.write(f"{float(value).hex()}\n{json.dumps(float(value))}\n".encode())
        for text in texts:
            file.write(f"{text.encode().hex()}.\n{json.dumps(text)}\n".encode())

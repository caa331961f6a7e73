"""What a fleet is made of: `fleet.toml` read into models, a product, camera and seed each."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stpm.runtime.errors import DataError
from stpm.runtime.store import is_remote, local
from stpm.train.datasets import category_names, list_images, open_category

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
KNOWN = {"products", "seeds", "cameras", "train", "export", "resources"}
CAMERA = "{camera}"
"""Stands in a product's paths for the name of each camera."""
EVERY = "*"
"""Stands for every category of a data set."""


@dataclass(frozen=True)
class Product:
    """Where a product's images are: in a store, or relative to fleet.toml.

    Attributes:
        name: of the product.
        good: folder of good images; None where they are those of a category.
        data, category: root and category of a labelled data set, which is also tested on.
        camera: that took them; empty where a fleet names no cameras.
    """

    name: str
    good: str | None = None
    data: str | None = None
    category: str | None = None
    camera: str = ""

    def names_camera(self) -> bool:
        """Say whether its images depend on the camera."""
        return any(CAMERA in (text or "") for text in (self.good, self.data, self.category))

    def seen_by(self, camera: str) -> Product:
        """Return the product as one camera sees it."""
        good, data, category = (
            text and text.replace(CAMERA, camera) for text in (self.good, self.data, self.category)
        )
        return Product(self.name, good, data, category, camera)

    def flags(self) -> list[str]:
        """Return the flags that name the images to stpm-train."""
        if self.good is not None:
            return ["--good", self.good]
        return ["--data", str(self.data), "--category", str(self.category)]

    def images(self, root: Path) -> list[Path]:
        """List the good images below the folder of fleet.toml; DataError where there are none."""
        if self.good is not None:
            return list_images(_place(root, self.good))
        return open_category(_place(root, str(self.data)), str(self.category)).good_images()


@dataclass(frozen=True)
class Model:
    """One training and what follows it.

    Attributes:
        product, seed: what is trained.
        root: the folder of fleet.toml; work is done there.
        folder: of the model's files.
        train, export: flags of stpm-train and stpm-export.
    """

    product: Product
    seed: int
    root: Path
    folder: Path
    train: tuple[str, ...]
    export: tuple[str, ...]

    @property
    def name(self) -> str:
        """The product's name, the camera's, and the seed."""
        return "-".join(filter(None, (self.product.name, self.product.camera, str(self.seed))))

    def content_hash(self) -> str:
        """Return the SHA-256 of all that the model comes from: images, flags, version."""
        images = []
        for path in self.product.images(self.root):
            with path.open("rb") as file:
                images.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
        source = {
            "images": images,
            "product": self.product.flags(),
            "seed": self.seed,
            "train": self.train,
            "export": self.export,
            "stpm": version("stpm"),
        }
        return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A fleet: its models, and the processors and GPUs that each asks Ray for."""

    models: tuple[Model, ...]
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class _File:
    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> dict[str, Any]:
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise DataError(
                f"{self.path}: {name} is {value!r}, expected a table [{name}]; correct it."
            )
        return value


def read_plan(path: Path, out: Path) -> Plan:
    """Read fleet.toml.

    Args:
        path: of the file.
        out: folder of the models' folders.

    Raises:
        DataError: it cannot be read, or names something that is not known.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise DataError(f"{path}: is not TOML ({error}); correct that line.") from error
    file = _File(path, values)
    unknown = sorted(values.keys() - KNOWN)
    if unknown:
        raise DataError(
            f"{path}: got {', '.join(unknown)}, expected {', '.join(sorted(KNOWN))}; remove it."
        )
    root, folder = path.absolute().parent, out.absolute()
    lines = [_product(path, name, value) for name, value in file.table("products").items()]
    if not lines:
        raise DataError(f"{path}: names no product, expected lines below [products]; add one.")
    products = _every_category(root, _seen(path, lines, values.get("cameras")))
    train, export = (tuple(_flags(path, file.table(name))) for name in ("train", "export"))
    models = [
        Model(product, seed, root, folder, train, export)
        for product in products
        for seed in _seeds(path, values.get("seeds", [0]))
    ]
    models = [replace(model, folder=folder / model.name) for model in models]
    names = [model.name for model in models]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two models would be called {twice[0]}; rename a product.")
    return Plan(tuple(models), **_resources(path, file.table("resources")))


def _seen(path: Path, products: Sequence[Product], cameras: Any) -> list[Product]:
    """Return each product as each camera sees it; where there are none, as it is."""
    if cameras is not None and not (
        isinstance(cameras, list)
        and cameras
        and all(isinstance(c, str) and NAME.fullmatch(c) for c in cameras)
    ):
        raise DataError(f'{path}: cameras is {cameras!r}, expected names such as ["left", "top"].')
    for product in products:
        if product.names_camera() and cameras is None:
            raise DataError(f"{path}: product {product.name} names {CAMERA}; add cameras = [...].")
        if cameras is not None and not product.names_camera():
            raise DataError(
                f"{path}: product {product.name} is the same for every camera, expected {CAMERA} "
                'in its path, such as "photos/{camera}/bottle".'
            )
    if cameras is None:
        return list(products)
    return [product.seen_by(camera) for product in products for camera in dict.fromkeys(cameras)]


def _seeds(path: Path, seeds: Any) -> list[int]:
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(s) is int and s >= 0 for s in seeds)
    ):
        raise DataError(
            f"{path}: seeds is {seeds!r}, expected whole numbers such as [0, 1]; correct it."
        )
    return list(dict.fromkeys(seeds))


def _every_category(root: Path, products: Sequence[Product]) -> list[Product]:
    """Put a data set's categories in the place of a product that stands for all of them."""
    found = []
    for product in products:
        if product.category == EVERY:
            names = category_names(_place(root, str(product.data)))
            found += [replace(product, name=name, category=name) for name in names]
        else:
            found.append(product)
    return found


def _place(root: Path, path: str) -> Path:
    return local(path) if is_remote(path) else root / path


def _product(path: Path, name: str, value: Any) -> Product:
    if NAME.fullmatch(name) is None:
        raise DataError(
            f"{path}: got product {name!r}, expected letters, digits, '.', '_', '-'; rename it."
        )
    if isinstance(value, str):
        return Product(name, good=value)
    if isinstance(value, dict) and value.keys() <= {"data", "category"} and "data" in value:
        texts = {"category": name} | value
        if all(isinstance(text, str) for text in texts.values()):
            return Product(name, **texts)
    raise DataError(
        f"{path}: product {name} is {value!r}, expected a folder of good images or "
        '{ data = "ROOT" }, with category = "NAME" if the category has another name, or "*" for '
        "all; correct it."
    )


def _flags(path: Path, table: Mapping[str, Any]) -> list[str]:
    """Spell a table as flags: epochs = 2 is --epochs 2, and true is the flag alone."""
    words = []
    for name, value in table.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool):
                words += [f"--{name}"] if item else []
            elif isinstance(item, str | int | float):
                words += [f"--{name}", str(item)]
            else:
                raise DataError(
                    f"{path}: {name} is {item!r}, expected the value of a flag; correct it."
                )
    return words


def _resources(path: Path, table: Mapping[str, Any]) -> dict[str, float]:
    for name, value in table.items():
        if name not in ("cpus", "gpus") or isinstance(value, bool) or not value >= 0:
            raise DataError(
                f"{path}: got resources {name} = {value!r}, expected cpus and gpus; correct it."
            )
    return {name: float(value) for name, value in table.items()}

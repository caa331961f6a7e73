"""Find out which data set a folder holds."""

from __future__ import annotations

from pathlib import Path

from stpm.runtime.errors import DataError
from stpm.train.datasets.cifar10 import Cifar10Category
from stpm.train.datasets.mnist import MnistCategory
from stpm.train.datasets.mvtec import MvtecCategory
from stpm.train.datasets.samples import Category
from stpm.train.datasets.shanghaitech import ShanghaiTechCategory
from stpm.train.datasets.visa import VisaCategory

LAYOUTS: tuple[type[Category], ...] = (
    VisaCategory,
    Cifar10Category,
    MnistCategory,
    ShanghaiTechCategory,
    MvtecCategory,
)


def open_category(root: Path, name: str) -> Category:
    """Return a category of the data set below `root`, whose layout is detected from its files.

    Raises:
        DataError: the layout is not known, or has no such category.
    """
    names = category_names(root)
    if name not in names:
        raise DataError(
            f"{root}: there is no category {name!r}, expected one of {', '.join(names)}; name it "
            "with --category."
        )
    return _layout(root)(root, name)


def category_names(root: Path) -> list[str]:
    """List the categories of a data set.

    Raises:
        DataError: the layout is not known.
    """
    return _layout(root).names(root)


def find_category(model: Path, data: Path) -> str:
    """Return the category that the model's name begins with, the longest such.

    Raises:
        DataError: the layout is not known, or no category fits.
    """
    stem = model.name.split(".")[0]
    names = category_names(data)
    found = [name for name in names if stem == name or stem.startswith(f"{name}_")]
    if not found:
        raise DataError(
            f"{data}: the name of {model.name} does not begin with a category, expected one "
            f"of {', '.join(names)}; name it with --category."
        )
    return max(found, key=len)


def _layout(root: Path) -> type[Category]:
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check --data.")
    for layout in LAYOUTS:
        if layout.recognises(root):
            return layout
    known = "; ".join(layout.LAYOUT for layout in LAYOUTS)
    raise DataError(f"{root}: contains no known data set; expected below it one of: {known}.")

"""Data sets on disk, one file a layout; `open_category` finds out which one a folder holds."""

from stpm.runtime.images.listing import list_images
from stpm.train.datasets.images import (
    data_hash,
    image_exists,
    note_unused_range,
    read_image,
    read_images,
    read_mask,
)
from stpm.train.datasets.layouts import category_names, find_category, open_category
from stpm.train.datasets.mvtec import labelled_samples
from stpm.train.datasets.samples import GOOD, Category, Sample
from stpm.train.datasets.split import split_held_out, take_share
from stpm.train.datasets.tiles import read_tiles

__all__ = [
    "GOOD",
    "Category",
    "Sample",
    "category_names",
    "data_hash",
    "find_category",
    "image_exists",
    "labelled_samples",
    "list_images",
    "note_unused_range",
    "open_category",
    "read_image",
    "read_images",
    "read_mask",
    "read_tiles",
    "split_held_out",
    "take_share",
]

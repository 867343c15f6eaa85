"""Counts the objects of a data set by class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from small_object.datasets.dataset import DataSet
from small_object.datasets.labels import count_sizes
from small_object.sizes import COCO_SMALL, SIZE_GROUPS

QUANTILES = (5, 25, 50, 75, 95)
STRIDE = 4  # pixels of a cell of the finest head; an object with a shorter side is thin
MAX_THIN = 0.05  # share of the objects that may be thin at a suggested size
MAX_SHOWN = 12  # classes that a table or a picture shows


@dataclass(frozen=True)
class ObjectStats:
    """Some objects; `*_at_imgsz` is in the pixels of the resized image."""

    name: str  # of their class or split
    objects: int
    sizes: dict[str, int]  # objects by size group, in original pixels
    sizes_at_imgsz: dict[str, int]
    coco_small: float  # share of objects that are small to COCO, 0 to 1, in original pixels
    coco_small_at_imgsz: float
    side: dict[int, float]  # quantiles (percent: value) of √area, in original pixels; empty without objects
    side_at_imgsz: dict[int, float]
    thin: float  # share of objects with a side under `STRIDE` pixels in the resized image, 0 to 1
    imgsz_for_thin: int | None  # smallest multiple of 32 that leaves at most `MAX_THIN` of such, if there is one

    def advice(self) -> str:
        """Say from which image size on few objects are thin."""
        if self.thin <= MAX_THIN:
            return ""
        if self.imgsz_for_thin is None:
            return "; many have no width or height"
        return f"; from imgsz {self.imgsz_for_thin} on at most {MAX_THIN:.0%}"


@dataclass(frozen=True)
class SplitStats(ObjectStats):
    """Objects of one split, or of all."""

    images: int
    empty: int  # images without objects
    classes: list[ObjectStats]  # in the order of the class indices

    def shown_classes(self) -> list[int]:
        """Return the indices of the classes to show, the most frequent ones."""
        order = sorted(range(len(self.classes)), key=lambda i: -self.classes[i].objects)
        return sorted(order[:MAX_SHOWN])


def gather_objects(rows: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Gather the objects of images: class, width and height in pixels, (N, 3) each; `sizes` are the images'.

    Returns:
        Objects (N, 5): class, width and height in pixels, index of the image, longest side of the image.
    """
    parts = [
        np.insert(own, 3, [[i], [max(size)]], axis=1) for i, (own, size) in enumerate(zip(rows, sizes, strict=True))
    ]
    objects = np.concatenate([np.zeros((0, 5)), *parts])
    # shares have six decimals in most label files: 8 pixels must come back as 8 and not as 7.9999, which is very tiny
    return np.asarray(objects.round(2))


def count_dataset(
    objects: np.ndarray, splits: Sequence[Sequence[str]], dataset: DataSet, imgsz: int
) -> tuple[SplitStats, dict[str, SplitStats]]:
    """Count the objects of a data set, see `gather_objects`, of all its splits together and of each.

    `splits` are those that each image is in; `imgsz` is what the longest side of an image is resized to, in pixels.
    """
    total = _count_split("all", objects, np.arange(len(splits)), dataset.class_titles, imgsz)
    images = {split: np.flatnonzero([split in own for own in splits]) for split in dataset.splits}
    by_split = {split: _count_split(split, objects, own, dataset.class_titles, imgsz) for split, own in images.items()}
    return total, by_split


def _count_split(name: str, objects: np.ndarray, images: np.ndarray, classes: Sequence[str], imgsz: int) -> SplitStats:
    """Count the objects of some images, given by their indices."""
    objects = objects[np.isin(objects[:, 3], images)]
    return SplitStats(
        **vars(_count_objects(name, objects, imgsz)),
        images=len(images),
        empty=len(images) - len(np.unique(objects[:, 3])),
        classes=[_count_objects(cls, objects[objects[:, 0] == i], imgsz) for i, cls in enumerate(classes)],
    )


def _count_objects(name: str, objects: np.ndarray, imgsz: int) -> ObjectStats:
    """Count objects by size."""
    sides, longest = objects[:, 1:3], objects[:, 4]
    # divided last, so that parts of whole pixels that make up a group's limit are not a rounding error below it
    area = sides.prod(1)
    area_at_imgsz = area * imgsz**2 / longest**2
    with np.errstate(divide="ignore"):
        needed = STRIDE * longest / sides.min(1)  # imgsz from which on an object isn't thin
    number = max(len(area), 1)
    return ObjectStats(
        name=name,
        objects=len(area),
        sizes=_by_group(area),
        sizes_at_imgsz=_by_group(area_at_imgsz),
        coco_small=int((area < COCO_SMALL).sum()) / number,
        coco_small_at_imgsz=int((area_at_imgsz < COCO_SMALL).sum()) / number,
        side=_quantiles(np.sqrt(area)),
        side_at_imgsz=_quantiles(np.sqrt(area_at_imgsz)),
        thin=int((needed > imgsz).sum()) / number,
        imgsz_for_thin=_suggest_imgsz(needed),
    )


def _suggest_imgsz(needed: np.ndarray) -> int | None:
    """Return the smallest multiple of 32 that is enough for 95 % of what objects need, None if there is none."""
    limit = np.sort(needed)[-1 - int(MAX_THIN * len(needed))] if len(needed) else np.inf
    return 32 * int(np.ceil(limit / 32)) if np.isfinite(limit) else None


def _by_group(areas: np.ndarray) -> dict[str, int]:
    (counts,) = count_sizes(np.zeros(len(areas), np.int64), areas, 1).tolist()
    return dict(zip(SIZE_GROUPS, counts, strict=True))


def _quantiles(values: np.ndarray) -> dict[int, float]:
    if not len(values):
        return {}
    return dict(zip(QUANTILES, np.percentile(values, QUANTILES).round(3).tolist(), strict=True))

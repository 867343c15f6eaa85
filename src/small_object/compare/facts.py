"""Encodes each detection and object of the comparison page as a number, so that it can count without boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from small_object.compare.kinds import FOREGROUND, Kind, classify
from small_object.sizes import SIZE_GROUPS, size_group


class Boxes(NamedTuple):
    """Detections by falling score, or objects: xyxy in pixels (N, 4), classes (N,) and scores 0..1 (N,) in float64."""

    xyxy: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def sizes(self) -> np.ndarray:
        """Return each box's index in `SIZE_GROUPS`, shape (N,)."""
        return size_group(np.round(self.xyxy[:, 2:] - self.xyxy[:, :2], 2).prod(1))


class Cell(NamedTuple):
    """The detections of a model in an image, and the objects, which are None without labels."""

    detections: Boxes
    objects: Boxes | None
    ignored: np.ndarray  # whether each detection is ignored unless it takes an object, shape (N,)
    pairs: np.ndarray  # see `find_pairs`


NO_BOXES = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
NO_CELL = Cell(NO_BOXES, None, np.zeros(0, bool), np.zeros((0, 3)))
"""The cell of a model that did not run the image."""


class Facts:
    """Detections and objects as 32-bit numbers: for each cell the detections, the objects, and the objects again.

    Bits from the lowest: 4 for the `Kind`, 10 for a score, 3 for the size group, the rest for the class. An object's
    first number is `UNDETECTED`, its second `MISSED`. A detection that takes an object has the object's class and size.
    A detection counts if its own score reaches the minimum score. An object counts if its number's score does not: that
    of the detection that takes it or, for `MISSED`, also of one near it. The unit is 0.001, plus 1: 0 is no detection.

    Args:
        cells: The cells, image by image.

    Attributes:
        ends: Where the numbers of each cell end, int64, shape (C,).
        lowest: The lowest score; 1 without detections.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        objects = [cell.objects or NO_BOXES for cell in cells]
        num = np.array([(len(c.ignored), len(o.classes), 0) for c, o in zip(cells, objects, strict=True)])
        starts = np.cumsum(num, 0) - num
        at, object_at = (np.repeat(np.arange(len(cells)), num[:, column]) for column in (0, 1))
        self.ends = np.cumsum(num[:, 0] + 2 * num[:, 1])
        self._order = np.argsort(np.concatenate((at, object_at, object_at)), kind="stable")
        self._pairs = np.concatenate([cell.pairs + start for cell, start in zip(cells, starts, strict=True)])
        self._ignored = np.concatenate([cell.ignored for cell in cells])
        self._is_labelled = np.array([cell.objects is not None for cell in cells])
        self._unlabelled = ~self._is_labelled[at]
        self._detections, self._objects = (
            Boxes(*(np.concatenate(arrays) for arrays in zip(*each, strict=True)))
            for each in ([cell.detections for cell in cells], objects)
        )
        self.lowest = float(self._detections.scores.min(initial=1))

    def codes(self, iou: float = FOREGROUND, same_class: bool = True) -> np.ndarray:
        """Return the numbers, uint32; `same_class`: whether a detection takes only objects of its class."""
        found, objects = self._detections, self._objects
        matches = classify(self._pairs, found.classes * same_class, objects.classes * same_class, self._ignored, iou)
        kinds = np.where(self._unlabelled, Kind.FOUND, matches.kinds)
        object_sizes = objects.sizes()
        classes, sizes = (
            np.where(matches.objects < 0, own, np.append(of_object, 0)[matches.objects])
            for own, of_object in ((found.classes, objects.classes), (found.sizes(), object_sizes))
        )
        scores = np.rint(found.scores * 1000).astype(np.int64) + 1
        taken, near = (np.append(scores, 0)[which] for which in (matches.found_by, matches.near))
        rest = object_sizes << 14 | objects.classes << 17
        parts = (
            kinds | scores << 4 | sizes << 14 | classes << 17,
            Kind.UNDETECTED | taken << 4 | rest,
            Kind.MISSED | np.maximum(taken, near) << 4 | rest,
        )
        return np.concatenate(parts)[self._order].astype(np.uint32)

    def count(self, codes: np.ndarray) -> np.ndarray:
        """Count the detections and objects of each labelled cell by size group and `Kind`, int64, shape (C, 5, 9)."""
        cell = np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))
        kinds, scores, sizes = codes & 15, codes >> 4 & 1023, codes >> 14 & 7
        counted = ((kinds < Kind.UNDETECTED) | (scores == 0)) & self._is_labelled[cell]
        counts = np.zeros((len(self.ends), len(SIZE_GROUPS), len(Kind)), np.int64)
        np.add.at(counts, (cell[counted], sizes[counted], kinds[counted]), 1)
        return counts

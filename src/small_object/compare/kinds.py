"""The kinds of errors that a detector makes, as TIDE defines them (Bolya et al. 2020, https://arxiv.org/abs/2008.08115).

In order of falling score, each detection takes the free object of its class that it overlaps most, from `FOREGROUND`
on. The others are errors; where several definitions fit, the order is that of TIDE's own code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

FOREGROUND = 0.5
"""IoU from which on a detection finds an object."""
BACKGROUND = 0.1
"""IoU up to which a detection has nothing to do with an object."""


class Kind(IntEnum):
    """What became of a detection, or from `UNDETECTED` on of an object."""

    FOUND = 0
    CLASS = 1  # the place of an object of another class
    LOCALISATION = 2  # an object of its class, but too little overlap
    BOTH = 3  # an object of another class, and too little overlap
    DUPLICATE = 4  # an object that a detection of a higher score takes
    BACKGROUND = 5  # no object
    IGNORED = 6  # no object either, in an ignore region
    UNDETECTED = 7  # an object that no detection takes
    MISSED = 8  # such an object that no error of class or localisation is about either


ERRORS = [Kind.CLASS, Kind.LOCALISATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND, Kind.MISSED]


class Matches(NamedTuple):
    """What became of N detections and M objects.

    Attributes:
        kinds: `Kind` of each detection, int64, shape (N,).
        objects: Index of the object that each detection takes, or -1, int64, shape (N,).
        found_by: Index of the detection that takes each object, or -1, int64, shape (M,).
        near: Index of the first detection that is an error of class or localisation about each object, or -1, likewise.
    """

    kinds: np.ndarray
    objects: np.ndarray
    found_by: np.ndarray
    near: np.ndarray


def find_pairs(detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the pairs of an image that overlap by at least `BACKGROUND`.

    Args:
        detections: xyxy, shape (N, 4).
        objects: xyxy in the same unit, shape (M, 4).

    Returns:
        Index of the detection, index of the object and IoU of each pair, float64, shape (P, 3), sorted by detection and
        falling IoU.
    """
    boxes = (torch.from_numpy(np.asarray(each, np.float64).reshape(-1, 4)) for each in (detections, objects))
    iou = box_iou(*boxes).numpy()
    rows, columns = np.nonzero(iou >= BACKGROUND)
    pairs = np.column_stack((rows, columns, iou[rows, columns]))
    return pairs[np.lexsort((columns, -pairs[:, 2], rows))]


def classify(
    pairs: np.ndarray, classes: np.ndarray, object_classes: np.ndarray, ignored: np.ndarray, iou: float = FOREGROUND
) -> Matches:
    """Find what became of the detections and objects of any number of images.

    Args:
        pairs: See `find_pairs`; of several images with indices that go on from image to image.
        classes: Classes of the detections, in each image by falling score, shape (N,).
        object_classes: Classes of the objects, shape (M,).
        ignored: Whether each detection is ignored unless it takes an object, shape (N,).
        iou: IoU from which on a detection finds an object.
    """
    detection, target = pairs[:, :2].astype(int).T
    overlap, num = pairs[:, 2], len(classes)
    own = classes[detection] == object_classes[target]
    objects, found_by = [-1] * num, [-1] * len(object_classes)
    enough = own & (overlap >= iou)
    for i, j in zip(detection[enough].tolist(), target[enough].tolist(), strict=True):
        if objects[i] < 0 and found_by[j] < 0:
            objects[i], found_by[j] = j, i

    def most(among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest IoU of each detection, 0 without a pair, and its object."""
        which, first = np.unique(detection[among], return_index=True)
        largest, at = np.zeros(num), np.full(num, -1)
        largest[which], at[which] = overlap[among][first], target[among][first]
        return largest, at

    (same, same_at), (other, other_at) = most(own), most(~own)
    taken = np.array(objects, int)
    rules = {
        Kind.FOUND: taken >= 0,
        Kind.IGNORED: ignored,
        Kind.LOCALISATION: (same >= BACKGROUND) & (same <= iou),
        Kind.CLASS: other >= iou,
        Kind.DUPLICATE: same > iou,
        Kind.BOTH: other > BACKGROUND,
    }
    kinds = np.select(list(rules.values()), list(rules), Kind.BACKGROUND)
    near = np.full(len(object_classes), num)
    for kind, at in ((Kind.LOCALISATION, same_at), (Kind.CLASS, other_at)):
        np.minimum.at(near, at[kinds == kind], np.flatnonzero(kinds == kind))
    return Matches(kinds, taken, np.array(found_by, int), np.where(near < num, near, -1))

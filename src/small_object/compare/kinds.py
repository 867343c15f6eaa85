"""The kinds of errors of a detector, as defined by TIDE (Bolya et al. 2020, https://arxiv.org/abs/2008.08115).

By falling score, each detection takes the free object of its class that it overlaps most, with an IoU of at least
`FOREGROUND`. The other detections are errors. If several definitions fit, the order is that of TIDE's own code.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

FOREGROUND = 0.5
"""Minimum IoU for a detection to find an object."""
BACKGROUND = 0.1
"""Maximum IoU at which a detection is unrelated to an object."""


class Kind(IntEnum):
    """The outcome of a detection or, from `UNDETECTED`, of an object."""

    FOUND = 0
    CLASS = 1  # overlaps an object of another class
    LOCALISATION = 2  # overlaps an object of its class too little
    BOTH = 3  # overlaps an object of another class too little
    DUPLICATE = 4  # overlaps an object that a detection with a higher score takes
    BACKGROUND = 5  # overlaps no object
    IGNORED = 6  # overlaps no object, but is in an ignore region
    UNDETECTED = 7  # an object that no detection takes
    MISSED = 8  # such an object without an error of class or localisation


ERRORS = [Kind.CLASS, Kind.LOCALISATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND, Kind.MISSED]


class Matches(NamedTuple):
    """The outcomes of N detections and M objects.

    Attributes:
        kinds: `Kind` of each detection, int64, shape (N,).
        objects: Index of the object that each detection takes, or -1, int64, shape (N,).
        found_by: Index of the detection that takes each object, or -1, int64, shape (M,).
        near: Index of the first error of class or localisation at each object, or -1, int64, shape (M,).
    """

    kinds: np.ndarray
    objects: np.ndarray
    found_by: np.ndarray
    near: np.ndarray


def find_pairs(detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the pairs of detections and objects of an image with an IoU of at least `BACKGROUND`.

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
    """Find the outcomes of the detections and objects of any number of images.

    Args:
        pairs: See `find_pairs`; for several images, the indices continue from image to image.
        classes: Classes of the detections, in each image by falling score, shape (N,).
        object_classes: Classes of the objects, shape (M,).
        ignored: Whether each detection is ignored unless it takes an object, shape (N,).
        iou: Minimum IoU for a detection to find an object.
    """
    detection, target = pairs[:, :2].astype(int).T
    overlap, num = pairs[:, 2], len(classes)
    own = classes[detection] == object_classes[target]
    objects, found_by = [-1] * num, [-1] * len(object_classes)
    enough = own & (overlap >= iou)
    for i, j in zip(detection[enough].tolist(), target[enough].tolist(), strict=True):
        if objects[i] < 0 and found_by[j] < 0:
            objects[i], found_by[j] = j, i

    def best_overlap(among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest IoU of each detection, 0 without a pair, and its object."""
        which, first = np.unique(detection[among], return_index=True)
        largest, at = np.zeros(num), np.full(num, -1)
        largest[which], at[which] = overlap[among][first], target[among][first]
        return largest, at

    (same, same_at), (other, other_at) = best_overlap(own), best_overlap(~own)
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

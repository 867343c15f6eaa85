"""A perceptual hash: pictures that look the same have hashes that differ in few bits."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

SIDE = 16
BITS = SIDE * SIDE


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash a picture by where it gets brighter from left to right, on a grid of 16x16.

    The method is known as dHash (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

    Args:
        image: Picture of shape (height, width) or (height, width, channels), any depth.

    Returns:
        The hash's bits (256,), bool.
    """
    if image.ndim == 3:
        image = image.astype(np.float32).mean(2)
    small = cv2.resize(image.astype(np.float32), (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    brighter: np.ndarray = small[:, 1:] > small[:, :-1]
    return brighter.ravel()


def near_pairs(
    hashes: np.ndarray, others: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the pairs of hashes that differ in few bits; memory grows with their number only in proportion.

    Args:
        hashes: Hashes (N, 256), bool.
        others: Hashes (M, 256) to compare with.
        distance: Most bits that may differ.

    Yields:
        Indices of the first and of the second of some pairs, and the number of bits that differ, (K,) each.
    """
    right = others.astype(np.float32)
    block = 1024
    for start in range(0, len(hashes), block):
        left = hashes[start : start + block].astype(np.float32)
        apart = left.sum(1)[:, None] + right.sum(1) - 2 * left @ right.T  # exact: whole numbers up to 512
        i, j = np.nonzero(apart <= distance)
        yield i + start, j, apart[i, j].astype(np.int64)

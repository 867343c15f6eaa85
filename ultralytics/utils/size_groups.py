"""Groups of objects by their size, the one place for their limits."""

from __future__ import annotations

import numpy as np

COCO_SMALL, COCO_LARGE = 32**2, 96**2
"""COCO's limits on the box area, square pixels: small below the first, large from the second on."""

SIZE_GROUPS: dict[str, tuple[float, float]] = {
    "very tiny": (0, 8**2),
    "tiny": (8**2, 16**2),
    "small": (16**2, COCO_SMALL),
    "medium": (COCO_SMALL, COCO_LARGE),
    "large": (COCO_LARGE, float("inf")),
}
"""Limits on the box area by group, square pixels, from the first up to but without the second.

The first three are AI-TOD's (https://doi.org/10.1109/ICPR48806.2021.9413340) and together COCO's small; the last two
are COCO's (https://cocodataset.org/#detection-eval).
"""


def size_group(area: np.ndarray) -> np.ndarray:
    """Return the index in `SIZE_GROUPS` of each box.

    Args:
        area: Areas of boxes in square pixels, any shape.

    Returns:
        Indices of the same shape, int64.

    Example:
        >>> [list(SIZE_GROUPS)[group] for group in size_group(np.array([50, 100, 5000]))]
        ['very tiny', 'tiny', 'medium']
    """
    return np.searchsorted([low for low, _ in SIZE_GROUPS.values()][1:], area, side="right")

"""Groups what pairs connect."""

from __future__ import annotations

import numpy as np


def connected(count: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return for each node the least node that it is connected with, directly or through others.

    Args:
        count: Number of nodes.
        i: First node of each pair, (K,).
        j: Second node of each pair, (K,).

    Returns:
        Nodes (count,), int64: the same one for all of a group.

    Example:
        >>> connected(5, np.array([3, 1]), np.array([4, 3]))
        array([0, 1, 2, 1, 1])
    """
    label = np.arange(count)
    while True:
        low = label.copy()
        np.minimum.at(low, i, label[j])
        np.minimum.at(low, j, label[i])
        low = low[low]
        if (low == label).all():
            return label
        label = low

"""Connected components, implemented here because scipy is not a requirement."""

import numpy as np


def connected(count: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the lowest node of the component of each of `count` nodes, shape (count,), int64.

    Edges connect the nodes `i` and `j`, shape (K,).

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

"""NWD: the normalised Gaussian Wasserstein distance of boxes.

Wang, Xu, Yang and Yu, "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection", 2021,
https://arxiv.org/abs/2110.13389.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from small_object.sizes import box_sides

DEFAULT_C = 12.8  # pixels; the paper's C (section 4): the mean size of AI-TOD's objects


def nwd(box1: torch.Tensor, box2: torch.Tensor, c: float) -> torch.Tensor:
    """Return the similarity exp(-W / C) of pairs of boxes, where W is the Wasserstein distance of their Gaussians.

    A box is a Gaussian with its centre as mean and diag(w² / 4, h² / 4) as covariance, so that (equations 6 and 7)
    W² = Δcx² + Δcy² + (Δw / 2)² + (Δh / 2)². Unlike IoU, the similarity falls smoothly with the distance of boxes that
    do not overlap. Its gradient is zero, not undefined, where the boxes agree.

    Args:
        box1: Boxes, xyxy in pixels, shape (..., 4).
        box2: Boxes, likewise; broadcast against `box1`.
        c: Scale C in pixels, greater than 0.

    Returns:
        Similarities in 0..1, shape (...), in float32 or wider: squares of pixels overflow half precision.

    Example:
        >>> nwd(torch.tensor([0.0, 0, 10, 10]), torch.tensor([3.0, 4, 13, 14]), c=5.0)
        tensor(0.3679)
    """
    dtype = torch.promote_types(torch.promote_types(box1.dtype, box2.dtype), torch.float32)
    d = box1.to(dtype) - box2.to(dtype)
    centre, half_size = (d[..., :2] + d[..., 2:]) / 2, (d[..., 2:] - d[..., :2]) / 2
    distance = torch.linalg.vector_norm(torch.cat((centre, half_size), -1), dim=-1)
    return torch.exp(-distance / c)


def mean_box_size(labels: Iterable[Mapping[str, Any]], imgsz: int, tile: float | None = None) -> float:
    """Return the mean √(w·h) of a data set's boxes in input pixels, the scale C of the NWD.

    It is `DEFAULT_C` if no box has any size. See `box_sides` for the arguments.

    Example:
        >>> label = {"bboxes": np.array([[0.5, 0.5, 0.05, 0.1]]), "shape": (480, 640)}
        >>> round(mean_box_size([label], imgsz=320), 1)
        19.6
    """
    sizes = np.sqrt(box_sides(labels, imgsz, tile or math.inf).prod(1))
    return float(sizes.mean()) if sizes.any() else DEFAULT_C

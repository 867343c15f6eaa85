"""Maps boxes between an image and the input of a model that it was letterboxed to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ultralytics.utils import ops


def gain_and_pad(ratio_pad: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what xyxy of the original image are multiplied by, and what is then added, in the input; shapes (4,)."""
    gain, pad = ratio_pad  # of (height, width), of (x, y)
    return torch.tensor(gain).flip(0).repeat(2), torch.tensor(pad).repeat(2)


def unscale_boxes(rows: torch.Tensor, ori_shape: Any, ratio_pad: Any) -> np.ndarray:
    """Return rows that begin with xyxy in the input's pixels with xyxy in pixels of the original image."""
    rows = rows.float().cpu()  # half precision has steps of 0.5 px and more
    ops.scale_boxes(ori_shape, rows[:, :4], ori_shape, ratio_pad)  # in place
    return rows.numpy()

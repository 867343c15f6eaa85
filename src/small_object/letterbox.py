"""Maps boxes between an image and the model input that it was letterboxed to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ultralytics.utils import ops


def gain_and_pad(ratio_pad: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors and then the offsets that map xyxy of the original image to the input; shapes (4,)."""
    gain, pad = ratio_pad  # of (height, width), of (x, y)
    return torch.tensor(gain).flip(0).repeat(2), torch.tensor(pad).repeat(2)


def unscale_boxes(rows: torch.Tensor, ori_shape: Any, ratio_pad: Any) -> np.ndarray:
    """Return rows that start with xyxy in pixels of the input, mapped to pixels of the original image."""
    rows = rows.float().cpu()  # half precision has steps of 0.5 px and more
    ops.scale_boxes(ori_shape, rows[:, :4], ori_shape, ratio_pad)  # in place
    return rows.numpy()

"""Cuts tiles on the device of the model, so that an image is copied there once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from small_object.slicing.results import letterbox_gain

GREY = 114  # of upstream's letterbox


def letterbox_tiles(tiles: Sequence[torch.Tensor], input_hw: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return tiles as the input of a model, like upstream's letterbox except for the rounding of resized pixels.

    Args:
        tiles: Tiles of one shape (H, W, C), BGR if C is 3, uint8, views of images on the device.
        input_hw: Height and width of the input in pixels.
        dtype: Type of the input, float32 or float16.

    Returns:
        The input, RGB if C is 3, 0..1, shape (B, C, *input_hw).
    """
    batch = torch.stack(tuple(tiles)).permute(0, 3, 1, 2)
    height, width = (int(side) for side in batch.shape[2:])
    gain, (left, top) = letterbox_gain(input_hw, (height, width))
    size = round(height * gain[1]), round(width * gain[0])
    pixels = batch.float()
    if size != (height, width):
        pixels = interpolate(pixels, size, mode="bilinear", align_corners=False).round_()
    if size != input_hw:
        canvas = pixels.new_full((*pixels.shape[:2], *input_hw), GREY)
        canvas[..., int(top) : int(top) + size[0], int(left) : int(left) + size[1]] = pixels
        pixels = canvas
    if pixels.shape[1] == 3:
        pixels = pixels.flip(1)
    return (pixels / 255).to(dtype)

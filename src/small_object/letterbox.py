"""Maps coordinates between an image and the model input that it is letterboxed to, and builds inputs on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, pad
from ultralytics.utils import ops

GREY = 114  # of upstream's letterbox


def gain_and_pad(ratio_pad: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors and then the offsets that map xyxy of the original image to the input; shapes (4,)."""
    gain, offset = ratio_pad  # of (height, width), of (x, y)
    return torch.tensor(gain).flip(0).repeat(2), torch.tensor(offset).repeat(2)


def place(input_hw: Sequence[int], image_hw: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the width, height, left and upper side of an image in its input, as upstream letterboxes it."""
    from ultralytics.data.augment import LetterBox  # its package imports this module

    params = LetterBox(tuple(input_hw)).get_params({"img": np.broadcast_to(0, image_hw)})
    return *params["new_unpad"], params["left"], params["top"]


def letterbox_gain(input_hw: Sequence[int], image_hw: Sequence[int], ratio_pad: Any = None) -> tuple[Any, Any]:
    """Return the factors and offsets, each of (x, y), that map an image to its input; by default, upstream's."""
    if ratio_pad is not None:
        return tuple(ratio_pad[0][::-1]), tuple(ratio_pad[1])
    width, height, left, top = place(input_hw, image_hw)
    return (width / image_hw[1], height / image_hw[0]), (left, top)


def letterbox_tiles(tiles: Sequence[torch.Tensor], input_hw: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return tiles as the input of a model, like upstream's letterbox except for the rounding of resized pixels.

    Args:
        tiles: Tiles of one shape (H, W, C), BGR if C is 3, uint8, views of images on the device.
        input_hw: Height and width of the input in pixels.
        dtype: Type of the input, float32 or float16.

    Returns:
        The input, RGB if C is 3, 0..1, shape (B, C, *input_hw).
    """
    width, height, left, top = place(input_hw, tiles[0].shape[:2])
    pixels = torch.stack(tuple(tiles)).permute(0, 3, 1, 2).float()
    if pixels.shape[2:] != (height, width):
        pixels = interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
        pixels = pixels.add_(0.5).floor_()  # OpenCV rounds halves up: equal pixels from tiles of twice the size
    pixels = pad(pixels, (left, input_hw[1] - width - left, top, input_hw[0] - height - top), value=GREY)
    if pixels.shape[1] == 3:
        pixels = pixels.flip(1)
    return (pixels / 255).to(dtype)


def move_to_device(images: Sequence[np.ndarray], device: torch.device, wanted: bool | None) -> list[Any]:
    """Return images (H, W, C) as tensors on the device, to be cut there, if `wanted` (None: unless it is the CPU)."""
    if wanted is None:
        wanted = device.type != "cpu"
    return [torch.tensor(np.ascontiguousarray(image), device=device) for image in images] if wanted else list(images)


def unscale_boxes(xyxy: torch.Tensor, ori_shape: Any, ratio_pad: Any) -> np.ndarray:
    """Return boxes in pixels of the input, mapped to pixels of the original image."""
    boxes = xyxy.float().cpu().clone()  # half precision has steps of 0.5 px and more
    return ops.scale_boxes(ori_shape, boxes, ori_shape, ratio_pad).numpy()

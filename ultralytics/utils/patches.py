"""Reads images by one set of rules, and saves PyTorch files in one step, so that a file is never half-written."""

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from ultralytics.utils.patches import imread as stock_imread  # noqa: F401 - for small_object.images
from ultralytics.utils.patches import torch_save as stock_torch_save

from small_object.images import MAX_PIXELS, UnreadableImageError, read_bits, read_pixels, scale_to_8_bit

# PIL must read what OpenCV reads. It warns above its limit and refuses twice that.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2


def read_image(filename: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Return the pixels of an image, (H, W, C), uint8, BGR, by the rules that all commands share.

    For OpenCV's `flags` see `read_pixels`.

    Raises:
        UnreadableImageError: If it can't be read, or only with a loss of contrast; see `scale_to_8_bit`.
    """
    return scale_to_8_bit(read_pixels(filename, flags), read_bits())


def imread(filename: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Read an image, see `read_image`; if that fails, warn with the reason and return None."""
    try:
        return read_image(filename, flags)
    except UnreadableImageError as error:
        from ultralytics.utils import LOGGER  # it imports this module

        LOGGER.warning(f"{filename}: {error}")
        return None


def torch_save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    """Save an object in a path or an open file, see `torch.save`; a file at a path is replaced in one step.

    Raises:
        OSError: If the file can't be written; an older one is kept. (PyTorch itself would raise a RuntimeError that
            does not say that the disk is full.)
    """
    path = Path(os.path.realpath(f)) if isinstance(f, (str, os.PathLike)) else None
    if path is None or (path.exists() and not path.is_file()):  # an open file, or a device
        stock_torch_save(obj, f, *args, **kwargs)
        return
    from small_object.files import replacing  # it imports ultralytics.utils, which imports this module

    buffer = io.BytesIO()
    stock_torch_save(obj, buffer, *args, **kwargs)
    with replacing(path) as new:
        new.write_bytes(buffer.getbuffer())

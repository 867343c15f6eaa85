"""Leaves an image out of training, with the reason, if its pixels can't be read as they are meant."""

from __future__ import annotations

from pathlib import Path

from ultralytics.data.utils import check_image as stock_check_image
from ultralytics.utils.patches import read_image

from ultralytics_overlay import require_parameters

require_parameters(stock_check_image, "im_file")

TIFF_SUFFIXES = {".tif", ".tiff"}
PNG_DEPTH = 24  # offset of the byte in a PNG that holds its bits a channel


def check_image(im_file: str) -> tuple[str, tuple[int, int]]:
    """Check an image by its header, as upstream does, and by its pixels if it may have more than 8 bits a channel.

    Upstream goes by PIL, which can't open some TIFF files that OpenCV and so the training reads.

    Args:
        im_file: The file.

    Returns:
        What was repaired, or an empty string; (height, width) in pixels.

    Raises:
        UnreadableImageError: If its pixels can't be read, see `read_image`.
        AssertionError: If a side is shorter than 10 pixels, or the format is not supported.
    """
    if Path(im_file).suffix.lower() in TIFF_SUFFIXES:
        height, width = read_image(im_file).shape[:2]
        assert height > 9 and width > 9, f"image size {(height, width)} <10 pixels"
        return "", (height, width)
    if is_deep(im_file):
        read_image(im_file)
    return stock_check_image(im_file)


def is_deep(im_file: str) -> bool:
    """Return whether an image may have more than 8 bits a channel, by its first bytes."""
    with open(im_file, "rb") as file:  # noqa: PTH123 - any name
        head = file.read(PNG_DEPTH + 1)
    return head[4:8] == b"jP  " or (head[1:4] == b"PNG" and head[PNG_DEPTH:] == b"\x10")

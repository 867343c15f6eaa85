"""Leaves an image out of training, with the reason, if its pixels can't be read correctly."""

from collections.abc import Iterable
from pathlib import Path

from ultralytics.data.utils import check_image as stock_check_image
from ultralytics.data.utils import get_hash as stock_get_hash
from ultralytics.utils.patches import read_image

from small_object.images import BITS_VARIABLE, is_deep, read_bits

TIFF_SUFFIXES = {".tif", ".tiff"}


def get_hash(paths: Iterable[str]) -> str:
    """Return upstream's hash of files, by which a label cache is found valid; it depends on `SMALL_OBJECT_BITS`."""
    bits = read_bits()
    return stock_get_hash([*paths, *([f"{BITS_VARIABLE}={bits}"] if bits else [])])


def check_image(im_file: str) -> tuple[str, tuple[int, int]]:
    """Check an image by its header, as upstream does, and by its pixels if it may have more than 8 bits per channel.

    Upstream relies on PIL, which can't open some TIFF files that OpenCV, and therefore training, can read.

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
    try:
        return stock_check_image(im_file)
    except Exception:
        read_image(im_file)  # gives the reason; PIL's often names a package for an unrelated format
        raise

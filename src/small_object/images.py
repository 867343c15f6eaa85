"""Rules for image files: what the model sees of one, and which can't be used."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from small_object.errors import UserError

BITS_VARIABLE = "SMALL_OBJECT_BITS"
DARK = 64  # 16-bit images of which no high byte reaches this leave three quarters of the range empty
MAX_PIXELS = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS") or 1 << 30)  # OpenCV's own limit
DEEP_FORMATS = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\x4f\xff\x51", b"BM"  # TIFF, JPEG 2000 and BMP
PNG_DEPTH = 24  # offset of the byte in a PNG that holds its bits a channel
SURROGATE = re.compile("[\udc80-\udcff]")


class UnreadableImageError(OSError):
    """An image file can't be used; the message says why, without the name of the file."""


def read_bits() -> int | None:
    """Return how many bits of a 16-bit image the camera uses, from the environment variable `SMALL_OBJECT_BITS`.

    Returns:
        8 to 16, None where it is not set.

    Raises:
        UserError: If it is something else.
    """
    text = os.environ.get(BITS_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or not 8 <= int(text) <= 16:
        raise UserError(f"{BITS_VARIABLE}={text}: must be a whole number of bits from 8 to 16")
    return int(text)


def scale_to_8_bit(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Scale the pixels of an image to the 8 bits that the model sees.

    One scale for all images of a camera keeps brightness comparable, so it never follows from a single image's range.

    Args:
        pixels: Pixels of any shape, uint8 or uint16.
        bits: Bits that the camera uses of 16; higher values become white. None: 16, as in stock Ultralytics, and
            images that would be almost black are refused.

    Returns:
        The pixels, uint8; the same array if they were already.

    Raises:
        UnreadableImageError: If they are of another type, or almost black.

    Example:
        >>> scale_to_8_bit(np.array([[0, 2048, 4095]], np.uint16), bits=12).tolist()
        [[0, 128, 255]]
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise UnreadableImageError(f"holds {pixels.dtype} values; save it with 8 or 16 bits, without a sign")
    if bits is None and (brightest := int(pixels.max())) < DARK << 8:
        raise UnreadableImageError(
            f"has 16 bits, but no value above {brightest}, so the model would see it almost black; set the bits that "
            f"the camera uses, {BITS_VARIABLE}={max(8, brightest.bit_length())}, for training and prediction alike"
        )
    return np.minimum(pixels >> ((bits or 16) - 8), 255).astype(np.uint8)


def explain_refusal(error: cv2.error) -> UnreadableImageError:
    """Return the error for an image that OpenCV refuses to decode."""
    if "MAX_IMAGE" in str(error):
        limit = f"more than {MAX_PIXELS:,} pixels or {1 << 20:,} a side"
        return UnreadableImageError(f"is too large or states a wrong size: {limit} (OPENCV_IO_MAX_IMAGE_PIXELS)")
    return UnreadableImageError("can't be decoded by OpenCV")


def readable_name(name: str) -> str:
    r"""Return a file name with the bytes that are not UTF-8 as `%XX`, since OpenCV can't write files of such names.

    Example:
        >>> readable_name("caf\udce9.png")
        'caf%E9.png'
    """
    return SURROGATE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def find_nested_image(folder: str | Path, suffixes: Collection[str]) -> str | None:
    """Return an image in a subfolder that is not hidden, relative to the folder, or None."""
    for path, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if Path(path) != Path(folder):
            for file in files:
                if file.rpartition(".")[-1].lower() in suffixes and not file.startswith("."):
                    return os.path.relpath(os.path.join(path, file), folder)  # noqa: PTH118
    return None


def is_deep(im_file: str) -> bool:
    """Return whether an image must be decoded to know whether it can be used, by its first bytes, whatever its suffix.

    That is so for more than 8 bits a channel, and for BMP and AVIF, of which PIL checks the header alone.
    """
    with open(im_file, "rb") as file:  # noqa: PTH123 - any name
        head = file.read(PNG_DEPTH + 1)
    if head[1:4] == b"PNG":
        return head[PNG_DEPTH:] == b"\x10"
    return head[4:8] in {b"jP  ", b"ftyp"} or head.startswith(DEEP_FORMATS)


def literal_glob(pattern: str, **options: Any) -> list[str]:
    """Return the files of a pattern, or the one file whose name it is: file names may hold `*`."""
    if os.path.exists(pattern):  # noqa: PTH110
        return [pattern]
    return glob.glob(pattern, **options)  # noqa: PTH207

"""Rules for image files: how the model sees them, and which can't be used."""

import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from small_object.errors import UserError

BITS_VARIABLE = "SMALL_OBJECT_BITS"
DARK = 64  # a 16-bit image whose high bytes all stay below this leaves three quarters of the range empty
MAX_PIXELS = int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS") or 1 << 30)  # OpenCV's own limit
DEEP_FORMATS = b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\x4f\xff\x51", b"BM"  # TIFF, JPEG 2000 and BMP
PNG_DEPTH = 24  # offset of a PNG's byte with the bits per channel
SURROGATE = re.compile("[\udc80-\udcff]")


class UnreadableImageError(OSError):
    """An image file can't be used. The message says why, without the file's name."""


class DarkImageError(UnreadableImageError):
    """A 16-bit image can't be used until the number of bits that its camera uses is known."""


def read_bits() -> int | None:
    """Return how many bits of a 16-bit image the camera uses, 8 to 16, or None if `SMALL_OBJECT_BITS` is not set.

    Raises:
        UserError: If it has any other value.
    """
    text = os.environ.get(BITS_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or not 8 <= int(text) <= 16:
        raise UserError(f"{BITS_VARIABLE}={text}: must be a whole number of bits from 8 to 16")
    return int(text)


def scale_to_8_bit(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Scale an image's pixels to the 8 bits that the model sees.

    One scale for all images of a camera keeps brightness comparable, so it never depends on a single image's range.

    Args:
        pixels: Pixels of any shape, uint8 or uint16.
        bits: How many of the 16 bits the camera uses; higher values become white. None: 16, as in stock Ultralytics,
            and images that would be almost black are refused.

    Returns:
        The pixels, uint8; the same array if it already is uint8.

    Raises:
        UnreadableImageError: If they have another type.
        DarkImageError: If they are almost black.

    Example:
        >>> scale_to_8_bit(np.array([[0, 2048, 4095]], np.uint16), bits=12).tolist()
        [[0, 128, 255]]
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise UnreadableImageError(f"holds {pixels.dtype} values; save it with 8 or 16 bits, without a sign")
    if bits is None and (brightest := int(pixels.max())) < DARK << 8:
        raise DarkImageError(
            f"has 16 bits, but no value above {brightest}, so the model would see it almost black; set the bits that "
            f"the camera uses, {BITS_VARIABLE}={max(8, brightest.bit_length())}, for training and prediction alike"
        )
    return np.minimum(pixels >> ((bits or 16) - 8), 255).astype(np.uint8)


def read_pixels(filename: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Return an image's pixels as in its file: (H, W, C), of any type, BGR.

    `flags` is OpenCV's `IMREAD_COLOR` or `IMREAD_GRAYSCALE`, or `IMREAD_UNCHANGED` for other numbers of bands, which
    always cuts 16 bits to the upper 8.

    Raises:
        UnreadableImageError: If it can't be read.
    """
    from ultralytics.utils.patches import stock_imread  # it imports this module

    try:
        if not os.stat(filename).st_size:  # noqa: PTH116 - any name
            raise UnreadableImageError("is empty")
        deep = flags if flags == cv2.IMREAD_UNCHANGED else flags | cv2.IMREAD_ANYDEPTH
        pixels: np.ndarray | None = stock_imread(filename, deep)
        if pixels is not None and flags == cv2.IMREAD_GRAYSCALE and pixels.shape[2] == 3:  # of a TIFF
            if pixels.dtype == np.uint8:
                pixels = stock_imread(filename, flags)
            elif pixels.dtype == np.uint16:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)[..., None]
    except UnreadableImageError:
        raise
    except cv2.error as error:
        reason = "can't be decoded by OpenCV"
        if "MAX_IMAGE" in str(error):
            limit = f"more than {MAX_PIXELS:,} pixels or {1 << 20:,} per side"
            reason = f"is too large, or its header states a wrong size: {limit} (OPENCV_IO_MAX_IMAGE_PIXELS)"
        raise UnreadableImageError(reason) from error
    except (OSError, ValueError, MemoryError) as error:  # ValueError: no valid file name
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise UnreadableImageError(f"can't be opened: {reason}") from error
    if pixels is None:
        raise UnreadableImageError("can't be read as an image; it may be damaged")
    return pixels


def readable_name(name: str) -> str:
    r"""Return a file name with bytes that are not UTF-8 as `%XX`, since OpenCV can't write files with such names.

    Example:
        >>> readable_name("caf\udce9.png")
        'caf%E9.png'
    """
    return SURROGATE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def utf8_name(name: str) -> str:
    r"""Return a file name as text that UTF-8 can hold, the same in every locale; see `readable_name`.

    Example:
        >>> utf8_name("\udcc3\udca9.png")  # as Python reads é.png where the locale is C
        'é.png'
    """
    return readable_name(name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def read_names(file: Path) -> list[str]:
    """Return the lines of a list of file names, stripped and without empty ones; they need not be UTF-8."""
    lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    return [os.fsdecode(line.strip()) for line in lines if line.strip()]


def find_files(folder: str | Path, formats: Collection[str]) -> Iterator[str]:
    """Yield the files in a folder and its subfolders that training would find: by suffix, without hidden files.

    Links to folders are followed; each folder is read once. A warning names folders that can't be read.
    """
    from ultralytics.utils import LOGGER  # it imports this module

    def warn(error: OSError) -> None:
        LOGGER.warning(f"{error.filename}: can't be read: {error.strerror}; its content is left out")

    seen = set()
    for path, subfolders, names in os.walk(folder, onerror=warn, followlinks=True):
        real = os.path.realpath(path)
        subfolders[:] = sorted(name for name in subfolders if real not in seen and not name.startswith("."))
        for name in () if real in seen else names:
            if name.rpartition(".")[-1].lower() in formats and not name.startswith("."):
                yield os.path.join(path, name)  # noqa: PTH118 - ten million of them
        seen.add(real)


def find_nested_image(folder: str | Path, suffixes: Collection[str]) -> str | None:
    """Return an image in a visible subfolder, relative to the folder, or None."""
    nested = (file for file in find_files(folder, suffixes) if Path(file).parent != Path(folder))
    return next((os.path.relpath(file, folder) for file in nested), None)


def is_deep(im_file: str) -> bool:
    """Return whether an image must be decoded to know if it can be used, by its first bytes, whatever its suffix.

    This applies to more than 8 bits per channel, and to BMP and AVIF, of which PIL checks only the header.
    """
    with open(im_file, "rb") as file:  # noqa: PTH123 - any name
        head = file.read(PNG_DEPTH + 1)
    if head[1:4] == b"PNG":
        return head[PNG_DEPTH:] == b"\x10"
    return head[4:8] in {b"jP  ", b"ftyp"} or head.startswith(DEEP_FORMATS)


def literal_glob(pattern: str, **options: Any) -> list[str]:
    """Return the files that match a pattern, or the one file with that name: file names may hold `*`."""
    if os.path.exists(pattern):  # noqa: PTH110
        return [pattern]
    return glob.glob(pattern, **options)  # noqa: PTH207


def resolve_names(file: Path) -> tuple[list[str], list[str]]:
    """Return a list's files and patterns, relative to the current directory or else to the list, and the missing ones.

    A warning names each missing one.

    Raises:
        UserError: If all are missing.
    """
    from ultralytics.utils import LOGGER  # it imports this module

    found: list[str] = []
    missing: list[str] = []
    for name in sorted(read_names(file)):
        paths = [path for path in (name, str(file.parent / name)) if literal_glob(path, recursive=True)]
        if not paths:
            LOGGER.warning(f"{file}: {name}: no such file")
        (found if paths else missing).append((paths or [name])[0])
    if not found:
        raise UserError(f"{file}: none of its files exists")
    return found, missing

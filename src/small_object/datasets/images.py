"""Reads images as training does, and finds their faults."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from ultralytics.data.utils import TIFF_SUFFIXES, exif_size, stock_check_image
from ultralytics.utils import patches

from small_object.datasets.findings import Fault
from small_object.errors import one_line
from small_object.images import DarkImageError, UnreadableImageError, is_deep, read_pixels, scale_to_8_bit

HEIF_SUFFIXES = (".heic", ".heif")
JPEG_END = b"\xff\xd9"
MIN_SIDE = 10  # pixels of an image, as in upstream
SIDE = 16  # of a perceptual hash's grid
MAX_HASHED = 1 << 27  # pixels; a larger picture is downscaled first, since hashing takes four bytes per pixel


@dataclass(frozen=True)
class Picture:
    """The facts that are kept of an image."""

    size: tuple[int, int]  # width and height in pixels, as training sees it
    digest: bytes  # SHA-256 of its shape and pixels
    look: np.ndarray  # perceptual hash (256,), bool


def read_flags(channels: int) -> int:
    """Return OpenCV's flag with which training reads images of a number of channels."""
    return {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)


def scan_image(file: Path, bits: int | None = None) -> tuple[int, int]:
    """Check an image like training's scan, which decodes few files, but write nothing.

    For `bits` see `scale_to_8_bit`.

    Returns:
        Its width and height as training sees it.

    Raises:
        UnreadableImageError: If training leaves it out.
    """
    try:
        must_decode = is_tiff(file) or not file.stat().st_size or is_deep(str(file))
    except OSError as error:
        raise UnreadableImageError(f"can't be opened: {error.strerror}") from error
    if must_decode:
        pixels = scale_to_8_bit(read_pixels(file), bits)  # refuses an empty file
        if is_tiff(file):
            return check_size(*pixels.shape[1::-1])
    return _scan_header(file)


def is_tiff(file: Path) -> bool:
    """Return whether training reads an image as TIFF."""
    return file.suffix.lower() in TIFF_SUFFIXES


def check_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of an image; refuse those that are too small for training."""
    if min(width, height) < MIN_SIDE:
        raise UnreadableImageError(f"is {width}x{height} pixels; training leaves out images of less than {MIN_SIDE}")
    return width, height


def _scan_header(file: Path) -> tuple[int, int]:
    """Check what training's scan checks with PIL, see `scan_image`."""
    try:
        if _has_trailing_bytes(file):  # training would save it again, if it can
            with Image.open(file) as image:
                size = exif_size(image)
                image.load()
        else:
            if file.suffix.lower() not in HEIF_SUFFIXES:
                patches._image_open(file).close()  # upstream's function would install pi-heif for any unknown file
            size = stock_check_image(str(file))[1][::-1]
    except UnidentifiedImageError as error:
        raise UnreadableImageError("can't be read as an image; it may be damaged") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("is too large, or its header states a wrong size") from error
    except AssertionError as error:
        why = one_line(error).partition(". Supported")[0]
        raise UnreadableImageError(f"is left out by training: {why}") from error
    except Exception as error:  # PIL's plugins raise anything
        raise UnreadableImageError(f"is damaged or cut off: {one_line(error)[:80]}") from error
    return check_size(*size)


def _has_trailing_bytes(file: Path) -> bool:
    """Return whether training considers a JPEG damaged because of its last bytes."""
    with file.open("rb") as stream:
        if stream.read(3) != b"\xff\xd8\xff":
            return False
        stream.seek(-2, 2)
        if stream.read() == JPEG_END:
            return False
    with patches._image_open(file) as image:
        return bool(image.format == "JPEG")  # not MPO


def inspect_image(file: Path, channels: int = 3, bits: int | None = None) -> tuple[Picture | None, list[Fault]]:
    """Read an image as training does, and find its faults.

    Args:
        file: The image.
        channels: Number of channels that training reads, `channels` in the YAML.
        bits: How many of the 16 bits the camera uses, see `scale_to_8_bit`.

    Returns:
        Its facts, None if training can't use it; its faults.
    """
    try:
        pixels = read_pixels(file, read_flags(channels))
        depth = pixels.dtype
        pixels = scale_to_8_bit(pixels, bits)
        size = check_size(*pixels.shape[1::-1])
        if pixels.shape[2] != channels:
            raise UnreadableImageError(f"has {pixels.shape[2]} bands; `channels` in the data YAML is {channels}")
        if channels not in (1, 3):  # the scan reads these in colour
            scan_image(file, bits)
        elif not is_tiff(file):
            _scan_header(file)
    except UnreadableImageError as error:
        kind = "empty-image" if str(error) == "is empty" else "unreadable-image"
        return None, [Fault("dark-16-bit" if isinstance(error, DarkImageError) else kind, str(error))]
    faults = list(_find_format_faults(file, channels))
    if depth == np.uint16:
        faults.append(Fault("16-bit", f"has 16 bits per channel; training keeps the upper 8 of {bits or 16}"))
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if channels == 3 else pixels.mean(2, dtype=np.float32)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return Picture(size, digest.digest(), difference_hash(grey)), faults


def _find_format_faults(file: Path, channels: int) -> Iterator[Fault]:
    """Find bytes after the end, an orientation and transparency."""
    if not is_tiff(file) and _has_trailing_bytes(file):
        yield Fault("rewritten-image", "has bytes after its end, which training takes for damage")
    try:
        with patches._image_open(file) as image:
            # training finds no orientation after a PNG's pixels, and PIL would decode them
            turn = image.getexif().get(274) if image.format != "PNG" or "exif" in image.info else None
            has_alpha = image.mode in ("RGBA", "LA", "PA", "P", "RGBa", "La") and channels == 3
            if has_alpha and np.asarray(image.convert("RGBA").getchannel("A")).min() == 255:
                has_alpha = False
            mode = image.mode
    except Exception:  # PIL knows fewer formats than OpenCV, and raises anything where the data is damaged
        return
    if turn in range(2, 9):
        yield Fault("turned-image", f"has EXIF orientation {turn}: boxes must be in the rotated frame")
    if has_alpha:
        yield Fault("transparent", f"has transparent pixels ({mode})")


def largest_value(file: Path) -> int:
    """Return the largest value of a 16-bit image, -1 for all other files."""
    with suppress(OSError):
        if (is_tiff(file) or is_deep(str(file))) and (pixels := read_pixels(file)).dtype == np.uint16:
            return int(pixels.max())
    return -1


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash a grey picture (height, width): where it gets brighter from left to right, on a grid of 16x16.

    The method is known as dHash (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

    Returns:
        The hash's bits (256,), bool.
    """
    if image.size > MAX_HASHED:
        image = cv2.resize(image, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image.astype(np.float32), (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.ravel(small[:, 1:] > small[:, :-1])


def near_pairs(
    hashes: np.ndarray, others: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the pairs of hashes (N, 256) and (M, 256), bool, that differ in at most `distance` bits.

    Memory grows only linearly with their number.

    Yields:
        For some pairs, the indices of the first and of the second, and the number of different bits, (K,) each.
    """
    right = others.astype(np.float32)
    block = 1024
    for start in range(0, len(hashes), block):
        left = hashes[start : start + block].astype(np.float32)
        apart = left.sum(1)[:, None] + right.sum(1) - 2 * left @ right.T  # exact: whole numbers up to 512
        i, j = np.nonzero(apart <= distance)
        yield i + start, j, apart[i, j].astype(np.int64)

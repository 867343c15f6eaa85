"""Images as training reads them, and what is wrong with them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from ultralytics.data.utils import IMG_FORMATS, exif_size
from ultralytics.utils import patches
from ultralytics.utils.patches import imread

from small_object.datasets.findings import Fault
from small_object.errors import one_line

DARK = 64  # a brightest value below this in 16-bit images' high byte leaves three quarters of the range empty
JPEG_END = b"\xff\xd9"
SIDE = 16  # of the grid of a perceptual hash
BITS = SIDE * SIDE


@dataclass(frozen=True)
class Picture:
    """What is kept of an image."""

    size: tuple[int, int]  # width and height in pixels, as training sees it
    digest: bytes  # SHA-256 of its shape and pixels
    look: np.ndarray  # perceptual hash (256,), bool


def read_pixels(file: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Read an image as upstream does, (height, width, channels) BGR; None where it cannot be read."""
    try:
        pixels: np.ndarray | None = imread(file, flags)
        return pixels
    except cv2.error:
        return None


def read_size(file: str | Path) -> tuple[int, int]:
    """Return an image's width and height as training sees it, by its header alone.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        with Image.open(file) as image:
            return exif_size(image) if _may_be_turned(image) else image.size
    except Exception as error:  # decoders raise what they like
        raise OSError(f"cannot be read ({one_line(error)})") from error


def _may_be_turned(image: Image.Image) -> bool:
    """Say whether to look for an orientation: behind a PNG's pixels training finds none, and PIL would decode them."""
    return image.format != "PNG" or "exif" in image.info


def read_image(file: Path, channels: int = 3) -> tuple[Picture | None, list[Fault]]:
    """Read an image as training does, to the last byte.

    OpenCV alone is too lenient with damaged files in some versions and too strict in others, so PIL reads it as well;
    a JPEG at an eighth of its size, which takes all of the file, but half of the time.

    Args:
        file: The image.
        channels: Channels that training reads, `channels` in the YAML.

    Returns:
        What is kept of it, None if training cannot use it; its faults.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        return None, [Fault("unreadable-image", f"cannot be opened: {error.strerror}")]
    if not data:
        return None, [Fault("empty-image", "has no bytes")]
    # upstream's own opener would install pi-heif for any file that PIL does not know
    opener = Image.open if file.suffix.lower() in (".heic", ".heif") else patches._image_open
    try:
        with opener(io.BytesIO(data)) as image:
            mode, form, turn = image.mode, (image.format or "").upper(), _orientation(image)
            if form == "PNG":
                image.verify()
            else:
                image.draft("L", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
    except UnidentifiedImageError:
        return None, [Fault("unreadable-image", "is no image that can be read")]
    except Exception as error:  # PIL's plugins raise anything
        return None, [Fault("damaged-image", f"is damaged or cut off: {one_line(error)[:80]}")]
    if form.lower() not in IMG_FORMATS | {"jpeg2000"}:
        return None, [Fault("unreadable-image", f"is {form} inside, which training leaves out")]
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH}.get(channels, cv2.IMREAD_UNCHANGED)
    pixels = read_pixels(file, flags)  # as upstream's loader, but for 16 bits, which it cuts to 8
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        message = f"cannot be read by OpenCV, so training stops there ({form}, {mode})"
        return None, [Fault("unreadable-image", message)]
    height, width = pixels.shape[:2]
    if min(width, height) < 10:
        message = f"is {width}x{height} pixels; training leaves out images of less than 10"
        return None, [Fault("unreadable-image", message)]
    faults = []
    if form == "JPEG" and not data.endswith(JPEG_END):
        faults.append(Fault("rewritten-image", "has bytes behind its end, which training takes for damage"))
    if turn in range(2, 9):
        faults.append(Fault("turned-image", f"has EXIF orientation {turn}: boxes must be in the turned frame"))
    brightest = None
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
        brightest = int(pixels.max())
    if channels == 3:
        faults += _find_colour_faults(data, mode, brightest)
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.shape[2] == 3 else pixels
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()
    return Picture((width, height), digest, difference_hash(grey)), faults


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation if there is one."""
    try:
        return image.getexif().get(274) if _may_be_turned(image) else None
    except Exception:  # PIL raises anything where the data is damaged; then nothing is turned
        return None


def _find_colour_faults(data: bytes, mode: str, brightest: int | None) -> Iterator[Fault]:
    """Find 16 bits a channel and transparency; `brightest` is the largest high byte of a 16-bit image."""
    if brightest is not None:
        if brightest < DARK:
            message = f"is almost black to training, which keeps the high byte: at most {brightest} of 255"
            yield Fault("dark-16-bit", message)
        else:
            yield Fault("16-bit", "has 16 bits a channel, of which training keeps the upper 8")
        return
    if mode in ("RGBA", "LA", "PA", "P", "RGBa", "La"):
        with patches._image_open(io.BytesIO(data)) as image:
            if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                yield Fault("transparent", f"has transparent pixels ({mode})")


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Hash a picture by where it gets brighter from left to right, on a grid of 16x16.

    The method is known as dHash (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

    Args:
        image: Picture of shape (height, width) or (height, width, channels), any depth.

    Returns:
        The hash's bits (256,), bool.
    """
    if image.ndim == 3:
        image = image.astype(np.float32).mean(2)
    small = cv2.resize(image.astype(np.float32), (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    brighter: np.ndarray = small[:, 1:] > small[:, :-1]
    return brighter.ravel()


def near_pairs(
    hashes: np.ndarray, others: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the pairs of hashes that differ in few bits; memory grows with their number only in proportion.

    Args:
        hashes: Hashes (N, 256), bool.
        others: Hashes (M, 256) to compare with.
        distance: Most bits that may differ.

    Yields:
        Indices of the first and of the second of some pairs, and the number of bits that differ, (K,) each.
    """
    right = others.astype(np.float32)
    block = 1024
    for start in range(0, len(hashes), block):
        left = hashes[start : start + block].astype(np.float32)
        apart = left.sum(1)[:, None] + right.sum(1) - 2 * left @ right.T  # exact: whole numbers up to 512
        i, j = np.nonzero(apart <= distance)
        yield i + start, j, apart[i, j].astype(np.int64)

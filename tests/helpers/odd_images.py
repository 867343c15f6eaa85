"""A folder with one image file of every odd kind, to test that all commands treat them in the same way."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from tests.helpers.common import write_tree

READABLE = {
    "good.png", "a*b.png", "axb.png", "caf\udce9.png", "li\nne.png", "quo'te\".png", "grey.png", "rgba.png",
    "deep16.png", "grey16.tif", "bands16.tif",
}  # fmt: skip
UNREADABLE = {
    "bomb.png": "is too large, or its header states a wrong size",
    "empty.jpg": "is empty",
    "text.jpg": "be read as an image; it may be damaged",
    "cut.png": "be read as an image; it may be damaged",
    "float.tif": "holds float32 values",
    "double.tif": "holds float64 values",
    "signed.tif": "holds int16 values",
    "uint32.tif": "holds uint32 values",
    "deep12.tif": "no value above 4095, .* SMALL_OBJECT_BITS=12",
    "deep10.png": "no value above 1023, .* SMALL_OBJECT_BITS=10",
}
"""Files that no command can read, by name, and why (a regular expression)."""
SIZE = (64, 96)  # (height, width) in pixels


def build_png(width: int, height: int, pixels: bytes = b"\0") -> bytes:
    """Return a grey PNG whose header states a size, whatever its pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_odd_images(folder: Path) -> Path:
    """Write the files of `READABLE` and `UNREADABLE` into a new folder; return it."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    share = rng.random(SIZE)
    share[0, 0] = 1
    kinds = {
        "grey.png": colour[..., 0],
        "rgba.png": np.dstack([colour, colour[..., 0]]),
        "deep16.png": (share * 65535).astype(np.uint16),
        "grey16.tif": (share * 65535).astype(np.uint16),
        "bands16.tif": colour.astype(np.uint16) * 257,
        "float.tif": colour.astype(np.float32) / 255,
        "double.tif": colour.astype(np.float64),
        "signed.tif": colour.astype(np.int16),
        "uint32.tif": colour.astype(np.uint32),
        "deep12.tif": (share * 4095).astype(np.uint16),
        "deep10.png": (share * 1023).astype(np.uint16),
    }
    png = cv2.imencode(".png", colour)[1].tobytes()
    contents = {"bomb.png": build_png(100_000, 100_000), "empty.jpg": b"", "text.jpg": b"no image", "cut.png": png[:50]}
    files = dict.fromkeys((*READABLE, *UNREADABLE), png) | kinds | contents
    return write_tree(folder, files)

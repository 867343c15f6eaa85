"""The region of images that matters: tiles outside it, and objects with their centre outside, are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from ultralytics.utils.patches import imread

from small_object.errors import UserError

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
MAX_DISTORTION = 0.02  # relative difference between the aspects of a mask and an image


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the images of a fixed camera.

    Attributes:
        file: The file that it was read from, for messages.
        mask: Where to look in the file's picture, bool, shape (H, W); None for polygons.
        polygons: Where to look, xy as fractions of an image's sides, shapes (P, 2).
    """

    file: Path
    mask: np.ndarray | None
    polygons: Sequence[np.ndarray] = ()

    @lru_cache(maxsize=8)  # noqa: B019 - a run has one region
    def build_mask(self, image_hw: tuple[int, int]) -> np.ndarray:
        """Return where to look in an image of the shape (height, width), as a bool array of that shape.

        Raises:
            UserError: If the mask's aspect ratio differs from the image's.
        """
        height, width = image_hw
        if self.mask is None:
            canvas = np.zeros(image_hw, np.uint8)
            corners = [np.rint(polygon * (width, height)).astype(np.int32) for polygon in self.polygons]
            return cv2.fillPoly(canvas, corners, 1).astype(bool)
        h, w = self.mask.shape
        if abs(w * height / (h * width) - 1) > MAX_DISTORTION:
            image = f"an image of {width}x{height} pixels"
            raise UserError(f"slice_roi={self.file}: the aspect ratio of a {w}x{h} mask differs from {image}")
        return cv2.resize(self.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)

    def select_tiles(self, tiles: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
        """Return the tiles, xyxy in pixels, shape (T, 4), that show a pixel of the region."""
        mask = self.build_mask(image_hw)
        return tiles[[bool(mask[y1:y2, x1:x2].any()) for x1, y1, x2, y2 in tiles.tolist()]]

    def contains(self, centres: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
        """Return whether points, xy in pixels of an image, shape (N, 2), lie in the region, shape (N,)."""
        mask = self.build_mask(image_hw)
        x, y = (centres[:, k].cpu().long().clamp(0, image_hw[1 - k] - 1).numpy() for k in (0, 1))
        return torch.from_numpy(mask[y, x]).to(centres.device)


def read_region(path: str | Path) -> Region:
    """Read a region from a mask image, where it is the pixels above 127, or from a YAML with polygons.

    The YAML has a key `polygons`: a list of polygons, each a list of at least 3 points [x, y] as fractions of the
    image's width and height, 0..1.

    Raises:
        UserError: If the file is neither.
    """
    file = Path(str(path))
    if not file.is_file():
        raise UserError(f"slice_roi={path}: no such file; give that of a mask image or of a YAML with polygons")
    if file.suffix.lower() in MASK_SUFFIXES:
        image = imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise UserError(f"slice_roi={path}: can't be read as an image")
        mask = image.reshape(image.shape[:2]) > 127
        if not mask.any():
            raise UserError(f"slice_roi={path}: is black everywhere; paint the region white")
        return Region(file, mask)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        polygons = [np.array(each, float) for each in content["polygons"]]
        in_range = all(((p >= 0) & (p <= 1)).all() for p in polygons)
        if not (polygons and in_range and all(p.ndim == 2 and p.shape[1] == 2 and len(p) >= 3 for p in polygons)):
            raise ValueError("no polygons")
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        advice = "give a mask image, or a YAML with `polygons: [[[x, y], [x, y], [x, y], ...]]`, x and y from 0 to 1"
        raise UserError(f"slice_roi={path}: {advice}") from error
    return Region(file, None, polygons)

"""Training on slices: random tiles of large images at native resolution instead of the downscaled images."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import exif_size
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywhn2xyxy, xyxy2xywhn
from ultralytics.utils.patches import imread

from small_object.errors import UserError
from small_object.ignore import paint_regions, read_regions
from small_object.sizes import box_sides
from small_object.slicing.tiling import auto_tile

Window = tuple[int, int, int, int]

MAX_TRIES = 10  # random tiles to try for one that fits


class SlicedDataset(YOLODataset):
    """A data set in which each access returns a random tile of an image, or at times the whole image.

    Both are scaled so that the longer side is `imgsz`, and upstream's augmentations run on them unchanged. An epoch has
    as many samples as there are images. An image no larger than a tile is returned whole. The choices come from
    Python's `random`, as those of upstream's augmentations do.

    - A tile lies anywhere in the image. With probability `slice_empty` it shows no part of an object, if one of a few
      random tiles does so. Otherwise it contains a random object, or lies inside that object if the object is larger.
    - Boxes are clipped to the tile. A box that keeps less than the fraction `slice_keep` of its area is dropped. If all
      objects are dropped in each of the tiles tried, as with objects much larger than a tile, the image is given whole.
    - Polygons are dropped, also in whole images: upstream can't mix objects that have them with objects that don't.

    Each access reads the image, and a mosaic makes four. The cache in RAM holds whole images at full size; with the
    cache on disk, only the part of an image that lies in the tile is read.

    Args:
        *args: See upstream's `YOLODataset`.
        hyp: Arguments of the training, with `slice` (side of a tile in pixels or "auto"), `slice_full_ratio` (fraction
            of whole images), `slice_keep` and `slice_empty`.
        rect: Must be False: rectangular batches need the shapes of the samples beforehand.
        **kwargs: See upstream's `YOLODataset`.

    Raises:
        UserError: If `rect` is True.
    """

    def __init__(self, *args: Any, hyp: SimpleNamespace, rect: bool = False, **kwargs: Any) -> None:
        if rect:
            raise UserError("rect=True can't be used with slice in training")
        super().__init__(*args, hyp=hyp, rect=rect, **kwargs)
        for label in self.labels:
            label["segments"] = []
        auto = hyp.slice == "auto"
        self.tile = auto_tile(self.imgsz, object_size(self.labels)) if auto else int(hyp.slice)
        self.full_ratio, self.keep, self.empty = hyp.slice_full_ratio, hyp.slice_keep, hyp.slice_empty
        # Upstream's mosaic takes its other images from those that the buffer keeps in memory. Here no image is kept:
        # kept tiles would be used again and again, and whole images could fill the memory. So it may take any.
        self.buffer = list(range(self.ni))

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return the whole image, shape (H, W, C), uint8, and twice its (height, width).

        Upstream's cache in RAM then counts and holds it at full size. How upstream would resize it is not used.
        """
        image = np.array(self._read(i))  # a copy: a data set's worth of mapped files may be more than a process can map
        return image, image.shape[:2], image.shape[:2]

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return a random tile of an image, or the whole image, with its labels: upstream's dict before augmentation.

        `ori_shape` is the (height, width) of the tile in pixels of the image, `resized_shape` that of `img`, and the
        boxes are normalised to the tile.
        """
        return self._get_readable(index, self._get_tile)

    def _get_tile(self, index: int) -> dict[str, Any]:
        image = self._read(index)
        height, width = image.shape[:2]
        label = {key: value for key, value in self.labels[index].items() if key != "shape"}
        xyxy = xywhn2xyxy(label["bboxes"].astype(float), width, height).clip(0, (width, height, width, height))
        xyxy = xyxy.round(2)  # labels of 32 bits leave slivers of 1e-5 pixels beyond a tile's edge
        x1, y1, x2, y2 = window = self._choose(height, width, xyxy)
        if window == (0, 0, width, height):
            label |= {"bboxes": label["bboxes"].copy(), "cls": label["cls"].copy()}  # augmentations write into them
        else:
            kept, xyxy, _ = cut_boxes(xyxy, window, self.keep)
            xywh = xyxy2xywhn(xyxy - (x1, y1, x1, y1), x2 - x1, y2 - y1).astype(label["bboxes"].dtype)
            label |= {"bboxes": xywh, "cls": label["cls"][kept]}
        part = image[y1:y2, x1:x2]
        if len(regions := read_regions(self.im_files[index])):
            part = np.array(part)  # of its own, since the image may be a file or in the cache
            paint_regions(part, regions * ((width, height) * 2) - (x1, y1, x1, y1), xyxy - (x1, y1, x1, y1))
        label["img"] = self._resize(part)
        label["ori_shape"], label["resized_shape"] = (y2 - y1, x2 - x1), label["img"].shape[:2]
        label["ratio_pad"] = tuple(b / a for a, b in zip(label["ori_shape"], label["resized_shape"], strict=True))
        return self.update_labels_info(label)

    def _read(self, i: int) -> np.ndarray:
        """Return the whole image, shape (H, W, C), from RAM, mapped from its .npy file, or from its file."""
        if self.ims[i] is not None:
            return self.ims[i]
        image, file, cached = None, self.im_files[i], self.npy_files[i]
        if cached.exists() and cached.stat().st_mtime >= Path(file).stat().st_mtime:
            try:
                image = np.load(cached, mmap_mode="r")
                if image.dtype != np.uint8 or (image.shape[2] if image.ndim > 2 else 1) != self.channels:
                    raise ValueError(f"it holds {image.dtype} of shape {image.shape}")
            except (OSError, ValueError, EOFError) as error:
                LOGGER.warning(f"{self.prefix}Removing unusable *.npy image file {cached}: {error}")
                cached.unlink(missing_ok=True)
                image = None
        if image is None and (image := imread(file, flags=self.cv2_flag)) is None:
            raise FileNotFoundError(f"Image Not Found {file}")
        return image if image.ndim > 2 else image[..., None]

    def _choose(self, height: int, width: int, xyxy: np.ndarray) -> Window:
        """Return a random tile of the image, or all of it, as xyxy in pixels."""
        whole = (0, 0, width, height)
        if max(height, width) <= self.tile or random.random() < self.full_ratio:
            return whole
        if not len(xyxy) or random.random() < self.empty:
            for _ in range(MAX_TRIES):
                window = self._random_tile(whole)
                if not cut_boxes(xyxy, window, self.keep)[2]:  # a dropped sliver would make background of its object
                    return window
        for _ in range(MAX_TRIES):
            window = self._random_tile(whole, xyxy[random.randrange(len(xyxy))])
            if len(cut_boxes(xyxy, window, self.keep)[0]):
                return window
        return whole

    def _random_tile(self, whole: Window, box: np.ndarray | None = None) -> Window:
        """Return a random tile; with a box, xyxy in pixels, one that contains it or, if it is larger, lies in it."""
        starts = []
        for axis, length in enumerate(whole[2:]):
            low, high = 0, max(0, length - self.tile)
            if box is not None:
                first, last = sorted((math.ceil(box[axis + 2]) - self.tile, math.floor(box[axis])))
                low, high = max(low, first), min(high, last)
            starts.append(random.randint(low, high))
        x, y = starts
        return x, y, min(x + self.tile, whole[2]), min(y + self.tile, whole[3])

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """Return the image with its longer side scaled to `imgsz`, in memory of its own, which may be written to."""
        scale = self.imgsz / max(image.shape[:2])
        if scale == 1:
            return np.array(image)
        size = [min(math.ceil(side * scale), self.imgsz) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return image if image.ndim > 2 else image[..., None]  # OpenCV drops the axis of a single channel


def object_size(labels: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the median √(w·h) of boxes in pixels of their images, see `box_sides`; None where there are none."""
    sizes = np.sqrt(box_sides(labels).prod(1))
    return float(np.median(sizes)) if len(sizes) else None


def cut_boxes(xyxy: np.ndarray, window: Window, keep: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Cut boxes, shape (N, 4), to a tile; all are xyxy in pixels of the image.

    A box stays if it keeps the fraction `keep` of its area, 0..1, and has any.

    Returns:
        Indices of the boxes that stay, shape (K,); what is left of them, shape (K, 4); whether any box reaches into the
        tile.

    Example:
        >>> cut_boxes(np.array([[0, 0, 20, 10], [90, 0, 110, 10], [0, 0, 5, 5]]), (10, 0, 100, 100), 0.5)
        (array([0, 1]), array([[ 10,   0,  20,  10],
               [ 90,   0, 100,  10]]), True)
    """
    clipped = xyxy.clip(window[:2] * 2, window[2:] * 2)
    area, whole = ((box[:, 2:] - box[:, :2]).prod(1) for box in (clipped, xyxy))
    kept = np.flatnonzero((area > 0) & (area >= keep * whole - 1e-6))
    return kept, clipped[kept], bool((area > 0).any())


def with_shape(label: dict[str, Any]) -> dict[str, Any]:
    """Return an image's labels with its (height, width), which a data set for `rect=True` has dropped."""
    if "shape" in label:
        return label
    with Image.open(label["im_file"]) as image:  # reads the header only
        width, height = exif_size(image)
    return {**label, "shape": (height, width)}

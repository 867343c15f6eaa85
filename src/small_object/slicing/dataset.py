"""Training on tiles: random tiles of large images at native resolution instead of the downscaled images."""

import math
import random
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image
from ultralytics.data.base import BaseDataset
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import exif_size
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywhn2xyxy, xyxy2xywhn
from ultralytics.utils.patches import imread

from small_object.errors import UserError
from small_object.ignore import paint_regions, read_regions
from small_object.sizes import box_sides
from small_object.slicing.tiling import auto_tile, tile_grid, tile_hw

Window = tuple[int, int, int, int]

MAX_TRIES = 10  # random tiles to try until one fits


class SlicedDataset(YOLODataset):
    """A data set that returns a random tile of an image on each access, or sometimes the whole image.

    Both are scaled so that the longer side is `imgsz`, and upstream's augmentations run on them unchanged. An epoch has
    `slice_samples` samples of an image, at most as many as its grid has tiles. An image no larger than a tile is always
    whole. The choices come from Python's `random`, as in upstream's augmentations.

    - A tile lies anywhere in the image. With probability `slice_empty` it shows no part of an object, if a few random
      tries find such a tile. Otherwise it contains a random object, or lies inside it if the object is larger.
    - Boxes are clipped to the tile. A box that keeps less than the fraction `slice_keep` of its area is dropped. If all
      tiles tried lose all their objects, as with objects much larger than a tile, the whole image is returned.
    - The corners of rotated boxes and the polygons of masks are cut like boxes, by their own area. Keypoints outside a
      tile are marked as not visible. For task=detect, polygons are dropped, also in whole images: upstream can't mix
      objects with and without them.

    Each access reads the image; a mosaic needs four. The cache in RAM holds whole images at full size. With the cache
    on disk, only the tile's part of an image is read.

    Args:
        *args: See upstream's `YOLODataset`.
        hyp: Arguments of the training, with `slice` (side or [height, width] of a tile in pixels, or "auto"),
            `slice_full_ratio` (fraction of whole images), `slice_keep`, `slice_empty` and `slice_samples`.
        rect: Must be False, since rectangular batches need the shapes of the samples beforehand.
        **kwargs: See upstream's `YOLODataset`.

    Raises:
        UserError: If `rect` is True.
    """

    def __init__(self, *args: Any, hyp: SimpleNamespace, rect: bool = False, **kwargs: Any) -> None:
        if rect:
            raise UserError("rect=True can't be used with slice in training")
        super().__init__(*args, hyp=hyp, rect=rect, **kwargs)
        self.has_polygons = self.use_segments or self.use_obb
        for label in self.labels if not self.has_polygons else ():
            label["segments"] = []
        side = auto_tile(self.imgsz, object_size(self.labels)) if hyp.slice == "auto" else hyp.slice
        self.tile = tile_hw((int(side[0]), int(side[1])) if isinstance(side, (list, tuple)) else int(side))
        shapes = (add_shape(label)["shape"] if hyp.slice_samples > 1 else self.tile for label in self.labels)
        tiles = (len(tile_grid(height, width, self.tile, hyp.slice_overlap)) for height, width in shapes)
        self.order = np.repeat(np.arange(self.ni), [min(hyp.slice_samples, count) for count in tiles])
        self.full_ratio, self.keep, self.empty = hyp.slice_full_ratio, hyp.slice_keep, hyp.slice_empty
        # Upstream's mosaic takes its other images from those that the buffer keeps in memory. Here no image is kept:
        # kept tiles would be used again and again, and whole images could fill the memory. So it may take any.
        self.buffer = list(range(len(self)))

    def __len__(self) -> int:
        """Return the number of samples per epoch."""
        return len(self.order)

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return the whole image, shape (H, W, C), uint8, and twice its (height, width).

        Upstream's cache in RAM then holds it at full size and counts it so. It is never resized as in upstream.
        """
        image = np.array(self._read(i))  # a copy, since a process can't map the files of a large data set
        return image, image.shape[:2], image.shape[:2]

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return a random tile of a sample's image, or all of it, with its labels: upstream's dict before augmentation.

        `ori_shape` is the (height, width) of the tile in pixels of the image, `resized_shape` that of `img`, and the
        boxes are normalised to the tile.
        """
        return self._get_readable(int(self.order[index]), self._get_tile)

    def _get_tile(self, index: int) -> dict[str, Any]:
        image = self._read(index)
        height, width = image.shape[:2]
        label = {key: value for key, value in self.labels[index].items() if key != "shape"}
        size = np.array([width, height])
        xyxy = xywhn2xyxy(label["bboxes"].astype(float), width, height).clip(0, np.tile(size, 2))
        xyxy = xyxy.round(2)  # labels of 32 bits leave slivers of 1e-5 pixels beyond a tile's edge
        polygons = [(polygon * size).round(2) for polygon in label["segments"]]
        x1, y1, x2, y2 = window = self._choose(height, width, xyxy, polygons)
        if window == (0, 0, width, height):
            label = deepcopy(label)  # augmentations write into it
        else:
            corner, size = np.array([x1, y1]), np.array([x2 - x1, y2 - y1])
            kept, xyxy, _, polygons = cut_objects(xyxy, polygons, window, self.keep)
            xywh = xyxy2xywhn(xyxy - np.tile(corner, 2), *size).astype(label["bboxes"].dtype)
            label |= {"bboxes": xywh, "cls": label["cls"][kept]}
            label["segments"] = [((polygon - corner) / size).astype(np.float32) for polygon in polygons]
            if label["keypoints"] is not None:
                label["keypoints"] = cut_keypoints(label["keypoints"][kept], (width, height), window)
        part = image[y1:y2, x1:x2]
        if len(regions := read_regions(self.im_files[index])):
            part = np.array(part)  # a copy, since the image may be a file or in the cache
            paint_regions(part, regions * ((width, height) * 2) - (x1, y1, x1, y1), xyxy - (x1, y1, x1, y1))
        label["img"] = self._resize(part)
        label["ori_shape"], label["resized_shape"] = (y2 - y1, x2 - x1), label["img"].shape[:2]
        label["ratio_pad"] = tuple(b / a for a, b in zip(label["ori_shape"], label["resized_shape"], strict=True))
        return self.update_labels_info(label)

    def _read(self, i: int) -> np.ndarray:
        """Return the whole image, shape (H, W, C), from RAM, from its mapped .npy file or from its file."""
        return read_full_image(self, i) if self.ims[i] is None else self.ims[i]

    def _choose(self, height: int, width: int, xyxy: np.ndarray, polygons: list[np.ndarray]) -> Window:
        """Return a random tile of the image, or all of it, as xyxy in pixels."""
        whole = (0, 0, width, height)
        if (height <= self.tile[0] and width <= self.tile[1]) or random.random() < self.full_ratio:
            return whole
        if not len(xyxy) or random.random() < self.empty:
            for _ in range(MAX_TRIES):
                window = self._random_tile(whole)
                is_touched = cut_objects(xyxy, polygons, window, self.keep)[2]
                if not is_touched:  # a dropped sliver would turn its object into background
                    return window
        for _ in range(MAX_TRIES):
            window = self._random_tile(whole, xyxy[random.randrange(len(xyxy))])
            if len(cut_objects(xyxy, polygons, window, self.keep)[0]):
                return window
        return whole

    def _random_tile(self, whole: Window, box: np.ndarray | None = None) -> Window:
        """Return a random tile; with a box, xyxy in pixels, a tile that contains it or, if it is larger, lies in it."""
        starts = []
        sides = self.tile[::-1]
        for axis, (length, tile) in enumerate(zip(whole[2:], sides, strict=True)):
            low, high = 0, max(0, length - tile)
            if box is not None:
                first, last = sorted((math.ceil(box[axis + 2]) - tile, math.floor(box[axis])))
                low, high = max(low, first), min(high, last)
            starts.append(random.randint(low, high))
        x, y = starts
        return x, y, min(x + sides[0], whole[2]), min(y + sides[1], whole[3])

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """Return a writable copy of the image with its longer side scaled to `imgsz`."""
        scale = self.imgsz / max(image.shape[:2])
        if scale == 1:
            return np.array(image)
        size = [min(math.ceil(side * scale), self.imgsz) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return image if image.ndim > 2 else image[..., None]  # OpenCV drops the axis of a single channel


def read_full_image(dataset: BaseDataset, i: int) -> np.ndarray:
    """Return an image of a data set at full resolution, shape (H, W, C), mapped from the disk cache or read.

    Raises:
        FileNotFoundError: If it can't be read.
    """
    image, file, cached = None, dataset.im_files[i], dataset.npy_files[i]
    if cached.exists() and cached.stat().st_mtime >= Path(file).stat().st_mtime:
        try:
            image = np.load(cached, mmap_mode="r")
            if image.dtype != np.uint8 or (image.shape[2] if image.ndim > 2 else 1) != dataset.channels:
                raise ValueError(f"it holds {image.dtype} of shape {image.shape}")
        except (OSError, ValueError, EOFError) as error:
            LOGGER.warning(f"{dataset.prefix}Removing unusable *.npy image file {cached}: {error}")
            cached.unlink(missing_ok=True)
            image = None
    if image is None and (image := imread(file, flags=dataset.cv2_flag)) is None:
        raise FileNotFoundError(f"Image Not Found {file}")
    return image if image.ndim > 2 else image[..., None]


def object_size(labels: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the median √(w·h) of boxes in pixels of their images, see `box_sides`; None without boxes."""
    sizes = np.sqrt(box_sides(labels).prod(1))
    return float(np.median(sizes)) if len(sizes) else None


def cut_objects(
    xyxy: np.ndarray, polygons: list[np.ndarray], window: Window, keep: float
) -> tuple[np.ndarray, np.ndarray, bool, list[np.ndarray]]:
    """Cut boxes, shape (N, 4), or polygons if there are any, to a tile; boxes and tile are xyxy in pixels of the image.

    An object stays if it has area in the tile, at least the fraction `keep` of all its area, 0..1.

    Returns:
        Indices of the objects that stay, shape (K,); the boxes of their parts in the tile, shape (K, 4); whether any
        object reaches into the tile; the parts of the polygons.

    Example:
        >>> cut_objects(np.array([[0, 0, 20, 10], [90, 0, 110, 10], [0, 0, 5, 5]]), [], (10, 0, 100, 100), 0.5)[1]
        array([[ 10,   0,  20,  10],
               [ 90,   0, 100,  10]])
    """
    parts = [cut_polygon(polygon, window) for polygon in polygons]
    if polygons:
        boxes = np.array([(*part.min(0), *part.max(0)) if len(part) else (0, 0, 0, 0) for part in parts])
        areas, whole = (np.array([_area(polygon) for polygon in each]) for each in (parts, polygons))
    else:
        boxes = xyxy.clip(window[:2] * 2, window[2:] * 2)
        areas, whole = ((box[:, 2:] - box[:, :2]).prod(1) for box in (boxes, xyxy))
    kept = np.flatnonzero((areas > 0) & (areas >= keep * whole - 1e-6))
    return kept, boxes[kept], bool((areas > 0).any()), [parts[k] for k in kept] if polygons else []


def cut_polygon(polygon: np.ndarray, window: Window) -> np.ndarray:
    """Return the part of a polygon, xy in pixels, shape (P, 2), in a tile; shape (0, 2) if there is none.

    The algorithm is Sutherland and Hodgman's (https://doi.org/10.1145/360767.360802). If a polygon leaves the tile and
    returns, lines without area along the edge connect its parts.

    Example:
        >>> cut_polygon(np.array([[0.0, 0], [4, 0], [4, 4]]), (0, 0, 2, 9)).tolist()
        [[2.0, 2.0], [0.0, 0.0], [2.0, 0.0]]
    """
    for axis, limit, sign in ((0, window[0], 1), (1, window[1], 1), (0, window[2], -1), (1, window[3], -1)):
        depth = sign * (polygon[:, axis] - limit)
        is_inside = depth >= 0
        if is_inside.all():
            continue
        if not is_inside.any():
            return polygon[:0]
        before, depth_before = np.roll(polygon, 1, axis=0), np.roll(depth, 1)
        crosses = is_inside != np.roll(is_inside, 1)
        share = np.where(crosses, depth_before / np.where(crosses, depth_before - depth, 1), 0)[:, None]
        points = np.stack((before + share * (polygon - before), polygon), 1)  # the crossing, then the corner
        polygon = points[np.stack((crosses, is_inside), 1)]
    return polygon


def _area(polygon: np.ndarray) -> float:
    return float(cv2.contourArea(polygon.astype(np.float32))) if len(polygon) > 2 else 0.0


def cut_keypoints(keypoints: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """Convert keypoints from fractions of an image to fractions of a tile; outside, not visible; shape (N, K, 3)."""
    x1, y1, x2, y2 = window
    xy = (keypoints[..., :2] * size - (x1, y1)) / (x2 - x1, y2 - y1)
    inside = (np.abs(xy - 0.5) <= 0.5 + 1e-6).all(-1, keepdims=True)  # labels have 32 bits
    return np.concatenate((xy.clip(0, 1), keypoints[..., 2:] * inside), -1).astype(keypoints.dtype)


def add_shape(label: dict[str, Any]) -> dict[str, Any]:
    """Return an image's labels with its (height, width), which data sets with `rect=True` drop."""
    if "shape" in label:
        return label
    with Image.open(label["im_file"]) as image:  # reads the header only
        width, height = exif_size(image)
    return {**label, "shape": (height, width)}

"""Masks of objects, kept as crops: a stack of whole masks of a 4K frame would take 8 MB per object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.engine.results import Masks
from ultralytics.utils.ops import masks2segments


@dataclass(frozen=True)
class Crop:
    """The mask of one object.

    Attributes:
        x: Left side in pixels of the image.
        y: Upper side, likewise.
        mask: Whether each pixel belongs to the object, 0 or 1, shape (h, w), uint8.
    """

    x: int
    y: int
    mask: np.ndarray

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The corners in pixels of the image."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    def shifted(self, x: int, y: int) -> Crop:
        """Return the mask moved by (x, y) pixels."""
        return Crop(self.x + x, self.y + y, self.mask)

    def inside(self, xyxy: tuple[int, int, int, int]) -> np.ndarray:
        """Return the mask in a window, xyxy in pixels of the image; 0 outside the crop."""
        x1, y1, x2, y2 = xyxy
        canvas = np.zeros((y2 - y1, x2 - x1), np.uint8)
        left, top, right, bottom = max(self.x, x1), max(self.y, y1), min(self.xyxy[2], x2), min(self.xyxy[3], y2)
        if left < right and top < bottom:
            part = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
            canvas[top - y1 : bottom - y1, left - x1 : right - x1] = part
        return canvas


def crop_masks(masks: torch.Tensor, boxes: torch.Tensor, gain: Sequence[float], pad: Sequence[float]) -> list[Crop]:
    """Crop masks of a model's input to their boxes, at the size of the image.

    Args:
        masks: Masks of the input, 0 or 1, shape (N, H, W).
        boxes: Boxes, xyxy in pixels of the image, shape (N, 4).
        gain: Factors from x and y of the image to those of the masks.
        pad: Offsets to add afterwards.
    """
    crops = []
    for mask, box in zip(masks.byte().cpu().numpy(), boxes.cpu().double().numpy(), strict=True):
        (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        size = max(1, int(x2 - x1)), max(1, int(y2 - y1))
        if tuple(gain) == (1, 1):
            left, top = int(x1 + round(pad[0])), int(y1 + round(pad[1]))
            crops.append(Crop(int(x1), int(y1), Crop(0, 0, mask).inside((left, top, left + size[0], top + size[1]))))
            continue
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(mask * 255, _affine_map(x1, y1, gain, pad), size, flags=flags)
        crops.append(Crop(int(x1), int(y1), (crop > 127).astype(np.uint8)))
    return crops


def _affine_map(x: int, y: int, gain: Sequence[float], pad: Sequence[float]) -> np.ndarray:
    """Return the map of the pixels of a crop at (x, y), whose centres lie at their index + 0.5, for `warpAffine`."""
    shift = [(xy + 0.5) * g + p - 0.5 for xy, g, p in zip((x, y), gain, pad, strict=True)]
    return np.array([[gain[0], 0, shift[0]], [0, gain[1], shift[1]]])


def draw_masks(crops: Sequence[Crop], hw: tuple[int, int], gain: Sequence[float], pad: Sequence[float]) -> np.ndarray:
    """Return masks at another size, shape (N, H, W), uint8; `gain` and `pad` as in `crop_masks`."""
    masks = np.zeros((len(crops), *hw), np.uint8)
    for mask, crop in zip(masks, crops, strict=True):
        mask[:] = cv2.warpAffine(crop.mask * 255, _affine_map(crop.x, crop.y, gain, pad), hw[::-1]) > 127
    return masks


def join_crops(crops: Sequence[Crop]) -> Crop:
    """Return the union of masks, of which there must be at least one."""
    if len(crops) == 1:
        return crops[0]
    corners = np.array([crop.xyxy for crop in crops])
    (x1, y1), (x2, y2) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    return Crop(x1, y1, np.maximum.reduce([crop.inside((x1, y1, x2, y2)) for crop in crops]))


def crop_ious(crops: Sequence[Crop], others: Sequence[Crop]) -> np.ndarray:
    """Return the IoU of each mask with each other mask, shape (N, M), float32."""
    ious = np.zeros((len(crops), len(others)), np.float32)
    areas = [np.array([int(np.count_nonzero(each.mask)) for each in group]) for group in (crops, others)]
    a, b = (np.array([each.xyxy for each in group]).reshape(-1, 4) for group in (crops, others))
    meet = (np.maximum(a[:, None, :2], b[:, :2]) < np.minimum(a[:, None, 2:], b[:, 2:])).all(2)
    for i, j in np.argwhere(meet).tolist():
        shared = int(np.count_nonzero(crops[i].mask & others[j].inside(crops[i].xyxy)))
        ious[i, j] = shared / max(1, areas[0][i] + areas[1][j] - shared)
    return ious


def polygon_crops(polygons: Iterable[np.ndarray], image_hw: tuple[int, int]) -> list[Crop]:
    """Return the masks of polygons, xy as fractions of an image's sides, shapes (P, 2)."""
    crops = []
    for polygon in polygons:
        points = np.rint(polygon * image_hw[::-1]).astype(np.int32)
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        mask = np.zeros((y2 - y1 + 1, x2 - x1 + 1), np.uint8)
        cv2.fillPoly(mask, [points - (x1, y1)], 1)
        crops.append(Crop(x1, y1, mask))
    return crops


class CropMasks(Masks):
    """Upstream's masks of an image, which become a stack of whole masks only when `data` is read.

    Outlines (`xy`, `xyn`), pictures, text files and trackers use the crops, which stay on the CPU.

    Attributes:
        crops: The mask of each object.
        orig_shape: Height and width of the image.
    """

    def __init__(self, crops: Sequence[Crop], orig_shape: tuple[int, int], as_array: bool = False) -> None:
        self.crops, self.orig_shape, self._as_array = list(crops), orig_shape, as_array

    @property
    def data(self) -> torch.Tensor | np.ndarray:  # type: ignore[override, unused-ignore]
        """Whole masks, shape (N, height, width), uint8: a byte per object and pixel of the image."""
        stack = np.zeros(self.shape, np.uint8)
        for whole, crop in zip(stack, self.crops, strict=True):
            whole[:] = crop.inside((0, 0, *self.orig_shape[::-1]))
        return stack if self._as_array else torch.from_numpy(stack)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `data`, without making it."""
        return len(self.crops), *self.orig_shape

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: Any) -> CropMasks:
        rows = np.arange(len(self))[index.cpu().numpy() if isinstance(index, torch.Tensor) else index]
        return CropMasks([self.crops[k] for k in np.atleast_1d(rows).tolist()], self.orig_shape, self._as_array)

    def numpy(self) -> CropMasks:
        """Return the masks with `data` as an array."""
        return CropMasks(self.crops, self.orig_shape, as_array=True)

    def to(self, *args: Any, **kwargs: Any) -> CropMasks:
        """Return the masks unchanged."""
        return self

    cpu = cuda = to

    @property
    def xy(self) -> list[np.ndarray]:  # type: ignore[override, unused-ignore]
        """The outline of each mask in pixels of the image, shapes (P, 2), float32."""
        outlines = (masks2segments(crop.mask[None])[0] for crop in self.crops)
        return [xy + np.array([crop.x, crop.y], np.float32) for xy, crop in zip(outlines, self.crops, strict=True)]

    @property
    def xyn(self) -> list[np.ndarray]:  # type: ignore[override, unused-ignore]
        """The outlines as fractions of the image's sides."""
        return [xy / np.array(self.orig_shape[::-1], np.float32) for xy in self.xy]

    def paint(self, image: np.ndarray, colors: Sequence[Sequence[int]]) -> None:
        """Paint the masks half transparent over an image (H, W, 3), uint8, in place, each in its own colour."""
        height, width = image.shape[:2]
        for crop, color in zip(self.crops, colors, strict=True):
            x1, y1, x2, y2 = np.clip(crop.xyxy, 0, (width, height) * 2).tolist()
            part, mask = image[y1:y2, x1:x2], crop.inside((x1, y1, x2, y2)).astype(bool)
            part[mask] = ((part[mask] + np.array(color)) / 2).astype(np.uint8)

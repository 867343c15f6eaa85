"""Ignore regions: parts of an image whose objects are not labelled one by one, such as COCO's crowds.

For an image with labels in `labels/train/a.txt` they are in `ignore/train/a.txt`: one region per line, `cx cy w h` as
fractions of the image's sides.

In training, a region is painted grey except for the labelled objects in it, so that nothing in it counts as background.
In validation, a detection there that matches no object is neither right nor wrong.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.metrics import box_iou
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

from small_object.errors import UserError
from small_object.letterbox import GREY, gain_and_pad

MIN_IOU = 0.5  # minimum IoU with an object for a detection in a region to count
MIN_COVER = 0.5  # minimum fraction of a detection that regions cover for it to be ignored


def ignore_file(image: str | Path) -> Path:
    """Return the path of an image's ignore regions, which need not exist."""
    head, images, tail = str(image).rpartition(f"{os.sep}images{os.sep}")  # as for upstream's labels
    return Path(f"{head}{images.replace('images', 'ignore')}{tail}").with_suffix(".txt" if images else ".ignore")


def read_regions(image: str | Path) -> np.ndarray:
    """Return the ignore regions of an image, xyxy as fractions of its sides, shape (N, 4), float64.

    Raises:
        UserError: If a line of the file is not a region.
    """
    file = ignore_file(image)
    if not file.is_file():
        return np.zeros((0, 4))
    try:
        rows = np.array([line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()], float)
        if rows.size and (rows.ndim != 2 or rows.shape[1] != 4 or not np.isfinite(rows).all()):
            raise ValueError("no region")
    except ValueError as error:
        raise UserError(f"{file}: write one ignore region per line, cx cy w h as fractions of the image") from error
    return xywh2xyxy(rows.reshape(-1, 4)).clip(0, 1)


def region_lines(boxes: np.ndarray, width: int, height: int) -> str:
    """Return ignore regions, xyxy in pixels of an image, shape (N, 4), as text that `read_regions` reads."""
    rows = xyxy2xywh(boxes.astype(np.float64).reshape(-1, 4)) / ((width, height) * 2)
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows.tolist())


def paint_regions(image: np.ndarray, regions: np.ndarray, boxes: np.ndarray) -> None:
    """Paint regions of an image (H, W, C), uint8, grey in place, except in the boxes of labelled objects.

    Regions (N, 4) and boxes (M, 4) are xyxy in pixels.
    """
    old = image.copy()
    for painted, corners in ((True, regions), (False, boxes)):
        low, high = np.floor(corners[:, :2]).astype(int).clip(0), np.ceil(corners[:, 2:]).astype(int).clip(0)
        for (x1, y1), (x2, y2) in zip(low, high, strict=True):
            image[y1:y2, x1:x2] = GREY if painted else old[y1:y2, x1:x2]


def find_ignored(
    boxes: torch.Tensor, classes: torch.Tensor, targets: torch.Tensor, target_classes: torch.Tensor,
    regions: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Return whether each detection is ignored, that is, neither right nor wrong, shape (N,).

    It is if regions cover at least half of it and no object of its class has an IoU of 0.5 with it. The detections
    `boxes` (N, 4), the objects `targets` (M, 4) and the `regions` (K, 4) are xyxy in pixels.
    """
    edges = [torch.unique(regions[:, i::2]) for i in (0, 1)]  # in x and y, of cells that lie in a region or outside
    wide, tall = (
        (torch.min(boxes[:, i + 2, None], edge[1:]) - torch.max(boxes[:, i, None], edge[:-1])).clamp(0)
        for i, edge in enumerate(edges)
    )
    columns, rows = (
        ((edge[:-1] >= regions[:, i, None]) & (edge[1:] <= regions[:, i + 2, None])).to(wide)
        for i, edge in enumerate(edges)
    )
    covered = (tall @ (rows.T @ columns).clamp(max=1) * wide).sum(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    matches = (box_iou(boxes, targets) >= MIN_IOU) & (classes[:, None] == target_classes)
    return (covered >= MIN_COVER * area) & ~matches.any(1)


def drop_ignored(pred: dict[str, torch.Tensor], target: dict[str, Any], single_cls: bool) -> dict[str, torch.Tensor]:
    """Return the detections of an image without those in its ignore regions that match no object.

    Args:
        pred: `bboxes` in xyxy of the input's pixels, shape (N, 4), `cls`, shape (N,), and other values of N rows.
        target: The image's `bboxes` and `cls`, likewise, its `im_file`, `ori_shape` and `ratio_pad`.
        single_cls: Whether all classes count as one.
    """
    regions = torch.as_tensor(read_regions(target["im_file"]))
    if not len(regions):
        return pred
    gain, pad = gain_and_pad(target["ratio_pad"])
    height, width = target["ori_shape"]
    boxes = pred["bboxes"].float()
    in_input = (regions * torch.tensor([width, height] * 2) * gain + pad).to(boxes)
    classes, names = (torch.zeros_like(x["cls"]) if single_cls else x["cls"] for x in (pred, target))
    kept = ~find_ignored(boxes, classes, target["bboxes"].float(), names, in_input)
    return {key: value[kept] for key, value in pred.items()}

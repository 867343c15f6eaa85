"""Sliced inference: runs a model on the tiles of large images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ultralytics.utils.ops import xywh2xyxy

from small_object.slicing.merge import MERGE_IOU, merge
from small_object.slicing.tiling import _spread, auto_tile, tile_grid, tiles_over

Detect = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on images (H, W, C) of one shape; returns (x1, y1, x2, y2, score, class) of each, shapes (N, 6), in its
pixels and after NMS."""

Look = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on images (H, W, C) of one shape; returns where in each objects may be: xyxy in its pixels, (K, 4)."""

SCOUT = 4
"""How many times smaller than in tiles `slice_skip` sees an image, at most, to choose its tiles. The pass over the
whole image would see the objects of a large one as a pixel; this costs about a sixteenth of what the tiles do."""

REMEMBERED = "object_size", "train_scale"
"""What `auto_tile` wants to know of a model's training: attributes of a model, in the metadata of an exported one."""


@dataclass(frozen=True)
class Found:
    """What the tiles of an image showed, before it is merged.

    Attributes:
        rows: (x1, y1, x2, y2, score, class) in pixels of the image, shape (N, 6).
        sources: For each, the row of its tile in `tiles`, shape (N,), int64.
        tiles: The tiles that were run, xyxy in pixels, shape (T, 4).
        skipped: How many fewer these are than those of the whole image.
    """

    rows: torch.Tensor
    sources: torch.Tensor
    tiles: np.ndarray
    skipped: int


@dataclass(frozen=True)
class Slicer:
    """Finds objects in the tiles of large images, and merges them with those of the whole images.

    Tiles of one shape fill the model's batches together, whichever of the given images they are of. They are views of
    their images until `batch` of them are handed to the model, so the memory that slicing adds is that of one batch of
    inputs and of the boxes found, whatever the size and number of the images.

    Args:
        tile: Side of a tile in pixels, see `tile_grid`.
        overlap: Least overlap of neighbouring tiles as a share of their side, see `tile_grid`.
        batch: Tiles that the model is given at a time, at least 1.
        full: Whether what the pass over the whole image found belongs to the result.
        skip: Least score, 0..1, of that pass for a place to be looked at by a tile; 0 looks everywhere.

    Example:
        >>> image = np.zeros((640, 1000, 3), np.uint8)
        >>> nothing = lambda tiles: [torch.zeros(0, 6) for tile in tiles]
        >>> slicer = Slicer(640)
        >>> slicer.wants(image), [len(found.tiles) for found in slicer.find([image], nothing)]
        (True, [2])
    """

    tile: int
    overlap: float = 0.2
    batch: int = 8
    full: bool = True
    skip: float = 0.0

    def wants(self, image: np.ndarray) -> bool:
        """Return whether an image (H, W, C) is larger than a tile; others are run as without slicing."""
        return max(image.shape[:2]) > self.tile

    def scout(self, images: Sequence[np.ndarray], look: Look, seen: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return where in each image objects may be, for `find`: xyxy in its pixels, shapes (K, 4).

        An image of more than `SCOUT` tiles a side is looked at in as few equal parts as are no larger than that.

        Args:
            images: Images (H, W, C).
            look: Looks at some parts.
            seen: What `look` says of each whole image, shapes (K, 4); used where that is no larger.
        """
        parts = [self._parts(image) for image in images]
        boxes = self._run(look, images, parts)
        return [torch.cat([next(boxes) for _ in p]) if len(p) else s for p, s in zip(parts, seen, strict=True)]

    def _parts(self, image: np.ndarray) -> np.ndarray:
        """Return the parts in which an image is looked at, xyxy in pixels, shape (P, 4); none if as a whole."""
        counts = [math.ceil(side / (SCOUT * self.tile)) for side in image.shape[:2]]
        if max(counts) == 1:
            return np.zeros((0, 4), np.int64)
        sides = zip(image.shape[:2], counts, strict=True)
        ys, xs = (_spread(side, math.ceil(side / count), count) for side, count in sides)
        return np.array([(x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs], np.int64)

    def find(
        self, images: Sequence[np.ndarray], detect: Detect, hints: Sequence[torch.Tensor] | None = None
    ) -> list[Found]:
        """Run a model on the tiles of images.

        Args:
            images: Images (H, W, C).
            detect: Runs the model on some tiles.
            hints: Where to look in each: boxes, xyxy in pixels of the image, shapes (K, 4), see `tiles_over`; None
                looks everywhere.
        """
        sizes = [(*image.shape[:2], self.tile, self.overlap) for image in images]
        grids = [tile_grid(*size) for size in sizes]
        tiles = grids
        if hints is not None:
            tiles = [tiles_over(boxes.cpu().numpy(), *size) for boxes, size in zip(hints, sizes, strict=True)]
        shown, found = self._run(detect, images, tiles), []
        for grid, chosen in zip(grids, tiles, strict=True):
            rows = [torch.zeros(0, 6), *(next(shown)[:, :6] for _ in chosen)]
            sources = torch.arange(-1, len(chosen)).repeat_interleave(torch.tensor([*map(len, rows)]))
            found.append(Found(torch.cat(rows), sources, chosen, len(grid) - len(chosen)))
        return found

    def _run(
        self, model: Detect | Look, images: Sequence[np.ndarray], views: Sequence[np.ndarray]
    ) -> Iterator[torch.Tensor]:
        """Run a model on views of images, those of one shape together.

        Args:
            model: Runs on views of one shape, at most `batch` of them.
            images: Images (H, W, C).
            views: Those of each image, xyxy in its pixels, shapes (V, 4).

        Returns:
            An iterator over what was found in each view, image by image: rows that begin with xyxy in pixels of the
            image, float32.
        """
        flat = [(image, *xyxy) for image, chosen in zip(images, views, strict=True) for xyxy in chosen.tolist()]
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, (image, x1, y1, x2, y2) in enumerate(flat):
            shapes.setdefault((y2 - y1, x2 - x1, *image.shape[2:]), []).append(index)
        rows: dict[int, torch.Tensor] = {}
        for alike in shapes.values():
            for start in range(0, len(alike), self.batch):
                chosen = alike[start : start + self.batch]
                shown = model([image[y1:y2, x1:x2] for image, x1, y1, x2, y2 in (flat[index] for index in chosen)])
                for index, found in zip(chosen, shown, strict=True):
                    found = found.float().cpu()
                    found[:, :4] += torch.tensor(flat[index][1:3] * 2)
                    rows[index] = found
        return (rows[index] for index in range(len(flat)))

    def merge(
        self, image_hw: tuple[int, int], found: Found, whole: torch.Tensor, *,
        iou: float = MERGE_IOU, agnostic: bool = False, max_det: int = 300,
    ) -> torch.Tensor:  # fmt: skip
        """Merge what the tiles showed with what the pass over the whole image found, see `merge`.

        Args:
            image_hw: Height and width of the image in pixels.
            found: What the tiles showed.
            whole: (x1, y1, x2, y2, score, class) of the pass over the whole image in its pixels, shape (M, 6); not
                looked at without `full`.
            iou: Highest IoU of two boxes that both stay, 0..1.
            agnostic: Whether boxes of different classes are merged.
            max_det: Most rows of the result, at least 1.

        Returns:
            The objects of the image as rows like those of `whole`, by falling score, on its device.
        """
        rows, sources = found.rows, found.sources
        if self.full:
            rows = torch.cat((rows, whole[:, :6].float().cpu()))
            sources = torch.cat((sources, torch.full((len(whole),), -1)))
        boxes = (rows[:, 0] <= rows[:, 2]) & (rows[:, 1] <= rows[:, 3])  # heads without DFL can turn a box inside out
        rows, sources = rows[boxes], sources[boxes]
        classes = torch.zeros_like(rows[:, 5]) if agnostic else rows[:, 5]
        merged = merge(rows[:, :4], rows[:, 4], classes, sources, found.tiles, image_hw, iou=iou)
        columns = merged.boxes, merged.scores[:, None], rows[merged.index, 5:]
        return torch.cat(columns, 1)[:max_det].to(whole.device)


def build_slicer(args: Any, model: Any, imgsz: int) -> Slicer | None:
    """Return the slicer that arguments ask for, or None.

    Args:
        args: Arguments with `slice` and its companions.
        model: The model, of which `slice=auto` takes the size and the scale of the objects that it was trained on.
        imgsz: Longer side of the model's input in pixels.
    """
    side = getattr(args, "slice", 0)
    if not side:
        return None
    metadata = getattr(model, "metadata", None) or {}  # of an exported model
    if side == "auto":
        known = [getattr(each, "__dict__", {}) for each in (model, getattr(model, "model", None))]
        size, scale = (next((float(x[name]) for x in (*known, metadata) if name in x), None) for name in REMEMBERED)
        side = auto_tile(imgsz, size, scale)
    batch = min(args.slice_batch, max_batch(model))
    return Slicer(int(side), args.slice_overlap, batch, args.slice_full, args.slice_skip)


def max_batch(model: Any) -> float:
    """Return how many images a model takes at a time: an exported one as many as was said then, with exceptions."""
    metadata = getattr(model, "metadata", None) or {}  # of an exported model
    exported = metadata.get("args") or {}
    traced = getattr(model, "jit", False) or getattr(model, "format", "") == "torchscript"
    if not metadata or ((exported.get("dynamic") or traced) and not exported.get("nms")):
        return math.inf
    return int(metadata.get("batch", 1))


def likely_boxes(preds: Any, score: float, nc: int) -> list[torch.Tensor]:
    """Return the boxes in a model's raw output of at least a score, for each image: xyxy in input pixels, (K, 4).

    Args:
        preds: Output of a detection model before NMS, (B, 4 + nc, anchors) with xywh boxes, or after, (B, N, 6) with
            xyxy boxes, or a list that begins with such.
        score: Least score, 0..1.
        nc: Number of classes.
    """
    preds = preds[0] if isinstance(preds, (list, tuple)) else preds
    if preds.shape[-1] == 6 and preds.shape[1] != 4 + nc:
        return [rows[rows[:, 4] >= score, :4] for rows in preds]
    return [xywh2xyxy(image[:4, image[4 : 4 + nc].amax(0) >= score].T) for image in preds]

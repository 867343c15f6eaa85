"""Sliced inference: runs a model on the tiles of large images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.ops import xywh2xyxy

from small_object.slicing.merge import MERGE_IOU, merge
from small_object.slicing.tiling import auto_tile, even_spans, tile_grid, tiles_over

Predict: TypeAlias = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on images (H, W, C) of one shape; returns for each rows that begin with xyxy in its pixels, (N, ...)."""

MAX_PROPOSAL_SHRINK = 4
"""How many times smaller than in tiles `slice_skip` sees an image, at most, to choose its tiles. In the pass over the
whole of a large image an object would be a pixel; this costs about a sixteenth of what the tiles do."""

TRAINING_ATTRIBUTES = "object_size", "train_scale"
"""What `auto_tile` needs to know of a model's training: attributes of a model, in the metadata of an exported one."""


@dataclass(frozen=True)
class TileDetections:
    """The detections in the tiles of an image, before they are merged.

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
    """Detects objects in the tiles of large images, and merges them with those of the whole images.

    Tiles of one shape fill the model's batches together, whichever of the given images they come from. They are views
    of their images until `batch` of them are handed to the model, so slicing adds the memory of one batch of inputs and
    of the detections, whatever the size and number of the images.

    Args:
        tile: Side of a tile in pixels, see `tile_grid`.
        overlap: Minimum overlap of neighbouring tiles as a fraction of their side, see `tile_grid`.
        batch: Tiles that the model is given at a time, at least 1.
        full: Whether the detections of the pass over the whole image belong to the result.
        skip: Minimum score, 0..1, of the proposals that tiles must cover; 0 runs all tiles.
        classes: Classes to find, for the proposals; None finds all.
        iou: Maximum IoU, 0..1, of two objects of a class.
        agnostic: Whether objects of different classes are merged, too.
        max_det: Maximum number of objects in the whole image; None sets no limit.

    Example:
        >>> image = np.zeros((640, 1000, 3), np.uint8)
        >>> nothing = lambda tiles: [torch.zeros(0, 6) for tile in tiles]
        >>> slicer = Slicer(640)
        >>> slicer.is_large(image), [len(each.tiles) for each in slicer.detect([image], nothing)]
        (True, [2])
    """

    tile: int
    overlap: float = 0.2
    batch: int = 8
    full: bool = True
    skip: float = 0.0
    classes: tuple[int, ...] | None = None
    iou: float = MERGE_IOU
    agnostic: bool = False
    max_det: int | None = None

    def is_large(self, image: np.ndarray) -> bool:
        """Return whether an image (H, W, C) is larger than a tile. Smaller images are not sliced."""
        return bool(max(image.shape[:2]) > self.tile)

    def propose(
        self, images: Sequence[np.ndarray], predict: Predict, whole: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return the proposals of each image for `detect`: boxes that may hold objects, xyxy in its pixels, (K, 4).

        An image (H, W, C) of more than `MAX_PROPOSAL_SHRINK` tiles a side is run in equal parts, as few as are no
        larger. For other images, the proposals of the `whole` image are taken.
        """
        parts = [self._proposal_parts(*image.shape[:2]) for image in images]
        boxes = self._run(predict, images, parts)
        return [torch.cat([next(boxes) for _ in p]) if len(p) else w for p, w in zip(parts, whole, strict=True)]

    def _proposal_parts(self, height: int, width: int) -> np.ndarray:
        """Return the parts of an image that are run for proposals, xyxy in pixels, (P, 4); none if it is run whole."""
        rows, columns = (math.ceil(side / (MAX_PROPOSAL_SHRINK * self.tile)) for side in (height, width))
        if rows == columns == 1:
            return np.zeros((0, 4), np.int64)
        ys = even_spans(height, math.ceil(height / rows), rows)
        xs = even_spans(width, math.ceil(width / columns), columns)
        return np.array([(x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs], np.int64)

    def detect(
        self, images: Sequence[np.ndarray], predict: Predict, proposals: Sequence[torch.Tensor] | None = None
    ) -> list[TileDetections]:
        """Run a model, which returns (x1, y1, x2, y2, score, class) after NMS, on the tiles of images (H, W, C).

        With proposals, see `propose`, tiles are put over these, see `tiles_over`; else all tiles are run.
        """
        sizes = [(*image.shape[:2], self.tile, self.overlap) for image in images]
        grids = [tile_grid(*size) for size in sizes]
        tiles = grids
        if proposals is not None:
            tiles = [tiles_over(boxes.cpu().numpy(), *size) for boxes, size in zip(proposals, sizes, strict=True)]
        found, detections = self._run(predict, images, tiles), []
        for grid, chosen in zip(grids, tiles, strict=True):
            rows = [torch.zeros(0, 6), *(next(found)[:, :6] for _ in chosen)]
            sources = torch.arange(-1, len(chosen)).repeat_interleave(torch.tensor([*map(len, rows)]))
            detections.append(TileDetections(torch.cat(rows), sources, chosen, len(grid) - len(chosen)))
        return detections

    def _run(
        self, predict: Predict, images: Sequence[np.ndarray], views: Sequence[np.ndarray]
    ) -> Iterator[torch.Tensor]:
        """Run a model on views of images, xyxy in their pixels, shapes (V, 4), at most `batch` of one shape together.

        Returns:
            An iterator over the rows of each view, image by image, with xyxy in pixels of the image, float32.
        """
        flat = [(image, *xyxy) for image, chosen in zip(images, views, strict=True) for xyxy in chosen.tolist()]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, (image, x1, y1, x2, y2) in enumerate(flat):
            by_shape.setdefault((y2 - y1, x2 - x1, *image.shape[2:]), []).append(index)
        found: dict[int, torch.Tensor] = {}
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch):
                chosen = indices[start : start + self.batch]
                outputs = predict([image[y1:y2, x1:x2] for image, x1, y1, x2, y2 in (flat[index] for index in chosen)])
                for index, output in zip(chosen, outputs, strict=True):
                    rows = output.float().cpu()
                    rows[:, :4] += torch.tensor(flat[index][1:3] * 2)
                    found[index] = rows
        return (found[index] for index in range(len(flat)))

    def merge(
        self, image_hw: tuple[int, int], detections: TileDetections, whole: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """Merge the detections of the tiles with those of the pass over the whole image, see `merge`.

        Args:
            image_hw: Height and width of the image in pixels.
            detections: Those of the tiles.
            whole: (x1, y1, x2, y2, score, class) of the pass over the whole image in its pixels, shape (M, 6); ignored
                without `full`.

        Returns:
            The detections of the image as rows like those of `whole`, by falling score, on its device; and how many
            more `max_det` left out.
        """
        rows, sources = detections.rows, detections.sources
        if self.full:
            rows = torch.cat((rows, whole[:, :6].float().cpu()))
            sources = torch.cat((sources, torch.full((len(whole),), -1)))
        upright = (rows[:, 0] <= rows[:, 2]) & (rows[:, 1] <= rows[:, 3])  # heads without DFL can turn a box inside out
        rows, sources = rows[upright], sources[upright]
        classes = torch.zeros_like(rows[:, 5]) if self.agnostic else rows[:, 5]
        merged = merge(rows[:, :4], rows[:, 4], classes, sources, detections.tiles, image_hw, iou=self.iou)
        found = torch.cat((merged.boxes, merged.scores[:, None], rows[merged.index, 5:]), 1)
        kept = found[: self.max_det].to(whole.device)
        return kept, len(found) - len(kept)


def build_slicer(args: Any, model: Any, imgsz: int) -> Slicer | None:
    """Return the slicer that the arguments `slice` and its companions ask for, or None.

    A tile is scaled to `imgsz`, the shorter side of the input in pixels. `slice=auto` goes by the model's
    `TRAINING_ATTRIBUTES`. `max_det` counts for each pass; for the whole image only where it is not the default.
    """
    tile = getattr(args, "slice", 0)
    if not tile:
        return None
    if tile == "auto":
        known: dict[str, Any] = dict(getattr(model, "metadata", None) or {})  # of an exported model
        for each in (getattr(model, "model", None), model):
            known |= getattr(each, "__dict__", {})
        size, scale = (float(known[name]) if known.get(name) else None for name in TRAINING_ATTRIBUTES)
        tile = auto_tile(imgsz, size, scale)
    batch = int(min(args.slice_batch, max_batch(model)))
    given = args.max_det if args.max_det != DEFAULT_CFG_DICT["max_det"] else None
    classes = None if args.classes is None else tuple(args.classes)
    agnostic = bool(args.agnostic_nms or args.single_cls)
    options = args.slice_skip, classes, args.slice_iou, agnostic, given
    return Slicer(int(tile), args.slice_overlap, batch, args.slice_full, *options)


def max_batch(model: Any) -> float:
    """Return how many images a model takes at a time: an exported one often as many as its export was told."""
    metadata = getattr(model, "metadata", None) or {}  # of an exported model
    exported = metadata.get("args") or {}
    traced = getattr(model, "jit", False) or getattr(model, "format", "") == "torchscript"
    if not metadata or ((exported.get("dynamic") or traced) and not exported.get("nms")):
        return math.inf
    return int(metadata.get("batch", 1))


def select_boxes(preds: Any, min_score: float, nc: int, classes: tuple[int, ...] | None = None) -> list[torch.Tensor]:
    """Return the boxes of at least a score in a model's raw output, for each image: xyxy in input pixels, (K, 4).

    The output of a model of `nc` classes is (B, 4 + nc, anchors) with xywh boxes, before NMS, or (B, N, 6) with xyxy
    boxes, after it, or a list that begins with such. With `classes`, only these count.
    """
    preds = preds[0] if isinstance(preds, (list, tuple)) else preds
    chosen = torch.as_tensor(range(nc) if classes is None else classes, dtype=torch.long, device=preds.device)
    chosen = chosen[chosen < nc]
    if preds.shape[-1] == 6 and preds.shape[1] != 4 + nc:
        return [rows[(rows[:, 4] >= min_score) & torch.isin(rows[:, 5].long(), chosen), :4] for rows in preds]
    if not len(chosen):
        return [image.new_zeros(0, 4) for image in preds]
    return [xywh2xyxy(image[:4, image[4 + chosen].amax(0) >= min_score].T) for image in preds]

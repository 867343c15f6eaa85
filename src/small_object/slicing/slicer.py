"""Sliced inference: runs a model on the tiles of large images."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.ops import xywh2xyxy

from small_object.arguments import BOX_TASKS, MIN_TILE
from small_object.slicing.masks import join_crops
from small_object.slicing.merge import MERGE_IOU, merge
from small_object.slicing.objects import Objects, concatenate, rotated_rows
from small_object.slicing.region import Region, read_region
from small_object.slicing.tiling import Tile, auto_tile, tile_grid, tile_hw, tiles_over

Predict: TypeAlias = Callable[[list[np.ndarray]], list[Objects]]
"""Runs a model on images (H, W, C) of one shape; returns the objects of each after NMS, in its pixels."""

Look: TypeAlias = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on such images; returns where objects may be in each: boxes, xyxy in its pixels, shapes (K, 4)."""

MAX_PROPOSAL_SHRINK = 4
"""Maximum factor by which `slice_skip` downscales an image, relative to tiles, to choose tiles. Seen whole, a large
image would shrink objects to a pixel; at this limit the cost is about a sixteenth of that of all tiles."""

NUM_ON_CPU, MAX_BATCH = 8, 128
"""Tiles at a time for `slice_batch=0`: on a CPU, where more are no faster, and the maximum on a GPU."""

NEW_SCALE, DETAIL_SIZE = 1.5, 8.0
"""If tiles show objects at more than the first factor of their size in training, a box of the whole image gives way to
a tile's box only if it is below the second, in input pixels: the whole image then places larger boxes better. If tiles
show objects as in training or smaller, boxes shorter than the overlap are left to the tiles that show them uncut."""

TRAINING_ATTRIBUTES = "object_size", "train_scale", "tiles_only"
"""Facts about training for `slice=auto` and an unset `slice_full`: attributes of a model or metadata of an export."""


@dataclass(frozen=True)
class TileDetections:
    """The detections in the tiles of an image, before they are merged.

    Attributes:
        objects: N objects, in pixels of the image.
        sources: The row in `tiles` of each object's tile, shape (N,), int64.
        tiles: The tiles that were run, xyxy in pixels, shape (T, 4).
        skipped: How many tiles of the whole image or region were not run.
    """

    objects: Objects
    sources: torch.Tensor
    tiles: np.ndarray
    skipped: int


@dataclass(frozen=True)
class Slicer:
    """Detects objects in the tiles of large images, and merges them with the objects of the whole images.

    A batch may hold tiles of several images, if they have one shape. Tiles are views of their images until `batch` of
    them go to the model, so slicing adds only the memory of one batch of inputs and of the detections.

    Args:
        tile: Side or (height, width) of a tile in pixels, see `tile_grid`.
        overlap: Minimum overlap of neighbouring tiles as a fraction of their side, see `tile_grid`.
        batch: Tiles per batch of the model; 0: as many as fit into half of the free memory of the GPU.
        full: Whether the detections of the pass over the whole image are part of the result.
        skip: Minimum score, 0..1, of the proposals that tiles must cover; 0 runs all tiles.
        classes: Classes to find, for the proposals; None finds all.
        iou: Maximum IoU, 0..1, of two objects of a class.
        agnostic: Whether objects of different classes are also merged.
        max_det: Maximum number of objects in the whole image; None sets no limit.
        region: Where to look; None looks everywhere.
        detail: Maximum √(w·h) of a box of the whole image that gives way to a tile's box, see `merge`, as a fraction of
            the image's longer side.
        min_whole: Minimum longer side in pixels of a box of the whole image that a tile shows uncut.

    Example:
        >>> image = np.zeros((640, 1000, 3), np.uint8)
        >>> nothing = lambda tiles: [Objects(torch.zeros(0, 6)) for tile in tiles]
        >>> slicer = Slicer(640)
        >>> slicer.is_large(image.shape), [len(each.tiles) for each in slicer.detect([image], nothing)]
        (True, [2])
    """

    tile: Tile
    overlap: float = 0.2
    batch: int = 8
    full: bool = True
    skip: float = 0.0
    classes: tuple[int, ...] | None = None
    iou: float = MERGE_IOU
    agnostic: bool = False
    max_det: int | None = None
    region: Region | None = None
    detail: float = math.inf
    min_whole: float = 0.0

    def is_large(self, image_hw: Sequence[int]) -> bool:
        """Return whether an image of the shape (height, width) is larger than a tile. Others are not sliced."""
        height, width = tile_hw(self.tile)
        return bool(image_hw[0] > height or image_hw[1] > width)

    def propose(self, images: Sequence[np.ndarray], look: Look, whole: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the proposals of each image for `detect`: boxes that may hold objects, xyxy in its pixels, (K, 4).

        An image (H, W, C) of more than `MAX_PROPOSAL_SHRINK` tiles per side is run in the fewest equal parts within
        that limit. For other images, the proposals of the `whole` image are used.
        """
        parts = [self._proposal_parts(*image.shape[:2]) for image in images]
        found = self._run(look, images, parts)
        proposals = []
        for own, boxes in zip(parts, whole, strict=True):
            offsets = torch.from_numpy(np.tile(own[:, :2], 2))
            proposals.append(torch.cat([next(found).float().cpu() + xyxy for xyxy in offsets]) if len(own) else boxes)
        return proposals

    def _proposal_parts(self, height: int, width: int) -> np.ndarray:
        """Return the parts of an image to run for proposals, xyxy in pixels, (P, 4); none if it is run whole."""
        sides = zip((height, width), tile_hw(self.tile), strict=True)
        rows, columns = (math.ceil(side / (MAX_PROPOSAL_SHRINK * tile)) for side, tile in sides)
        if rows == columns == 1:
            return np.zeros((0, 4), np.int64)
        part = max(MIN_TILE, math.ceil(height / rows)), max(MIN_TILE, math.ceil(width / columns))
        return tile_grid(height, width, part, overlap=0)

    def detect(
        self, images: Sequence[np.ndarray], predict: Predict, proposals: Sequence[torch.Tensor] | None = None
    ) -> list[TileDetections]:
        """Run a model on the tiles of images (H, W, C).

        With proposals, see `propose`, only the tiles over these are run, see `tiles_over`; else all tiles are run.
        """
        grids, chosen = [], []
        for k, image in enumerate(images):
            height, width = hw = image.shape[:2]
            grids.append(self._in_region(tile_grid(height, width, self.tile, self.overlap), hw))
            if proposals is None:
                chosen.append(grids[k])
            else:
                boxes = proposals[k].cpu()
                boxes = boxes[self.is_inside(boxes, hw)]
                tiles = tiles_over(boxes.numpy(), height, width, self.tile, self.overlap)
                chosen.append(self._in_region(tiles, hw))
        found, detections = self._run(predict, images, chosen), []
        for grid, tiles in zip(grids, chosen, strict=True):
            objects = [next(found).shifted(*xyxy[:2]) for xyxy in tiles.tolist()]
            sources = torch.arange(len(tiles)).repeat_interleave(torch.tensor([*map(len, objects)], dtype=torch.long))
            skipped = max(0, len(grid) - len(tiles))
            detections.append(TileDetections(concatenate(objects).cpu(), sources, tiles, skipped))
        return detections

    def _in_region(self, tiles: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
        return tiles if self.region is None else self.region.select_tiles(tiles, image_hw)

    def is_inside(self, boxes: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
        """Return whether the centres of boxes, xyxy in pixels, lie in the region, shape (N,)."""
        if self.region is None:
            return torch.ones(len(boxes), dtype=torch.bool)
        return self.region.contains((boxes[:, :2] + boxes[:, 2:4]) / 2, image_hw).cpu()

    def _run(
        self, run: Callable[[list[np.ndarray]], list[Any]], images: Sequence[np.ndarray], views: Sequence[np.ndarray]
    ) -> Iterator[Any]:
        """Run a model on views of images, xyxy in their pixels, shapes (V, 4), up to `batch` of one shape at a time.

        Returns:
            An iterator over the results of `run` for each view, image by image.
        """
        flat = [(image, *xyxy) for image, chosen in zip(images, views, strict=True) for xyxy in chosen.tolist()]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, (image, x1, y1, x2, y2) in enumerate(flat):
            by_shape.setdefault((y2 - y1, x2 - x1, *image.shape[2:]), []).append(index)
        found: dict[int, Any] = {}
        for indices in by_shape.values():
            start, batch = 0, self.batch or 1
            while start < len(indices):
                chosen = indices[start : start + batch]
                is_measured = not self.batch and start == 1  # the first pass may take more than others
                if is_measured:
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                outputs = run([image[y1:y2, x1:x2] for image, x1, y1, x2, y2 in (flat[index] for index in chosen)])
                found |= zip(chosen, outputs, strict=True)
                start += batch
                batch = fitting_batch(before) if is_measured else batch
        return (found[index] for index in range(len(flat)))

    def merge(self, image_hw: tuple[int, int], detections: TileDetections, whole: Objects) -> tuple[Objects, int]:
        """Merge the detections of the tiles with those of the pass over the whole image, see `merge`.

        A joined object has the union of its parts' masks, and the keypoints and features of its best part.

        Args:
            image_hw: Height and width of the image in pixels.
            detections: The detections of the tiles.
            whole: The objects of the pass over the whole image, in its pixels; ignored without `full`.

        Returns:
            The objects of the image by falling score, on the CPU; and how many `max_det` left out.
        """
        objects, sources = detections.objects, detections.sources
        if not len(objects):
            objects = whole[torch.zeros(0, dtype=torch.long)].shifted(0, 0).cpu()  # with all that the task has
        if self.full:
            boxes, tiles = whole.rows[:, None, :4].cpu(), torch.from_numpy(detections.tiles)
            is_uncut = ((boxes[..., :2] >= tiles[:, :2]) & (boxes[..., 2:] <= tiles[:, 2:])).all(2).any(1)
            whole = whole[~is_uncut | ((boxes[..., 2:] - boxes[..., :2]).amax((1, 2)) >= self.min_whole)]
            objects = concatenate((objects, whole.shifted(0, 0).cpu()))
            sources = torch.cat((sources, torch.full((len(whole),), -1)))
        xyxy = objects.rows[:, :4]
        valid = (xyxy[:, 0] <= xyxy[:, 2]) & (xyxy[:, 1] <= xyxy[:, 3])  # heads without DFL can turn a box inside out
        objects, sources = objects[valid], sources[valid]
        rows = objects.rows
        classes = torch.zeros_like(rows[:, 5]) if self.agnostic else rows[:, 5]
        inputs = rows[:, :4], rows[:, 4], classes, sources, detections.tiles, image_hw
        merged = merge(*inputs, iou=self.iou, detail_size=self.detail * max(image_hw), rotated=objects.rotated)
        masks = None
        if objects.masks is not None:
            parts: list[list[Any]] = [[] for _ in merged.index]
            for crop, owner in zip(objects.masks, merged.owner.tolist(), strict=True):
                if owner >= 0:
                    parts[owner].append(crop)
            masks = [join_crops(each) for each in parts]
        best = replace(objects, masks=None)[merged.index]
        rows = torch.cat((merged.boxes, merged.scores[:, None], best.rows[:, 5:]), 1)
        found = self.select(replace(best, rows=rows, rotated=merged.rotated, masks=masks), image_hw)
        kept = found[torch.arange(len(found))[: self.max_det]]
        return kept, len(found) - len(kept)

    def select(self, objects: Objects, image_hw: tuple[int, int]) -> Objects:
        """Return the objects of an image whose centre lies in the region."""
        return objects if self.region is None else objects[self.is_inside(objects.rows, image_hw)]


def build_slicer(args: Any, model: Any, imgsz: tuple[int, int], device: torch.device | None = None) -> Slicer | None:
    """Return the slicer for the arguments `slice` and `slice_*`, or None without `slice`.

    A tile is scaled to `imgsz`, the (height, width) of the input in pixels, and has its aspect ratio unless `slice`
    gives both sides. The model's `TRAINING_ATTRIBUTES` decide `slice=auto` and an unset `slice_full`.
    `max_det` limits each pass; it limits the whole image only if it is not the default.

    Raises:
        UserError: If `slice_roi` can't be read.
    """
    tile = getattr(args, "slice", 0)
    if not tile or args.task not in BOX_TASKS:
        return None
    shorter, longer = min(imgsz), max(imgsz)
    known: dict[str, Any] = dict(getattr(model, "metadata", None) or {})  # of an exported model
    for each in (getattr(model, "model", None), model):
        known |= getattr(each, "__dict__", {})
    size, scale, tiles_only = (float(known[name]) if known.get(name) else None for name in TRAINING_ATTRIBUTES)
    if tile == "auto":
        tile = max(auto_tile(shorter, size, scale) * longer // shorter, MIN_TILE)
    if isinstance(tile, (list, tuple)):
        tile = int(tile[0]), int(tile[1])
    elif shorter < longer:
        height, width = (max(MIN_TILE, round(tile * side / longer)) for side in imgsz)
        tile = height, width
    wanted = args.slice_batch or (math.inf if device and device.type == "cuda" else NUM_ON_CPU)
    batch = min(wanted, max_batch(model))
    given = args.max_det if args.max_det != DEFAULT_CFG_DICT["max_det"] else None
    classes = None if args.classes is None else tuple(np.atleast_1d(args.classes).tolist())
    agnostic = bool(args.agnostic_nms or args.single_cls)
    region = read_region(args.slice_roi) if getattr(args, "slice_roi", None) else None
    sides = tile if isinstance(tile, tuple) else int(tile)
    tile_scale = longer / (max(sides) if isinstance(sides, tuple) else sides)
    detail = DETAIL_SIZE / longer if scale and tile_scale > NEW_SCALE * scale else math.inf
    min_whole = args.slice_overlap * min(tile_hw(sides)) if scale and tile_scale <= scale else 0.0
    options = args.slice_skip, classes, args.slice_iou, agnostic, given, region, detail, min_whole
    full = not tiles_only if args.slice_full is None else bool(args.slice_full)
    return Slicer(sides, args.slice_overlap, 0 if batch == math.inf else int(batch), full, *options)


def fitting_batch(before: int) -> int:
    """Return how many tiles fit into half of the GPU's free memory, after a pass of one that started at `before`."""
    used = max(1, torch.cuda.max_memory_allocated() - before)
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return max(1, min(MAX_BATCH, free // 2 // used))


def max_batch(model: Any) -> float:
    """Return the maximum batch of a model; for exported models it is often fixed."""
    metadata = getattr(model, "metadata", None) or {}  # of an exported model
    exported = metadata.get("args") or {}
    traced = getattr(model, "jit", False) or getattr(model, "format", "") == "torchscript"
    if not metadata or ((exported.get("dynamic") or traced) and not exported.get("nms")):
        return math.inf
    return int(metadata.get("batch", 1))


def select_boxes(
    preds: Any, min_score: float, nc: int, classes: tuple[int, ...] | None = None, *, task: str = "detect",
    end2end: bool = False,
) -> list[torch.Tensor]:  # fmt: skip
    """Return the boxes with at least a score in a model's raw output, for each image: xyxy in input pixels, (K, 4).

    The output of a model of `nc` classes is (B, 4 + nc + E, anchors) with xywh boxes before NMS, or (B, N, 6 + E) with
    xyxy boxes after NMS, or a list that starts with one of them; E is 0 for task=detect. With task=obb, boxes are xywh
    in both, with the angle last; the upright boxes around them are returned. With `classes`, only these count.
    """
    while isinstance(preds, (list, tuple)):
        preds = preds[0]
    chosen = torch.as_tensor(range(nc) if classes is None else classes, dtype=torch.long, device=preds.device)
    chosen = chosen[chosen < nc]
    is_final = end2end or (preds.shape[-1] == 6 and preds.shape[1] != 4 + nc)
    boxes = []
    for image in preds if is_final else preds.transpose(1, 2):
        if is_final:
            rows = image[(image[:, 4] >= min_score) & torch.isin(image[:, 5].long(), chosen)]
        else:
            rows = image[image[:, 4 + chosen].amax(1) >= min_score] if len(chosen) else image[:0]
        if task == "obb":
            boxes.append(rotated_rows(torch.cat((rows[:, :4], rows[:, -1:]), 1), rows[:, :0]))
        else:
            boxes.append(rows[:, :4] if is_final else xywh2xyxy(rows[:, :4]))
    return boxes

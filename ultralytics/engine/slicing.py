"""Sliced inference: the tiles of a large image, and the merging of what was found in them.

Tiles overlap, so an object is seen by several: whole by one, cut at its edge by another. `merge` makes one box of them.
Boxes are xyxy in pixels of the whole image. A source is the tile in which a box was found, or the pass over the whole
image. The rules, in their order, each among boxes of one class:

1. Open. A side of a box is open if it lies at, or within the tolerance of, an inner edge of its tile, one that is not
   the image's border: the object may go on there. The tolerance is `margin` pixels or 5% of the box's side, whichever
   is more. A box with no open side is whole; those of the pass over the whole image always are.
2. Drop. An open box is dropped for a whole box of another source that covers at least the share `cover` of it and
   goes on to (within twice the tolerance) every edge at which it is open.
3. Join. What two open boxes of different sources show is compared in the zone that both tiles see. They are one object
   if the IoU of their parts there, each widened by half a `margin`, is at least `match`, and if, towards each edge
   where one is open, both go on to the end of the zone. These, and those joined to them in turn, become the box around
   them all, with the best of their scores. So parts meet at facing edges, across a corner and over a row of tiles;
   neighbours do not, however close, as one ends before the edge or lies beside the other.
4. Drop again: a box that is still open, for a joined one, as in rule 2.
5. Greedy NMS of all that is left, with the threshold `iou`, by score and, where equal, by place in the input.

Rules 2 to 4 believe a box about another only if its score is at least the share `believe` of the other's, so that the
very unsure boxes of a validation (confidence 0.001) neither replace nor enlarge good ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ultralytics.cfg import MAX_OVERLAP, MIN_TILE
from ultralytics.utils.groups import connected
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.size_groups import COCO_SMALL

Detect = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on images (H, W, C) of one shape; returns (x1, y1, x2, y2, score, class) of each, shapes (N, 6), in its
pixels and after NMS."""

Look = Callable[[list[np.ndarray]], list[torch.Tensor]]
"""Runs a model on images (H, W, C) of one shape; returns where in each objects may be: xyxy in its pixels, (K, 4)."""

SCOUT = 4
"""How many times smaller than in tiles `slice_skip` sees an image, at most, to choose its tiles. The pass over the
whole image would see the objects of a large one as a pixel; this costs about a sixteenth of what the tiles do."""

MERGE_IOU = 0.5
"""Highest IoU of two objects of a class in a sliced image: what two tiles show of one object agrees less than what the
NMS of a pass compares."""

MAGNIFICATION = 2.0
"""How much larger than in its training `slice=auto` shows objects to a model, at most. Upstream scales images at random
by up to 1.5, so a model stands that; their native size, three times as large, was worse on the demo panoramas."""

REMEMBERED = "object_size", "train_scale"
"""What `auto_tile` wants to know of a model's training: attributes of a model, in the metadata of an exported one."""

_BANDS = 2**20  # most bands of y that boxes are sorted into, on either side of 0: absurd boxes ask for more than fit
_SLACK = 0.05  # the tolerance at a tile's edge, as a share of the box's side: large boxes are less exact


@dataclass(frozen=True)
class Merged:
    """The detections of a whole image, by falling score.

    Attributes:
        boxes: Boxes, xyxy in pixels, shape (K, 4).
        scores: Scores, shape (K,).
        classes: Classes, shape (K,).
        index: For each, its place in the input, shape (K,), int64; of a joined box, that of its part of the best score.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    index: torch.Tensor


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


def slicer_of(args: Any, model: Any, imgsz: int) -> Slicer | None:
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
    batch = min(args.slice_batch, most_images(model))
    return Slicer(int(side), args.slice_overlap, batch, args.slice_full, args.slice_skip)


def most_images(model: Any) -> float:
    """Return how many images a model takes at a time: an exported one as many as was said then, with exceptions."""
    metadata = getattr(model, "metadata", None) or {}  # of an exported model
    exported = metadata.get("args") or {}
    traced = getattr(model, "jit", False) or getattr(model, "format", "") == "torchscript"
    if not metadata or ((exported.get("dynamic") or traced) and not exported.get("nms")):
        return math.inf
    return int(metadata.get("batch", 1))


def auto_tile(imgsz: int, object_size: float | None, train_scale: float | None = None) -> int:
    """Return the side of tiles for `slice=auto`, in pixels, a multiple of 32.

    A tile is scaled to `imgsz`, so the median object is shown at its native size or, where it is larger than 32 px, at
    32 px, where COCO's small objects end: smaller tiles would only show less of the image. But a model that was trained
    on images made smaller has not seen objects of native size: they are shown at most `MAGNIFICATION` times as large as
    in its training.

    Args:
        imgsz: Longer side of the model's input in pixels.
        object_size: Median √(w·h) of the objects in pixels of the images, None where it is not known.
        train_scale: Median scale of the images in training, input pixels by image pixels, None where it is not known.

    Example:
        >>> auto_tile(640, 20), auto_tile(640, 48), auto_tile(640, 20, train_scale=1 / 6)
        (640, 960, 1920)
    """
    native = max(1.0, (object_size or 0) / COCO_SMALL**0.5)
    trained = 1 / (MAGNIFICATION * train_scale) if train_scale else 0
    return max(MIN_TILE, round(imgsz * max(native, trained) / 32) * 32)


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


def tile_grid(height: int, width: int, tile: int, overlap: float) -> np.ndarray:
    """Return the fewest square tiles that cover an image and overlap as asked, evenly spread.

    Args:
        height: Height of the image in pixels, at least 1.
        width: Width of the image in pixels, at least 1.
        tile: Side of a tile in pixels, at least 64. Where the image is smaller, the tile is as large as the image.
        overlap: Least overlap of neighbours as a share of the tile, 0..0.9.

    Returns:
        Tiles, xyxy in pixels, row by row, shape (N, 4), int64.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> tile_grid(640, 1000, 640, 0.2)
        array([[   0,    0,  640,  640],
               [ 360,    0, 1000,  640]])
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} pixels can't be tiled")
    if tile < MIN_TILE:
        raise ValueError(f"a tile must have at least {MIN_TILE} pixels a side, not {tile}")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ValueError(f"the overlap of tiles must be 0..{MAX_OVERLAP} of their side, not {overlap}")
    step = tile - math.ceil(overlap * tile - 1e-9)  # 0.55 * 100 is a little more than 55

    def spans(length: int) -> list[tuple[int, int]]:
        return _spread(length, min(tile, length), 1 + max(0, -(-(length - tile) // step)))

    grid = [(x1, y1, x2, y2) for y1, y2 in spans(height) for x1, x2 in spans(width)]
    return np.array(grid, dtype=np.int64)


def _spread(length: int, size: int, count: int) -> list[tuple[int, int]]:
    """Return (start, end) of `count` spans of one size, evenly spread from 0 to a length."""
    starts = [i * (length - size) // max(1, count - 1) for i in range(count)]
    return [(start, start + size) for start in starts]


def tiles_over(boxes: np.ndarray, height: int, width: int, tile: int, overlap: float) -> np.ndarray:
    """Return few square tiles that have all boxes inside: of those below and those of the grid the fewer.

    The box farthest left that is in no tile yet gets the next one: of the tiles that begin at its left side, that with
    the most boxes, moved so that these lie in its middle. A quarter of the overlap is kept clear around each box. Of a
    box that is larger than a tile can hold in this way, only the middle is looked at.

    Of the grid, see `tile_grid`, the tiles that have the middle of a box.

    Args:
        boxes: Boxes, xyxy in pixels of the image, shape (N, 4); those without area in the image do not count.
        height: Height of the image in pixels, at least 1.
        width: Width of the image in pixels, at least 1.
        tile: Side of a tile in pixels, at least 64. Where the image is smaller, the tile is as large as the image.
        overlap: Overlap as a share of the tile, 0..0.9.

    Returns:
        Tiles, xyxy in pixels, shape (T, 4), int64, none without boxes.

    Raises:
        ValueError: If an argument is out of its range, see `tile_grid`.

    Example:
        >>> tiles_over(np.array([[100, 300, 120, 320], [500, 400, 520, 440]]), 1080, 1920, 640, 0.2)
        array([[  0,  50, 640, 690]])
    """
    grid = tile_grid(height, width, tile, overlap)
    image = np.array([width, height])
    boxes = np.asarray(boxes, float).reshape(-1, 4).clip(0, np.tile(image, 2))
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    has = [((middle >= xyxy[:2]) & (middle <= xyxy[2:])).all(1).any() for xyxy in grid]
    grid = grid[np.array(has, dtype=bool)]

    step, clear = max(1, tile // 64), overlap / 4 * tile
    size = np.minimum(tile, image)
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 + clear
    half = np.where(2 * half > size - 2 * step, size / 4, half)
    low, high = np.floor((middle - half) / step) * step, np.ceil((middle + half) / step) * step  # far fewer ones
    left = np.unique(np.concatenate((low.clip(0, image), high.clip(0, image)), 1).astype(np.int64), axis=0)
    tiles: list[np.ndarray] = []
    while len(left):  # sorted by their left sides
        if len(tiles) + 1 >= len(grid):
            return grid
        x, y = left[0, :2]
        near = left[left[:, 2] <= x + size[0]]
        tops = np.unique(near[(near[:, 1] <= y) & (near[:, 1] + size[1] >= left[0, 3]), 1])[:, None]
        inside = (near[:, 1] >= tops) & (near[:, 3] <= tops + size[1])
        held = near[inside[inside.sum(1).argmax()]]
        start = ((held[:, :2].min(0) + held[:, 2:].max(0) - size) // 2).clip(0, image - size)
        tiles.append(np.concatenate((start, start + size)))
        left = left[(left[:, :2] < start).any(1) | (left[:, 2:] > start + size).any(1)]
    return np.array(tiles, dtype=np.int64).reshape(-1, 4)


def merge(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    sources: torch.Tensor,
    tiles: np.ndarray | torch.Tensor,
    image_hw: tuple[int, int],
    *,
    iou: float = MERGE_IOU,
    margin: float = 2.0,
    cover: float = 0.7,
    match: float = 0.5,
    believe: float = 0.25,
) -> Merged:
    """Merge the detections of all tiles, and of the pass over the whole image if any, by the rules above.

    Args:
        boxes: Boxes, xyxy in pixels of the whole image, x1 <= x2 and y1 <= y2, finite, shape (N, 4).
        scores: Scores in 0..1, shape (N,).
        classes: Classes, shape (N,).
        sources: For each box, the row of its tile in `tiles`, or -1 for the pass over the whole image; shape (N,).
        tiles: Tiles, xyxy in pixels, shape (T, 4), as from `tile_grid`.
        image_hw: Height and width of the image in pixels.
        iou: Highest IoU of two boxes of a class that both stay, 0..1.
        margin: Tolerance at the edges of tiles in pixels, more than 0.
        cover: Share of an open box, 0..1, that a box must cover to replace it.
        match: Least IoU, 0..1, of what two tiles show of one object in the zone that both see.
        believe: Least score of a box, as a share 0..1 of the other's score, to replace or enlarge that other.

    Returns:
        The detections of the image, on the device of `boxes`; boxes and scores in float32 or wider.

    Raises:
        ValueError: If the shapes do not agree, a source is neither -1 nor a row of `tiles`, a box or score is not
            finite or a box is turned inside out.

    Example:
        >>> halves = torch.tensor([[300.0, 10, 640, 90], [360.0, 10, 700, 90]])
        >>> sure, aircraft = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> merge(halves, sure, aircraft, torch.tensor([0, 1]), tile_grid(640, 1000, 640, 0.2), (640, 1000)).boxes
        tensor([[300.,  10., 700.,  90.]])
    """
    tiles = torch.as_tensor(tiles).cpu().numpy().reshape(-1, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or {scores.shape, classes.shape, sources.shape} != {boxes.shape[:1]}:
        shapes = [tuple(x.shape) for x in (boxes, scores, classes, sources)]
        raise ValueError(
            f"boxes, scores, classes and sources must have the shapes (N, 4), (N,), (N,), (N,), not {shapes}"
        )
    if len(sources) and not -1 <= int(sources.min()) <= int(sources.max()) < len(tiles):
        raise ValueError(f"the sources must be -1 (the whole image) or rows of the {len(tiles)} tiles")
    if not (boxes.isfinite().all() and scores.isfinite().all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise ValueError("boxes and scores must be finite, with x1 <= x2 and y1 <= y2")
    if not margin > 0:
        raise ValueError(f"the margin must be more than 0 pixels, not {margin}")
    boxes, scores = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (boxes, scores))
    score, kind, source = (x.detach().cpu().numpy() for x in (scores, classes.double(), sources.long()))
    kind = np.unique(kind, return_inverse=True)[1]

    # From here on a box is (-x1, -y1, x2, y2): the greater a number, the farther out that side.
    outward = np.array([-1.0, -1, 1, 1])
    box = boxes.detach().cpu().numpy().astype(np.float64) * outward
    frame = np.array([[0.0, 0, image_hw[1], image_hw[0]]])
    tile = np.concatenate((tiles * outward, frame))[source]
    tolerance = np.tile(np.maximum(margin, _SLACK * (box[:, :2] + box[:, 2:])), 2)
    is_open = (tile - box <= tolerance) & (tile < frame)
    cut = is_open.any(1)

    def covered(i: np.ndarray, j: np.ndarray, by: np.ndarray, by_score: np.ndarray) -> np.ndarray:
        """Return for which pairs the open box i is a part of the whole or joined box j: rules 2 and 4."""
        reaches = ((by[j] >= tile[i] - 2 * tolerance[i]) | ~is_open[i]).all(1)
        enough = _area(np.minimum(box[i], by[j])) >= cover * _area(box[i])
        return reaches & enough & (by_score[j] >= believe * score[i])

    seen = np.where(is_open, np.maximum(box, tile), box)
    i, j = _pairs(seen, kind, seen, kind, np.flatnonzero(cut))
    other = source[i] != source[j]
    i, j = i[other], j[other]
    whole = ~cut[j]
    gone = np.zeros(len(box), dtype=bool)
    gone[i[whole][covered(i[whole], j[whole], box, score)]] = True

    both = cut[j] & ~gone[i] & ~gone[j] & (i < j)
    i, j = i[both], j[both]
    zone = np.minimum(tile[i], tile[j])
    part_i, part_j = np.minimum(seen[i], zone), np.minimum(seen[j], zone)
    need = zone - 2 * np.maximum(tolerance[i], tolerance[j])
    same = (((part_i >= need) & (part_j >= need)) | ~(is_open[i] | is_open[j])).all(1)
    same &= _iou(part_i + margin / 2, part_j + margin / 2) >= match
    same &= np.minimum(score[i], score[j]) >= believe * np.maximum(score[i], score[j])
    group = connected(len(box), i[same], j[same])

    order = np.lexsort((np.arange(len(box)), -score))
    order = order[~gone[order]]
    label, first, count = np.unique(group[order], return_index=True, return_counts=True)
    best = order[first]  # of each group, the box of the best score; most groups are one box
    union = np.full_like(box, -np.inf)
    np.maximum.at(union, group[order], box[order])
    union = union[label]

    alone, joined = np.flatnonzero((count == 1) & cut[best]), np.flatnonzero(count > 1)
    i, j = _pairs(union[alone], kind[best[alone]], union[joined], kind[best[joined]])
    late = alone[i[covered(best[alone[i]], joined[j], union, score[best])]]
    left = np.ones(len(best), dtype=bool)
    left[late] = False
    best, union = best[left], union[left]

    order = np.lexsort((best, -score[best]))
    best, union = best[order], union[order]
    keep = _nms(union, kind[best], iou)
    index = torch.from_numpy(best[keep]).to(boxes.device)
    merged = torch.from_numpy(union[keep] * outward).to(boxes)
    return Merged(merged, scores[index], classes[index.to(classes.device)], index)


def _area(box: np.ndarray) -> np.ndarray:
    return np.clip(box[:, 0] + box[:, 2], 0, None) * np.clip(box[:, 1] + box[:, 3], 0, None)


def _iou(box1: np.ndarray, box2: np.ndarray) -> np.ndarray:
    inter = _area(np.minimum(box1, box2))
    return inter / np.maximum(_area(box1) + _area(box2) - inter, 1e-9)


def _pairs(
    box1: np.ndarray, kind1: np.ndarray, box2: np.ndarray, kind2: np.ndarray, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all (i, j) whose boxes are of one kind and meet, i of `rows` or any: sweeps along x in bands of y."""
    rows = np.arange(len(box1)) if rows is None else rows
    if not len(rows) or not len(box2):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    height = 2 * max(1.0, (box1[rows, 1] + box1[rows, 3]).mean(), (box2[:, 1] + box2[:, 3]).mean())
    reach = np.abs(box1).max() + np.abs(box2).max() + 1
    height = max(height, reach / _BANDS)
    bands = int(2 * reach / height) + 1

    def lay_out(box: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return row, band and ends of each box in each band; kinds and bands lie along one line, too far to meet."""
        top = ((reach - box[:, 1]) // height).astype(np.int64)
        row, nth = _count_out(((reach + box[:, 3]) // height).astype(np.int64) - top + 1)
        band = top[row] + nth
        place = 2 * reach * (kind[row] * bands + band)
        return row, nth == 0, place - box[row, 0], place + box[row, 2]

    row1, top1, low1, high1 = lay_out(box1[rows], kind1[rows])
    row2, top2, low2, high2 = lay_out(box2, kind2)
    i1, j1 = _starts_within(low2, low1, high1, "left")
    j2, i2 = _starts_within(low1, low2, high2, "right")
    i, j = np.concatenate((i1, i2)), np.concatenate((j1, j2))
    once = top1[i] | top2[j]  # a pair meets in several bands: count the first
    i, j = rows[row1[i[once]]], row2[j[once]]
    meet = np.minimum(box1[i, 1], box2[j, 1]) + np.minimum(box1[i, 3], box2[j, 3]) >= 0
    return i[meet], j[meet]


def _starts_within(starts: np.ndarray, low: np.ndarray, high: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all (span, start) with low <= start <= high or, if the side is "right", low < start <= high."""
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    first = np.searchsorted(starts, low, side)
    span, nth = _count_out(np.maximum(np.searchsorted(starts, high, "right") - first, 0))
    return span, order[first[span] + nth]


def _count_out(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, 0), (row, 1), ... for each row as often as its count says."""
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) - (np.cumsum(count) - count)[row]


def _nms(box: np.ndarray, kind: np.ndarray, iou: float) -> np.ndarray:
    """Return the rows that greedy NMS keeps of boxes in falling order: rounds over the pairs that overlap too much."""
    i, j = _pairs(box, kind, box, kind)
    i, j = i[i < j], j[i < j]
    much = _iou(box[i], box[j]) > iou
    i, j = i[much], j[much]
    keep = np.ones(len(box), dtype=bool)
    while len(i):
        wins = np.ones(len(box), dtype=bool)
        wins[j] = False  # what no box stands over stays, and removes those that it stands over
        keep[j[wins[i]]] = False
        rest = keep[i] & keep[j] & ~wins[i]
        i, j = i[rest], j[rest]
    return np.flatnonzero(keep)

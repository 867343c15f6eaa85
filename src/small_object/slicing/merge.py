"""Merging of what was found in the tiles of an image.

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

from dataclasses import dataclass

import numpy as np
import torch

from small_object.slicing.groups import connected

MERGE_IOU = 0.5
"""Highest IoU of two objects of a class in a sliced image: what two tiles show of one object agrees less than what the
NMS of a pass compares."""

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

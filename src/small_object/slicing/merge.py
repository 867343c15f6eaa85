"""Merges the detections of an image's tiles.

Tiles overlap, so several of them see the same object: one sees it whole, another cuts it at its edge. `merge` turns
these into one box. Boxes are xyxy in pixels of the whole image. The source of a box is its tile or the pass over the
whole image. The rules apply in this order; 3 and 5 only among boxes of one class:

1. Open. A side of a box is open if it lies within the tolerance of an inner edge of its tile (an edge that is not the
   image's border): the object may continue there. The tolerance is `MARGIN` or 5% of the box's side, whichever is
   larger. A box without open sides is whole; boxes of the pass over the whole image always are.
2. Drop. An open box is dropped if a whole box of another source, of any class, covers at least the fraction `MIN_COVER`
   of it and reaches (within twice the tolerance) every edge at which it is open: a part of an object may look like
   something else, but the whole explains it.
3. Join. Two open boxes of different sources are compared in the zone that both tiles see. They are one object if the
   IoU of their parts there, each widened by half a `MARGIN`, is at least `MIN_IOU`, and if, towards each edge where
   either is open, both reach the end of the zone. Joining is transitive. Joined boxes become the box around them all,
   with the highest of their scores. So parts meet at facing edges, across a corner and over a row of tiles. Close
   neighbours don't, because one ends before the edge or lies alongside the other.
4. Drop again. A box that is still open is dropped in favour of a joined one, as in rule 2.
5. NMS. The remaining boxes go through greedy NMS with the threshold `iou`, by falling score; ties keep the order of the
   input.

The same rules hold for rotated boxes. Sides and edges are those of the upright boxes around them; all else uses the
rotated boxes. In rules 2 and 4, the part of the other box in the open box's tile must cover the open box, see
`cover_shares`. Joined boxes become the smallest rotated box around the parts in their tiles.

In rules 2 to 4, a box counts only if its score is at least the fraction `MIN_SCORE_RATIO` of the other's, so that the
very uncertain boxes of a validation (confidence 0.001) neither replace nor enlarge good ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from small_object.slicing.groups import connected
from small_object.slicing.rotated import (
    box_corners,
    cover_shares,
    min_rotated_box,
    nms_pairs,
    upright_boxes,
    visible_parts,
    zone_ious,
)

MERGE_IOU = 0.5
"""Maximum IoU of two objects of a class in a sliced image. It is lower than in the NMS of one pass, because two tiles
agree less about an object than two anchors do."""

GROUP = 64  # boxes compared at once
MARGIN = 2.0  # tolerance at the edges of tiles in pixels
EDGE_TOLERANCE = 0.05  # likewise, as a fraction of the box's side: large boxes are less exact
MIN_COVER = 0.7  # fraction of an open box that another box must cover to replace it
MIN_IOU = 0.5  # of two parts of one object in the zone that both tiles see
MIN_SCORE_RATIO = 0.25  # score of a box that replaces or enlarges another, divided by the other's


@dataclass(frozen=True)
class Merged:
    """The detections of a whole image, by falling score.

    Attributes:
        boxes: Boxes, xyxy in pixels, shape (K, 4).
        scores: Scores, shape (K,).
        classes: Classes, shape (K,).
        index: Index of each in the input, shape (K,), int64; for a joined box, that of its part with the highest score.
        owner: The detection that each input box is or is a part of, shape (N,), int64; -1 if it was dropped.
        rotated: Rotated boxes, xywhr in pixels and radians, shape (K, 5); None if the input has none.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    index: torch.Tensor
    owner: torch.Tensor
    rotated: torch.Tensor | None = None


def merge(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    sources: torch.Tensor,
    tiles: np.ndarray | torch.Tensor,
    image_hw: tuple[int, int],
    *,
    iou: float = MERGE_IOU,
    rotated: torch.Tensor | None = None,
) -> Merged:
    """Merge the detections of all tiles, and of the pass over the whole image, if any, by the rules above.

    Args:
        boxes: Boxes, xyxy in pixels of the whole image, x1 <= x2 and y1 <= y2, finite, shape (N, 4).
        scores: Scores in 0..1, shape (N,).
        classes: Classes, shape (N,).
        sources: For each box, the row of its tile in `tiles`, or -1 for the pass over the whole image; shape (N,).
        tiles: Tiles, xyxy in pixels, shape (T, 4), as from `tile_grid`.
        image_hw: Height and width of the image in pixels.
        iou: Maximum IoU, 0..1, of two remaining boxes of a class.
        rotated: The rotated boxes inside `boxes`, xywhr in pixels and radians, shape (N, 5), if there are any.

    Returns:
        The detections of the image, on the device of `boxes`; boxes and scores in float32 or wider.

    Raises:
        ValueError: If the shapes do not agree, a source is neither -1 nor a row of `tiles`, a box or score is not
            finite or a box is turned inside out.

    Example:
        >>> from small_object.slicing.tiling import tile_grid
        >>> halves = torch.tensor([[300.0, 10, 640, 90], [360.0, 10, 700, 90]])
        >>> scores, aircraft = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> merge(halves, scores, aircraft, torch.tensor([0, 1]), tile_grid(640, 1000, 640, 0.2), (640, 1000)).boxes
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
    boxes, scores = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (boxes, scores))
    score, class_id, source = (x.detach().cpu().numpy() for x in (scores, classes.double(), sources.long()))
    class_id = np.unique(class_id, return_inverse=True)[1]

    # From here on, a box is (-x1, -y1, x2, y2): the larger a number, the farther out that side.
    outward = np.array([-1.0, -1, 1, 1])
    xywhr = None if rotated is None else rotated.detach().cpu().double().numpy()
    corners = None if xywhr is None else box_corners(xywhr)
    box = boxes.detach().cpu().numpy().astype(np.float64) * outward
    frame = np.array([[0.0, 0, image_hw[1], image_hw[0]]])
    tile = np.concatenate((tiles * outward, frame))[source]
    tolerance = np.tile(np.maximum(MARGIN, EDGE_TOLERANCE * (box[:, :2] + box[:, 2:])), 2)
    is_open = (tile - box <= tolerance) & (tile < frame)
    is_cut = is_open.any(1)

    def covered(
        i: np.ndarray, j: np.ndarray, by: np.ndarray, by_score: np.ndarray, by_corners: np.ndarray | None
    ) -> np.ndarray:
        """Return whether the open box i of each pair is a part of the whole or joined box j: rules 2 and 4."""
        is_part = ((by[j] >= tile[i] - 2 * tolerance[i]) | ~is_open[i]).all(1)
        is_part &= by_score[j] >= MIN_SCORE_RATIO * score[i]
        i, j = i[is_part], j[is_part]
        if corners is None or by_corners is None:
            enough = _area(np.minimum(box[i], by[j])) >= MIN_COVER * _area(box[i])
        else:
            enough = cover_shares(corners[i], by_corners[j], tile[i] * outward) >= MIN_COVER
        is_part[is_part] = enough
        return is_part

    seen = np.where(is_open, np.maximum(box, tile), box)
    cut = np.flatnonzero(is_cut)
    i, j = _meeting_pairs(seen[cut], seen)
    i = cut[i]
    different = source[i] != source[j]
    i, j = i[different], j[different]
    whole = ~is_cut[j]
    dropped = np.zeros(len(box), dtype=bool)
    dropped[i[whole][covered(i[whole], j[whole], box, score, corners)]] = True

    both = is_cut[j] & ~dropped[i] & ~dropped[j] & (i < j) & (class_id[i] == class_id[j])
    i, j = i[both], j[both]
    zone = np.minimum(tile[i], tile[j])
    part_i, part_j = np.minimum(seen[i], zone), np.minimum(seen[j], zone)
    need = zone - 2 * np.maximum(tolerance[i], tolerance[j])
    same = (((part_i >= need) & (part_j >= need)) | ~(is_open[i] | is_open[j])).all(1)
    same &= np.minimum(score[i], score[j]) >= MIN_SCORE_RATIO * np.maximum(score[i], score[j])
    if xywhr is None:
        part_i, part_j = part_i + MARGIN / 2, part_j + MARGIN / 2
        shared = _area(np.minimum(part_i, part_j))
        same &= shared >= MIN_IOU * (_area(part_i) + _area(part_j) - shared)
    else:
        rows = np.flatnonzero(same)
        same[rows] = zone_ious(xywhr[i[rows]], xywhr[j[rows]], zone[rows] * outward, MARGIN / 2) >= MIN_IOU
    group = connected(len(box), i[same], j[same])

    order = np.lexsort((np.arange(len(box)), -score))
    order = order[~dropped[order]]
    label, first, count = np.unique(group[order], return_index=True, return_counts=True)
    best = order[first]  # the box of each group with the highest score; most groups are one box
    union = np.full_like(box, -np.inf)
    np.maximum.at(union, group[order], box[order])
    union = union[label]
    if xywhr is not None and corners is not None:
        xywhr, single_corners = xywhr[best], corners
        for k in np.flatnonzero(count > 1):
            parts = order[group[order] == label[k]]
            xywhr[k] = min_rotated_box(np.concatenate(visible_parts(single_corners[parts], tile[parts] * outward)))
        union = upright_boxes(box_corners(xywhr)) * outward

    single, joined = np.flatnonzero((count == 1) & is_cut[best]), np.flatnonzero(count > 1)
    i, j = _meeting_pairs(union[single], union[joined])
    keep = np.ones(len(best), dtype=bool)
    by_corners = None if xywhr is None else box_corners(xywhr)
    keep[single[i[covered(best[single[i]], joined[j], union, score[best], by_corners)]]] = False

    rank = np.lexsort((best, -score[best]))
    rank = rank[keep[rank]]
    best, union, label = best[rank], union[rank], label[rank]
    merged = torch.from_numpy(union * outward)
    if xywhr is None:
        kept = _nms(merged, torch.from_numpy(class_id[best]), iou)
    else:
        xywhr = xywhr[rank]
        i, j = _meeting_pairs(union, union)
        compared = (i < j) & (class_id[best[i]] == class_id[best[j]])
        kept = torch.from_numpy(nms_pairs(xywhr, i[compared], j[compared], iou))
        rotated = torch.from_numpy(xywhr)[kept].to(boxes)
    index = torch.from_numpy(best)[kept].to(boxes.device)
    owners = np.full(len(box) + 1, -1)  # by the lowest box of a group
    owners[label[kept.numpy()]] = np.arange(len(kept))
    owner = torch.from_numpy(np.where(dropped, -1, owners[group]))
    return Merged(merged[kept].to(boxes), scores[index], classes[index.to(classes.device)], index, owner, rotated)


def _area(box: np.ndarray) -> np.ndarray:
    return np.clip(box[:, :2] + box[:, 2:], 0, None).prod(1)


def _meeting_pairs(box1: np.ndarray, box2: np.ndarray) -> np.ndarray:
    """Return all (i, j) for which box1[i] and box2[j] meet, shape (2, P), int64.

    Boxes are compared in groups along x, each group with the boxes in its range. Comparing all pairs, as torchvision
    does, takes gigabytes for the 20,000 boxes of a validation image.
    """
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    order = np.argsort(-box1[:, 0])
    for start in range(0, len(order), GROUP):
        rows = order[start : start + GROUP]
        near = np.flatnonzero((box2[:, 2] >= -box1[rows, 0].max()) & (-box2[:, 0] <= box1[rows, 2].max()))
        shared = np.minimum(box1[rows, None], box2[near])
        meet = (shared[..., :2] + shared[..., 2:] >= 0).all(-1)
        i, j = meet.nonzero()
        pairs.append(np.stack((rows[i], near[j])))
    return np.concatenate(pairs, 1)


def _nms(boxes: torch.Tensor, classes: torch.Tensor, iou: float) -> torch.Tensor:
    """Return the rows that greedy NMS keeps of boxes, xyxy, given in falling order of priority.

    It runs per class: torchvision's `batched_nms` may shift the classes apart, which rounds the boxes, and does not
    keep the order of equal scores.
    """
    from torchvision.ops import nms  # here, as it is slow to import

    priority = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
    keep = [torch.zeros(0, dtype=torch.int64)]
    for class_id in torch.unique(classes).tolist():
        rows = (classes == class_id).nonzero().flatten()
        keep.append(rows[nms(boxes[rows], priority[rows], iou)])
    return torch.cat(keep).sort().values

"""Merges the detections of an image's tiles.

Tiles overlap, so several of them see the same object: one sees it whole, another cuts it at its edge. `merge` turns
these into one box. Boxes are xyxy in pixels of the whole image. The source of a box is its tile or the pass over the
whole image. The rules apply in this order; 1 is about each box alone, and 3, 5 and 6 only about boxes of one class:

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
5. Prefer detail. A box of the pass over the whole image is dropped if a whole box of a tile shares at least the
   fraction `DETAIL_COVER` of the smaller of both, has at least the fraction `DETAIL_AREA` of its area and
   `DETAIL_SCORE_RATIO` of its score: the downscaled image places small boxes so badly that NMS would keep both.
   With an `iou` above its default, they must share more. Boxes larger than `detail_size` and rotated boxes skip this
   rule.
6. NMS. The remaining boxes go through greedy NMS with the threshold `iou`, by falling score; ties keep the order of the
   input.

The same rules hold for rotated boxes. Sides and edges are those of the upright boxes around them; all else uses the
rotated boxes. In rules 2 and 4, the part of the other box in the open box's tile must cover the open box, see
`cover_shares`. Joined boxes become the smallest rotated box around the parts in their tiles.

In rules 2 to 4, a box counts only if its score is at least the fraction `MIN_SCORE_RATIO` of the other's, so that the
very uncertain boxes of a validation (confidence 0.001) neither replace nor enlarge good ones.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from small_object.slicing import rotated as geometry
from small_object.slicing.groups import connected

MERGE_IOU = 0.5
"""Maximum IoU of two objects of a class in a sliced image. It is lower than in the NMS of one pass, because two tiles
agree less about an object than two anchors do."""

GROUP = 64  # boxes compared at once
MARGIN = 2.0  # tolerance at the edges of tiles in pixels
EDGE_TOLERANCE = 0.05  # likewise, as a fraction of the box's side: large boxes are less exact
MIN_COVER = 0.7  # fraction of an open box that another box must cover to replace it
MIN_IOU = 0.5  # of two parts of one object in the zone that both tiles see
MIN_SCORE_RATIO = 0.25  # score of a box that replaces or enlarges another, divided by the other's
DETAIL_COVER = 0.3  # these three: of a tile's box that replaces one of the whole image
DETAIL_SLOPE = 1.2  # by which that grows with `iou`: boxes with an IoU of 0.54 share 0.7 and more of the smaller one
DETAIL_AREA = 0.25
DETAIL_SCORE_RATIO = 0.75


OUTWARD = np.array([-1.0, -1, 1, 1])
"""Turns xyxy into (-x1, -y1, x2, y2): the larger a number, the farther out that side. The steps compare such boxes."""


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
    detail_size: float = math.inf,
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
        detail_size: Maximum √(w·h) of a box of the whole image that gives way to a tile's box, in pixels.
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
    frame = np.array([[0.0, 0, image_hw[1], image_hw[0]]])
    box, tile = boxes.detach().cpu().double().numpy() * OUTWARD, np.concatenate((tiles * OUTWARD, frame))[source]
    tolerance = np.tile(np.maximum(MARGIN, EDGE_TOLERANCE * (box[:, :2] + box[:, 2:])), 2)
    is_open = (tile - box <= tolerance) & (tile < frame)
    xywhr = None if rotated is None else rotated.detach().cpu().double().numpy()
    parts = _Parts(box, score, xywhr, tile, tolerance, is_open)

    is_cut = is_open.any(1)
    cut = np.flatnonzero(is_cut)
    i, j = _meeting_pairs(parts.seen[cut], parts.seen)
    i, j = _select(source[cut[i]] != source[j], cut[i], j)
    dropped = parts.drop(*_select(~is_cut[j], i, j), parts)
    if xywhr is None:
        coarse = np.flatnonzero((source < 0) & (_area(box) <= detail_size**2))
        detailed = np.flatnonzero((source >= 0) & ~is_cut)
        dropped[coarse] |= parts.lacks_detail(coarse, detailed, class_id, iou)
    i, j = _select(is_cut[j] & ~dropped[i] & ~dropped[j] & (i < j) & (class_id[i] == class_id[j]), i, j)
    group = connected(len(box), *_select(parts.belong_together(i, j), i, j))

    order = np.argsort(-score, kind="stable")
    order = order[~dropped[order]]
    _, first, number, count = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    rank = first.argsort()  # groups by the highest of their scores
    best, is_joined, owner = order[first[rank]], count[rank] > 1, np.full(len(box), -1)
    owner[order] = rank.argsort()[number]
    joined = parts.join(best, is_joined, owner)

    single, several = np.flatnonzero(~is_joined & is_cut[best]), np.flatnonzero(is_joined)
    i, j = _meeting_pairs(joined.box[single], joined.box[several])
    left = np.flatnonzero(~parts.drop(best[single[i]], several[j], joined)[best])
    kept = joined.nms(left, class_id[best[left]], iou)

    renumbered = np.full(len(best) + 1, -1)  # the last for owner -1
    renumbered[kept] = np.arange(len(kept))
    index = torch.from_numpy(best[kept]).to(boxes.device)
    rotated = None if joined.xywhr is None else torch.from_numpy(joined.xywhr[kept]).to(boxes)
    xyxy = torch.from_numpy(joined.box[kept] * OUTWARD).to(boxes)
    owner_index = torch.from_numpy(renumbered[owner])
    return Merged(xyxy, scores[index], classes[index.to(classes.device)], index, owner_index, rotated)


@dataclass(frozen=True)
class _Boxes:
    """Boxes like `OUTWARD`, shape (N, 4), their scores, and the rotated boxes in them, xywhr, if there are any."""

    box: np.ndarray
    score: np.ndarray
    xywhr: np.ndarray | None

    @cached_property
    def corners(self) -> np.ndarray:
        """Corners of the rotated boxes, shape (N, 4, 2)."""
        assert self.xywhr is not None
        return geometry.box_corners(self.xywhr)

    def nms(self, rows: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
        """Return those of the rows, given by falling score with their classes, that greedy NMS in each class keeps.

        torchvision's `batched_nms` may shift the classes apart, which rounds the boxes, and does not keep the order of
        equal scores.
        """
        if self.xywhr is not None:
            i, j = _meeting_pairs(self.box[rows], self.box[rows])
            i, j = _select((i < j) & (classes[i] == classes[j]), i, j)
            return rows[geometry.nms_pairs(self.xywhr[rows], i, j, iou)]
        from torchvision.ops import nms  # here, as it is slow to import

        boxes = torch.from_numpy(self.box[rows] * OUTWARD)
        priority = torch.arange(len(rows), 0, -1, dtype=boxes.dtype)
        keep = np.zeros(len(rows), dtype=bool)
        for class_id in np.unique(classes):
            own = np.flatnonzero(classes == class_id)
            keep[own[nms(boxes[own], priority[own], iou).numpy()]] = True
        return rows[keep]


@dataclass(frozen=True)
class _Parts(_Boxes):
    """The boxes found in tiles: also the tile of each, the tolerance at its sides, and whether these are open."""

    tile: np.ndarray
    tolerance: np.ndarray
    is_open: np.ndarray

    @cached_property
    def seen(self) -> np.ndarray:
        """The boxes, with open sides moved out to the edge of the tile."""
        return np.where(self.is_open, np.maximum(self.box, self.tile), self.box)

    def drop(self, i: np.ndarray, j: np.ndarray, others: _Boxes) -> np.ndarray:
        """Return which boxes are a part of another one, shape (N,), given pairs of boxes and others: rules 2 and 4."""
        reaches = (others.box[j] >= self.tile[i] - 2 * self.tolerance[i]) | ~self.is_open[i]
        i, j = _select(reaches.all(1) & (others.score[j] >= MIN_SCORE_RATIO * self.score[i]), i, j)
        if self.xywhr is None:
            is_part = _area(np.minimum(self.box[i], others.box[j])) >= MIN_COVER * _area(self.box[i])
        else:
            is_part = geometry.cover_shares(self.corners[i], others.corners[j], self.tile[i] * OUTWARD) >= MIN_COVER
        dropped = np.zeros(len(self.box), dtype=bool)
        dropped[i[is_part]] = True
        return dropped

    def lacks_detail(self, coarse: np.ndarray, detailed: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
        """Return which of the boxes `coarse` one of the boxes `detailed` replaces, shape of `coarse`: rule 5."""
        i, j = _meeting_pairs(self.box[coarse], self.box[detailed])
        a, b = coarse[i], detailed[j]
        area = _area(self.box)
        replaces = (classes[a] == classes[b]) & (self.score[b] >= DETAIL_SCORE_RATIO * self.score[a])
        replaces &= area[b] >= DETAIL_AREA * area[a]
        shared = _area(np.minimum(self.box[a], self.box[b]))
        cover = DETAIL_COVER + DETAIL_SLOPE * max(0.0, iou - MERGE_IOU)
        replaces &= shared >= cover * np.minimum(area[a], area[b])
        return np.bincount(i, replaces, len(coarse)) > 0

    def belong_together(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return whether pairs of open boxes are parts of one object, shape (P,): rule 3."""
        zone = np.minimum(self.tile[i], self.tile[j])
        parts = np.minimum(self.seen[i], zone), np.minimum(self.seen[j], zone)
        need = zone - 2 * np.maximum(self.tolerance[i], self.tolerance[j])
        together = ((np.minimum(*parts) >= need) | ~(self.is_open[i] | self.is_open[j])).all(1)
        low, high = np.minimum(self.score[i], self.score[j]), np.maximum(self.score[i], self.score[j])
        together &= low >= MIN_SCORE_RATIO * high
        i, j, zone = i[together], j[together], zone[together]
        if self.xywhr is None:
            a, b = (part[together] + MARGIN / 2 for part in parts)
            shared = _area(np.minimum(a, b))
            is_one = shared >= MIN_IOU * (_area(a) + _area(b) - shared)
        else:
            is_one = geometry.zone_ious(self.xywhr[i], self.xywhr[j], zone * OUTWARD, MARGIN / 2) >= MIN_IOU
        together[together] = is_one
        return together

    def join(self, best: np.ndarray, is_joined: np.ndarray, owner: np.ndarray) -> _Boxes:
        """Return the box of each group, given its part with the highest score and the group of each box, or -1."""
        box = np.full((len(best), 4), -np.inf)
        np.maximum.at(box, owner[owner >= 0], self.box[owner >= 0])
        if self.xywhr is None:
            return _Boxes(box, self.score[best], None)
        xywhr = self.xywhr[best]
        for k in np.flatnonzero(is_joined):
            visible = geometry.visible_parts(self.corners[owner == k], self.tile[owner == k] * OUTWARD)
            xywhr[k] = geometry.min_rotated_box(np.concatenate(visible))
        return _Boxes(geometry.upright_boxes(geometry.box_corners(xywhr)) * OUTWARD, self.score[best], xywhr)


def _select(mask: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return i[mask], j[mask]


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

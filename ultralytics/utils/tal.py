"""Mixes the normalised Wasserstein distance into the assignment of small objects to anchors."""

import torch
from ultralytics.utils.tal import TaskAlignedAssigner as StockTaskAlignedAssigner

from small_object.nwd import DEFAULT_C, nwd
from small_object.sizes import COCO_SMALL, SIZE_GROUPS

FADE_START = SIZE_GROUPS["tiny"][1] ** 0.5
"""Size √(w·h) in pixels up to which an object has the full share of the NWD: 16, where AI-TOD's tiny objects end."""

FADE_END = COCO_SMALL**0.5
"""Size √(w·h) in pixels from which an object has no share of the NWD: 32, where COCO's small objects end."""


def size_fade(xyxy: torch.Tensor) -> torch.Tensor:
    """Return the factor of an object's share of the NWD: 1 up to `FADE_START`, then linearly to 0 at `FADE_END`.

    Args:
        xyxy: Boxes, shape (..., 4), in input pixels.

    Returns:
        Factors in 0..1, shape (...), in float32 or wider: an area in pixels overflows half precision.

    Example:
        >>> size_fade(torch.tensor([[0.0, 0, 9, 4], [0, 0, 36, 16], [0, 0, 16, 64]]))
        tensor([1.0000, 0.5000, 0.0000])
    """
    side = (xyxy[..., 2:] - xyxy[..., :2]).to(torch.promote_types(xyxy.dtype, torch.float32))
    return ((FADE_END - side.clamp(min=0).prod(-1).sqrt()) / (FADE_END - FADE_START)).clamp(0, 1)


class TaskAlignedAssigner(StockTaskAlignedAssigner):
    """Upstream's assigner with a share of the NWD (arXiv 2110.13389, section 4.2) in the overlap of small objects.

    The overlap of an object and a prediction is (1 - s)·CIoU + s·NWD, with CIoU at least 0 and s = `nwd_assign` ·
    `size_fade` of the object. From 32 px, or with a share of 0, it is upstream's to the last bit.

    A shift of a few pixels takes the IoU of small boxes to 0. So all candidates may tie at 0, and the positive ones
    then train towards a score of 0, with a weight of 0 in the box loss. NWD ranks them by distance instead, and is part
    of the score that the best candidate is trained towards.

    Assigners of rotated boxes, masks and keypoints inherit from upstream's and are unchanged.

    Attributes:
        nwd_assign: Share of the NWD, 0..1.
        nwd_c: Scale C of the NWD in input pixels, the box loss's.
    """

    nwd_assign = 0.0
    nwd_c = DEFAULT_C

    def iou_calculation(self, gt_bboxes: torch.Tensor, pd_bboxes: torch.Tensor) -> torch.Tensor:
        """Return the overlaps of pairs of objects and predictions, 0..1, shape (N,).

        Args:
            gt_bboxes: Boxes of the objects, xyxy in input pixels, shape (N, 4).
            pd_bboxes: Predicted boxes, xyxy in input pixels, shape (N, 4).
        """
        overlap = super().iou_calculation(gt_bboxes, pd_bboxes)
        if not self.nwd_assign:
            return overlap
        share = self.nwd_assign * size_fade(gt_bboxes)
        return ((1.0 - share) * overlap + share * nwd(gt_bboxes, pd_bboxes, self.nwd_c)).to(overlap.dtype)

"""Mixes the normalised Wasserstein distance into the box loss, and tells the assigner its share."""

import functools
from typing import Any

import torch
from torch import nn
from ultralytics.utils.loss import BboxLoss as StockBboxLoss
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from small_object.nwd import DEFAULT_C, nwd
from ultralytics_overlay import require_parameters

require_parameters(v8DetectionLoss.__init__, "model")


class BboxLoss(StockBboxLoss):
    """Upstream's box loss with a share of the NWD (arXiv 2110.13389) alongside CIoU.

    The loss of a positive anchor is (1 - share)·(1 - CIoU) + share·(1 - NWD), weighted and normalised as upstream
    weights CIoU. With a share of 0 it is upstream's to the last bit.

    Attributes:
        nwd: Share of the NWD, 0..1.
        nwd_c: Scale C of the NWD in input pixels.
    """

    nwd = 0.0
    nwd_c = DEFAULT_C

    def forward(
        self, pred_dist: torch.Tensor, pred_bboxes: torch.Tensor, anchor_points: torch.Tensor,
        target_bboxes: torch.Tensor, target_scores: torch.Tensor, target_scores_sum: torch.Tensor,
        fg_mask: torch.Tensor, imgsz: torch.Tensor, stride: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the box loss and the distance loss (DFL or L1), both scalars.

        Args:
            pred_dist: Predicted distances, shape (B, A, 4 * reg_max).
            pred_bboxes: Predicted boxes, xyxy in units of their anchor's stride, shape (B, A, 4).
            anchor_points: Centres of the anchors in units of their stride, shape (A, 2).
            target_bboxes: Assigned boxes, xyxy in units of their anchor's stride, shape (B, A, 4).
            target_scores: Assigned class scores, shape (B, A, classes).
            target_scores_sum: Normaliser, at least 1, scalar.
            fg_mask: Which anchors are positive, shape (B, A).
            imgsz: Height and width of the input in pixels, shape (2,).
            stride: Stride of each anchor in pixels, shape (A, 1).
        """
        positional = (pred_dist, pred_bboxes, anchor_points, target_bboxes, target_scores, target_scores_sum)
        loss_iou, loss_dist = super().forward(*positional, fg_mask, imgsz, stride)
        if not self.nwd:
            return loss_iou, loss_dist
        positive = fg_mask.nonzero(as_tuple=True)
        weight = target_scores[positive].sum(-1)
        pixels = stride[positive[1]]
        similarity = nwd(pred_bboxes[positive] * pixels, target_bboxes[positive] * pixels, self.nwd_c)
        loss_nwd = ((1.0 - similarity) * weight).sum() / target_scores_sum
        return (1.0 - self.nwd) * loss_iou + self.nwd * loss_nwd, loss_dist


def model_setting(model: nn.Module, key: str) -> float:
    """Return a setting of a model's training: the argument `key` if given, else the key of its YAML, else 0.

    Args:
        model: Detection model with its arguments in `args` and its YAML in `yaml`.
        key: `nwd` for the share of the NWD in the box loss, `nwd_assign` for that in the assignment, `head_init`
            or `paste`.
    """
    value = getattr(model.args, key, None)
    if value is None:
        value = getattr(model, "yaml", {}).get(key)
    return float(value or 0.0)


_stock_init = v8DetectionLoss.__init__


@functools.wraps(_stock_init)
def _init(self: v8DetectionLoss, model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Build the loss; give its box loss and its assigner their shares and the scale of the NWD."""
    _stock_init(self, model, *args, **kwargs)
    c = float(getattr(model.args, "nwd_c", None) or getattr(model, "nwd_c", DEFAULT_C))
    # A subclass for rotated boxes, masks or keypoints may have replaced either.
    if isinstance(self.bbox_loss, BboxLoss):
        self.bbox_loss.nwd, self.bbox_loss.nwd_c = model_setting(model, "nwd"), c
    if isinstance(self.assigner, TaskAlignedAssigner):
        self.assigner.nwd_assign, self.assigner.nwd_c = model_setting(model, "nwd_assign"), c


v8DetectionLoss.__init__ = _init  # in place: the losses of the other tasks inherit from upstream's class

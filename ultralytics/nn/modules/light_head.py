"""A detection head of depthwise separable convolutions, and its box decoding for ONNX."""

from copy import deepcopy

import torch
from torch import nn
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.conv import DWConv
from ultralytics.nn.modules.head import Detect


class LightDetect(Detect):
    """Upstream's Detect with one depthwise separable convolution per branch.

    At stride 4, a head runs at four times as many positions as the rest of YOLO11's head together. Detect has two 3x3
    convolutions, depthwise separable ones for the classes, and a 1x1 convolution in each branch; here it is a depthwise
    3x3 and a 1x1 convolution, as in SSDLite (MobileNetV2, arXiv 1801.04381, section 6.2). Outputs and losses are
    Detect's.

    Args:
        nc: Number of classes.
        reg_max: Bins of the distribution over distances; 1 for plain distances.
        end2end: Whether to add one-to-one branches, which need no NMS.
        ch: Widths of the levels.

    Example:
        >>> light, full = (list(head(nc=3, ch=(32, 64)).parameters()) for head in (LightDetect, Detect))
        >>> sum(p.numel() for p in light) < sum(p.numel() for p in full) / 8
        True
    """

    def __init__(self, nc: int = 80, reg_max: int = 16, end2end: bool = False, ch: tuple[int, ...] = ()) -> None:
        super().__init__(nc, reg_max, end2end, ch)
        self.cv2, self.cv3 = (
            nn.ModuleList(nn.Sequential(DWConv(c, c, 3), nn.Conv2d(c, outputs, 1)) for c in ch)
            for outputs in (4 * self.reg_max, nc)
        )
        if end2end:
            self.one2one_cv2, self.one2one_cv3 = deepcopy(self.cv2), deepcopy(self.cv3)


class OnnxDFL(DFL):
    """Upstream's DFL, the mean of a distribution over distances, without Softmax.

    ONNX Runtime is slow at a Softmax that is not over the last axis. With the many cells of stride 4, it took a quarter
    of the model's time.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean distances, shape (B, 4, A), of logits, shape (B, 4 * c1, A)."""
        batch, _, cells = x.shape
        logits = x.view(batch, 4, self.c1, cells)
        weights = (logits - logits.amax(2, keepdim=True)).exp()
        distances = self.conv.weight.view(1, self.c1)
        sums = torch.cat((distances, torch.ones_like(distances))) @ weights
        return sums[:, :, 0] / sums[:, :, 1]

"""A detection head of depthwise separable convolutions."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
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

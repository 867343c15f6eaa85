"""A detection head whose box branches are as light as YOLO11's class branches."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from ultralytics.nn.modules.conv import Conv, DWConv
from ultralytics.nn.modules.head import Detect


class LightDetect(Detect):
    """Upstream's Detect with depthwise separable convolutions in its box branches.

    Detect has two full 3x3 convolutions of `4 * reg_max` channels in the box branch of each level; at stride 4 they
    take a third of a small model's computation. Here each is a depthwise 3x3 and a 1x1 convolution (MobileNets, arXiv
    1704.04861), as in the class branches of YOLO11. Outputs and losses are Detect's.

    Args:
        nc: Number of classes.
        reg_max: Bins of the distribution over distances; 1 for plain distances.
        end2end: Whether to add one-to-one branches, which need no NMS.
        ch: Widths of the levels.

    Example:
        >>> light, full = (head(nc=3, ch=(32, 64)).cv2 for head in (LightDetect, Detect))
        >>> sum(p.numel() for p in light.parameters()) < sum(p.numel() for p in full.parameters())
        True
    """

    def __init__(self, nc: int = 80, reg_max: int = 16, end2end: bool = False, ch: tuple[int, ...] = ()) -> None:
        super().__init__(nc, reg_max, end2end, ch)
        width = self.cv2[0][-1].in_channels
        self.cv2 = nn.ModuleList(
            nn.Sequential(
                DWConv(c, c, 3),  # upstream reads a level's width from the first convolution of its branch
                Conv(c, width, 1),
                DWConv(width, width, 3),
                Conv(width, width, 1),
                nn.Conv2d(width, 4 * self.reg_max, 1),
            )
            for c in ch
        )
        if end2end:
            self.one2one_cv2 = deepcopy(self.cv2)

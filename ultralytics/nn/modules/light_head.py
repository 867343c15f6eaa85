"""A detection head with a light finest level, and its box decoding for ONNX."""

from copy import deepcopy

import torch
from torch import nn
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.conv import DWConv
from ultralytics.nn.modules.head import Detect


class LightDetect(Detect):
    """Upstream's Detect with one depthwise separable convolution per branch at the first, finest level.

    At stride 4, a head runs at three times as many positions as at all other strides together. Detect has two 3x3
    convolutions, depthwise separable ones for the classes, and a 1x1 convolution in each branch; here it is a depthwise
    3x3 and a 1x1 convolution, as in SSDLite (MobileNetV2, arXiv 1801.04381, section 6.2). The other levels are those of
    a Detect without the first, so they take its weights. Outputs and losses are Detect's.

    Args:
        nc: Number of classes.
        reg_max: Bins of the distribution over distances; 1 for plain distances.
        end2end: Whether to add one-to-one branches, which need no NMS.
        ch: Widths of the levels, the finest first.

    Example:
        >>> [sum(p.numel() for p in level.parameters()) for level in LightDetect(nc=3, ch=(32, 64)).cv2]
        [2464, 78144]
    """

    def __init__(self, nc: int = 80, reg_max: int = 16, end2end: bool = False, ch: tuple[int, ...] = ()) -> None:
        super().__init__(nc, reg_max, end2end, (max(ch[:2]), *ch[1:]))
        for branches, outputs in ((self.cv2, 4 * self.reg_max), (self.cv3, nc)):
            branches[0] = nn.Sequential(DWConv(ch[0], ch[0], 3), nn.Conv2d(ch[0], outputs, 1))
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

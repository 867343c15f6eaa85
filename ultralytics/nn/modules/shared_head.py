"""A detection head whose convolutions all levels share."""

from copy import deepcopy

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.modules.light_head import LightDetect
from ultralytics.utils.torch_utils import fuse_conv_and_bn


class Level(nn.Module):
    """The last 1x1 convolution of a branch, shared by the levels, with a scale and a bias of its own for a level."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.scale = conv, nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(conv.out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a branch for the features of a level, shape (B, C, H, W)."""
        return self.conv(x) * self.scale + self.bias.view(1, -1, 1, 1)

    def fuse(self) -> nn.Conv2d:
        """Return the convolution of the level with the scale and the bias inside."""
        conv = nn.Conv2d(self.conv.in_channels, self.conv.out_channels, 1).requires_grad_(False)
        conv.weight.copy_(self.conv.weight * self.scale)
        conv.bias.copy_(self.bias)
        return conv.to(self.bias)


class SharedDetect(LightDetect):
    """Detect with one depthwise separable convolution a branch, shared by all levels, with BatchNorms of their own.

    Levels that are wider than the first one get a 1x1 convolution to its width.
    """

    def __init__(self, nc: int = 80, reg_max: int = 16, end2end: bool = False, ch: tuple[int, ...] = ()) -> None:
        super().__init__(nc, reg_max, end2end, ch)
        width = ch[0]
        lateral = [nn.Identity() if c == width else Conv(c, width) for c in ch]
        branches = []
        for outputs in (4 * self.reg_max, nc):
            depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
            pointwise = nn.Conv2d(width, outputs, 1, bias=False)
            branches.append(
                nn.ModuleList(
                    nn.Sequential(x, depthwise, nn.BatchNorm2d(width), nn.SiLU(), Level(pointwise)) for x in lateral
                )
            )
        self.cv2, self.cv3 = branches

    @torch.no_grad()
    def fuse(self) -> None:
        """Give each level convolutions of its own that hold its BatchNorm and its scale."""
        super().fuse()
        for branch in (self.cv2, self.cv3):
            for level, (lateral, depthwise, norm, act, last) in enumerate(branch):
                conv = fuse_conv_and_bn(deepcopy(depthwise), norm)
                branch[level] = nn.Sequential(lateral, conv, act, last.fuse())

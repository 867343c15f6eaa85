"""DualConv: a grouped 3x3 and a dense 1x1 convolution side by side.

Zhong, Chen and Mian, "DualConv: Dual Convolutional Kernels for Lightweight Deep Neural Networks", IEEE TNNLS 2022,
https://arxiv.org/abs/2202.07481.
"""

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv2


class DualConv(Conv2):
    """Sum of a grouped 3x3 convolution and a 1x1 convolution over all channels, then BatchNorm and activation.

    It replaces a strided `Conv`: the same receptive field, with about 1/g of the weights in its 3x3 kernels. Model YAML
    row: `[c2, stride]` or `[c2, stride, g]`.

    Upstream's `Conv2` is the same sum with both convolutions in `g` groups. The stock `fuse()` fuses its subclasses for
    inference.

    Args:
        c1: Input channels.
        c2: Output channels.
        s: Stride of both convolutions.
        g: Groups of the 3x3 convolution. Must divide `c1` and `c2`.

    Shape:
        (B, c1, H, W) to (B, c2, ceil(H / s), ceil(W / s)).

    Raises:
        ValueError: If `g` does not divide both widths.
    """

    def __init__(self, c1: int, c2: int, s: int = 1, g: int = 4) -> None:
        if g < 1 or c1 % g or c2 % g:
            raise ValueError(f"DualConv: groups g={g} must divide input channels {c1} and output channels {c2}")
        super().__init__(c1, c2, k=3, s=s, g=g)
        self.cv2 = nn.Conv2d(c1, c2, 1, s, bias=False)  # over all channels, unlike Conv2's

    def fuse_convs(self) -> None:
        """Scale the 1x1 kernel as BatchNorm does, so that `fuse()` can fold BatchNorm into the 3x3 kernel alone."""
        scale = self.bn.weight / (self.bn.running_var + self.bn.eps).sqrt()
        self.cv2.weight.data.mul_(scale.detach().view(-1, 1, 1, 1))

    def forward_fuse(self, x: torch.Tensor) -> torch.Tensor:
        """Apply both convolutions and the activation, with BatchNorm folded into the kernels."""
        return self.act(self.conv(x) + self.cv2(x))

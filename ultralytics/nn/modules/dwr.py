"""DWR: dilation-wise residual blocks.

Wei, Xu, Li et al., "DWRSeg: Rethinking Efficient Acquisition of Multi-scale Contextual Information for Real-time
Semantic Segmentation", 2022, https://arxiv.org/abs/2212.01173.
"""

import torch
from torch import nn
from ultralytics.nn.modules.block import C3k2
from ultralytics.nn.modules.conv import Conv


class DWR(nn.Module):
    """Dilation-wise residual block: three dilated 3x3 convolutions of one 3x3 convolution's output.

    A 3x3 convolution maps the input to half the output width (region residualisation); three 3x3 convolutions with
    dilation 1, 3 and 5 map that to c2, c2/2 and c2/2 channels (semantic residualisation); a 1x1 convolution maps their
    concatenation to c2. The input is added if the widths agree, as in upstream's `Bottleneck`.

    Args:
        c1: Input channels.
        c2: Output channels, even.
        shortcut: Whether to add the input where `c1 == c2`.
        g: Groups of the 3x3 convolutions. Must divide `c1` and `c2 // 2`.
        depthwise: Whether the dilated convolutions are depthwise, as in the paper's figure; then each gives c2/2.

    Shape:
        (B, c1, H, W) to (B, c2, H, W).

    Raises:
        ValueError: If `c2` is odd or `g` does not divide the widths.
    """

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, depthwise: bool = False) -> None:
        super().__init__()
        half = c2 // 2
        if c2 % 2:
            raise ValueError(f"DWR: output channels {c2} must be even")
        if g < 1 or c1 % g or half % g:
            raise ValueError(f"DWR: groups g={g} must divide input channels {c1} and half the output channels {half}")
        self.region = Conv(c1, half, 3, g=g)
        wide, groups = (half, half) if depthwise else (c2, g)
        self.d1 = Conv(half, wide, 3, g=groups, d=1)
        self.d3 = Conv(half, half, 3, g=groups, d=3)
        self.d5 = Conv(half, half, 3, g=groups, d=5)
        self.merge = Conv(wide + c2, c2, 1)
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to a (B, c1, H, W) feature map."""
        region = self.region(x)
        y = self.merge(torch.cat((self.d1(region), self.d3(region), self.d5(region)), 1))
        return x + y if self.add else y


class C3k2DWR(C3k2):
    """C3k2 whose inner blocks are DWR, or C3k where `c3k` asks for it.

    A row has C3k2's repeat count and arguments, `[c2, c3k, e, attn, g, shortcut]`, followed by `depthwise`. Unlike in
    C3k2, the row's `c3k` holds at every scale, so that the larger models keep their DWR blocks.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Number of inner blocks.
        c3k: Whether the inner blocks are C3k instead of DWR.
        e: Width of the inner blocks as a share of `c2`.
        attn: Whether the inner blocks are C3k2's attention blocks instead of DWR.
        g: Groups of the inner blocks' 3x3 convolutions.
        shortcut: Whether the inner blocks add their input.
        depthwise: See `DWR`.

    Shape:
        (B, c1, H, W) to (B, c2, H, W).

    Raises:
        ValueError: If DWR blocks have an odd width `int(c2 * e)`, or `g` does not divide half of it.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, c3k: bool = False, e: float = 0.5, attn: bool = False, g: int = 1,
        shortcut: bool = True, depthwise: bool = False,
    ) -> None:  # fmt: skip
        dwr = not (c3k or attn)
        super().__init__(c1, c2, n, c3k, e, attn, 1 if dwr else g, shortcut)
        if dwr:
            self.m = nn.ModuleList(DWR(self.c, self.c, shortcut, g, depthwise) for _ in range(n))

"""HS-FPN: a feature pyramid in which high levels screen the low ones.

Chen, Zhang, Chen et al., "Accurate Leukocyte Detection Based on Deformable-DETR and Multi-Level Feature Fusion for
Aiding Diagnosis of Blood Diseases" (MFDS-DETR), 2024, https://arxiv.org/abs/2401.00926.
"""

from collections.abc import Sequence

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv, ConvTranspose


class ChannelGate(nn.Module):
    """Channel attention weights of a feature map.

    The average-pooled and the max-pooled vector go through one shared two-layer bottleneck; the sigmoid of their sum
    weighs the channels. Pooling is a mean and a maximum over the map, which export for every input size.

    Args:
        c: Channels.
        reduction: The bottleneck has `c // reduction` channels. Must divide `c`.

    Shape:
        (B, c, H, W) to (B, c, 1, 1), values in 0..1.

    Raises:
        ValueError: If `reduction` does not divide `c`.
    """

    def __init__(self, c: int, reduction: int = 4) -> None:
        super().__init__()
        if reduction < 1 or c % reduction:
            raise ValueError(f"ChannelGate: reduction {reduction} must divide channels {c}")
        self.bottleneck = nn.Sequential(
            nn.Conv2d(c, c // reduction, 1, bias=False), nn.ReLU(), nn.Conv2d(c // reduction, c, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weights of the channels of `x`."""
        average = self.bottleneck(x.mean((2, 3), keepdim=True))
        maximum = self.bottleneck(x.amax((2, 3), keepdim=True))
        return (average + maximum).sigmoid()


class ScreeningLateral(nn.Module):
    """HS-FPN's feature selection: channel attention scales a backbone level, a 1x1 convolution sets its width.

    Model YAML row: `[c2]` or `[c2, reduction]`.

    Args:
        c1: Channels of the backbone level.
        c2: Width of the pyramid.
        reduction: See `ChannelGate`. Must divide `c1`.

    Shape:
        (B, c1, H, W) to (B, c2, H, W).

    Raises:
        ValueError: If `reduction` does not divide `c1`.
    """

    def __init__(self, c1: int, c2: int, reduction: int = 4) -> None:
        super().__init__()
        self.gate = ChannelGate(c1, reduction)
        self.project = Conv(c1, c2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the screened level at the pyramid's width."""
        return self.project(x * self.gate(x))


class ScreeningFusion(nn.Module):
    """HS-FPN's selective feature fusion of a high level and the level below it.

    The high level is upsampled by 2; its channel attention, as weights only, screens the low level; the two are added.
    Model YAML row: from `[high, low]`, arguments `[]` or `[reduction]`.

    Args:
        channels: Channels of the high and the low level, which must agree.
        reduction: See `ChannelGate`. Must divide the channels.

    Shape:
        [(B, c, H, W), (B, c, 2H, 2W)] to (B, c, 2H, 2W).

    Raises:
        ValueError: If there are not two levels, their channels differ, or `reduction` does not divide them.
    """

    def __init__(self, channels: Sequence[int], reduction: int = 4) -> None:
        super().__init__()
        if len(channels) != 2 or channels[0] != channels[1]:
            raise ValueError(
                f"ScreeningFusion: needs a high and a low level of equal channels, not {list(channels)}; "
                "bring both to one width with ScreeningLateral"
            )
        self.up = ConvTranspose(channels[0], channels[0], 3, 2, 1, act=Conv.default_act)  # the model's activation
        self.up.conv_transpose.output_padding = (1, 1)  # exactly twice the size; upstream's block lacks an argument
        self.gate = ChannelGate(channels[0], reduction)

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        """Fuse `[high, low]`."""
        high = self.up(x[0])
        return high + x[1] * self.gate(high)

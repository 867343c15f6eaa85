"""The blocks of `ultralytics/nn/modules/`, against references in plain functional calls."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import DWR, C3k2DWR, DualConv, ScreeningFusion, ScreeningLateral
from ultralytics.nn.modules.block import DFL, Bottleneck, C3k, C3k2, PSABlock
from ultralytics.nn.modules.hsfpn import ChannelGate
from ultralytics.nn.modules.light_head import OnnxDFL
from ultralytics.nn.tasks import DetectionModel


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module in eval mode with random weights and BatchNorm statistics."""
    g = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            m.weight.data.normal_(0, m.weight[0].numel() ** -0.5, generator=g)
        elif isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.5, generator=g)
            m.running_var.uniform_(0.5, 2, generator=g)
            m.weight.data.uniform_(0.5, 2, generator=g)
            m.bias.data.normal_(0, 0.5, generator=g)
    return module.eval()


MISTAKES = [
    (lambda: DualConv(6, 8), r"g=4\b.*\b6\b.*\b8\b"),
    (lambda: DWR(16, 15), "15.*even"),
    (lambda: C3k2DWR(16, 10), r"\b5\b.*even"),
    (lambda: ChannelGate(16, 3), r"reduction 3\b.*\b16\b"),
]


@pytest.mark.parametrize(("build", "match"), MISTAKES)
def test_widths_that_do_not_fit_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def norm(bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (t.view(-1, 1, 1) for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * weight + bias


def conv(m: nn.Module, x: torch.Tensor, k: int = 3, d: int = 1, g: int = 1) -> torch.Tensor:
    """Convolution with kernel `k`, dilation `d` and `g` groups at the input's size, BatchNorm and SiLU."""
    assert m.conv.weight.shape[2:] == (k, k)
    return F.silu(norm(m.bn, F.conv2d(x, m.conv.weight, padding=d * (k // 2), dilation=d, groups=g)))


def dwr(m: DWR, x: torch.Tensor, g: int = 1, depthwise: bool = False) -> torch.Tensor:
    """DWR without its residual."""
    region = conv(m.region, x, g=g)
    groups = region.shape[1] if depthwise else g
    branches = [conv(branch, region, d=d, g=groups) for branch, d in ((m.d1, 1), (m.d3, 3), (m.d5, 5))]
    return conv(m.merge, torch.cat(branches, 1), k=1)


def gate(m: ChannelGate, x: torch.Tensor) -> torch.Tensor:
    """Channel weights in numpy, float64."""
    w1, w2 = (m.bottleneck[i].weight.detach().double().numpy()[:, :, 0, 0] for i in (0, 2))
    flat = x.double().numpy().reshape(*x.shape[:2], -1)
    total = sum(np.maximum(v @ w1.T, 0) @ w2.T for v in (flat.mean(-1), flat.max(-1)))
    return torch.from_numpy(1 / (1 + np.exp(-total)))[:, :, None, None].float()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
@pytest.mark.parametrize(("c1", "c2", "s", "g"), [(16, 24, 1, 4), (16, 24, 2, 4), (8, 8, 2, 8), (6, 10, 1, 1)])
def test_dualconv_is_grouped_3x3_plus_dense_1x1(size, c1, c2, s, g):
    m = randomised(DualConv(c1, c2, s, g))
    x = torch.randn(2, c1, *size, generator=torch.Generator().manual_seed(1))
    total = F.conv2d(x, m.conv.weight, stride=s, padding=1, groups=g) + F.conv2d(x, m.cv2.weight, stride=s)
    torch.testing.assert_close(m(x), F.silu(norm(m.bn, total)))
    assert m(x).shape == (2, c2, -(-size[0] // s), -(-size[1] // s))


@pytest.mark.parametrize(
    ("c2", "shortcut", "g", "depthwise"),
    [(8, True, 1, False), (8, False, 1, False), (12, True, 1, False), (8, True, 2, False), (8, True, 1, True)],
)
def test_dwr_reference(c2, shortcut, g, depthwise):
    m = randomised(DWR(8, c2, shortcut, g, depthwise=depthwise))
    x = torch.randn(2, 8, 13, 11, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(m(x), dwr(m, x, g, depthwise) + (x if shortcut and c2 == 8 else 0))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("e", "g", "shortcut"), [(0.5, 1, True), (0.25, 2, True), (0.5, 1, False)])
def test_c3k2dwr_reference(n, e, g, shortcut):
    m = randomised(C3k2DWR(12, 16, n, e=e, g=g, shortcut=shortcut))
    width = int(16 * e)
    x = torch.randn(2, 12, 9, 7, generator=torch.Generator().manual_seed(1))
    y = conv(m.cv1, x, k=1)
    y = [y[:, :width], y[:, width:]]
    for block in m.m:
        y.append(dwr(block, y[-1], g) + (y[-1] if shortcut else 0))
    torch.testing.assert_close(m(x), conv(m.cv2, torch.cat(y, 1), k=1))
    assert [type(block) for block in m.m] == [DWR] * n


@pytest.mark.parametrize(("c3k", "attn"), [(True, False), (False, True), (True, True)])
def test_c3k2dwr_gives_upstreams_inner_blocks_where_asked(c3k, attn):
    ours, stock = (randomised(kind(32, 64, 2, c3k, 0.5, attn)) for kind in (C3k2DWR, C3k2))
    kinds = [Bottleneck, PSABlock] if attn else [C3k]
    assert [[type(b) for b in block] if attn else [type(block)] for block in ours.m] == [kinds] * 2
    x = torch.randn(1, 32, 8, 8)
    torch.testing.assert_close(ours(x), stock(x), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 16, 1, 1), (3, 16, 1, 40)])
def test_channel_gate_and_screening_lateral_reference(shape):
    m, lateral = randomised(ChannelGate(16)), randomised(ScreeningLateral(16, 8, 2))
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 2
    y = m(x)
    torch.testing.assert_close(y, gate(m, x))
    assert y.shape == (*shape[:2], 1, 1)
    torch.testing.assert_close(lateral(x), conv(lateral.project, x * gate(lateral.gate, x), k=1))


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (1, 1), (4, 7), (3, 20)])
@pytest.mark.parametrize("batch", [1, 2])
def test_screening_fusion_reference(size, batch):
    m = randomised(ScreeningFusion([8, 8]))
    g = torch.Generator().manual_seed(1)
    high = torch.randn(batch, 8, *size, generator=g)
    low = torch.randn(batch, 8, 2 * size[0], 2 * size[1], generator=g)
    # a transposed convolution is the convolution of the input with zeros between its values, by the flipped kernel
    spread = torch.zeros(batch, 8, 2 * size[0] + 2, 2 * size[1] + 2)
    spread[..., 1:-1:2, 1:-1:2] = high
    kernel = m.up.conv_transpose.weight.transpose(0, 1).flip(2, 3)
    up = F.silu(norm(m.up.bn, F.conv2d(spread, kernel)))
    y = m([high, low])
    assert y.shape == low.shape
    torch.testing.assert_close(y, up + low * gate(m.gate, up.detach()))


def test_activation_of_the_model_yaml_reaches_every_block():
    rows = [
        [-1, 1, "DualConv", [16, 2, 1]],
        [-1, 1, "DWR", [16]],
        [-1, 1, "C3k2DWR", [16]],
        [-1, 1, "DualConv", [16, 2]],
        [2, 1, "ScreeningLateral", [16]],
        [[3, 4], 1, "ScreeningFusion", []],
    ]
    head = [[[-1], 1, "Detect", ["nc"]]]
    model = DetectionModel({"nc": 2, "activation": "nn.Hardswish()", "backbone": rows, "head": head}, verbose=False)
    found = {}
    for layer in model.model[:-1]:
        found[layer.i] = {type(m.act) for m in layer.modules() if hasattr(m, "act")}
    assert found == {i: {nn.Hardswish} for i in range(len(rows))}


def test_distances_for_onnx_are_upstreams() -> None:
    torch.manual_seed(0)
    logits = 30 * torch.randn(2, 4 * 16, 50)
    logits[0, :, 0] += 1000  # would overflow without the maximum
    torch.testing.assert_close(OnnxDFL(16)(logits), DFL(16)(logits), rtol=0, atol=1e-5)

"""The blocks of `ultralytics/nn/modules/`, against references in plain functional calls."""

import copy
import inspect
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ultralytics.nn.modules import DWR, C3k2DWR, DualConv, ScreeningFusion, ScreeningLateral
from ultralytics.nn.modules.block import Bottleneck, C3k, C3k2, PSABlock
from ultralytics.nn.modules.hsfpn import ChannelGate
from ultralytics.nn.tasks import DetectionModel

BLOCKS = {
    "DualConv": (lambda: DualConv(16, 24, s=2), [(16, 10, 7)]),
    "DWR": (lambda: DWR(16, 16), [(16, 10, 7)]),
    "C3k2DWR": (lambda: C3k2DWR(16, 24, n=2), [(16, 10, 7)]),
    "C3k2DWR of C3k": (lambda: C3k2DWR(16, 24, c3k=True), [(16, 10, 7)]),
    "ChannelGate": (lambda: ChannelGate(16), [(16, 10, 7)]),
    "ScreeningLateral": (lambda: ScreeningLateral(16, 24), [(16, 10, 7)]),
    "ScreeningFusion": (lambda: ScreeningFusion([16, 16]), [(16, 5, 7), (16, 10, 14)]),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


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


def inputs(name: str, batch: int = 2) -> torch.Tensor | list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    x = [torch.randn(batch, *shape, generator=g) for shape in BLOCKS[name][1]]
    return x if len(x) > 1 else x[0]


MISTAKES = [
    (lambda: DualConv(6, 8), r"g=4\b.*\b6\b.*\b8\b"),
    (lambda: DualConv(8, 6), r"g=4\b.*\b8\b.*\b6\b"),
    (lambda: DWR(16, 15), "15.*even"),
    (lambda: DWR(16, 16, g=0), "g=0"),
    (lambda: DWR(16, 12, g=4), r"g=4\b.*\b16\b.*\b6\b"),
    (lambda: C3k2DWR(16, 10), r"\b5\b.*even"),
    (lambda: C3k2DWR(16, 24, g=4), "groups"),
    (lambda: ChannelGate(16, 3), r"reduction 3\b.*\b16\b"),
    (lambda: ScreeningFusion([8, 16]), "equal channels"),
    (lambda: ScreeningFusion([8]), "a high and a low level"),
    (lambda: ScreeningFusion([8, 8], 4, "cubic"), "transpose, nearest or bilinear, not cubic"),
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


def dwr(m: DWR, x: torch.Tensor, g: int = 1) -> torch.Tensor:
    """DWR without its residual."""
    region = conv(m.region, x, g=g)
    branches = [conv(branch, region, d=d, g=g) for branch, d in ((m.d1, 1), (m.d3, 3), (m.d5, 5))]
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


def test_fuse_keeps_outputs_and_convolutions():
    rows = [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "DualConv", [16, 2]],
        [-1, 1, "DualConv", [24, 1, 8]],
        [-1, 1, "C3k2DWR", [24]],
        [-1, 1, "DualConv", [24, 2]],
        [3, 1, "ScreeningLateral", [24]],
        [[-2, -1], 1, "ScreeningFusion", []],
    ]
    head = [[[-1, 4], 1, "Detect", ["nc"]]]
    model = randomised(DetectionModel({"nc": 2, "backbone": rows, "head": head}, verbose=False))
    x = torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    fused = copy.deepcopy(model).fuse(verbose=False)
    before, after = model(x)[1]["feats"], fused(x)[1]["feats"]
    for a, b in zip(before, after, strict=True):
        assert a.std() > 0.1
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)

    def count(m, kind):
        return sum(isinstance(child, kind) for child in m.modules())

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    assert count(model.model[:-1], nn.BatchNorm2d) > 0
    assert count(fused, nn.BatchNorm2d) == 0
    assert count(fused, kinds) == count(model, kinds)
    assert count(fused.model[1], nn.Conv2d) == 2


@pytest.mark.parametrize(
    ("c1", "c2", "shortcut", "g", "added"),
    [(8, 8, True, 1, True), (8, 8, False, 1, False), (8, 12, True, 1, False), (8, 8, True, 2, True)],
)
def test_dwr_reference(c1, c2, shortcut, g, added):
    m = randomised(DWR(c1, c2, shortcut, g))
    x = torch.randn(2, c1, 13, 11, generator=torch.Generator().manual_seed(1))
    expected = dwr(m, x, g) + (x if added else 0)
    torch.testing.assert_close(m(x), expected)


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


def test_c3k2dwr_takes_the_arguments_of_c3k2():
    ours, stock = ([(p.name, p.default) for p in inspect.signature(c).parameters.values()] for c in (C3k2DWR, C3k2))
    assert issubclass(C3k2DWR, C3k2) and ours == [*stock, ("depthwise", False)]


def test_depthwise_dwr_sees_each_channel_alone_through_each_dilation():
    m = randomised(DWR(8, 8, depthwise=True))
    x = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(1))
    region = conv(m.region, x, k=3)
    seen, channels = [], range(region.shape[1])
    for block, d in ((m.d1, 1), (m.d3, 3), (m.d5, 5)):
        weights = block.conv.weight
        alone = [F.conv2d(region[:, i : i + 1], weights[i : i + 1], padding=d, dilation=d) for i in channels]
        seen.append(F.silu(norm(block.bn, torch.cat(alone, 1))))
    torch.testing.assert_close(m(x), x + conv(m.merge, torch.cat(seen, 1), k=1))
    assert [type(b) for b in C3k2DWR(16, 16, depthwise=True).m] == [DWR]
    assert C3k2DWR(16, 16, depthwise=True).m[0].d3.conv.groups == 4


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


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_screening_fusion_without_a_transposed_convolution(mode):
    m = randomised(ScreeningFusion([8, 8], 4, mode))
    g = torch.Generator().manual_seed(1)
    high, low = torch.randn(2, 8, 3, 5, generator=g), torch.randn(2, 8, 6, 10, generator=g)
    up = high.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if mode == "bilinear":  # a weighted mean of the four nearest, edges repeated
        near = F.pad(high, (1, 1, 1, 1), mode="replicate")
        up = torch.empty_like(low)
        for dy, dx in itertools.product((0, 1), repeat=2):
            rows, columns = slice(dy * 2, dy * 2 + 3), slice(dx * 2, dx * 2 + 5)
            here, beside = near[:, :, 1:-1, 1:-1], near[:, :, 1:-1, columns]
            above, corner = near[:, :, rows, 1:-1], near[:, :, rows, columns]
            up[:, :, dy::2, dx::2] = (9 * here + 3 * beside + 3 * above + corner) / 16
    torch.testing.assert_close(m([high, low]), up + low * gate(m.gate, up))


@every_block
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_of_any_size(name, tmp_path):
    import onnxruntime

    m, x = randomised(BLOCKS[name][0]()), inputs(name)
    levels = x if isinstance(x, list) else [x]
    names = [f"x{i}" for i in range(len(levels))]
    file = str(tmp_path / "block.onnx")
    axes = {key: {0: f"{key}b", 2: f"{key}h", 3: f"{key}w"} for key in names}
    torch.onnx.export(m, (x,), file, input_names=names, dynamic_axes=axes, opset_version=17, dynamo=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for images in (levels, [F.pad(level[:1], [0, 2 * (i + 1), 0, 4 * (i + 1)]) for i, level in enumerate(levels)]):
        (y,) = session.run(None, {key: image.numpy() for key, image in zip(names, images, strict=True)})
        expected = m(images if isinstance(x, list) else images[0])
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4)


@every_block
def test_gradients_reach_every_parameter(name):
    m = randomised(BLOCKS[name][0]()).train()
    y = m(inputs(name))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for key, p in m.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().max() > 0, key


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

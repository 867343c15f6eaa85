"""The model YAMLs, and rows of the blocks in any model YAML."""

import functools
import json
import math
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv, Detect, DWConv, LightDetect
from ultralytics.nn.tasks import DetectionModel, parse_model, yaml_model_load
from ultralytics.utils.torch_utils import get_flops

from benchmarks.compare import parse_model as parse_model_to_compare
from benchmarks.report import read_rows
from small_object.errors import UserError

FOLDER = Path(__file__).parents[3] / "ultralytics/cfg/models/11"
SCALES = {  # YOLO11's: depth, width, maximum of channels before the width
    "n": (0.5, 0.25, 1024),
    "s": (0.5, 0.5, 1024),
    "m": (0.5, 1.0, 512),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.5, 512),
}
DESIGNS = ["", "-smallob", "-dwr-smallob", "-hsfpn-smallob", "-hsfpn-dwr-smallob"]


def model_rows(design: str) -> list[list]:
    d = yaml.safe_load((FOLDER / f"yolo11{design}.yaml").read_text())
    return d["backbone"] + d["head"]


@functools.cache
def model_layers(design: str, scale: str) -> nn.Sequential:
    """Build the layers without memory for their weights."""
    with torch.device("meta"):
        return parse_model(yaml_model_load(FOLDER / f"yolo11{scale}{design}.yaml"), ch=3, verbose=False)[0].eval()


def scaled_width(channels: int, scale: str) -> int:
    _, width, max_channels = SCALES[scale]
    return math.ceil(min(channels, max_channels) * width / 8) * 8


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("scale", SCALES)
def test_heads(design, scale):
    *layers, head = model_layers(design, scale)
    assert type(head) is (Detect if design else LightDetect)
    assert head.nl == 4
    for branch in () if design else (*head.cv2, *head.cv3):
        assert [type(m) for m in branch] == [DWConv, nn.Conv2d] and branch[1].kernel_size == (1, 1)

    outputs = [torch.zeros(1, 3, 256, 256, device="meta")]
    for layer in layers:
        sources = layer.f if isinstance(layer.f, list) else [layer.f]
        x = [outputs[f] if f < 0 else outputs[f + 1] for f in sources]
        outputs.append(layer(x if isinstance(layer.f, list) else x[0]))
    levels = [outputs[f + 1].shape for f in head.f]
    assert [256 // shape[2] for shape in levels] == [256 // shape[3] for shape in levels] == [4, 8, 16, 32]

    rows = model_rows(design)
    assert [shape[1] for shape in levels] == [scaled_width(rows[f][3][0], scale) for f in rows[-1][0]]
    if "hsfpn" in design:
        assert {shape[1] for shape in levels} == {256 * SCALES[scale][1]}


def test_the_recommended_model_is_a_measured_one():
    ours = parse_model_to_compare(str(FOLDER / "yolo11n.yaml"))
    assert ours.overrides == {"paste": 2} and ours.label == "yolo11n paste=2"
    measured = read_rows(FOLDER.parents[3] / "benchmarks/results/q-hit-uav-320/results.csv")
    found = [row for row in measured if row["yaml"] == "yolo11n-light-smallob.yaml"]
    found = [row for row in found if json.loads(row["overrides"]) == ours.overrides]
    assert ours.version in {row["version"] for row in found}


def test_published_design_has_the_published_size():
    model = DetectionModel(str(FOLDER / "yolo11n-hsfpn-dwr-smallob.yaml"), nc=80, verbose=False)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 1.74
    assert round(get_flops(model, 640), 1) == 12.0


ROWS = [
    "[-1, 1, Conv, [8, 3, 2]]",
    "[-1, 1, DualConv, [16, 2]]",
    "[-1, 2, C3k2DWR, [24]]",
    "[-1, 1, DualConv, [32, 2]]",
    "[-1, 1, ScreeningLateral, [16]]",
    "[2, 1, ScreeningLateral, [16]]",
    "[[4, 5], 1, ScreeningFusion, []]",
    "[[6, 4], 1, Concat, [1]]",
    "[[6, 4], 1, Detect, [nc]]",
]
MISTAKES = {
    "misspelt": (1, "[-1, 1, DualConvv, [16, 2]]", "did you mean 'DualConv'"),
    "unknown in torchvision": (2, "[-1, 1, torchvision.ops.Quux, []]", "'Quux'"),
    "from a later row": (3, "[5, 1, DualConv, [32, 2]]", "`from` 5"),
    "from a name": (3, "[P3, 1, DualConv, [32, 2]]", "'P3'"),
    "from nothing": (3, "[[], 1, DualConv, [32, 2]]", "`from`"),
    "no repeats": (2, "[-1, 0, C3k2DWR, [24]]", "repeats"),
    "5 entries": (1, "[-1, 1, DualConv, [16, 2], 4]", "4 entries"),
    "no list of arguments": (1, "[-1, 1, DualConv, 16]", "list of its arguments"),
    "too many arguments": (1, "[-1, 1, DualConv, [16, 2, 4, 1]]", "argument"),
    "groups": (3, "[-1, 1, DualConv, [32, 2, 16]]", "groups g=16"),
    "fusion of two widths": (6, "[[3, 5], 1, ScreeningFusion, []]", "equal channels"),
    "fusion of one level": (6, "[[5], 1, ScreeningFusion, []]", "a high and a low level"),
    "fusion in the wrong order": (6, "[[5, 4], 1, ScreeningFusion, []]", "do not fit"),
    "Concat of one row": (7, "[-1, 1, Concat, [1]]", "takes a list of rows"),
}


def write(path: Path, rows: list[str], *keys: str, head: str = "head:") -> str:
    lines = ["nc: 2", *keys, "backbone:", *(f"  - {row}" for row in rows[:4]), head]
    path.write_text("\n".join([*lines, *(f"  - {row}" for row in rows[4:] if head)]))
    return str(path)


def load_error(file: str) -> str:
    with pytest.raises(UserError) as caught:
        DetectionModel(file, verbose=False)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert Path(file).name in message
    return message


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_row(mistake, tmp_path, monkeypatch):
    monkeypatch.setattr(Conv, "default_act", Conv.default_act)  # put back, should it leak, for the other tests
    i, row, what = MISTAKES[mistake]
    message = load_error(write(tmp_path / "broken.yaml", [*ROWS[:i], row, *ROWS[i + 1 :]], "activation: nn.ReLU()"))
    assert isinstance(Conv.default_act, nn.SiLU)
    assert f"row {i} " in message
    _, text, after = message.partition(row)
    assert text, message
    assert what in after, message


@pytest.mark.parametrize("error", [URLError("no network"), ModuleNotFoundError("No module named 'timm'")])
def test_what_a_row_needs_and_is_not_at_hand_is_no_mistake(error, tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise error

    monkeypatch.setattr("torchvision.models.get_model", missing)
    row = "[-1, 1, TorchVision, [512, resnet18, DEFAULT]]"
    with pytest.raises(type(error)) as caught:
        DetectionModel(write(tmp_path / "good.yaml", [ROWS[0], row, *ROWS[2:]]), verbose=False)
    assert caught.value is error


@pytest.mark.parametrize(
    ("key", "value"), [("nwd", "2"), ("nwd", "a"), ("nwd_assign", ".nan"), ("head_init", "much"), ("paste", "-1")]
)
def test_wrong_key(key, value, tmp_path):
    message = load_error(write(tmp_path / "broken.yaml", [*ROWS[:7], ROWS[8]], f"{key}: {value}"))
    assert f"key `{key}`" in message.split("broken")[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("form", "design"), [("torchscript", ""), ("onnx", ""), ("onnx", "-hsfpn-dwr-smallob")])
def test_export(form, design, tmp_path, monkeypatch):
    import onnx
    import onnxruntime

    monkeypatch.chdir(tmp_path)  # the exporter writes there
    file = Path("yolo11n-three.yaml")
    file.write_text((FOLDER / f"yolo11{design}.yaml").read_text().replace("nc: 80", "nc: 3"))
    torch.manual_seed(0)
    yolo = YOLO(file)
    for m in yolo.model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for values, low, high in ((m.running_mean, -0.3, 0.3), (m.running_var, 0.3, 1), (m.weight.data, 0.5, 2)):
                values.uniform_(low, high)
            m.bias.data.normal_(0, 0.5)
        elif isinstance(m, nn.Conv2d) and m.bias is not None:
            m.bias.data.normal_()
    images = torch.rand(1, 3, 64, 96 if form == "onnx" else 64)
    with torch.no_grad():
        expected = yolo.model.eval()(images)[0]
    assert expected[:, 4:].std() > 1e-2

    exported = yolo.export(format=form, imgsz=64, dynamic=form == "onnx", device="cpu")
    if form == "onnx":
        softmax = [
            node.name for node in onnx.load(exported).graph.node if node.op_type == "Softmax" and "dfl" in node.name
        ]
        assert bool(softmax) == bool(design), "ONNX Runtime is slow at it"
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    else:
        output = torch.jit.load(exported)(images)
        output = (output[0] if isinstance(output, (tuple, list)) else output).numpy()
    np.testing.assert_allclose(output, expected.numpy(), rtol=0, atol=1e-3)

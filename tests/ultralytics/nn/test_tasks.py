"""This fork's blocks in models of every task, scale and family: built, trained for a step, fused and run."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import C3k2DWR, DualConv, LightDetect, ScreeningFusion
from ultralytics.nn.tasks import (
    BaseModel,
    ClassificationModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    SegmentationModel,
    yaml_model_load,
)

from tests.helpers.common import build_batch

MODELS = Path(__file__).parents[3] / "ultralytics/cfg/models"
PUBLISHED = yaml.safe_load((MODELS / "11/yolo11-hsfpn-dwr-smallob.yaml").read_text())
SIDE, CLASSES = 64, 3
HEADS = {
    "detect": (DetectionModel, ["Detect", ["nc"]]),
    "segment": (SegmentationModel, ["Segment", ["nc", 8, 16]]),
    "pose": (PoseModel, ["Pose", ["nc", "kpt_shape"]]),
    "obb": (OBBModel, ["OBB", ["nc", 1]]),
    "classify": (ClassificationModel, ["Classify", ["nc"]]),
}


def layout(task: str, scale: str, **keys: Any) -> dict[str, Any]:
    """Return the published design with a task's head."""
    d = deepcopy(PUBLISHED) | {"nc": CLASSES, "scale": scale, "kpt_shape": [17, 3], **keys}
    if task == "classify":
        d["head"] = [[-1, 1, *HEADS[task][1]]]
    else:
        d["head"][-1][2:] = HEADS[task][1]
    return d


def train_step(model: BaseModel, task: str) -> float:
    """Train for one step; return the loss before it."""
    model.args = get_cfg(overrides={"task": task})
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = model.loss(build_batch(task))[0].sum()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "no gradient reaches these"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    optimizer.step()
    return float(loss.detach())


def outputs(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in outputs(part)]


def check(build: Any, task: str, end2end: bool | None = None) -> BaseModel:
    """Build a model, train it for a step, and compare its output before and after fusing.

    With `end2end` it then predicts so, as upstream sets it for `nms`.
    """
    torch.manual_seed(0)
    model = build()
    assert 0 < train_step(model, task) < float("inf")
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    model.eval()
    if end2end is not None:
        model.end2end = end2end
    with torch.no_grad():
        apart = outputs(model(images))[0]
        model.fuse(verbose=False)
        assert model.is_fused()
        fused = outputs(model(images))[0]
    assert apart.isfinite().all()
    if getattr(model, "end2end", False):
        apart, fused = apart[..., 4], fused[..., 4]  # the order of boxes with nearly the same score may change
    torch.testing.assert_close(fused, apart, rtol=1e-3, atol=2e-3)
    return model


@pytest.mark.parametrize(("task", "scale"), [*((task, "n") for task in HEADS), ("detect", "m"), ("segment", "l")])
def test_every_task_and_scale(task: str, scale: str) -> None:
    model = check(lambda: HEADS[task][0](layout(task, scale), ch=3, verbose=False), task)
    kinds = {type(module) for module in model.modules()}
    assert {DualConv, C3k2DWR} <= kinds and (ScreeningFusion in kinds) == (task != "classify")


FAMILIES = [
    ("yolo26n.yaml", "detect"), ("yolo26n-seg.yaml", "segment"), ("yolo26n-obb.yaml", "obb"),
    ("yolov8n-p2.yaml", "detect"), ("yolo12n-pose.yaml", "pose"), ("yolov10n.yaml", "detect"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "task"), FAMILIES)
def test_every_family(file: str, task: str) -> None:
    """Rows of strided convolutions and of C2f or C3k2 blocks become this fork's."""
    d = yaml_model_load(file) | {"nc": CLASSES}
    if task == "pose":
        d["kpt_shape"] = [17, 3]
    blocks = 0
    for row in (d["backbone"] + d["head"])[1:]:
        if row[2] == "Conv" and row[3][1:] == [3, 2]:
            row[2:] = ["DualConv", [row[3][0], 2]]
        elif row[2] in {"C3k2", "C2f"}:
            row[2:] = ["C3k2DWR", [row[3][0], False]]
            blocks += 1
    model = check(lambda: HEADS[task][0](d, ch=3, verbose=False), task)
    assert sum(type(module) is C3k2DWR for module in model.modules()) == blocks
    assert any(type(module) is DualConv for module in model.modules())


def test_the_end_to_end_example() -> None:
    file = MODELS / "26/yolo26n-hsfpn-smallob.yaml"
    for end2end, shape in ((True, (1, 300, 6)), (False, (1, 4 + CLASSES, 16**2 + 8**2 + 4**2 + 2**2))):
        model = check(lambda: DetectionModel(str(file), nc=CLASSES, verbose=False), "detect", end2end)
        assert model.stride.tolist() == [4, 8, 16, 32] and type(model.model[-1]) is LightDetect
        assert model.end2end == end2end
        assert model(torch.rand(1, 3, SIDE, SIDE))[0].shape == shape

import json
import sys
from pathlib import Path

import pytest
import torch
import ultralytics
from ultralytics.nn.tasks import _check_rows
from ultralytics.utils import YAML

from benchmarks.common import ROOT
from tests.helpers.common import Run

MODELS = (
    "yolo11n.yaml", "yolov8n-p2.yaml", "yolo26n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml",
)  # fmt: skip
RECORD = """
import sys
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel
from ultralytics.utils import DEFAULT_CFG_DICT
from tests.helpers.common import build_batch

torch.set_num_threads(1)
OF_TASK = {"segment": SegmentationModel, "pose": PoseModel, "obb": OBBModel}


def tensors(value, name):
    if isinstance(value, torch.Tensor):
        yield name, value.detach()
    elif isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(part, f"{name}/{key}")


found = {"overlay": any(type(f).__name__ == "OverlayFinder" for f in sys.meta_path)}
for name in sys.argv[2:]:
    task = name.removesuffix(".yaml").rpartition("-")[2].replace("seg", "segment")
    torch.manual_seed(0)
    model = OF_TASK.get(task, DetectionModel)(name, verbose=False)
    model.args = get_cfg(DEFAULT_CFG_DICT)
    parts = {"weights": {k: v.clone() for k, v in model.state_dict().items()}}
    model.eval()
    with torch.no_grad():
        parts["output"] = model(build_batch()["img"])
    model.train()
    for n in (6, 0):
        model.zero_grad()
        loss, items = model.loss(build_batch(task, n))
        loss.sum().backward()
        gradients = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
        parts[f"loss{n}"], parts[f"gradients{n}"] = (loss, items), gradients
    found[name] = {part: dict(tensors(value, part)) for part, value in parts.items()}
torch.save(found, sys.argv[1])
"""


@pytest.fixture(scope="module")
def records(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Return what stock models compute with the overlay on and off."""
    folder = tmp_path_factory.mktemp("stock")

    def record(switch: str) -> dict:
        env = {"ULTRALYTICS_OVERLAY": switch, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = run("-c", RECORD, folder / switch, *MODELS, cwd=folder, **env)
        assert done.returncode == 0, done.stderr
        return torch.load(folder / switch, weights_only=True)

    found = {"on": record("1"), "off": record("0")}
    assert found["on"]["overlay"] and not found["off"]["overlay"]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_stock_model_is_bit_equal(records: dict[str, dict], name: str) -> None:
    for part, off in records["off"][name].items():
        on = records["on"][name][part]
        assert on and on.keys() == off.keys()
        for key, value in off.items():
            assert value.dtype == on[key].dtype and torch.equal(value, on[key]), key
            assert value.isfinite().all(), key
        assert any(value.count_nonzero() for value in on.values()), part
    assert on.keys() and records["on"][name]["loss6"]["loss6/0"][0] > 0  # the box loss: there are positive anchors
    assert records["on"][name]["loss0"]["loss0/0"][0] == 0


STOCK = Path(ultralytics.__file__).parent / "cfg/models"
ROWS = [p for p in sorted(STOCK.rglob("*.yaml")) if {"backbone", "head"} <= YAML.load(p).keys()]


def test_stock_yamls_pass_the_row_checks() -> None:
    for path in ROWS:
        d = YAML.load(path)
        assert _check_rows(d) == YAML.load(path)["backbone"] + YAML.load(path)["head"], path


@pytest.mark.slow
def test_an_import_loads_no_more_packages_than_upstreams(run: Run, tmp_path: Path) -> None:
    code = "import json, sys; from ultralytics import YOLO; print(json.dumps([*sys.modules]))"
    loaded = {}
    for switch in ("0", "1"):
        done = run("-c", code, cwd=tmp_path, ULTRALYTICS_OVERLAY=switch)
        assert done.returncode == 0, done.stderr
        loaded[switch] = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert "torchvision" not in loaded["0"]  # or this shows little
    assert loaded["1"] - loaded["0"] - sys.stdlib_module_names == {"small_object", "ultralytics_overlay"}

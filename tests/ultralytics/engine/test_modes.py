"""Upstream's modes other than training, validation and prediction with this fork's models, as a user runs them."""

import re
from pathlib import Path

import pytest
from ultralytics import YOLO

from tests.helpers.command_server import Server
from tests.helpers.common import QUICK, TINY_MODEL, write_data, write_tree


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("modes") / "set", ("a", "b"), {"train": 4, "val": 2})


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """Return the YAML of a tiny model; its weights lie next to it."""
    path = write_tree(data.parent, {"tiny.yaml": TINY_MODEL.replace("nc: 1", "nc: 2")}) / "tiny.yaml"
    YOLO(path).save(path.with_suffix(".pt"))
    return path


def run_python(server: Server, code: str, folder: Path) -> str:
    status, said = server.run(["python", "-c", code], folder)
    assert status == 0, said
    return said


def test_benchmark(server: Server, model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = f"model={model.with_suffix('.pt')} data={data} imgsz=64 device=cpu format=onnx"
    status, said = server.run(f"yolo benchmark {options}", tmp_path)
    assert status == 0 and re.search(r"ONNX\s+✅\s+\d+\.\d\s+\d\.\d+", said), said


def test_tune(server: Server, model: Path, data: Path, tmp_path: Path) -> None:
    arguments = QUICK | {"data": str(data), "iterations": 1, "project": "out", "slice": 64, "nwd": 0.3}
    said = run_python(server, f"from ultralytics import YOLO\nYOLO({str(model)!r}).tune(**{arguments})", tmp_path)
    (found,) = (tmp_path / "out").rglob("tune_results.*")
    assert found.stat().st_size > 0
    assert "slice=64" in said and "share 0.3 of the box loss" in said  # the new arguments reached the trainings


def test_tune_with_ray(server: Server, model: Path, data: Path, tmp_path: Path) -> None:
    for package in ("ray", "optuna"):
        pytest.importorskip(package)
    arguments = QUICK | {"data": str(data), "iterations": 1, "project": str(tmp_path / "out"), "use_ray": True}
    code = f"""
import os
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray import tune
from ultralytics import YOLO
results = YOLO({str(model)!r}).tune(space={{"nwd": tune.uniform(0.2, 0.8)}}, **{arguments})
assert not results.errors, results.errors
print("nwd", results[0].metrics["config"]["nwd"], results[0].metrics["metrics/AP_small(B)"])
"""
    said = run_python(server, code, tmp_path)
    share, score = map(float, re.search(r"^nwd (\S+) (\S+)$", said, re.MULTILINE).groups())
    assert 0.2 <= share <= 0.8 and 0 <= score <= 1

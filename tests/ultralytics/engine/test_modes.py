"""What upstream offers beside training, validation and prediction, with this fork's models: ran as a user does."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics import YOLO

from tests.helpers.common import Run, write_data

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "ultralytics/cfg/models/11/yolo11.yaml"
SMALL = "epochs=1, imgsz=64, batch=4, workers=0, plots=False, device='cpu', pretrained=False"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("modes") / "set", ("a", "b"), {"train": 4, "val": 2})


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    model = YOLO(MODEL)
    model.save(data.parent / "model.pt")
    return data.parent / "model.pt"


def yolo(run: Run, cwd: Path, *args: str) -> str:
    done = run("-c", "from ultralytics.cfg import entrypoint; entrypoint()", *args, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\x1b\[[\d;]*m", "", done.stdout)


@pytest.mark.parametrize("slice", ["slice=0", "slice=64"])
def test_track(run: Run, weights: Path, tmp_path: Path, slice: str) -> None:
    video = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 96))
    rng = np.random.default_rng(0)
    for _ in range(3):
        video.write(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    video.release()
    options = f"model={weights} source=video.avi imgsz=64 conf=0.001 device=cpu project=out save=True {slice}"
    said = yolo(run, tmp_path, "track", *options.split())
    assert len(re.findall(r"video 1/1 \(frame \d/3\)", said)) == 3 and ("4 tiles" in said) == (slice == "slice=64")
    assert list((tmp_path / "out").rglob("video.*"))


def test_benchmark(run: Run, weights: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = f"model={weights} data={data} imgsz=64 device=cpu format=onnx"
    said = yolo(run, tmp_path, "benchmark", *options.split())
    assert re.search(r"ONNX\s+✅\s+[1-9]\d*\.\d\s+\d\.\d+", said), said


def test_tune(run: Run, data: Path, tmp_path: Path) -> None:
    code = f"model.tune(data={str(data)!r}, iterations=1, project='out', slice=64, nwd=0.3, {SMALL})"
    done = run("-c", f"from ultralytics import YOLO; model = YOLO({str(MODEL)!r}); {code}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (tmp_path / "out").rglob("tune_results.*")
    assert found.stat().st_size > 0
    # The new arguments reached the trainings.
    assert "slice=64" in done.stdout + done.stderr and "share 0.3 of the box loss" in done.stdout + done.stderr


def test_tune_with_ray(run: Run, data: Path, tmp_path: Path) -> None:
    for package in ("ray", "optuna"):
        pytest.importorskip(package)
    code = f"""
from ray import tune
from ultralytics import YOLO
results = YOLO({str(MODEL)!r}).tune(
    use_ray=True, space={{"nwd": tune.uniform(0.2, 0.8)}}, data={str(data)!r}, iterations=1,
    project={str(tmp_path / "out")!r}, {SMALL}
)
assert not results.errors, results.errors
print("nwd", results[0].metrics["config"]["nwd"], results[0].metrics["metrics/AP_small(B)"])
"""
    done = run("-c", code, cwd=tmp_path, RAY_USAGE_STATS_ENABLED="0")
    assert done.returncode == 0, done.stdout + done.stderr
    share, score = map(float, re.search(r"^nwd (\S+) (\S+)$", done.stdout, re.MULTILINE).groups())
    assert 0.2 <= share <= 0.8 and 0 <= score <= 1

"""Weights of this fork in stock Ultralytics."""

from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from small_object.cli import main
from tests.helpers.common import Run

CODE = """
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

image, expected = torch.load("expected.pt")
model = YOLO("stock.pt")
assert type(model.model.model[-1]).__name__ == "Detect"
torch.testing.assert_close(model.model.eval()(image)[0], expected, atol=1e-3, rtol=1e-4)
DetectionModel(model.model.yaml)  # the rows can be built again
"""
ROWS = """
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, DualConv, [24, 2]], [-1, 1, C3k2, [24]], [-1, 1, DualConv, [32, 2, 2]]]
head: [[[2, 3], 1, LightDetect, [nc]]]
"""


def save(folder: Path, rows: str) -> YOLO:
    (folder / "tiny.yaml").write_text(f"nc: 2\n{rows}")
    torch.manual_seed(0)
    model = YOLO(folder / "tiny.yaml", task="detect")
    for tensor in model.model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:  # BatchNorm, too
            tensor.add_(0.2 * torch.rand(tensor.shape))
    model.save(folder / "ours.pt")
    return model


def test_stock_computes_the_same(tmp_path: Path, run: Run) -> None:
    save(tmp_path, ROWS)
    image = torch.rand(1, 3, 64, 96)
    torch.save((image, YOLO(tmp_path / "ours.pt").model.eval()(image)[0]), tmp_path / "expected.pt")
    assert main(["export-stock", str(tmp_path / "ours.pt"), "--out", str(tmp_path / "stock.pt")]) == 0
    done = run("-c", CODE, cwd=tmp_path, ULTRALYTICS_OVERLAY="0")
    assert done.returncode == 0, done.stderr


def test_what_stock_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, ROWS.replace("C3k2, [24]", "DWR, [24]"))
    assert main(["export-stock", str(tmp_path / "ours.pt"), "--out", str(tmp_path / "stock.pt")]) == 1
    assert "ours.pt: stock Ultralytics has no DWR; export it with `yolo export`" in capsys.readouterr().err
    assert not (tmp_path / "stock.pt").exists()
    (tmp_path / "bad.pt").write_text("no weights")
    assert main(["export-stock", str(tmp_path / "bad.pt"), "--out", str(tmp_path / "stock.pt")]) == 1
    error = capsys.readouterr().err
    assert "bad.pt is not a loadable checkpoint" in error and error.count("bad.pt") == 1

"""The benchmark that times models: its rounds, tables and profile."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import speed
from benchmarks.common import ROOT
from tests.helpers.common import STOCK_MODEL, TINY_MODEL, one_line, read_csv, write_tree

MEASUREMENTS = ["PyTorch CPU", "ONNX Runtime CPU", "training step CPU"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write two tiny models; return them as the command line names them."""
    texts = {"plain.yaml": STOCK_MODEL.format(3), "dual.yaml": TINY_MODEL}
    folder = write_tree(tmp_path_factory.mktemp("models"), texts)
    return [str(folder / "plain.yaml"), str(folder / "dual.yaml") + "+nwd=0.5"]


def command(models: list[str], out: Path) -> list[str]:
    sizes = ["--imgsz", "64", "--train-imgsz", "64", "--batch", "2", "--rounds", "2", "--device", "cpu"]
    return ["--models", *models, "--profile", models[0], *sizes, "--out", str(out)]


@pytest.fixture(scope="module")
def done(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the benchmark once."""
    out = tmp_path_factory.mktemp("speed") / "out"
    assert speed.main(command(models, out)) == 0
    return {"out": out, "rows": read_csv(out / "speed.csv"), "md": (out / "speed.md").read_text()}


def test_rows(done: dict[str, Any]) -> None:
    rows = done["rows"]
    assert [(r["model"], r["measurement"]) for r in rows] == [
        (m, what) for m in ("plain", "dual nwd=0.5") for what in MEASUREMENTS
    ]
    assert [(r["imgsz"], r["batch"]) for r in rows[:3]] == [("64", "1"), ("64", "1"), ("64", "2")]
    for row in rows:
        q1, median, q3 = (float(row[name]) for name in ("q1_ms", "median_ms", "q3_ms"))
        assert 0 < q1 <= median <= q3
        assert row["reference"] == "plain" and row["rounds"] == "2" and row["threads"] == "1"
        assert row["torch"] == torch.__version__ and row["commit"] and row["onnxruntime"] != "none"
        assert "--rounds 2" in row["command"] and int(row["parameters"]) > 0 and float(row["GFLOPs"]) > 0
    assert [float(row["ratio"]) for row in rows[:3]] == [1, 1, 1]
    assert sorted(p.name for p in done["out"].iterdir()) == ["speed.csv", "speed.md"]


def test_summary_against_numpy() -> None:
    a, b = [3.0, 9.5, 4.25, 7.0, 5.5, 100.0], [2.0, 4.0, 4.0, 3.5, 1.0, 60.0]
    found = speed.summary({("a", "x"): a, ("b", "x"): b}, "b")
    for label, values in (("a", a), ("b", b)):
        expected = [*np.percentile(values, [50, 25, 75]), np.median(np.array(values) / np.array(b))]
        assert list(found[label, "x"].values()) == pytest.approx(expected)
    assert found["a", "x"]["ratio"] != pytest.approx(np.median(a) / np.median(b))  # it is taken in each round


def test_profile(done: dict[str, Any]) -> None:
    network = speed.build(str(ROOT / "ultralytics/cfg/models/11/yolo11n.yaml"), 128).network
    layers, total = speed.profile(network, 128, torch.device("cpu"), 7)
    assert sorted(layer.index for layer in layers) == list(range(len(network.model)))
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert total / 4 < sum(layer.ms for layer in layers) < 4 * total  # loose, since other programs may run
    found = {layer.index: (layer.kind, layer.stride) for layer in layers}
    assert found[5] == ("Conv", "16") and found[len(layers) - 1] == ("LightDetect", "4, 8, 16, 32")
    assert "## The rows of plain, PyTorch CPU" in done["md"] and "`Detect` (stride 4, 8)" in done["md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "yolo77n.yaml"], "model `yolo77n.yaml`: "),
        (["--models", "yolo11n-seg.yaml"], "model `yolo11n-seg.yaml`: it is not a detection model"),
        (["--models", "yolo11n.yaml", "--imgsz", "100"], "the image size 100 is not a multiple of its stride 32"),
        (["--device", "gpu"], "--device gpu: must be cpu or the number of a GPU"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    with one_line("speed", message):
        speed.main([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()

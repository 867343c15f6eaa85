"""The benchmark of exported models, with the formats that need only PyTorch."""

from pathlib import Path

import pytest
from ultralytics import YOLO

from benchmarks import export
from tests.benchmarks.test_slicing import command  # noqa: F401
from tests.helpers.common import read_csv


@pytest.fixture
def options(command: list[str], tmp_path: Path) -> list[str]:  # noqa: F811
    return [*command[: command.index("--no-sahi")], "--images", "2", "--rounds", "2", "--out", str(tmp_path / "out")]


def test_each_format_is_a_row(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    formats = {name: export.FORMATS[name] for name in (export.REFERENCE, "TorchScript", "TensorRT")}
    formats["broken"] = export.Format({"format": "no such format"})
    formats["elsewhere"] = export.Format(needs=("no_such_package", "os"))
    monkeypatch.setattr(export, "FORMATS", formats)
    assert export.main(options) == 1  # for the broken one
    out = Path(options[-1])
    rows = {row["format"]: row for row in read_csv(out / "export.csv")}
    assert list(rows) == [export.REFERENCE, "TorchScript", "broken"]
    reference, exported, broken = rows.values()
    file = Path(options[options.index("--model") + 1])
    assert float(reference["MB"]) == file.stat().st_size / 1e6
    assert reference["ratio"] == reference["sliced ratio"] == "1.0" and float(exported["ratio"]) > 0
    for name in ("AP", "AP50", "AP_small", "sliced AP", "sliced AP50", "sliced AP_small"):
        assert float(exported[name]) == pytest.approx(float(reference[name]), abs=1e-3)
    assert "no such format" in broken["error"] and broken["within"] == "no" and exported["within"] == "yes"
    # The reference is an ordinary validation.
    common = {"imgsz": 64, "max_det": export.MAX_DET, "rect": False, "batch": 1, "device": "cpu", "plots": False}
    data = options[options.index("--data") + 1]
    for kind, tile in (("", 0), ("sliced ", 64)):
        box = YOLO(file).val(data=data, project=str(out / "val"), verbose=False, slice=tile, **common).box
        assert (float(reference[f"{kind}AP"]), float(reference[f"{kind}AP50"])) == pytest.approx((box.map, box.map50))
    text = (out / "export.md").read_text()
    assert "elsewhere (not installed: no_such_package)" in text and "TensorRT (needs a GPU)" in text

"""Weights from elsewhere with `ULTRALYTICS_SAFE_LOAD=1`: this fork's models load, and nothing but models does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from tests.helpers.common import Run

MODELS = sorted((Path(__file__).parents[3] / "ultralytics/cfg/models").rglob("yolo*.yaml"))
LOAD = """
import sys, torch
from ultralytics import YOLO
from ultralytics.utils import SAFE_LOAD
assert SAFE_LOAD
for file in sys.argv[1:]:
    torch.manual_seed(0)
    with torch.no_grad():
        found = YOLO(file).model.eval()(torch.rand(1, 3, 64, 64))
    print("sum", float((found[0] if isinstance(found, (tuple, list)) else found).double().sum()))
"""


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "it ran")


def load(run: Run, cwd: Path, *files: Path) -> Any:
    pytest.importorskip("torch", minversion="2.6")
    return run("-c", LOAD, *files, cwd=cwd, ULTRALYTICS_SAFE_LOAD="1")


def test_models_of_this_fork_load(run: Run, tmp_path: Path) -> None:
    files, expected = [], []
    for file in MODELS:
        torch.manual_seed(1)
        model = YOLO(file)
        files.append(tmp_path / file.with_suffix(".pt").name)
        model.save(files[-1])
        torch.manual_seed(0)
        with torch.no_grad():
            found = YOLO(files[-1]).model.eval()(torch.rand(1, 3, 64, 64))
        expected.append(float((found[0] if isinstance(found, (tuple, list)) else found).double().sum()))
    done = load(run, tmp_path, *files)
    assert done.returncode == 0, done.stderr
    sums = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("sum")]
    assert len(files) >= 6 and sums == pytest.approx(expected)


@pytest.mark.parametrize("where", ["beside", "within"])
def test_anything_else_is_refused(run: Run, tmp_path: Path, where: str) -> None:
    YOLO(MODELS[0]).save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=False)
    mark = tmp_path / "mark"
    if where == "beside":
        content["more"] = Harmful(mark)
    else:
        content["model"].more = Harmful(mark)
    torch.save(content, tmp_path / "bad.pt")
    done = load(run, tmp_path, tmp_path / "bad.pt")
    assert done.returncode != 0 and not mark.exists() and "sum" not in done.stdout
    assert "bad.pt" in done.stderr and "supported Ultralytics checkpoint format" in done.stderr
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert mark.exists()  # it would have run

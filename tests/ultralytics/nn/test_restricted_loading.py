"""Foreign weights with `ULTRALYTICS_SAFE_LOAD=1`: this fork's models load, and only models do."""

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
    try:
        model = YOLO(file).model
    except Exception as error:
        print("refused", error)
    else:
        print("sum", sum(float(tensor.double().sum()) for tensor in model.state_dict().values()))
"""


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "it ran")


@pytest.mark.slow
def test_models_of_this_fork_load_and_anything_else_is_refused(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    files, expected, mark = [], [], tmp_path / "mark"
    for file in MODELS:
        model = YOLO(file)
        files.append(tmp_path / file.with_suffix(".pt").name)
        model.save(files[-1])
        stored = torch.load(files[-1], weights_only=False)["model"].float().state_dict().values()
        expected.append(sum(float(tensor.double().sum()) for tensor in stored))
    for where in ("next to the model", "in the model"):
        content = torch.load(files[0], weights_only=False)
        if where == "in the model":
            content["model"].more = Harmful(mark)
        else:
            content["more"] = Harmful(mark)
        files.append(tmp_path / f"bad {where}.pt")
        torch.save(content, files[-1])
    done = run("-c", LOAD, *files, cwd=tmp_path, ULTRALYTICS_SAFE_LOAD="1")
    assert done.returncode == 0, done.stderr
    sums = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("sum")]
    assert len(MODELS) >= 6 and sums == pytest.approx(expected)
    assert done.stdout.count("supported Ultralytics checkpoint format") == 2 and not mark.exists()
    torch.load(files[-1], weights_only=False)
    assert mark.exists()  # it would have run

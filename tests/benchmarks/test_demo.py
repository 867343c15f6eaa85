"""What the demo says of its models."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics.engine.results import Boxes

from benchmarks import demo
from tests.helpers.common import write_set


def test_recall_and_precision_count_objects_over_the_minimum_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three objects of 40 px one is found, one with another class; the small object and detection don't count."""
    labels = "0 0.2 0.2 0.2 0.2\n0 0.6 0.2 0.2 0.2\n1 0.6 0.6 0.2 0.2\n1 0.9 0.9 0.05 0.05\n"
    image = np.zeros((200, 200, 3), np.uint8)
    data = write_set(tmp_path / "set", {"few": (image, "0 0.2 0.2 0.02 0.02\n"), "many": (image, labels)}, "ab")
    rows = {
        "many": [
            [20, 20, 60, 60, 0.9, 0],
            [100, 20, 140, 60, 0.8, 1],
            [20, 120, 60, 160, 0.7, 0],
            [5, 5, 10, 10, 0.6, 0],
        ],
        "few": [],
    }

    def predict(file: str, **_: object) -> list[SimpleNamespace]:
        found = torch.tensor(rows[Path(file).stem]).reshape(-1, 6)
        return [SimpleNamespace(boxes=Boxes(found, image.shape[:2]))]

    monkeypatch.setattr(demo, "YOLO", lambda weights: SimpleNamespace(predict=predict))
    recall, precision, images = demo.score(tmp_path / "best.pt", str(data))
    assert (recall, precision) == pytest.approx((1 / 3, 1 / 3))
    assert [file.stem for file in images] == ["many", "few"]

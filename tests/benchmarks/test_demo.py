"""What the demo says of its models."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.engine.results import Boxes

from benchmarks import demo, demo_weights
from benchmarks.common import ROOT
from small_object.scenes.generate import DEMO_SETS, make_demo
from tests.helpers.common import write_set


def test_recall_and_precision_count_objects_over_the_minimum_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three objects of 40 px one is found, one with another class; the small object and detection don't count."""
    labels = "0 0.2 0.2 0.2 0.2\n0 0.6 0.2 0.2 0.2\n1 0.6 0.6 0.2 0.2\n1 0.9 0.9 0.05 0.05\n"
    image = np.zeros((200, 200, 3), np.uint8)
    data = write_set(tmp_path / "set", {"few": (image, "0 0.2 0.2 0.02 0.02\n"), "many": (image, labels)}, "ab")
    many = [[20, 20, 60, 60, 0.9, 0], [100, 20, 140, 60, 0.8, 1], [20, 120, 60, 160, 0.7, 0], [5, 5, 10, 10, 0.6, 0]]
    rows = {"many": many, "few": []}

    def predict(file: str, **_: object) -> list[SimpleNamespace]:
        found = torch.tensor(rows[Path(file).stem]).reshape(-1, 6)
        return [SimpleNamespace(boxes=Boxes(found, image.shape[:2]))]

    monkeypatch.setattr(demo, "YOLO", lambda weights: SimpleNamespace(predict=predict))
    recall, precision, images = demo.score(tmp_path / "best.pt", str(data))
    assert (recall, precision) == pytest.approx((1 / 3, 1 / 3))
    assert [file.stem for file in images] == ["many", "few"]


def test_the_weights_of_the_demo_are_of_its_model() -> None:
    weights = YOLO(ROOT / demo.WEIGHTS).model.state_dict()
    model = YOLO(ROOT / demo.MODEL).model
    head = f"model.{len(model.model) - 1}.cv3."  # class scores
    shapes = {name: x.shape for name, x in model.state_dict().items() if not name.startswith(head)}
    assert {name: x.shape for name, x in weights.items() if not name.startswith(head)} == shapes


def test_the_images_of_the_weights_have_the_classes_of_both_sets_and_are_not_the_demos(tmp_path: Path) -> None:
    data = check_det_dataset(str(demo_weights.render(tmp_path / "both", dict.fromkeys(DEMO_SETS, 1))))
    for name, folder in zip(DEMO_SETS, data["train"], strict=True):
        other = make_demo(name, tmp_path / name, 1, 1, demo_weights.SEED)
        file = Path(folder).parents[1] / "labels/train/train_00000.txt"
        rows = [line.split() for line in file.read_text().splitlines()]
        expected = [line.split() for line in (other / "labels/train" / file.name).read_text().splitlines()]
        assert [row[1:] for row in rows] == [row[1:] for row in expected]
        names = [DEMO_SETS[name].names[int(row[0])] for row in expected]
        assert [data["names"][int(row[0])] for row in rows] == names
        demos = make_demo(name, tmp_path / f"{name}-0", 1, 1)
        assert (demos / "labels/train" / file.name).read_text() != file.read_text()

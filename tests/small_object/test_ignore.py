"""Ignore regions in training and in validation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionValidator

from small_object.errors import UserError
from small_object.ignore import find_ignored, ignore_file, paint_regions, read_regions
from small_object.slicing.dataset import SlicedDataset
from tests.helpers.common import TINY_MODEL, write_set, write_tree

REGION = "0.75 0.5 0.5 1\n"  # the right half


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, grey = tmp_path_factory.mktemp("ignore"), np.full((128, 256, 3), 50, np.uint8)
    labels = "0 0.25 0.5 0.125 0.25\n0 0.75 0.5 0.125 0.25\n"
    write_tree(root, {f"ignore/{split}/a.txt": REGION for split in ("train", "val")})
    return write_set(root, {"train/a": (grey, labels), "val/a": (grey, labels)}, ["a"])


def test_files(data: Path, tmp_path: Path) -> None:
    assert ignore_file(data.parent / "images/train/a.png") == data.parent / "ignore/train/a.txt"
    assert read_regions(data.parent / "images/train/a.png").tolist() == [[0.5, 0, 1, 1]]
    assert read_regions(data.parent / "images/train/other.png").shape == (0, 4)
    for text in ("1 2 3\n", "a b c d\n"):
        write_tree(tmp_path, {"ignore/b.txt": text})
        with pytest.raises(UserError, match=r"b.txt: write one ignore region per line, cx cy w h"):
            read_regions(tmp_path / "images/b.png")


def test_painting_keeps_labelled_objects() -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    expected = image.copy()
    expected[2:8, 2:12] = 114
    expected[4:6, 4:6] = image[4:6, 4:6]
    paint_regions(image, np.array([[2.3, 2.2, 15, 7.5], [-5, -5, -1, -1]]), np.array([[4.0, 4, 6, 6]]))
    np.testing.assert_array_equal(image, expected)


def test_what_is_ignored() -> None:
    regions = torch.tensor([[10.0, 0, 20, 10], [20, 0, 30, 10]])
    outside, split, inside = [[0.0, 0, 9, 9], [4, 0, 14, 10]], [[6, 0, 16, 10], [15, 0, 25, 10]], [12, 2, 16, 6]
    boxes = torch.tensor([*outside, *split, inside, inside])
    classes = torch.tensor([0, 0, 0, 0, 0, 1])
    targets, target_classes = torch.tensor([[12.0, 2, 16, 7]]), torch.tensor([0])
    ignored = find_ignored(boxes, classes, targets, target_classes, regions)
    assert ignored.tolist() == [False, False, True, True, False, True]


def test_where_regions_overlap_they_count_once() -> None:
    generator, ignored = torch.Generator().manual_seed(0), []
    for number in (0, 1, 2, 5, 9):
        corners = torch.randint(0, 30, (number + 40, 2), generator=generator).float()
        xyxy = torch.cat((corners, corners + torch.randint(1, 20, corners.shape, generator=generator)), 1)
        regions, boxes = xyxy[:number], xyxy[number:]
        mask = torch.zeros(50, 50)
        for x1, y1, x2, y2 in regions.int().tolist():
            mask[y1:y2, x1:x2] = 1
        expected = [mask[y1:y2, x1:x2].mean() >= 0.5 for x1, y1, x2, y2 in boxes.int().tolist()]
        no_targets = torch.zeros(0, 4), torch.zeros(0)
        ignored += find_ignored(boxes, torch.zeros(len(boxes)), *no_targets, regions).tolist()
        assert ignored[-len(boxes) :] == expected
    assert 0.1 < np.mean(ignored) < 0.9


@pytest.mark.parametrize("slice", [0, 64])
def test_training_sees_grey(data: Path, slice: int) -> None:
    hyp = get_cfg(overrides={"imgsz": 256, "task": "detect", "slice": slice, "slice_full_ratio": 1.0, "mosaic": 0.0})
    yaml = {"names": {0: "a"}, "channels": 3, "nc": 1}
    path = str(data.parent / "images/train")
    if slice:
        dataset = SlicedDataset(img_path=path, imgsz=256, augment=True, hyp=hyp, data=yaml, task="detect")
    else:
        dataset = build_yolo_dataset(hyp, path, 1, yaml)
    dataset.get_image_and_label(0)
    image = dataset.get_image_and_label(0)["img"][..., 0]  # the second time, from memory
    assert image.shape == (128, 256)
    expected = np.full((128, 256), 50)
    expected[:, 128:] = 114
    expected[48:80, 176:208] = 50  # the labelled object
    np.testing.assert_array_equal(image, expected)
    seen = build_yolo_dataset(hyp, path, 1, yaml, mode="val").get_image_and_label(0)["img"]
    assert (seen == 50).all()


def test_validation_does_not_count_false_alarms_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objects found, and a surer false alarm in either half: only the one outside the region costs precision."""
    rows = [[48, 48, 80, 80, 0.8], [176, 48, 208, 80, 0.8], [215, 4, 250, 40, 0.9]]
    stock, shapes = DetectionValidator.preprocess, []

    def preprocess(self: DetectionValidator, batch: dict) -> dict:
        shapes.append(batch["img"].shape)
        return stock(self, batch)

    def postprocess(self: DetectionValidator, preds: object) -> list[dict[str, torch.Tensor]]:
        top = (shapes[-1][2] - 128) / 2
        found = torch.tensor([*rows, *extra])
        found[:, [1, 3]] += top
        left = (shapes[-1][3] - 256) / 2
        found[:, [0, 2]] += left
        return [{"bboxes": found[:, :4], "conf": found[:, 4], "cls": torch.zeros(len(found)), "extra": found[:, :0]}]

    model = write_tree(data.parent, {"tiny.yaml": TINY_MODEL}) / "tiny.yaml"
    monkeypatch.setattr(DetectionValidator, "preprocess", preprocess)
    monkeypatch.setattr(DetectionValidator, "postprocess", postprocess)
    options = {"data": data, "imgsz": 256, "plots": False, "project": str(data.parent / "runs")}
    for extra, expected in (([], 0.995), ([[4, 4, 40, 40, 0.95]], 2 / 3)):  # noqa: B007 - read by `postprocess`
        metrics = YOLO(model, task="detect").val(**options)
        assert metrics.box.map50 == pytest.approx(expected, abs=0.06)
        assert metrics.size.ap50["medium"] == pytest.approx(expected, abs=0.06)

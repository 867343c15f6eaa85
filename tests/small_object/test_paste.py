"""Pasting objects of other images into training samples."""

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer

from small_object.paste import PasteObjects, blend, cut_object, find_place
from small_object.slicing.dataset import SlicedDataset
from tests.helpers.common import QUICK, TINY_MODEL, write_data, write_set, write_tree

GROUND, COLOURS = 100, (220, 20)
PLAIN = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "fliplr": 0.0}
SIDE = 128


def write_objects(folder: Path, task: str = "detect") -> dict[str, Any]:
    """Write images of no to four blocks each, in the grey level of their class; return the data set."""
    rng, samples = np.random.default_rng(0), {}
    for i in range(5):
        image, lines = np.full((SIDE, SIDE, 3), GROUND, np.uint8), []
        for k in range(i):
            x, y, w, h = 8 + 60 * (k % 2), 8 + 60 * (k // 2), *rng.integers(8, 20, 2)
            image[y : y + h, x : x + w] = COLOURS[k % 2]
            corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
            box = np.array((x + w / 2, y + h / 2, w, h))
            values = {
                "detect": box, "obb": np.array(corners).ravel(), "segment": np.array(corners).ravel(),
                "pose": np.array((*box, *box[:2])),
            }[task]  # fmt: skip
            lines.append(f"{k % 2} " + " ".join(f"{value / SIDE:.6f}" for value in values))
        samples[f"{i}"] = image, "\n".join(lines)
    shape = "kpt_shape: [1, 2]\n" * (task == "pose")
    return check_det_dataset(str(write_set(folder / task, samples, ("bright", "dark"), shape)))


def load(data: dict[str, Any], task: str = "detect", kind: type = YOLODataset, **arguments: Any) -> YOLODataset:
    hyp = get_cfg(overrides={**PLAIN, "task": task, "mask_ratio": 1, **arguments})
    return kind(
        img_path=data["train"], data=data, imgsz=SIDE, hyp=hyp, augment=True, rect=False, cache="ram", task=task
    )


@pytest.mark.parametrize("task", ["detect", "obb", "segment", "pose"])
def test_each_label_shows_its_object(tmp_path: Path, task: str) -> None:
    random.seed(0)
    data = write_objects(tmp_path, task)
    plain, pasted = load(data, task), load(data, task, paste=2)
    total = 0
    for i in (0, 1, 2, 3, 4) * 3:
        sample, before = pasted[i], len(plain[i]["cls"])
        total += len(sample["cls"]) - before
        pixels = sample["img"].numpy()[0]
        ground, masks = np.ones((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
        for k, (box, kind) in enumerate(zip(sample["bboxes"].numpy(), sample["cls"].flatten().int(), strict=True)):
            x, y, w, h = box[:4] * SIDE
            if task == "obb":
                x1, y1, x2, y2 = cv2.boxPoints(((x, y), (w, h), np.degrees(box[4]))).reshape(-1, 2)[[0, 2]].ravel()
                x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
            else:
                x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            x1, y1, x2, y2 = (round(float(value)) for value in (x1, y1, x2, y2))
            np.testing.assert_allclose(pixels[y1:y2, x1:x2], COLOURS[kind], atol=1)
            assert ground[y1:y2, x1:x2].all()  # no object covers another
            ground[y1:y2, x1:x2], masks[y1 : y2 + 1, x1 : x2 + 1] = False, True  # polygons are drawn with their edge
            if task == "pose":
                np.testing.assert_allclose(sample["keypoints"][k, 0, :2].numpy() * SIDE, (x, y), atol=0.01)
        np.testing.assert_allclose(pixels[ground], GROUND, atol=1)  # nothing is left without a label
        if task == "segment":
            assert ((sample["masks"].numpy()[0] > 0) == masks).mean() > 0.995
    assert total > 30


def test_tiles(tmp_path: Path) -> None:
    random.seed(0)
    dataset = load(write_objects(tmp_path), kind=SlicedDataset, slice=64, paste=2)
    counts = [len(dataset[i % 4]["cls"]) for i in range(20)]
    assert max(counts) > 4 and isinstance(dataset.transforms.transforms[1], PasteObjects)


def test_cut_object() -> None:
    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    boxes = np.array([[20.0, 10, 36, 26], [38, 10, 50, 26], [60, 30, 70, 40], [65, 35, 75, 45], [5, 50, 6, 59]])
    part, alpha, corner = cut_object(image, boxes, 0)
    assert corner.tolist() == [16, 6] and (part == image[6:30, 16:40]).all()  # a margin of a quarter of 16 px
    row = [0.125, 0.375, 0.625, 0.875, *[1] * 16, 0.875, 0.625, 0, 0]  # the next box starts 2 px beyond
    np.testing.assert_allclose(alpha[12, :, 0], row)
    np.testing.assert_allclose(alpha[:, 8, 0], [*row[:20], 0.875, 0.625, 0.375, 0.125])
    assert cut_object(image, boxes, 2) is None and cut_object(image, boxes, 3) is None  # they overlap
    assert cut_object(image, boxes, 4) is None  # 1 px wide
    assert cut_object(image, np.array([[0.0, 0, 80, 60]]), 0) is None  # no ground


def test_place_and_brightness() -> None:
    random.seed(0)
    none, part, alpha = np.zeros((0, 4)), np.full((20, 20, 3), 170, np.uint8), np.full((20, 20, 1), 0.5, np.float32)
    part[5:15, 5:15], alpha[5:15, 5:15] = 30, 1
    assert find_place(np.full((100, 100, 3), 114, np.uint8), none, part - 56, alpha) is None  # padding
    assert find_place(np.full((100, 100, 3), 115, np.uint8), none, part - 56, alpha) is not None
    image = np.full((100, 100, 3), 180, np.uint8)
    image[:, :50] = 0
    places = [find_place(image, none, part, alpha) for _ in range(50)]
    assert all(place is None or place[0] >= 48 for place in places) and sum(place is not None for place in places) > 40
    assert find_place(image, np.array([[40.0, 0, 100, 100]]), part, alpha) is None  # only the dark half is free
    assert find_place(image[:, 70:], none, part, alpha) is None  # it would cover most of the image
    blend(image, part, alpha, np.array((70, 40)))
    assert (image[45:55, 75:85] == 40).all() and image[:, 50:].sum() == 3 * (180 * 4900 + 40 * 100)


@pytest.mark.parametrize(("key", "argument", "expected"), [(1, None, 1), (1, 0, 0), (None, 2, 2), (None, None, 0)])
def test_key_argument_and_last_epochs(tmp_path: Path, key: int | None, argument: int | None, expected: int) -> None:
    data = write_data(tmp_path / "data", ("a",), {"train": 4, "val": 1})
    model = write_tree(tmp_path, {"tiny.yaml": f"paste: {key or 'null'}\n{TINY_MODEL}"}) / "tiny.yaml"
    overrides = {"model": str(model), "data": str(data), "project": str(tmp_path), "close_mosaic": 1, "paste": argument}
    trainer, seen = DetectionTrainer(overrides={**QUICK, **overrides, "epochs": 2, "val": False}), []

    def note(trainer: DetectionTrainer) -> None:
        transforms = trainer.train_loader.dataset.transforms.transforms
        seen.append([each.num_images for each in transforms if isinstance(each, PasteObjects)])

    trainer.add_callback("on_train_batch_end", note)
    trainer.train()
    assert seen == [[expected] if expected else []] * 2 + [[]] * 2
    assert trainer.args.paste == argument

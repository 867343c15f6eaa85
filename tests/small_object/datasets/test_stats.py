"""The counts of a data set's objects, against plain loops, and that the picture is drawn for any set."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.utils.patches import imread

from small_object.datasets import stats as dataset_stats
from small_object.datasets.stats import stats

LIMITS = {"very tiny": 8, "tiny": 16, "small": 32, "medium": 96, "large": math.inf}


def write_set(
    root: Path, sizes: dict[str, list[tuple[int, int]]], labels: dict[str, list[str]], names: list[str]
) -> Path:
    """Write a set of noise images of given sizes (width, height), with a label file for each."""
    rng = np.random.default_rng(0)
    for split, shapes in sizes.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i, (width, height) in enumerate(shapes):
            cv2.imwrite(str(root / f"images/{split}/{i}.jpg"), rng.integers(0, 255, (height, width, 3), np.uint8))
            (root / f"labels/{split}/{i}.txt").write_text(labels[split][i])
    file = root / "set.yaml"
    file.write_text("".join(f"{split}: images/{split}\n" for split in sizes) + f"names: {json.dumps(names)}\n")
    return file


def group(area: float) -> str:
    return next(name for name, limit in LIMITS.items() if area < limit**2)


def quantile(values: list[float], share: float) -> float:
    values, place = sorted(values), share * (len(values) - 1)
    low, high = values[math.floor(place)], values[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def picture(out: Path) -> np.ndarray:
    image = cv2.imread(str(out / "stats.png"))
    assert image is not None and image.shape == (1000, 1600, 3) and image.std() > 5
    return image


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only count, which is quicker."""
    monkeypatch.setattr(dataset_stats, "draw_stats", lambda *_: None)


@pytest.fixture(scope="module")
def random_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list]]:
    """A set of random boxes, and the same as (width, height, boxes in whole pixels) by split."""
    rng = np.random.default_rng(1)
    shapes = {"train": [(320, 200), (160, 240), (640, 64)], "val": [(200, 200), (96, 96)]}
    truth: dict[str, list] = {split: [] for split in shapes}
    labels: dict[str, list[str]] = {split: [] for split in shapes}
    for split, sizes in shapes.items():
        for width, height in sizes:
            boxes = []
            for _ in range(rng.integers(0, 30)):
                w, h = (int(rng.integers(2, min(150, side))) for side in (width, height))
                boxes.append((int(rng.integers(3)), w, h))
            truth[split].append((width, height, boxes))
            labels[split].append("".join(f"{c} 0.5 0.5 {w / width:.6f} {h / height:.6f}\n" for c, w, h in boxes))
    folder = tmp_path_factory.mktemp("random")
    return write_set(folder, shapes, labels, ["a", "b", "c"]), truth


def test_counts_are_those_of_plain_loops(random_set: tuple[Path, dict], tmp_path: Path) -> None:
    file, truth = random_set
    found = stats(file, imgsz=320, out=tmp_path)
    assert found.imgsz == 320 and not found.skipped
    for split, images in [*truth.items(), ("all", truth["train"] + truth["val"])]:
        part = found.total if split == "all" else found.splits[split]
        boxes = [(c, w, h, Fraction(320, max(width, height))) for width, height, rows in images for c, w, h in rows]
        assert (part.images, part.objects) == (len(images), len(boxes))
        assert part.empty == sum(not rows for _, _, rows in images)
        counts = sorted(len(rows) for _, _, rows in images)
        assert part.per_image["min"] == counts[0] and part.per_image["max"] == counts[-1]
        assert part.per_image["mean"] == pytest.approx(len(boxes) / len(images), abs=1e-3)
        for name in LIMITS:
            assert part.sizes[name] == sum(group(w * h) == name for _, w, h, _ in boxes)
        for name in LIMITS:
            assert part.sizes_at_imgsz[name] == sum(group(w * h * s * s) == name for _, w, h, s in boxes)
        assert part.coco == {
            "small": sum(w * h < 32**2 for _, w, h, _ in boxes),
            "medium": sum(32**2 <= w * h < 96**2 for _, w, h, _ in boxes),
            "large": sum(w * h >= 96**2 for _, w, h, _ in boxes),
        }
        for index, cls in enumerate(part.classes):
            mine = [(w * h, w * h * s * s) for c, w, h, s in boxes if c == index]
            assert (cls.name, cls.objects) == ("abc"[index], len(mine))
            assert cls.share == pytest.approx(len(mine) / len(boxes))
            assert cls.sizes == {name: sum(group(area) == name for area, _ in mine) for name in LIMITS}
            assert cls.sizes_at_imgsz == {name: sum(group(area) == name for _, area in mine) for name in LIMITS}
        for percent in (5, 25, 50, 75, 95):
            for got, values in (
                (part.side, [math.sqrt(w * h) for _, w, h, _ in boxes]),
                (part.side_at_imgsz, [math.sqrt(w * h) * s for _, w, h, s in boxes]),
                (part.aspect, [w / h for _, w, h, _ in boxes]),
            ):
                assert got[percent] == pytest.approx(quantile(values, percent / 100), abs=1e-3)
        assert part.thin == pytest.approx(sum(min(w, h) * s < 4 for _, w, h, s in boxes) / len(boxes))
    written = json.loads((tmp_path / "stats.json").read_text())
    assert written["total"]["objects"] == found.total.objects and written["splits"]["val"]["images"] == 2
    assert written["total"]["classes"][2]["sizes"] == found.total.classes[2].sizes
    picture(tmp_path)


def test_the_suggested_size_is_the_least_that_suffices(tmp_path: Path, no_picture: None) -> None:
    lines = "".join(f"0 0.5 0.5 {w / 400:.6f} 0.5\n" for w in [2] * 10 + [20] * 90)
    file = write_set(tmp_path, {"train": [(400, 400)], "val": [(400, 400)]}, {"train": [lines], "val": [lines]}, ["a"])
    found = stats(file, imgsz=640, out=tmp_path / "out").total
    assert found.thin == pytest.approx(0.1)
    assert found.imgsz_for_thin == 800  # 2 px of 400 are 4 px of 800
    assert stats(file, imgsz=800, out=tmp_path / "out").total.thin == 0
    assert stats(file, imgsz=768, out=tmp_path / "out").total.thin == pytest.approx(0.1)


def test_boxes_on_the_limits_of_the_groups_are_not_moved_by_the_labels_six_decimals(
    tmp_path: Path, no_picture: None
) -> None:
    sides = (8, 16, 32, 96)
    lines = "".join(f"0 0.5 0.5 {s / 1280:.6f} {s / 720:.6f}\n" for s in sides)
    labels = {"train": [lines], "val": [""]}
    file = write_set(tmp_path, {"train": [(1280, 720)], "val": [(1280, 720)]}, labels, ["a"])
    found = stats(file, imgsz=640, out=tmp_path / "out").total
    assert list(found.sizes.values()) == [0, 1, 1, 1, 1]
    assert list(found.sizes_at_imgsz.values()) == [1, 1, 1, 1, 0]
    assert found.thin == 0  # 8 px are 4 px, not thinner


def test_a_turned_photo_counts_as_training_sees_it(tmp_path: Path, no_picture: None) -> None:
    labels = {"train": ["0 0.5 0.5 0.1 0.1\n"], "val": [""]}
    file = write_set(tmp_path, {"train": [(400, 200)], "val": [(400, 200)]}, labels, ["a"])
    photo = tmp_path / "images/train/0.jpg"
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.open(photo).save(photo, exif=exif)
    assert imread(photo).shape[:2] == (400, 200)
    assert stats(file, out=tmp_path / "out").total.aspect[50] == pytest.approx(20 / 40)


def test_lists_of_images_and_images_in_two_splits(tmp_path: Path, no_picture: None) -> None:
    line = "0 0.5 0.5 0.1 0.1\n"
    labels = {"train": [line, line * 2, ""], "val": [line]}
    file = write_set(tmp_path, {"train": [(64, 48)] * 3, "val": [(64, 48)]}, labels, ["a"])
    (tmp_path / "list.txt").write_text("./images/train/1.jpg\n./images/val/0.jpg\n./gone.jpg\n")
    file.write_text("train: [images/train]\nval: images/val\ntest: list.txt\nnames: [a]\n")
    found = stats(file, out=tmp_path / "out")
    assert {split: (part.images, part.objects) for split, part in found.splits.items()} == {
        "train": (3, 3),
        "val": (1, 1),
        "test": (2, 3),
    }
    assert (found.total.images, found.total.objects) == (4, 4)
    assert "more than one split" in found.table() and list(found.skipped) == ["list.txt:3"]
    (tmp_path / "images/val/0.jpg").unlink()
    file.write_text("train: images/train\nval: images/val\nnames: [a]\n")
    assert stats(file, out=tmp_path / "out").splits["val"].images == 0


@pytest.mark.parametrize("case", ["empty", "one", "many classes"])
def test_unusual_sets_are_drawn_too(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"class number {i} $x$" for i in range(80)] if case == "many classes" else ["a"]
    labels = {
        "empty": ["", ""],
        "one": ["0 0.5 0.5 0.1 0.1\n", ""],
        "many classes": ["".join(f"{i} 0.5 0.5 0.{i % 8 + 1} 0.2\n" for i in range(80))] * 2,
    }[case]
    file = write_set(
        tmp_path, {"train": [(64, 48)], "val": [(64, 48)]}, {"train": labels[:1], "val": labels[1:]}, names
    )
    with caplog.at_level("INFO"):
        found = stats(file, out=tmp_path / "out")
    assert max(map(len, found.table().splitlines())) <= 110
    assert ("68 others" in found.table()) == (case == "many classes")
    picture(tmp_path / "out")


@pytest.mark.parametrize(
    "line", ["1 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "0 50 50 9 9", "0 nan 0 0 0", "0 0 0 -1 1"]
)
def test_labels_that_training_refuses_are_left_out(line: str, tmp_path: Path, no_picture: None) -> None:
    labels = {"train": [f"{line}\n", "0 0.5 0.5 0.1 0.1\n"], "val": [""]}
    file = write_set(tmp_path, {"train": [(64, 48)] * 2, "val": [(64, 48)]}, labels, ["a"])
    found = stats(file, out=tmp_path / "out")
    assert found.total.objects == 1 and [Path(p).name for p in found.skipped] == ["0.jpg"]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = "0 0.5 0.5 0.1 0.1\n"
    file = write_set(
        tmp_path, {"train": [(64, 48)] * 3, "val": [(64, 48)]}, {"train": [good, "0 x\n", good], "val": [good]}, ["a"]
    )
    (tmp_path / "images/train/2.jpg").write_bytes(b"no image")
    with caplog.at_level("WARNING"):
        found = stats(file, out=tmp_path / "out")
    assert found.total.images == 2 and {Path(p).stem for p in found.skipped} == {"1", "2"}
    assert "1.jpg is left out" in caplog.text and f"small-object check {file}" in caplog.text
    assert stats(file, out=tmp_path / "out") == found  # overwrites

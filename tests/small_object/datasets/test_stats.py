"""The counts of a data set's objects, against plain loops, and that the picture is drawn for any set."""

import json
import math
import statistics
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from small_object.datasets import stats as dataset_stats
from small_object.datasets.stats import stats
from tests.helpers.common import write_tree

LIMITS = {"very tiny": 8, "tiny": 16, "small": 32, "medium": 96, "large": math.inf}
LINE = "0 0.5 0.5 0.1 0.1\n"


def write_set(root: Path, images: dict[str, list[tuple[int, int, str]]], names: tuple[str, ...] = ("a",)) -> Path:
    """Write a set of black images, given by width, height and labels, for each split."""
    for split, rows in images.items():
        for i, (width, height, labels) in enumerate(rows):
            pixels = np.zeros((height, width, 3), np.uint8)
            write_tree(root, {f"images/{split}/{i}.jpg": pixels, f"labels/{split}/{i}.txt": labels})
    text = "".join(f"{split}: images/{split}\n" for split in images) + f"names: {json.dumps(names)}\n"
    return write_tree(root, {"set.yaml": text}) / "set.yaml"


def by_group(areas: list[float]) -> dict[str, int]:
    groups = [next(name for name, limit in LIMITS.items() if area < limit**2) for area in areas]
    return {name: groups.count(name) for name in LIMITS}


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only count, which is faster."""
    monkeypatch.setattr(dataset_stats, "draw_stats", lambda _, file: file.touch())


def test_counts_are_those_of_plain_loops(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth: dict[str, list] = {}  # width, height and boxes in whole pixels
    for split, sizes in {"train": [(320, 200), (160, 240), (640, 64)], "val": [(200, 200), (96, 96)]}.items():
        truth[split] = []
        for width, height in sizes:
            sides = (
                (int(rng.integers(2, min(150, side))) for side in (width, height)) for _ in range(rng.integers(30))
            )
            truth[split].append((width, height, [(int(rng.integers(3)), *pair) for pair in sides]))
    images = {
        split: [
            (w, h, "".join(f"{c} 0.5 0.5 {bw / w:.6f} {bh / h:.6f}\n" for c, bw, bh in rows)) for w, h, rows in part
        ]
        for split, part in truth.items()
    }
    found = stats(write_set(tmp_path / "set", images, ("a", "b", "c")), imgsz=320, out=tmp_path / "out")
    assert found.imgsz == 320 and not found.skipped
    for split, rows in [*truth.items(), ("all", truth["train"] + truth["val"])]:
        part = found.total if split == "all" else found.splits[split]
        boxes = [(c, w, h, Fraction(320, max(width, height))) for width, height, own in rows for c, w, h in own]
        assert (part.name, part.images, part.empty) == (split, len(rows), sum(not own for _, _, own in rows))
        for cls, own in [
            (part, boxes),
            *((cls, [b for b in boxes if b[0] == i]) for i, cls in enumerate(part.classes)),
        ]:
            areas, areas_at_imgsz = [w * h for _, w, h, _ in own], [w * h * s * s for _, w, h, s in own]
            assert cls.objects == len(own)
            assert cls.sizes == by_group(areas) and cls.sizes_at_imgsz == by_group(areas_at_imgsz)
            assert cls.coco_small == pytest.approx(sum(area < 32**2 for area in areas) / len(own))
            assert cls.side[50] == pytest.approx(statistics.median(map(math.sqrt, areas)), abs=1e-3)
            assert cls.side_at_imgsz[50] == pytest.approx(statistics.median(map(math.sqrt, areas_at_imgsz)), abs=1e-3)
            assert cls.thin == pytest.approx(sum(min(w, h) * s < 4 for _, w, h, s in own) / len(own))
        assert [cls.name for cls in part.classes] == ["a", "b", "c"]
    written = json.loads((tmp_path / "out/stats.json").read_text())
    assert written["total"]["objects"] == found.total.objects and written["splits"]["val"]["images"] == 2
    assert written["total"]["classes"][2]["sizes"] == found.total.classes[2].sizes


def test_the_suggested_size_is_the_least_that_suffices(tmp_path: Path, no_picture: None) -> None:
    widths = enumerate([2] * 10 + [20] * 90)
    lines = "".join(f"0 0.5 {0.4 + i / 1000} {w / 400:.6f} 0.5\n" for i, w in widths)  # none repeats another
    file = write_set(tmp_path, {"train": [(400, 400, lines)], "val": [(400, 400, lines)]})
    found = {imgsz: stats(file, imgsz=imgsz, out=tmp_path / "out").total for imgsz in (640, 768, 800)}
    assert found[640].imgsz_for_thin == 800  # 2 px of 400 are 4 px of 800
    assert [part.thin for part in found.values()] == pytest.approx([0.1, 0.1, 0])


def test_boxes_on_the_limits_of_the_groups_are_not_moved_by_the_labels_six_decimals(
    tmp_path: Path, no_picture: None
) -> None:
    lines = "".join(f"0 0.5 0.5 {s / 1280:.6f} {s / 720:.6f}\n" for s in (8, 16, 32, 96))
    file = write_set(tmp_path, {"train": [(1280, 720, lines)], "val": [(1280, 720, "")]})
    found = stats(file, imgsz=640, out=tmp_path / "out").total
    assert list(found.sizes.values()) == [0, 1, 1, 1, 1]
    assert list(found.sizes_at_imgsz.values()) == [1, 1, 1, 1, 0]
    assert found.thin == 0  # 8 px are 4 px, not thinner


def test_a_turned_photo_counts_as_training_sees_it(tmp_path: Path, no_picture: None) -> None:
    file = write_set(tmp_path, {"train": [(400, 100, "0 0.5 0.5 0.1 0.4\n")], "val": [(400, 100, "")]})
    photo, exif = tmp_path / "images/train/0.jpg", Image.Exif()
    exif[274] = 6  # lies on its side, 100x400
    Image.open(photo).save(photo, exif=exif)
    assert stats(file, out=tmp_path / "out").total.side[50] == pytest.approx(math.sqrt(10 * 160), abs=1e-3)


def test_lists_of_images_and_images_in_two_splits(tmp_path: Path, no_picture: None) -> None:
    file = write_set(tmp_path, {"train": [(64, 48, text) for text in (LINE, LINE * 2, "")], "val": [(64, 48, LINE)]})
    (tmp_path / "list.txt").write_text("./images/train/1.jpg\n./images/val/0.jpg\n./gone.jpg\n")
    file.write_text("train: [images/train]\nval: images/val\ntest: list.txt\nnames: [a]\n")
    found = stats(file, out=tmp_path / "out")
    parts = {split: (part.images, part.objects) for split, part in found.splits.items()}
    assert parts == {"train": (3, 2), "val": (1, 1), "test": (2, 2)}
    assert (found.total.images, found.total.objects) == (4, 3)  # a repeated line counts once, as in training
    assert "several splits" in found.table() and list(found.skipped) == ["list.txt:3"]
    (tmp_path / "images/val/0.jpg").unlink()
    file.write_text("train: images/train\nval: images/val\nnames: [a]\n")
    assert stats(file, out=tmp_path / "out").splits["val"].images == 0


@pytest.mark.parametrize("case", ["empty", "one", "many classes"])
def test_unusual_sets_are_drawn_too(case: str, tmp_path: Path) -> None:
    many = "".join(f"{i} 0.5 0.5 0.{i % 8 + 1} 0.2\n" for i in range(80))
    train, val = {"empty": ("", ""), "one": (LINE, ""), "many classes": (many, many)}[case]
    names = tuple(f"class number {i} $x$" for i in range(80)) if case == "many classes" else ("a",)
    found = stats(
        write_set(tmp_path, {"train": [(64, 48, train)], "val": [(64, 48, val)]}, names), out=tmp_path / "out"
    )
    assert max(map(len, found.table().splitlines())) <= 110
    assert ("68 rarer classes" in found.table()) == (case == "many classes")
    image = cv2.imread(str(tmp_path / "out/stats.png"))
    assert image.shape == (600, 1400, 3) and image.std() > 5


def test_what_training_refuses_is_named_and_left_out(
    tmp_path: Path, no_picture: None, caplog: pytest.LogCaptureFixture
) -> None:
    bad = ["1 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "0 50 50 9 9", "0 nan 0 0 0", "0 0 0 -1 1", "0 x"]
    rows = [(64, 48, f"{line}\n") for line in bad] + [(64, 48, LINE)] * 2
    file = write_set(tmp_path, {"train": rows, "val": [(64, 48, LINE)]})
    (tmp_path / "images/train/7.jpg").write_bytes(b"no image")
    with caplog.at_level("WARNING"):
        found = stats(file, out=tmp_path / "out")
    assert found.total.images == 2 and sorted(Path(p).stem for p in found.skipped) == list("0123457")
    assert "1.jpg is left out" in caplog.text and f"small-object check {file}" in caplog.text
    assert stats(file, out=tmp_path / "out") == found  # overwrites

"""Data sets that are cut into tiles."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset

from small_object.datasets.tiles import cut_tiles
from small_object.errors import UserError
from tests.helpers.common import write_data, write_set, write_tree


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Cut images of random boxes, each of a class of its own, and of none; return the folders of both sets."""
    folder, rng, samples = tmp_path_factory.mktemp("tiles"), np.random.default_rng(3), {}
    for name in (*(f"train/{i}" for i in range(5)), "val/0", "val/1"):
        height, width = int(rng.integers(90, 260)), int(rng.integers(90, 260))
        image, lines = rng.integers(0, 255, (height, width, 3), dtype=np.uint8), []
        for cls in range(0 if name == "train/4" else 6):
            w, h = rng.integers(5, 60, 2)
            x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            lines.append(
                f"{cls} {(x + w / 2) / width:.8f} {(y + h / 2) / height:.8f} {w / width:.8f} {h / height:.8f}\n"
            )
        samples[name] = image, "".join(lines)
    data = write_set(folder / "source", samples, "abcdef", "test: images/val\n")
    for out in ("out", "again"):
        assert cut_tiles(data, folder / out, 64, 0.25, empty=0.2) == folder / out / f"{out}.yaml"
    return data.parent, folder / "out"


def pixels(file: Path, width: int, height: int) -> dict[int, np.ndarray]:
    """Return the boxes of a label file by class, xyxy in pixels."""
    rows = np.array([line.split() for line in file.read_text().splitlines()], float).reshape(-1, 5)
    assert len(set(rows[:, 0])) == len(rows)
    corners = np.hstack((rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2))
    return dict(zip(rows[:, 0].astype(int), corners * np.array((width, height) * 2), strict=True))


def test_tiles_hold_what_a_count_of_pixels_says(tiled: tuple[Path, Path]) -> None:
    source, out = tiled
    for split in ("train", "val"):
        empty, full, possible = [], [], []
        for file in sorted((source / "images" / split).iterdir()):
            image = cv2.imread(str(file))
            height, width = image.shape[:2]
            boxes = pixels(source / f"labels/{split}/{file.stem}.txt", width, height)
            gaps = [-(-(side - 64) // 48) for side in (height, width)]  # the fewest that overlap by 16 px and more
            ys, xs = ([i * (s - 64) // n for i in range(n + 1)] for s, n in zip((height, width), gaps, strict=True))
            for x, y in ((x, y) for y in ys for x in xs):
                name = f"{file.stem}_{x}_{y}"
                expected, touched = {}, False
                for cls, box in boxes.items():
                    x0, y0, x1, y1 = box.round().astype(int)
                    mask = np.zeros((height, width), bool)
                    mask[y0:y1, x0:x1] = True
                    part = mask[y : y + 64, x : x + 64]
                    touched |= bool(part.any())
                    if part.any() and part.sum() >= 0.4 * mask.sum():
                        rows, columns = np.nonzero(part)
                        expected[cls] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                picture = out / f"images/{split}/{name}.png"
                if expected:
                    full.append(name)
                    assert (cv2.imread(str(picture)) == image[y : y + 64, x : x + 64]).all()
                    found = pixels(out / f"labels/{split}/{name}.txt", 64, 64)
                    assert found.keys() == expected.keys()
                    for cls, box in expected.items():
                        np.testing.assert_allclose(found[cls], box, atol=0.01)
                elif touched:
                    assert not picture.exists()
                else:
                    possible.append(name)
                    if picture.exists():
                        empty.append(name)
                        assert (out / f"labels/{split}/{name}.txt").read_text() == ""
        assert len(empty) == min(len(possible), round(0.2 * len(full)))
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            written = {path.name for path in (out / kind / split).iterdir() if path.suffix != ".cache"}
            assert written == {f"{name}.{suffix}" for name in empty + full}


def test_tiles_are_the_same_each_time_and_a_data_set(tiled: tuple[Path, Path]) -> None:
    _, out = tiled
    first, second = (
        {path.relative_to(base): path.read_bytes() for path in base.rglob("*.*") if path.suffix in {".png", ".txt"}}
        for base in (out, out.with_name("again"))
    )
    assert first == second
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    data = check_det_dataset(str(out / "out.yaml"))
    assert list(data["names"].values()) == list("abcdef")
    assert [Path(data[split]) for split in ("train", "test")] == [out / "images/train", out / "images/test"]
    val, test = (json.loads((out / f"annotations/instances_{split}.json").read_text()) for split in ("val", "test"))
    assert val == test and len(test["annotations"]) > 5


def test_a_hand_made_case_gives_the_tiles_of_the_closed_form(tmp_path: Path) -> None:
    data = write_data(tmp_path / "source", ("a",), {"train": 1, "val": 1})
    # 100x100 px in the middle of 400x200: each of the 2 rows of 4 tiles (0, 100, 200, 300) sees half of it twice.
    for split in ("train", "val"):
        (data.parent / f"images/{split}/0.png").unlink()
        cv2.imwrite(str(data.parent / f"images/{split}/0.jpg"), np.zeros((200, 400, 3), np.uint8))
        (data.parent / f"labels/{split}/0.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    for keep, count in ((0.25, 4), (0.26, 0)):
        out = tmp_path / f"keep{keep}"
        cut_tiles(data, out, tile=100, overlap=0, keep=keep, empty=1)
        written = list((out / "images/train").iterdir())
        assert len([f for f in (out / "labels/train").glob("*.txt") if f.read_text()]) == count
        assert len(written) == 2 * count  # as many empty ones: the four at the sides
        assert all(file.suffix == ".jpg" for file in written)
    text = (tmp_path / "keep0.25/labels/train/0_100_0.txt").read_text()
    assert text == "0 0.750000 0.750000 0.500000 0.500000\n"


def test_what_cannot_be_cut_is_one_line(tmp_path: Path) -> None:
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 1, "val": 1})
    for arguments, said in (
        ({"overlap": 1}, "overlap from 0 to 0.9"),
        ({"tile": 3}, "tile must be at least 64"),
        ({"keep": 0}, "keep above 0"),
        ({"empty": float("nan")}, "empty at least 0"),
        ({"out": data.parent}, "already holds images"),
        ({"data": tmp_path / "none.yaml"}, "none.yaml"),
    ):
        with pytest.raises(UserError, match=said) as error:
            cut_tiles(**{"data": data, "out": tmp_path / "out"} | arguments)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["squares"]


UNCUT, BOX = (0.75, 0.2, 0.85, 0.4, 0.8, 0.5, 0.7, 0.3), (0.55, 0.4, 0.3, 0.4)
KINDS = [
    # task, rows of the YAML, labels of 200x100 px, those of the right half, in COCO the first one's, in training
    ("segment", "", [(0.4, 0.1, 0.7, 0.1, 0.7, 0.7)], [(0, 0.3, 0, 0.1, 0.4, 0.1, 0.4, 0.7)],
     {"bbox": [0, 10, 40, 60], "area": 1600, "segmentation": [[0, 30, 0, 10, 40, 10, 40, 70]]},
     "bboxes", [[0.2, 0.4, 0.4, 0.6]]),
    ("obb", "", [UNCUT, (0.475, 0.4, 0.625, 0.7, 0.575, 0.8, 0.425, 0.5)],  # the second's box leaves the tile
     [(0.5, 0.2, 0.7, 0.4, 0.6, 0.5, 0.4, 0.3), (0, 0.45, 0.25, 0.7, 0.15, 0.8, 0, 0.65)],
     {"bbox": [40, 20, 30, 30], "area": 400, "segmentation": [[50, 20, 70, 40, 60, 50, 40, 30]]},
     "bboxes", [[0.55, 0.35, 0.08**0.5, 0.02**0.5, np.pi / 4], [0.075, 0.625, 0.125**0.5, 0.02**0.5, np.pi / 4]]),
    ("pose", "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n", [(*BOX, 0.45, 0.3, 2, 0.6, 0.5, 1)],
     [(0.2, 0.4, 0.4, 0.4, 0, 0, 0, 0.2, 0.5, 1)],
     {"bbox": [0, 20, 40, 40], "area": 1600, "keypoints": [0, 0, 0, 20, 50, 1], "num_keypoints": 1},
     "keypoints", [[[0, 0, 0], [0.2, 0.5, 1]]]),
    ("pose", "kpt_shape: [2, 2]\n", [(*BOX, 0.45, 0.3, 0.6, 0.5)], [(0.2, 0.4, 0.4, 0.4, -0.005, -0.005, 0.2, 0.5)],
     {"keypoints": [0, 0, 0, 20, 50, 1]}, "keypoints", [[[-0.005, -0.005, 0], [0.2, 0.5, 1]]]),
]  # fmt: skip


@pytest.mark.parametrize("task, rows, labels, cut, coco, key, loaded", KINDS)
def test_other_kinds_of_labels_are_cut_as_in_training(tmp_path, task, rows, labels, cut, coco, key, loaded):
    before, after = ("".join(" ".join(["0", *(f"{v:.6f}" for v in row)]) + "\n" for row in x) for x in (labels, cut))
    image = np.zeros((100, 200, 3), np.uint8)
    data = write_set(tmp_path / "set", {"train/0": (image, before), "val/0": (image[:, :100], before)}, "a", rows)
    write_tree(data.parent, {"ignore/train/0.txt": "0.8 0.5 0.1 0.1\n"})
    out = cut_tiles(data, tmp_path / "out", 100, 0)
    texts = {str(file.relative_to(out.parent)): file.read_text() for file in out.parent.glob("labels/*/*.txt")}
    assert texts == {"labels/val/0_0_0.txt": before, "labels/train/0_100_0.txt": after}
    first, *_, crowd = json.loads((out.parent / "annotations/instances_train.json").read_text())["annotations"]
    assert first == first | coco and crowd.keys() == first.keys() and crowd["iscrowd"]
    info, old = check_det_dataset(str(out)), check_det_dataset(str(data))
    assert all(info.get(name) == old.get(name) for name in ("names", "kpt_shape", "flip_idx"))
    sample = YOLODataset(img_path=info["train"], data=info, task=task, augment=False, imgsz=100)[0]
    np.testing.assert_allclose(sample[key], loaded, atol=1e-5)

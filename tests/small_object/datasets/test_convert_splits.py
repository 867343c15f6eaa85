"""The import of COCO: published splits, ignore regions, images that are missing or broken."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from small_object.cli import main
from small_object.datasets.check import check
from small_object.datasets.convert import from_coco, from_voc
from small_object.errors import UserError
from small_object.ignore import read_regions
from tests.small_object.datasets.test_convert import H, W, coco, imported, near, paint, side_of, voc


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


def box(image: int, x: float, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 20, 30], **more}


def write_json(file: Path, files: list[str], annotations: list[dict[str, Any]], **more: Any) -> Path:
    """Write a COCO file with its images next to it, in `images/`."""
    made = coco(file.parent, annotations, files, **more)
    return made.rename(file)


def left_out(data: Path) -> dict[str, str]:
    with (data.parent / "left_out.csv").open(encoding="utf-8", newline="") as stream:
        return {Path(row["image"]).name: row["reason"] for row in csv.DictReader(stream)}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train.json", "val.json", None),
        ("instances_train2017.json", "instances_val2017.json", "instances_test2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", "test/_annotations.coco.json"),
        ("train=a.json", "val=b.json", "test=c.json"),
    ],
)
def test_several_files_are_the_published_split(tmp_path: Path, train: str, val: str, test: str | None) -> None:
    files = []
    for side, name in zip(("train", "val", "test"), (train, val, test), strict=True):
        if name:
            given, _, path = name.rpartition("=")
            file = tmp_path / "in" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, [f"{side}{i}.png" for i in range(3)], [box(1, 10 * len(files)), box(3, 5, 7)])
            files.append(f"{given}={file}" if given else file)
    arguments = ["convert", "coco", *map(str, files), "--out", str(tmp_path / "mine")]
    assert main(arguments) == 0
    data = tmp_path / "mine/mine.yaml"
    assert side_of(data) == {f"{s}{i}.png": s for s in ("train", "val", "test")[: len(files)] for i in range(3)}
    assert imported(data)["val0.png"] == near([(0, [10, 10, 30, 40])])
    content = yaml.safe_load(data.read_text())
    assert ("test" in content) == (test is not None) and content["names"] == {0: "person", 1: "truck", 2: "airplane"}
    assert not [f for f in check(data).findings if f.level == "error"]


def test_files_may_number_their_images_and_classes_in_other_ways(tmp_path: Path) -> None:
    train = write_json(tmp_path / "train.json", ["a.png"], [box(1, 10, 7)])
    other = [{"id": 1, "name": "truck"}, {"id": 2, "name": "ship"}]
    val = write_json(tmp_path / "val.json", ["b.png"], [box(1, 10, 1), box(1, 50, 2)], categories=other)
    data = from_coco([train, val], tmp_path / "mine")
    assert yaml.safe_load(data.read_text())["names"] == {0: "person", 1: "truck", 2: "airplane", 3: "ship"}
    assert [cls for cls, _ in imported(data)["b.png"]] == [1, 3] and [cls for cls, _ in imported(data)["a.png"]] == [1]


def test_a_published_split_is_kept_though_it_leaks(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    train = write_json(tmp_path / "train.json", ["a.png", "b.png"], [box(1, 10)])
    val = write_json(tmp_path / "val.json", ["c.png"], [box(1, 10)])
    (tmp_path / "images/c.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    data = from_coco([train, val], tmp_path / "mine")
    assert side_of(data) == {"a.png": "train", "b.png": "train", "c.png": "val"}
    assert "kept, but it has the same image on both sides" in log.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first.json", "val.json"], r"first.json: which split is it\? Write train=.*first.json, val="),
        (["trainval.json", "val.json"], "which split is it"),
        (["train.json", "train2.json"], "no file is the split val; name one as val=FILE"),
        (["train=first.json"], "no file is the split val"),
    ],
)
def test_an_unknown_split_is_one_line(tmp_path: Path, names: list[str], message: str, capsys: Any) -> None:
    for name in names:
        write_json(tmp_path / name.rpartition("=")[2], [f"{name}.png"], [])
    files = [name.replace("first", f"{tmp_path}/first") if "=" in name else tmp_path / name for name in names]
    with pytest.raises(UserError, match=message) as caught:
        from_coco(files, tmp_path / "mine")
    assert "\n" not in str(caught.value) and not (tmp_path / "mine").exists()


def test_images_of_splits_lie_below_one_folder(tmp_path: Path) -> None:
    files = [write_json(tmp_path / f"{side}.json", [f"{side}.png"], [box(1, 10)]) for side in ("train", "val")]
    for side in ("train", "val"):
        (tmp_path / "pictures" / side).mkdir(parents=True)
        (tmp_path / f"images/{side}.png").rename(tmp_path / f"pictures/{side}/{side}.png")
    data = from_coco(files, tmp_path / "mine", images=tmp_path / "pictures")
    assert side_of(data) == {"train.png": "train", "val.png": "val"}


@pytest.mark.parametrize("name", ["ignored regions", "Ignored-Region", "ignore"])
def test_crowds_and_ignored_categories_become_ignore_regions(
    tmp_path: Path, name: str, log: pytest.LogCaptureFixture
) -> None:
    categories = [{"id": 0, "name": name}, {"id": 3, "name": "person"}]
    annotations = [
        box(1, 0, iscrowd=1, segmentation={"counts": [5], "size": [H, W]}),
        box(1, 50, 0),
        box(1, 100, ignore=1),
        box(1, 190, 11, ignore=1),  # of a category that the file does not list, as VisDrone's; clipped
        box(1, 70, ignore=0),
        box(2, 300, 0),  # outside
        {"image_id": 2, "category_id": 0},
    ]
    data = from_coco(coco(tmp_path, annotations, categories=categories), tmp_path / "mine")
    assert yaml.safe_load(data.read_text())["names"] == {0: "person"}
    assert imported(data)["a.png"] == near([(0, [70, 10, 90, 40])])
    (image,) = data.parent.glob("images/*/a.png")
    regions = read_regions(image) * ((W, H) * 2)
    np.testing.assert_allclose(regions, [[x, 10, min(x + 20, W), 40] for x in (0, 50, 100, 190)], atol=1e-3)
    assert len(list(data.parent.glob("ignore/*/*.txt"))) == 1
    assert "1 objects of 1 classes, 4 ignore regions; left out: 1 ignore regions without a box" in log.text
    assert "1 without area in the image" in log.text


def test_missing_images_are_named_and_left_out_when_asked(tmp_path: Path, capsys: Any, log: Any) -> None:
    annotations = [box(1, 10), box(2, 10), box(2, 50), box(3, 10, iscrowd=1)]
    file = coco(tmp_path, annotations, ["a.png", "b.png", "c.png", "d.png"])
    for name in ("b.png", "c.png"):
        (tmp_path / "images" / name).unlink()
    arguments = ["convert", "coco", str(file), "--out", str(tmp_path / "mine")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "2 of 4 images are missing" in error and "b.png" in error and "c.png" in error and "--skip-missing" in error
    assert main([*arguments, "--skip-missing"]) == 0
    data = tmp_path / "mine/mine.yaml"
    assert imported(data).keys() == {"a.png", "d.png"}
    assert left_out(data) == {"b.png": "is missing", "c.png": "is missing"}
    assert "2 images, 1 objects of 3 classes; left out: 3 of images left out, 2 images (see" in log.text


def test_broken_images_are_named_and_counted(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    file = coco(tmp_path, [box(1, 10), box(2, 10)], ["a.png", "b.png", "c.png", "d.tif", "e.png"])
    (tmp_path / "images/b.png").write_bytes(b"no image")
    (tmp_path / "images/c.png").write_bytes(b"")
    paint(tmp_path / "images/d.tif")
    np_file = tmp_path / "images/e.png"
    np_file.write_bytes(np_file.read_bytes()[:-60])
    data = from_coco(file, tmp_path / "mine")
    assert imported(data).keys() == {"a.png", "d.tif"}
    reasons = left_out(data)
    assert reasons.keys() == {"b.png", "c.png", "e.png"} and reasons["c.png"] == "is empty"
    assert "b.png is left out: is no image that can be read" in log.text
    assert "2 images, 1 objects of 3 classes; left out: 1 of images left out, 3 images (see" in log.text


def test_a_split_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    train = write_json(tmp_path / "train.json", ["a.png"], [box(1, 10)])
    val = write_json(tmp_path / "val.json", ["b.png"], [box(1, 10)])
    (tmp_path / "images/b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of val can be used, such as .*b.png: is empty"):
        from_coco([train, val], tmp_path / "mine")


def test_names_that_are_not_text_become_readable(tmp_path: Path) -> None:
    file = coco(tmp_path, [box(1, 10)], ["a.png", "b.png", "c.png"])
    content = json.loads(file.read_text())
    for i, name in enumerate(("caf\udce9.png", "li\nne.png")):
        (tmp_path / "images" / content["images"][i]["file_name"]).rename(tmp_path / "images" / name)
        content["images"][i]["file_name"] = name
    file.write_text(json.dumps(content))
    assert imported(from_coco(file, tmp_path / "mine")).keys() == {"caf%E9.png", "li%0Ane.png", "c.png"}
    folder = voc(tmp_path / "VOC", {"a": "truck 1 1 4 4", "b": ""})
    for path in (*folder.glob("*/a.*"), *folder.glob("*/b.*")):
        path.rename(path.with_name(path.name.replace("a", "caf\udce9")))
    (folder / "JPEGImages/._b.png").write_bytes(b"\0\5")
    assert imported(from_voc(folder, tmp_path / "other")).keys() == {"caf%E9.png", "b.png"}

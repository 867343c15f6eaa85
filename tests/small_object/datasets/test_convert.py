"""The import of COCO and Pascal VOC: boxes, classes, splits, ignore regions, omissions and errors."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from small_object.cli import main
from small_object.datasets.check import check
from small_object.datasets.convert import from_coco, from_voc
from small_object.datasets.labels import read_labels
from small_object.errors import UserError
from small_object.ignore import read_regions
from tests.helpers.common import write_tree

W, H = 200, 100  # of every image, in pixels
ROUNDING = 1e-6 * W + 1e-4  # pixels: six decimals of centre and side, and supervision's float32
Objects = list[tuple[int, list[float]]]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the user is told."""
    caplog.set_level("INFO")
    return caplog


def paint(file: Path, size: tuple[int, int] = (W, H)) -> Path:
    """Write an image of blocks that looks unlike images with other names."""
    rng = np.random.default_rng(list(str(file.parent.name + file.name).encode()))
    image = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return write_tree(file.parent, {file.name: image}) / file.name


def imported(data: Path) -> dict[str, Objects]:
    """Read a data set back: objects by image name, as class index and box in pixels, xyxy."""
    sets: dict[str, Objects] = {}
    for image in sorted(data.parent.glob("images/*/*")):
        height, width = cv2.imread(str(image)).shape[:2]
        rows = read_labels(data.parent / "labels" / image.parent.name / f"{image.stem}.txt")
        cls, (cx, cy, w, h) = rows[:, 0], rows[:, 1:].T * np.array([[width], [height], [width], [height]])
        boxes = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1)
        sets[image.name] = list(zip(cls.astype(int).tolist(), boxes.tolist(), strict=True))
    assert len(sets) == len(list(data.parent.glob("images/*/*"))) == len(list(data.parent.glob("labels/*/*.txt")))
    return sets


def names(data: Path) -> dict[int, str]:
    content = yaml.safe_load(data.read_text())
    assert set(content) == {"train", "val", "names"}
    assert (content["train"], content["val"]) == ("images/train", "images/val")
    return content["names"]


def near(objects: Objects) -> Any:
    return [(cls, pytest.approx(box, abs=ROUNDING)) for cls, box in objects]


def coco(folder: Path, annotations: list[dict[str, Any]], files: list[str] | None = None, **more: Any) -> Path:
    """Write a COCO file with its images next to it, in `images/`: a.png (id 1), b.png (2) and c.png (3) by default."""
    listed = files or ["a.png", "b.png", "c.png"]
    for name in listed:
        paint(folder / "images" / name)
    content = {
        "images": [{"id": i, "file_name": name, "width": W, "height": H} for i, name in enumerate(listed, 1)],
        "annotations": [{"id": i, "iscrowd": 0, **entry} for i, entry in enumerate(annotations, 1)],
        "categories": [{"id": 7, "name": "truck"}, {"id": 3, "name": "person"}, {"id": 90, "name": "airplane"}],
        **more,
    }
    file = folder / "annotations.json"
    file.write_text(json.dumps(content))
    return file


def voc(folder: Path, objects: dict[str, str], flat: bool = False, size: str = f"{W} {H}") -> Path:
    """Write a VOC folder; objects by image stem as text: `name xmin ymin xmax ymax; ...`."""
    width, height = size.split()
    for stem, text in objects.items():
        paint(folder / ("" if flat else "JPEGImages") / f"{stem}.png")
        entries = ""
        for entry in filter(None, map(str.strip, text.split(";"))):
            name, *corners = entry.split()
            tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
            entries += f"<object><name>{name}</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"
        sizes = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>other.jpg</filename>{sizes}{entries}</annotation>"
        write_tree(folder, {f"{'' if flat else 'Annotations/'}{stem}.xml": text})
    return folder


def lists(folder: Path, **content: str) -> None:
    for name, stems in content.items():
        write_tree(folder, {f"ImageSets/Main/{name}.txt": "".join(f"{stem}\n" for stem in stems.split())})


def image_sides(data: Path) -> dict[str, str]:
    return {image.name: image.parent.name for image in data.parent.glob("images/*/*")}


def box(image: int, x: float, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 20, 30], **more}


def write_json(file: Path, files: list[str], annotations: list[dict[str, Any]], **more: Any) -> Path:
    """Write a COCO file with its images next to it, in `images/`."""
    return coco(file.parent, annotations, files, **more).rename(file)


def left_out(data: Path) -> dict[str, str]:
    with (data.parent / "left_out.csv").open(encoding="utf-8", newline="") as stream:
        return {Path(row["image"]).name: row["reason"] for row in csv.DictReader(stream)}


def test_coco_boxes_come_back_in_pixels_with_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    at = {"image_id": 2, "category_id": 7}
    file = coco(
        tmp_path,
        [
            {"image_id": 1, "category_id": 7, "bbox": [10.25, 20.5, 4, 3]},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 200, 100]},
            {"image_id": 3, "category_id": 7, "bbox": [196, 97, 4, 3]},
            {**at, "segmentation": [[10, 10, 30.5, 12, 20, 40], [5, 20, 8, 20, 8, 25]]},  # gets the box around them
            {**at, "segmentation": [10, 10, 30, 12, 20, 40], "bbox": []},
            {**at, "segmentation": [[10, 10, 30, 12, 20, 40]], "bbox": [1, 2, 3, 4]},  # the box goes before
        ],
    )
    data = from_coco(file, tmp_path / "mine")
    assert data == tmp_path / "mine" / "mine.yaml"
    assert names(data) == {0: "person", 1: "truck", 2: "airplane"}  # one without objects keeps its place
    assert imported(data) == {
        "a.png": near([(1, [10.25, 20.5, 14.25, 23.5]), (0, [0, 0, 200, 100])]),
        "b.png": near([(1, [5, 10, 30.5, 40]), (1, [10, 10, 30, 40]), (1, [1, 2, 4, 6])]),
        "c.png": near([(1, [196, 97, 200, 100])]),
    }
    assert {p.name for p in data.parent.iterdir()} == {"images", "labels", "split.csv", "mine.yaml"}
    assert set(image_sides(data).values()) == {"train", "val"}
    for name in ("a.png", "b.png", "c.png"):  # copied, not moved or written again
        (copy,) = data.parent.glob(f"images/*/{name}")
        assert copy.read_bytes() == (tmp_path / "images" / name).read_bytes()


def test_what_coco_leaves_out_is_counted_by_reason(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    at = {"image_id": 1, "category_id": 3}
    file = coco(
        tmp_path,
        [
            *({**at, "bbox": box} for box in ([190, 90, 20, 20], [-5, -5, 10, 10])),  # clipped
            {**at, "bbox": [0, 0, 50, 50], "iscrowd": 1, "segmentation": {"counts": [5000], "size": [H, W]}},
            *({**at, "bbox": box} for box in ([5, 5, 0, 9], [5, 5, 9, -1], [300, 5, 9, 9], [5, 5, 1e-5, 9])),
            *({**at, "image_id": image, "bbox": [5, 5, 9, 9]} for image in (99, [1])),
            *({"image_id": 1, "bbox": [5, 5, 9, 9], **more} for more in ({}, {"category_id": 4})),
            *({**at, "bbox": box} for box in ([], [5, 5, 9], [5, 5, 9, float("nan")], [5, 5, 9, 10**400])),
            {**at, "segmentation": {"counts": [5000], "size": [H, W]}},
        ],
    )
    data = from_coco(file, tmp_path / "mine")
    assert imported(data)["a.png"] == near([(0, [190, 90, 200, 100]), (0, [0, 0, 5, 5])])
    (line,) = [text for text in log.messages if "left out" in text]
    assert "3 images, 2 objects of 3 classes, 1 ignore regions" in line
    reasons = "2 of images not listed, 2 of categories not listed, 5 without a box, 4 without area in the image"
    assert all(reason in line for reason in reasons.split(", "))


def test_images_of_one_name_in_several_folders_get_names_of_their_own(tmp_path: Path) -> None:
    listed = ["train2017/0001.png", "val2017/0001.png", "val2017/0002.png"]
    entries = [{"image_id": i, "category_id": 3, "bbox": [10 * i, 5, 4, 4]} for i in (1, 2, 3)]
    file = coco(tmp_path, entries, listed)
    link = tmp_path / "images/val2017/0001.png"  # as in many collections
    link.rename(tmp_path / "elsewhere.png")
    link.symlink_to(tmp_path / "elsewhere.png")
    data = from_coco(file, tmp_path / "mine")
    assert imported(data) == {
        "train2017_0001.png": near([(0, [10, 5, 14, 9])]),
        "val2017_0001.png": near([(0, [20, 5, 24, 9])]),
        "0002.png": near([(0, [30, 5, 34, 9])]),
    }
    (copy,) = data.parent.glob("images/*/val2017_0001.png")
    assert not copy.is_symlink() and copy.read_bytes() == link.read_bytes()


def test_backslashes_a_byte_order_mark_text_ids_missing_sizes_and_categories_of_one_name(tmp_path: Path) -> None:
    listed = [{"id": "x", "file_name": "sub\\a.png"}, {"id": "y", "file_name": "b.png", "width": 0, "height": None}]
    categories = [{"id": 5, "name": "car"}, {"id": 2, "name": "car"}, {"id": 3, "name": "bus"}]
    entries = [{"image_id": "x", "category_id": i, "bbox": [1, 2, 3, 4]} for i in (5, 3, 2)]
    file = coco(tmp_path, entries, ["sub/a.png", "b.png"], images=listed, categories=categories)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    data = from_coco(file, tmp_path / "mine")
    assert names(data) == {0: "car", 1: "bus"}
    assert imported(data) == {"a.png": near([(cls, [1, 2, 4, 6]) for cls in (0, 1, 0)]), "b.png": []}


@pytest.mark.parametrize("place", [".", "images", "../images", "../train2017", "../images/train2017", "given"])
def test_images_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    file = coco(tmp_path / "set/annotations", [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}])
    file = file.rename(file.with_name("instances_train2017.json"))
    images = shutil.move(file.parent / "images", tmp_path / "moved")
    folder = file.parent / place
    folder.mkdir(parents=True, exist_ok=True)
    for image in Path(images).iterdir():
        image.rename(folder / image.name)
    data = from_coco(file, tmp_path / "mine", images=folder if place == "given" else None)
    assert len(imported(data)) == 3


def test_another_size_than_the_file_has_is_told_and_the_stated_one_counts(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    file = coco(tmp_path, [{"image_id": 1, "category_id": 3, "bbox": [10, 20, 4, 6]}])
    paint(tmp_path / "images/a.png", (W // 2, H // 2))  # made smaller after it was annotated
    assert imported(from_coco(file, tmp_path / "mine"))["a.png"] == near([(0, [5, 10, 7, 13])])
    assert "another size for 1 images, such as a.png (200 x 100, the file has 100 x 50)" in log.text


def test_voc_boxes_count_from_1_and_hold_their_last_pixel(tmp_path: Path) -> None:
    folder = voc(
        tmp_path / "VOC",
        {"a": "truck 1 1 4 4; airplane 11 21 14 23", "b": f"person 197 98 {W} {H}; person 5.5 6 9.5 9", "c": ""},
    )
    data = from_voc(folder, tmp_path / "mine")
    assert names(data) == {0: "airplane", 1: "person", 2: "truck"}
    assert imported(data) == {
        "a.png": near([(2, [0, 0, 4, 4]), (0, [10, 20, 14, 23])]),  # 4 pixels are 4 pixels
        "b.png": near([(1, [196, 97, 200, 100]), (1, [4.5, 5, 9.5, 9])]),
        "c.png": [],
    }


def test_voc_boxes_that_start_at_0_are_corner_points(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    folder = voc(tmp_path / "VOC", {"a": "truck 0 5 4 9", "b": "truck 10 20 14 23", "c": ""})
    found = imported(from_voc(folder, tmp_path / "mine"))
    assert found["a.png"] == near([(0, [0, 5, 4, 9])]) and found["b.png"] == near([(0, [10, 20, 14, 23])])
    assert "start at 0" in log.text


@pytest.mark.parametrize("flat", [True, False])
def test_voc_folders_may_be_flat_or_have_other_names(tmp_path: Path, flat: bool) -> None:
    folder = voc(tmp_path / "VOC", {"a": "truck 2 2 5 5", "b": "truck 9 9 3 3"}, flat)
    if not flat:
        (folder / "JPEGImages").rename(folder / "images")
        (folder / "Annotations").rename(folder / "annotations")
    (folder / "._a.xml").write_bytes(b"\0\5")  # what some systems leave in archives
    found = imported(from_voc(folder, tmp_path / "mine"))
    assert found == {"a.png": near([(0, [1, 1, 5, 5])]), "b.png": near([(0, [2, 2, 9, 9])])}


def test_voc_lists_are_the_split_and_other_images_are_left_out(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    folder = voc(tmp_path / "VOC", {stem: f"truck {2 + i} 2 9 9" for i, stem in enumerate("abcdef")})
    lists(folder, train="f a.png", val="c b d", test="e")
    data = from_voc(folder, tmp_path / "mine")
    assert image_sides(data) == {"a.png": "train", "f.png": "train", "b.png": "val", "c.png": "val", "d.png": "val"}
    assert "5 images, 5 objects of 1 classes; left out: 1 images in neither list" in log.text
    given = tmp_path / "given.csv"
    given.write_text("image,split\n" + "".join(f"{s}.png,{'val' if s == 'a' else 'train'}\n" for s in "abcdf"))
    sides = image_sides(from_voc(folder, tmp_path / "other", given))
    assert [name for name, side in sides.items() if side == "val"] == ["a.png"] and len(sides) == 5
    (folder / "ImageSets/Main/val.txt").unlink()  # without it, the test images are for validation
    lists(folder, trainval="a d", test="b")
    sides = image_sides(from_voc(folder, tmp_path / "third"))
    assert sides == {"a.png": "train", "d.png": "train", "b.png": "val"}


@pytest.mark.parametrize("content", [{"train": "a b c", "val": "c d"}, {"train": "a b", "val": ""}])
def test_voc_lists_that_are_no_split_are_not_used(
    tmp_path: Path, log: pytest.LogCaptureFixture, content: dict[str, str]
) -> None:
    folder = voc(tmp_path / "VOC", dict.fromkeys("abcd", "truck 2 2 9 9"))
    lists(folder, **content)
    sides = image_sides(from_voc(folder, tmp_path / "mine"))
    assert len(sides) == 4 and set(sides.values()) == {"train", "val"}
    assert "split is not used" in log.text


def test_voc_boxes_are_clipped_and_images_without_a_file_have_no_objects(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    folder = voc(tmp_path / "VOC", {"a": "truck 190 90 210 110; truck 201 5 220 9", "b": ""}, size="0 0")
    file = folder / "Annotations/a.xml"
    part = "<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part>"
    file.write_text(file.read_text().replace("</object>", f"{part}</object>"))
    (folder / "Annotations/b.xml").unlink()
    assert imported(from_voc(folder, tmp_path / "mine")) == {"a.png": near([(0, [189, 89, 200, 100])]), "b.png": []}
    assert "left out: 1 without area in the image" in log.text and "1 images without an annotation file" in log.text


def refused(call: Any, out: Path, *parts: str) -> None:
    """Check that a call ends in one line that has the parts, and leaves nothing."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not out.exists() or not list(out.iterdir())


BOX = "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>%s</ymin></bndbox></object></annotation>"
ENTITIES = "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghz", strict=True))
BOMB = f'<!DOCTYPE a [<!ENTITY a "ab">{ENTITIES}]><annotation>&z;</annotation>'
IMAGE = {"id": 1, "file_name": "a.png", "width": W, "height": H}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ("is not JSON", "line 1")),
        ("\xff", ("is not JSON",)),
        ("[" * 100_000, ("is not JSON",)),
        ("[]", ("no list of `images`",)),
        ({"annotations": [1]}, ("no list of `annotations`",)),
        ({"categories": {}}, ("no list of `categories`",)),
        ({"images": []}, ("its list of `images` is empty",)),
        ({"images": [{"id": 1}]}, ("item 0 of its `images` needs a `file_name` and a unique `id`",)),
        ({"images": [{**IMAGE, "id": None}]}, ("item 0 of its `images`",)),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.png"}]}, ("item 1 of its `images`", "a unique `id`")),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, ("two of its `images` are a.png",)),
        ({"images": [{**IMAGE, "file_name": "../a.png"}]}, ("../a.png",)),
        ({"images": [{**IMAGE, "file_name": "/a.png"}]}, ("/a.png",)),
        ({"images": [{**IMAGE, "file_name": "a.ppm"}]}, ("a.ppm", "format")),
        ({"images": [IMAGE, {"id": 2, "file_name": "no.png"}]}, ("1 of 2", "no.png")),
        ({"categories": [{"name": "truck"}]}, ("item 0 of its `categories` needs a `name` and a unique `id`",)),
        ({"categories": [{"id": 1}]}, ("item 0 of its `categories`",)),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, ("item 1 of its `categories`",)),
    ],
)
def test_a_bad_coco_file_is_refused_in_one_line(tmp_path: Path, content: Any, parts: tuple[str, ...]) -> None:
    file = coco(tmp_path, [])
    text = content if isinstance(content, str) else json.dumps(json.loads(file.read_text()) | content)
    file.write_bytes(text.encode("latin-1"))
    refused(lambda: from_coco(file, tmp_path / "mine"), tmp_path / "mine", str(file), *parts)


def test_a_missing_coco_file_folder_or_unreadable_image_is_refused_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    refused(lambda: from_coco(tmp_path / "no.json", out), out, "no.json")
    refused(lambda: from_coco(tmp_path, out), out, "no file")
    file = coco(tmp_path, [], images=[{"id": 1, "file_name": "a.png"}])
    refused(lambda: from_coco(file, out, images=tmp_path / "none"), out, "1 of 1 images are missing", "none/a.png")
    (tmp_path / "images/a.png").write_bytes(b"no image")
    refused(lambda: from_coco(file, out), out, "no image of the set can be used, such as", "a.png: can't be read as")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("<annotation>", ("is not XML",)),
        ("", ("is not XML",)),
        ("\x81", ("is not XML",)),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', ("is not XML",)),
        (BOMB, ("is not XML", "amplification")),
        (BOX % "x\ny", ("ymin",)),
        (BOX % "nan", ("ymin",)),
        ("<html/>", ("not <annotation>",)),
        ("<annotation><object><name>a</name></object></annotation>", ("bndbox",)),
        ("<annotation><object><bndbox/></object></annotation>", ("name",)),
    ],
)
def test_a_bad_voc_file_is_refused_in_one_line(tmp_path: Path, content: str, parts: tuple[str, ...]) -> None:
    folder = voc(tmp_path / "VOC", {"a": "truck 1 1 4 4", "b": ""})
    (folder / "Annotations/b.xml").write_bytes(content.encode("latin-1"))
    refused(lambda: from_voc(folder, tmp_path / "mine"), tmp_path / "mine", "b.xml", *parts)


def test_a_voc_folder_that_misses_something_is_refused_in_one_line(tmp_path: Path) -> None:
    out, folder = tmp_path / "mine", voc(tmp_path / "VOC", {"a": "", "b": ""})
    refused(lambda: from_voc(tmp_path / "no", out), out, "no folder")
    refused(lambda: from_voc(tmp_path, out), out, "no XML file", "JPEGImages")
    refused(lambda: from_voc(folder, out), out, "no object")
    lists(folder, train="a", val="b c")
    refused(lambda: from_voc(folder, out), out, "val.txt", "1 of 2 images are missing", "c")
    (folder / "JPEGImages/b.png").unlink()
    refused(lambda: from_voc(folder, out), out, "1 of 2 images are missing", "b.xml")


@pytest.mark.parametrize("taken", ["images/a.png", "labels/a.txt", "split.csv", "mine.yaml"])
def test_a_folder_that_holds_a_data_set_is_left_alone(tmp_path: Path, taken: str) -> None:
    kept = write_tree(tmp_path / "mine", {taken: "mine"}) / taken
    for call in (
        lambda: from_coco(coco(tmp_path, []), tmp_path / "mine"),
        lambda: from_voc(voc(tmp_path / "VOC", {"a": "truck 1 1 4 4"}), tmp_path / "mine"),
    ):
        with pytest.raises(UserError, match="already exists"):
            call()
    assert kept.read_text() == "mine" and len(list((tmp_path / "mine").iterdir())) == 1


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
    assert image_sides(data) == {f"{s}{i}.png": s for s in ("train", "val", "test")[: len(files)] for i in range(3)}
    assert imported(data)["val0.png"] == near([(0, [10, 10, 30, 40])])
    content = yaml.safe_load(data.read_text())
    assert ("test" in content) == (test is not None) and content["names"] == {0: "person", 1: "truck", 2: "airplane"}
    assert not [f for f in check(data).findings if f.level == "error"]


def test_a_split_file_takes_precedence_over_the_published_split(tmp_path: Path) -> None:
    files = [write_json(tmp_path / f"{side}.json", [f"{side}.png"], [box(1, 10)]) for side in ("train", "val", "test")]
    (tmp_path / "split.csv").write_text("image,split\ntrain.png,val\nval.png,train\ntest.png,train\n")
    data = from_coco(files, tmp_path / "mine", split=tmp_path / "split.csv")
    assert image_sides(data) == {"train.png": "val", "val.png": "train", "test.png": "train"}
    assert check(data).counts["images"] == {"train": 2, "val": 1}


def test_files_may_number_their_images_and_classes_in_other_ways(tmp_path: Path) -> None:
    train = write_json(tmp_path / "train.json", ["a.png"], [box(1, 10, 7)])
    other = [{"id": 1, "name": "truck"}, {"id": 2, "name": "ship"}]
    val = write_json(tmp_path / "val.json", ["b.png"], [box(1, 10, 1), box(1, 50, 2)], categories=other)
    data = from_coco([train, val], tmp_path / "mine")
    assert names(data) == {0: "person", 1: "truck", 2: "airplane", 3: "ship"}
    assert [cls for cls, _ in imported(data)["b.png"]] == [1, 3] and [cls for cls, _ in imported(data)["a.png"]] == [1]


def test_a_published_split_is_kept_though_it_leaks(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    train = write_json(tmp_path / "train.json", ["a.png", "b.png"], [box(1, 10)])
    val = write_json(tmp_path / "val.json", ["c.png"], [box(1, 10)])
    (tmp_path / "images/c.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    data = from_coco([train, val], tmp_path / "mine")
    assert image_sides(data) == {"a.png": "train", "b.png": "train", "c.png": "val"}
    assert "kept, but it has the same image on both sides" in log.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first.json", "val.json"], r"first.json: its split is unknown; write train=.*first.json, val="),
        (["trainval.json", "val.json"], "its split is unknown"),
        (["train.json", "train2.json"], "no file for the split val; give one as val=FILE"),
        (["train=first.json"], "no file for the split val"),
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
    assert image_sides(data) == {"train.png": "train", "val.png": "val"}


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
    assert names(data) == {0: "person"}
    assert imported(data)["a.png"] == near([(0, [70, 10, 90, 40])])
    (image,) = data.parent.glob("images/*/a.png")
    regions = read_regions(image) * ((W, H) * 2)
    np.testing.assert_allclose(regions, [[x, 10, min(x + 20, W), 40] for x in (0, 50, 100, 190)], atol=1e-3)
    assert len(list(data.parent.glob("ignore/*/*.txt"))) == 1
    assert "1 objects of 1 classes, 4 ignore regions; left out: 1 ignore regions without a box" in log.text
    assert "1 without area in the image" in log.text


def test_missing_and_broken_images_are_named_and_left_out(tmp_path: Path, capsys: Any, log: Any) -> None:
    annotations = [box(1, 10), box(2, 10), box(2, 50), box(3, 10, iscrowd=1), box(4, 10)]
    file = coco(tmp_path, annotations, ["a.png", "b.png", "c.png", "d.png", "e.png", "f.tif", "g.png"])
    images = tmp_path / "images"
    for name in ("b.png", "c.png"):
        (images / name).unlink()
    (images / "d.png").write_bytes(b"no image")
    (images / "e.png").write_bytes(b"")
    (images / "g.png").write_bytes((images / "g.png").read_bytes()[:-60])
    arguments = ["convert", "coco", str(file), "--out", str(tmp_path / "mine")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "2 of 7 images are missing" in error and "b.png" in error and "c.png" in error and "--skip-missing" in error
    assert main([*arguments, "--skip-missing"]) == 0
    data = tmp_path / "mine/mine.yaml"
    assert imported(data).keys() == {"a.png", "f.tif"}
    reasons = left_out(data)
    assert reasons.keys() == {"b.png", "c.png", "d.png", "e.png", "g.png"}
    assert (reasons["b.png"], reasons["c.png"], reasons["e.png"]) == ("is missing", "is missing", "is empty")
    assert "d.png is left out: can't be read as an image" in log.text
    assert "2 images, 1 objects of 3 classes; left out: 4 of images left out, 5 images (see" in log.text


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

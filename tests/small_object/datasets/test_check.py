"""Checking and repairing data sets: one case of each fault, the clean case, lists, leaks, tiny objects and repairs."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.data.utils import img2label_paths, verify_image_label
from ultralytics.utils.patches import imread

from small_object.datasets.check import check
from small_object.datasets.findings import KINDS, Report
from small_object.datasets.fix import fix, repair_lines
from small_object.datasets.images import inspect_image
from small_object.datasets.labels import near_duplicates, parse_lines
from small_object.datasets.stats import stats
from small_object.errors import UserError
from tests.helpers.common import read_files, write_tree

WIDE, HIGH = 64, 48
BOX = "0 0.5 0.5 0.25 0.25"
NAMES = ("car", "bus", "kite", "ship", "tram")


def pixels(seed: int, wide: int = WIDE, high: int = HIGH) -> np.ndarray:
    """Return a picture (height, width, 3), uint8, that looks like no other."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(noise, (wide, high), interpolation=cv2.INTER_CUBIC)


def encode(picture: np.ndarray, suffix: str = "jpg") -> bytes:
    return cv2.imencode(f".{suffix}", picture)[1].tobytes()


def pil(picture: Image.Image, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


class Maker:
    """Writes a data set, each image with a picture of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.seed = root, 0
        self.yaml = root / "mine.yaml"

    def picture(self) -> np.ndarray:
        self.seed += 1
        return pixels(self.seed)

    def add(self, name: str, label: str | bytes | None = BOX, data: bytes | None = None, split: str = "train") -> Path:
        image = self.root / "images" / split / name
        write_tree(self.root / "images" / split, {name: self.picture() if data is None else data})
        if label is not None:
            write_tree(Path(), {img2label_paths([image])[0]: label})
        return image

    def write(self, names: tuple[str, ...] = NAMES, train: str = "images/train", val: str = "images/val") -> Path:
        lines = "".join(f"  {index}: {name}\n" for index, name in enumerate(names))
        self.yaml.write_text(f"# mine\ntrain: {train}\nval: {val}\nnames:\n{lines}colour: blue\ndownload: nowhere\n")
        return self.yaml


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.chdir(tmp_path)
    return Maker(tmp_path / "mine")


@pytest.fixture
def pair(maker: Maker) -> Path:
    """The YAML of a set of two good images."""
    maker.add("a.jpg")
    maker.add("b.jpg", split="val")
    return maker.write(("car",))


def found(report: Report) -> list[tuple[str, str, int | None]]:
    return sorted((f.kind, f.file, f.line) for f in report.findings)


LINES = [  # each with the kind of its fault
    ("0 0.3 0.5 0.25 0.25", ""),
    ("", ""),
    ("0 0.5 0.5 0.25", "wrong-fields"),
    ("0 0.5 0.5 0.25 0.25 0.9", "wrong-fields"),
    ("0 0.5 nan 0.25 0.25", "not-numbers"),
    ("car 0.5 0.5 0.25 0.25", "not-numbers"),
    ("0.5 0.1 0.1 0.1 0.1", "broken-class"),
    ("9 0.5 0.5 0.25 0.25", "unknown-class"),
    ("0 0.5 0.5 0 0.25", "no-size"),
    ("0 0.5 0.5 0.25 -0.25", "no-size"),
    ("0 1e39 24 16 12", "outside"),
    ("0 1.005 0.5 0.2 0.25", "leaves-image"),
    ("1 0.95 0.5 0.2 0.25", "leaves-image"),
    ("1 0.2 0.8 0.2 0.2", ""),
    ("1.0 0.2 0.8 0.20 0.2", "duplicate-box"),
    ("1 0.201 0.8 0.2 0.2", "near-duplicate-box"),
    ("0 0.2 0.8 0.2 0.2", ""),
]


def fill(maker: Maker, hopeless: bool = True) -> list[tuple[str, str, int | None]]:
    """Write one case of each fault, those that only a person can repair if `hopeless`; return what is to be found."""
    rgb = Image.fromarray(maker.picture()[..., ::-1])
    deep = maker.picture().astype(np.uint16) << 8
    glass = Image.fromarray(maker.picture()).convert("RGBA")
    glass.putalpha(Image.fromarray(np.tile(np.arange(WIDE, dtype=np.uint8), (HIGH, 1))))
    turn = Image.Exif()
    turn[274] = 6
    images = {
        "zero.jpg": (b"", "empty-image"),
        "text.jpg": (b"this is no image" * 20, "unreadable-image"),
        "gif.jpg": (pil(rgb, "GIF"), "unreadable-image"),
        "float.tif": (encode(np.float32(maker.picture()[..., 0]), "tif"), "unreadable-image"),
        "small.png": (encode(maker.picture()[:9], "png"), "unreadable-image"),
        "cut.jpg": (encode(pixels(99, 640, 480))[:-2000], "unreadable-image"),
        "part.png": (encode(maker.picture(), "png")[:-100], "unreadable-image"),
        "dark.png": (encode(maker.picture().astype(np.uint16) << 4, "png"), "dark-16-bit"),
        "deep.png": (encode(deep, "png"), "16-bit"),
        "tail.jpg": (encode(maker.picture()) + b"tail", "rewritten-image"),
        "turned.jpg": (pil(Image.fromarray(maker.picture()), "JPEG", exif=turn), "turned-image"),
        "glass.png": (pil(glass, "PNG"), "transparent"),
    }
    expected: list[tuple[str, str, int | None]] = []
    for name, (data, kind) in images.items():
        maker.add(name, data=data)
        expected.append((kind, f"images/train/{name}", None))
    maker.add("lines.jpg", "".join(f"{line}\n" for line, _ in LINES))
    expected += [(kind, "labels/train/lines.txt", number) for number, (_, kind) in enumerate(LINES, 1) if kind]
    maker.add("mixed.jpg", "0 0.2 0.2 0.1 0.1\n1 0.5 0.5 0.7 0.5 0.7 0.7\n0 0.4 0.2 0.1 0.1\n")
    expected.append(("mixed-labels", "labels/train/mixed.txt", 2))
    maker.add("latin.jpg", "0 0.5 0.5 0.25 0.25 # caf\xe9\n".encode("latin-1"))
    expected.append(("unreadable-labels", "labels/train/latin.txt", None))
    maker.add("Twin.jpg")
    maker.add("twin.jpg")
    maker.add("bare.jpg", None)
    expected.append(("image-without-labels", "images/train/bare.jpg", None))
    (maker.root / "labels/train/lone.txt").write_text(BOX)
    (maker.root / "labels/train/classes.txt").write_text("car\nbus\n")
    expected.append(("labels-without-image", "labels/train/lone.txt", None))
    maker.add("grey.png", data=encode(maker.picture()[..., 0], "png"))
    maker.add("palette.png", data=pil(Image.fromarray(maker.picture()).quantize(16), "PNG"))
    # without a fault: these, polygons, a byte-order mark, no objects, half a pixel beyond the edge
    maker.add("polygons.jpg", "0 0.1 0.1 0.3 0.1 0.3 0.3\n1 0.5 0.5 0.7 0.5 0.7 0.7 0.5 0.7\n")
    maker.add("marked.jpg", f"\ufeff{BOX}\n1 0.2 0.2 0.2 0.2\n")
    maker.add("background.jpg", "")
    maker.add("edge.jpg", f"3 {1 - 0.1 + 0.4 / WIDE} 0.5 0.2 0.5\r\n1.0 0.2 0.2 0.2 0.2\r\n")
    maker.add("tiny.jpg", f"0 0.5 0.5 {3 / WIDE} {10 / HIGH}\n4 0.2 0.2 0.2 0.2\n")
    maker.add("clean.jpg", split="val", label=f"{BOX}\n1 0.2 0.2 0.2 0.2\n4 0.8 0.8 0.2 0.2\n")
    expected += [("tiny-objects", "mine.yaml", None), ("unused-class", "mine.yaml", None)]
    expected.append(("class-not-in-val", "mine.yaml", None))
    if hopeless:
        maker.add("both.jpg", data=encode(maker.picture(), "jpg"))
        maker.add("both.png")
        expected.append(("shared-labels", "images/train/both.png", None))
        one, two, three, four = (maker.picture() for _ in range(4))
        maker.add("one.jpg", data=encode(one))
        maker.add("one.jpg", data=encode(one), split="val")
        expected.append(("leak", "images/val/one.jpg", None))
        maker.add("two.png", data=encode(two, "png"))
        maker.add("two.bmp", data=encode(two, "bmp"), split="val")
        expected.append(("leak", "images/val/two.bmp", None))
        maker.add("three.jpg", data=encode(three))
        maker.add("3.jpg", data=encode(cv2.convertScaleAbs(three, alpha=0.9, beta=8)), split="val")
        expected.append(("near-leak", "images/val/3.jpg", None))
        maker.add("four.jpg", data=encode(four))
        maker.add("four-again.jpg", data=encode(four))
        expected.append(("duplicate-image", "images/train/four.jpg", None))
    maker.write()
    return sorted(expected)


UNUSED = {"missing-image", "ignored-line", "no-labels", "bad-regions", "unreadable-name", "same-class-name"}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_each_fault_is_found_once_in_its_place_and_nothing_else(maker: Maker, caplog: pytest.LogCaptureFixture) -> None:
    expected, before = fill(maker), read_files(maker.root)
    with caplog.at_level("INFO"):
        report = check(maker.yaml, imgsz=WIDE)
    assert found(report) == expected
    assert report.harmful and {kind for kind, _, _ in expected} == set(KINDS) - UNUSED
    assert read_files(maker.root) == before
    assert all(KINDS[f.kind][0] == f.level and f.hint and f.message for f in report.findings)
    levels = [("error", "warning", "advice").index(f.level) for f in report.findings]
    assert levels == sorted(levels)
    text = caplog.text
    assert "labels/train/lines.txt:3: has 4 fields" in text and "labels/train/lines.txt:11" in text
    saved = json.loads((Path("runs/check/mine") / "check.json").read_text(encoding="utf-8"))
    assert [(f["kind"], f["file"], f["line"]) for f in saved["findings"]] == [
        (f.kind, f.file, f.line) for f in report.findings
    ]
    assert saved["harmful"] is True and saved["counts"] == report.counts
    with Image.open("runs/check/mine/check.jpg") as sheet:
        assert sheet.width <= 2000 and sheet.height <= 2000


def test_training_leaves_out_what_the_check_says_and_sees_the_same_sizes(maker: Maker, tmp_path: Path) -> None:
    fill(maker)
    report = check(maker.yaml, imgsz=WIDE)
    refused = {"empty-image", "unreadable-image", "dark-16-bit"}
    said = {Path(f.image).name for f in report.findings if f.kind in refused or "whole image out" in f.message}
    copy = shutil.copytree(maker.root, tmp_path / "copy")  # upstream writes over damaged images
    for image in sorted((maker.root / "images").rglob("*.*")):
        picture, faults = inspect_image(image)
        assert picture or faults
        assert not picture or picture.size == imread(image).shape[1::-1]
    left_out = set()
    for image in sorted((copy / "images").rglob("*.*")):
        label = img2label_paths([image])[0]
        if verify_image_label((str(image), label, "", False, len(NAMES), 0, 0, False))[0] is None:
            left_out.add(image.name)
    assert left_out == said
    assert report.counts["left_out"] == {"train": len(left_out), "val": 0}


def test_different_polygons_in_one_box_count_as_in_training_and_repeated_ones_do_not(maker: Maker) -> None:
    text = "0 0.1 0.1 0.5 0.1 0.5 0.5\n0 0.1 0.1 0.1 0.5 0.5 0.5\n0 0.1 0.1 0.1 0.50 0.5 0.5\n"
    image = maker.add("a.jpg", text)
    trained = verify_image_label((str(image), img2label_paths([image])[0], "", False, 1, 0, 0, False))[1]
    assert [line.has("duplicate-box") for line in parse_lines(text, 1)] == [False, False, True]
    maker.add("b.jpg", text, split="val")
    assert stats(maker.write(("car",))).splits["train"].objects == len(trained) == 2


def test_nothing_is_found_in_a_clean_set_and_old_pictures_go(maker: Maker) -> None:
    for number in range(3):
        maker.add(f"{number}.jpg", "0 0.5 0.5 0.25 0.25\n1 0.2 0.2 0.2 0.2\n")
        maker.add(f"{number}.png", "0 0.5 0.5 0.25 0.25\n1 0.2 0.2 0.2 0.2\n", split="val")
    bad = maker.add("bad.jpg", "0 2 2 1 1")
    yaml = maker.write(("car", "bus"))
    assert check(yaml, out="out").harmful and Path("out/check.jpg").is_file()
    bad.unlink()
    Path(img2label_paths([bad])[0]).unlink()
    report = check(yaml, out="out")
    assert report.findings == [] and not report.harmful
    assert sorted(path.name for path in Path("out").iterdir()) == ["check.json"]
    assert report.counts == {
        "images": {"train": 3, "val": 3},
        "left_out": {"train": 0, "val": 0},
        "objects": {"train": 6, "val": 6},
        "classes": {"car": {"train": 3, "val": 3}, "bus": {"train": 3, "val": 3}},
    }
    assert "0 errors, 0 warnings" in report.table()


def test_lists_of_images_are_read_as_training_reads_them(maker: Maker) -> None:
    first, second = maker.add("first.jpg"), maker.add("second.jpg")
    other = maker.add("other.jpg", split="more/deep")
    unlisted = maker.add("unlisted.jpg")
    Path(maker.root / "train.txt").write_text(
        f"\ufeff./images/train/first.jpg\n{second}\n\n./images/train/gone.jpg\nnotes.md\n./images/train/first.jpg\n",
        encoding="utf-8",
    )
    Path(maker.root / "val.txt").write_text(f"{second}\n")
    report = check(maker.write(("car",), "[train.txt, images/more]", "val.txt"), imgsz=WIDE)
    assert found(report) == [
        ("duplicate-image", "train.txt", 6),
        ("ignored-line", "train.txt", 5),
        ("leak", "images/train/second.jpg", None),
        ("missing-image", "train.txt", 4),
    ]
    assert report.counts["images"] == {"train": 3, "val": 1}
    assert first.is_file() and other.is_file() and unlisted.is_file()
    fixed = fix(maker.yaml, "fixed", WIDE)
    assert found(fixed) == [("leak", "images/val/second.jpg", None)]
    images = sorted(path.relative_to("fixed").as_posix() for path in Path("fixed/images").rglob("*.jpg"))
    assert images == [f"images/{x}.jpg" for x in ("train/deep_other", "train/first", "train/second", "val/second")]


def test_val_and_test_may_share_images_but_not_with_train(maker: Maker) -> None:
    maker.add("a.jpg")
    shared = maker.add("b.jpg", split="val")
    maker.add("b.jpg", data=shared.read_bytes(), split="test")
    yaml = maker.write(("car",))
    yaml.write_text(yaml.read_text() + "test: images/test\n")
    assert found(check(yaml, imgsz=WIDE)) == []
    maker.add("b.jpg", data=shared.read_bytes())
    assert found(check(yaml, imgsz=WIDE)) == [("leak", "images/test/b.jpg", None), ("leak", "images/val/b.jpg", None)]


def test_texts_beside_images_are_not_labels_without_image(maker: Maker) -> None:
    for name in ("train/a.jpg", "val/b.jpg"):
        maker.add(name, BOX, split="../flat")  # no folder `images`: labels lie beside them
    (maker.root / "flat/notes.txt").write_text("seen on Monday")
    (maker.root / "flat/train/c.txt").write_text(BOX)
    report = check(maker.write(("car",), "flat/train", "flat/val"), WIDE)
    assert found(report) == [("labels-without-image", "flat/train/c.txt", None)]


@pytest.mark.parametrize(("imgsz", "hint"), [(640, "from imgsz 896, at most 5%"), (1280, "not needed")])
def test_tiny_objects_are_counted_as_training_resizes_and_the_advice_holds(maker: Maker, imgsz: int, hint: str) -> None:
    sides = np.arange(4.75, 54.75, 0.5)  # in an image of 1600x400, as widths of cars and heights of buses
    text = "".join(f"0 0.5 0.5 {s / 1600:.7f} 0.5\n1 0.5 0.5 0.5 {s / 400:.7f}\n" for s in sides)
    maker.add("a.jpg", text, data=encode(np.full((400, 1600, 3), 90, np.uint8)))
    maker.add("b.jpg", "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n", split="val")  # 64x48: enlarged
    (finding,) = (f for f in check(maker.write(("car", "bus")), imgsz).findings if f.kind == "tiny-objects")
    tiny, total = int((sides < 4 * 1600 / imgsz).sum()), len(sides) + 1
    assert f"(car {tiny} of {total}, bus {tiny} of {total})" in finding.message
    assert f"{tiny / total:.1%} of {2 * total} objects" in finding.message
    assert finding.hint.endswith(hint)
    assert [(sides * size / 1600 < 4).sum() / total <= 0.05 for size in (864, 896)] == [False, True]


def test_near_duplicates_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 40, (600, 2)) * 0.5
    boxes = np.hstack((corners, corners + rng.choice([0, 1, 2, 3, 20, 21, 40], (600, 2))))
    classes = rng.integers(0, 2, 600)
    dropped: dict[int, int] = {}
    for j, (ax, ay, bx, by) in enumerate(boxes):
        for i, (cx, cy, dx, dy) in enumerate(boxes[:j]):
            inter = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
            areas = (bx - ax) * (by - ay), (dx - cx) * (dy - cy)
            close = max(abs(ax - cx), abs(ay - cy), abs(bx - dx), abs(by - dy)) <= 0.5
            alike = classes[i] == classes[j] and min(areas) > 0 and (close or inter >= 0.95 * (sum(areas) - inter))
            if alike and i not in dropped and j not in dropped:
                dropped[j] = i
    assert dict(near_duplicates(boxes, classes)) == dropped and len(dropped) > 20
    assert near_duplicates(boxes[:0], classes[:0]) == []


def read_rows(folder: Path) -> list[tuple[str, str, str, str]]:
    with (folder / "changes.csv").open(encoding="utf-8", newline="") as stream:
        return [tuple(row) for row in csv.reader(stream)]


def test_a_repaired_set_has_no_errors_and_lists_each_change(maker: Maker) -> None:
    expected = fill(maker, hopeless=False)
    before = read_files(maker.root)
    report = fix(maker.yaml, "fixed", WIDE)
    assert read_files(maker.root) == before
    assert not report.harmful
    assert found(report) == [
        ("class-not-in-val", "mine.yaml", None),
        ("image-without-labels", "images/train/bare.jpg", None),
        ("near-duplicate-box", "labels/train/lines.txt", 6),
        ("tiny-objects", "mine.yaml", None),
        ("unused-class", "mine.yaml", None),
    ]
    fixed = Path("fixed")
    assert {path.name for path in fixed.iterdir()} == {"changes.csv", "check", "images", "labels", "mine.yaml"}
    text = (fixed / "mine.yaml").read_text()
    assert "download" not in text and "colour: blue" in text and "4: tram" in text
    header, *rows = read_rows(fixed)
    assert header == ("file", "line", "was", "done") and len(set(rows)) == len(rows)
    # each finding that can be repaired is a change, and the labels of what is left out as well
    kept = {"tiny-objects", "unused-class", "class-not-in-val", "image-without-labels", "near-duplicate-box"}
    changed = {(file, "" if line is None else str(line)) for kind, file, line in expected if kind not in kept}
    changed.remove(("labels/train/latin.txt", ""))
    changed |= {("", ""), ("images/train/twin.jpg", "")}  # the scale of 16-bit images; a new name
    gone = ["zero.jpg", "text.jpg", "gif.jpg", "float.tif", "small.png", "cut.jpg", "part.png", "latin.jpg"]
    files = {file for name in gone for file in (f"images/train/{name}", f"labels/train/{Path(name).stem}.txt")}
    assert {row[:2] for row in rows} == changed | {(file, "") for file in files}
    assert {row[0] for row in rows if row[3] == "left out"} == files | {"labels/train/lone.txt"}
    assert sorted(path.name for path in (fixed / "images/train").glob("[tT]win*")) == ["Twin.jpg", "twin-2.jpg"]
    assert (fixed / "labels/train/lines.txt").read_text().splitlines() == [
        "0 0.3 0.5 0.25 0.25",
        "",
        "0 0.952500 0.500000 0.095000 0.250000",
        "1 0.925000 0.500000 0.150000 0.250000",
        "1 0.2 0.8 0.2 0.2",
        "1 0.201 0.8 0.2 0.2",
        "0 0.2 0.8 0.2 0.2",
    ]
    assert (fixed / "labels/train/mixed.txt").read_text().splitlines()[1] == "1 0.600000 0.600000 0.200000 0.200000"
    # images are saved again as training sees them
    for name in ("turned.jpg", "deep.png", "glass.png"):
        old, file = imread(maker.root / "images/train" / name), fixed / "images/train" / name
        with Image.open(file) as image:
            assert image.mode == "RGB" and not image.getexif()
        lossless = name.endswith("png") and name != "deep.png"
        assert np.abs(imread(file).astype(int) - old).mean() <= (0 if lossless else 4)
    # one scale for all images with 16 bits: another one uses them all
    dark = cv2.imread(str(maker.root / "images/train/dark.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(imread(fixed / "images/train/dark.png"), dark >> 8)
    tail = (maker.root / "images/train/tail.jpg").read_bytes()
    assert (fixed / "images/train/tail.jpg").read_bytes() == tail.removesuffix(b"tail")


def test_what_needs_no_repair_is_copied_byte_for_byte(maker: Maker) -> None:
    fill(maker)
    report = fix(maker.yaml, "fixed", WIDE)
    assert {f.kind for f in report.findings if f.level == "error"} == {"leak", "shared-labels"}  # for a person
    named = {row[0] for row in read_rows(Path("fixed"))}
    old, new = read_files(maker.root), read_files(Path("fixed"))
    same = {file for file in old if file.startswith(("images", "labels")) and file not in named}
    assert {file for file in same if old[file] != new.get(file)} == {
        "labels/train/classes.txt",  # no labels
        "labels/train/twin.txt",  # named as its image
    }
    assert {"labels/train/edge.txt", "labels/train/marked.txt", "images/val/two.bmp", "images/train/both.png"} <= same
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        assert new[f"{kind}/train/twin-2.{suffix}"] == old[f"{kind}/train/twin.{suffix}"]


line = st.one_of(
    st.tuples(
        st.sampled_from(["0", "1", "1.0", "2", "-1", "x"]),
        *[st.sampled_from(["0", "0.5", "1", "0.02", "-0.005", "1.008", "7", "nan", "0.93"])] * 4,
    ).map(" ".join),
    st.sampled_from(["", " ", BOX, "0 0.1 0.1 0.3 0.1 1.3 0.3", "0 0.2 0.2", "0 1 2 3 4 5", "0 0 0 0 0 0 0"]),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(line, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_repaired_lines_have_no_fault_and_good_ones_stay(rows: list[str], end: str) -> None:
    text = "".join(row + end for row in rows)
    fixed, changes = repair_lines(text, 2, (200, 100))
    lines = parse_lines(fixed, 2, (200, 100))
    assert all(line.has("near-duplicate-box") for line in lines if line.faults)
    assert repair_lines(fixed, 2, (200, 100)) == (fixed, [])
    assert {number for number, _, _ in changes} <= set(range(1, len(rows) + 1))
    assert (fixed == text) == (not changes)
    touched = {number for number, _, _ in changes}
    left = iter(fixed.splitlines(keepends=True))
    assert all(row + end in left for number, row in enumerate(rows, 1) if number not in touched)  # in this order


def test_fix_wants_an_empty_folder_and_leaves_it_empty_where_it_fails(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_files(pair.parent)
    Path("file").write_text("")
    for taken in (pair.parent, "file"):
        with pytest.raises(UserError, match="is not empty"):
            fix(pair, taken)
    assert read_files(pair.parent) == before
    (Path("new") / ".staging-999999999").mkdir(parents=True)  # what a killed process left
    full = OSError(28, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("small_object.datasets.fix.shutil.copyfile", Mock(side_effect=full))
        fix(pair, "new", WIDE)
    assert list(Path("new").iterdir()) == []
    assert fix(pair, "new", WIDE).findings == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("train: [\n", "YAML"),
        ("- 1\n", "mapping"),
        ("train: images/train\nnames: [car]\n", "'val:' key missing"),
        ("train: images/train\nval: images/val\n", "'names' or 'nc'"),
        ("train: images/train\nval: images/val\nnames: car\n", "'names' must be"),
        ("train: images/train\nval: images/val\nnames: [car]\nnc: 2\n", "must match"),
        ("train: images/train\nval: images/val\nnames: {1: car, 2: bus}\n", "class indices"),
        ("train: images/train\nval: images/none\nnames: [car]\n", "images/none"),
        ("train: images/none\nval: images/val\nnames: [car]\n", "images/none does not exist"),
        ("train: images/train/a.jpg\nval: images/val\nnames: [car]\n", "not a folder or text file"),
        ("train: labels/train\nval: labels/val\nnames: [car]\n", "no images"),
        ("train: images/train\nval: gone\nnames: [car]\ndownload: 1 / 0\n", "division by zero"),
        *(
            (f"train: images/train\nval: images/val\nnames: [car]\nkpt_shape: {shape}\n", "kpt_shape")
            for shape in ("[1]", "4", "[1, x]", "[-1, 3]")
        ),
    ],
)
@pytest.mark.parametrize("function", [check, stats])
def test_a_bad_yaml_is_one_line_that_names_the_file(
    pair: Path, text: str | None, message: str, function: Callable[[Path], object]
) -> None:
    pair.unlink()
    if text is not None:
        pair.write_text(text)
    with pytest.raises(UserError) as caught:
        function(pair)
    shown = str(caught.value)
    assert message in shown and str(pair) in shown and "\n" not in shown
    assert not Path("runs").exists()


@pytest.mark.parametrize("function", [check, stats])
def test_imgsz_must_be_a_size(pair: Path, function: Callable[..., object]) -> None:
    with pytest.raises(UserError, match="imgsz"):
        function(pair, imgsz=0)

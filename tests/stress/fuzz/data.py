"""Label files, data YAML files and annotations in the COCO and VOC formats."""

import functools
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
import yaml
from hypothesis import strategies as st
from ultralytics.data.utils import verify_image_label

from small_object.datasets.check import check
from small_object.datasets.convert import from_coco, from_voc
from small_object.datasets.fix import fix
from small_object.datasets.stats import stats
from small_object.errors import UserError
from tests.helpers.common import read_files, write_tree
from tests.stress.fuzz.values import ERROR, RESULT, clear, odd, plain, spoil, spoil_text

CLASSES = ["a", "b"]
SIZE = 96, 72  # width and height of the images in pixels
OBJECTS = b"0 0.5 0.5 0.25 0.25\n1 0.2 0.2 0.1 0.1\n"

good_words = st.sampled_from(["0.5", "0.25", "0.1", ".4", "5e-1", "0.3333333"])
number_words = good_words | st.sampled_from([
    "0", "1", "1.005", "1.02", "-0.005", "-0.5", "1e-9", "7", "1e39", "1e400", "-1e400", "nan", "inf", "0,5", "x",
    "0_0.5", "\uff15", "1e", "--1", "0.5.", "1e-400", "\ufeff0.5", "\x000",
])  # fmt: skip
class_words = st.sampled_from([
    *"0110a2", "00", "+1", "1.0", "-1", "0.5", "nan", "inf", "1e400", "\uff11", "0_1", "0x1", "-0", "1e10",
])  # fmt: skip


@st.composite
def label_lines(draw: Callable[..., Any], kinds: str, num_keypoints: int = 0) -> str:
    """Make a line of labels: a box (g), with keypoints (k), a polygon (p), any number of fields (m) or text (o)."""
    kind = draw(st.sampled_from(kinds))
    if kind == "o":
        return draw(st.one_of(st.text(max_size=12), st.sampled_from(["", "  ", "# no", "0", "\t"])))
    count = {"g": 4, "k": 4 + num_keypoints, "p": draw(st.sampled_from([6, 8, 7])), "m": draw(st.integers(0, 9))}[kind]
    right = draw(st.integers(0, 4))  # four of five lines
    numbers, classes = (good_words, st.sampled_from("01")) if right else (number_words, class_words)
    fields = [draw(classes), *draw(st.lists(numbers, min_size=count, max_size=count))]
    return draw(st.sampled_from([" "] * 12 + ["  ", "\t", "\u00a0", ",", "\x1c"])).join(fields)


@st.composite
def label_files(draw: Callable[..., Any]) -> tuple[bytes, tuple[int, int] | None]:
    """Make the content of a label file, and `kpt_shape` of the data set's YAML."""
    shape = draw(st.sampled_from([None, None, (1, 2), (1, 3), (2, 2), (2, 3), (5, 3), (0, 3)]))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=40)), shape
    kinds = ["g", "g", "p", "gp", "ggggpmo"] if shape is None else ["k", "k", "gk", "kp", "kkgpmo"]
    lines = draw(st.lists(label_lines(draw(st.sampled_from(kinds)), math.prod(shape or (0,))), max_size=5))
    lines += draw(st.lists(st.sampled_from(lines), max_size=1)) if lines else []
    text = draw(st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\x0b", "\u2028", "\x85", "\n\n"])).join(lines)
    text += draw(st.sampled_from(["\n", ""]))
    form = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(form, "replace"), shape


@functools.cache
def png(seed: int) -> bytes:
    """Return a PNG file that differs from those of other seeds."""
    block = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.resize(block, SIZE, interpolation=cv2.INTER_NEAREST))[1].tobytes()


def write_set(root: Path, labels: bytes = OBJECTS) -> None:
    """Write the images and labels of a set; those of the first training image are given."""
    for i, split in enumerate(("train", "train", "val")):
        write_tree(root, {f"images/{split}/{i}.png": png(i), f"labels/{split}/{i}.txt": OBJECTS if i else labels})


def run_labels(case: tuple[bytes, tuple[int, int] | None], folder: Path) -> str:
    """Check, count, repair and train on a set of three images, of which one has the labels."""
    content, shape = case
    root, info = folder / "set", {} if shape is None else {"kpt_shape": list(shape)}
    write_set(root, content)
    file = root / "set.yaml"
    file.write_text(f"train: images/train\nval: images/val\nnames: {CLASSES}\n" + yaml.safe_dump(info) * bool(info))
    before = read_files(root)
    image, label = root / "images/train/0.png", root / "labels/train/0.txt"
    num_classes, (num_keypoints, num_values) = len(CLASSES), shape or (0, 0)

    def read_as_training(root: Path) -> tuple:
        files = [str(path).replace(str(folder / "set"), str(root)) for path in (image, label)]
        return verify_image_label((*files, "", False, num_classes, num_keypoints, num_values, False))

    seen = read_as_training(root)
    refused = seen[0] is None

    report = check(file, 64, folder / "check")
    about = [finding for finding in report.findings if finding.file == "labels/train/0.txt"]
    out = [finding for finding in about if "leaves the whole image out" in finding.message]
    assert bool(out) == refused, f"training {'refuses' if refused else 'takes'} it, the check says {about}: {seen[-1]}"
    assert all(finding.line or finding.kind == "unreadable-labels" for finding in about)
    if not refused:
        solid = sum((row[3:] > 0).all() for row in seen[1])
        assert report.counts["objects"]["train"] == 2 + solid, (report.counts, seen[1])

    found = stats(file, 64, folder / "stats")
    assert list(found.skipped) == [str(image)] * refused, (found.skipped, seen[-1])
    assert refused or found.splits["train"].objects >= 2 + solid, (found.splits["train"].objects, seen[1])
    for why in found.skipped.values():
        clear(why, "0.txt")

    new = folder / "fixed"
    repaired = fix(file, new, 64)
    assert read_files(root) == before, "the old set is not as it was"
    left = (new / "changes.csv").read_text(encoding="utf-8")
    assert not [name for name in before if f"{name}," not in left and not (new / name).is_file()], "files are gone"
    assert not [f for f in repaired.findings if f.level == "error"]
    if not refused:
        kept = read_as_training(new)
        assert kept[0] and (len(kept[1]), len(kept[3])) == (solid, solid * bool(seen[3])), (seen, kept)
    return ERROR if refused else RESULT


DATA = {"path": None, "train": "images/train", "val": ["images/val"], "test": None, "names": CLASSES}
DATA |= {"nc": 2, "channels": 3}
tame = odd.filter(lambda value: not set(repr(value)) & set("./\\~*"))  # no path that leads out of the set's folder


@st.composite
def data_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a data set's YAML, and whether nothing is wrong with it."""
    content = {key: value for key, value in deepcopy(DATA).items() if value is not None or draw(st.booleans())}
    if draw(st.booleans()):
        content["names"] = dict(enumerate(CLASSES))
    wrong = spoil(draw, content, 2, replacements=tame)
    return yaml.safe_dump(content, allow_unicode=True), not wrong


def run_data(case: tuple[str, bool], folder: Path) -> str:
    """Check a set and count its objects."""
    root = folder / "set"
    write_set(root)
    file = root / "fuzzed.yaml"
    file.write_bytes(case[0].encode("utf-8", "surrogatepass"))
    ends = []
    for what in (check, stats):
        try:
            what(file, 64, folder / what.__name__)
        except UserError as error:
            assert not case[1], f"refused: {error}"
            ends.append(clear(error, str(folder)))
        else:
            ends.append(RESULT)
    assert ends[0] == ends[1], ends
    return ends[0]


SIDES = {"width": SIZE[0], "height": SIZE[1]}
COCO = {
    "images": [{"id": 1, "file_name": "0.png"} | SIDES, {"id": 2, "file_name": "1.png"} | SIDES,
               {"id": 3, "file_name": "2.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 10, 30, 20], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 3, "segmentation": [[5, 5, 20, 5, 20, 30]], "iscrowd": 0},
        {"id": 3, "image_id": 3, "category_id": 7, "bbox": [0, 0, 96, 72]},
    ],
    "categories": [{"id": 7, "name": "truck"}, {"id": 3, "name": "person"}],
}  # fmt: skip


@st.composite
def coco_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a COCO file, and whether nothing is wrong with it."""
    content = deepcopy(COCO)
    wrong, text = spoil(draw, content, 3), json.dumps(content)
    spoilt = draw(st.integers(0, 4)) == 0
    return (spoil_text(draw, text), False) if spoilt else (text, not wrong)


VOC = """<annotation><filename>0.png</filename><size><width>96</width><height>72</height><depth>3</depth></size>
<object><name>truck</name><difficult>0</difficult>
<bndbox><xmin>10</xmin><ymin>12</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
<object><name>person</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>96</xmax><ymax>72</ymax></bndbox></object></annotation>
"""


@st.composite
def voc_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a VOC annotation, and whether nothing is wrong with it."""
    text, values = VOC, ["96<", "72<", "10<", "40<", "30<", "truck<", "person<", "3<"]
    for old in draw(st.sets(st.sampled_from(values), max_size=3)):
        new = escape(str(draw(plain.filter(lambda v: not isinstance(v, int) or abs(v) < 10**300))))
        text = text.replace(f">{old}", f">{new}<", 1)
    if text != VOC and draw(st.booleans()):
        text = spoil_text(draw, text)
    return text, text == VOC


def imported(folder: Path, make: Callable[[], Path], sound: bool, objects: int) -> str:
    """Import a set; it must be one that the check can read, of so many objects if it is sound, or not be there."""
    try:
        data = make()
    except UserError as error:
        assert not sound, f"refused: {error}"
        left = [path for path in (folder / "out").rglob("*") if path.is_file()]
        assert not left, f"left behind: {left}"
        return clear(error, str(folder))
    report = check(data, 64, folder / "check")
    bad = [f for f in report.findings if f.level == "error" and f.kind not in {"leak", "shared-labels"}]
    assert not bad, bad
    assert not sound or sum(report.counts["objects"].values()) == objects, report.counts
    return RESULT


def run_coco(case: tuple[str, bool], folder: Path) -> str:
    """Import a COCO file."""
    files = {"instances.json": case[0].encode("utf-8", "surrogatepass"), **{f"{i}.png": png(i) for i in range(3)}}
    file = write_tree(folder / "coco", files) / "instances.json"
    return imported(folder, lambda: from_coco(file, folder / "out"), case[1], 3)


def run_voc(case: tuple[str, bool], folder: Path) -> str:
    """Import a set with VOC annotations, of which one is fuzzed."""
    root = folder / "voc"
    for i in range(3):
        write_tree(root, {f"{i}.png": png(i), f"{i}.xml": VOC if i else case[0].encode("utf-8", "surrogatepass")})
    return imported(folder, lambda: from_voc(root, folder / "out"), case[1], 6)

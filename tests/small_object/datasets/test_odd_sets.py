"""Data sets as users have them: odd images and names, 16 bits, keypoints, lists, labels elsewhere."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ultralytics.data import YOLODataset
from ultralytics.utils.patches import read_image

from small_object.cli import main
from small_object.compare.page import read_truth
from small_object.datasets.check import check
from small_object.datasets.findings import Report
from small_object.datasets.fix import fix, repair_lines
from small_object.datasets.stats import stats
from small_object.datasets.tiles import cut_tiles
from tests.helpers.common import write_tree
from tests.helpers.odd_images import READABLE, UNREADABLE, build_png, write_odd_images

BOX = "0 0.5 0.5 0.25 0.25\n"
SIZE = (100, 200)  # (height, width) of an image in pixels
Log = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("small_object.datasets.stats.draw_stats", lambda _, file: file.touch())
    return tmp_path


def picture(name: str) -> np.ndarray:
    rng = np.random.default_rng([*os.fsencode(name)])
    return cv2.resize(rng.integers(0, 256, (8, 9, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def write_set(
    root: Path, labels: dict[str, str | None], head: str = "", pixels: dict[str, np.ndarray] | None = None
) -> Path:
    """Write images by `split/name` with their labels, and the data YAML."""
    for name, text in labels.items():
        write_tree(root, {f"images/{name}": (pixels or {}).get(name, picture(name))})
        if text is not None:
            write_tree(root, {f"labels/{Path(name).with_suffix('.txt')}": text})
    yaml = f"{root.name}.yaml"
    return write_tree(root, {yaml: f"train: images/train\nval: images/val\n{head or 'names: [a]'}\n"}) / yaml


def found(report: Report, *kinds: str) -> list[tuple[str, str, int | None]]:
    return sorted((f.kind, f.file, f.line) for f in report.findings if not kinds or f.kind in kinds)


def errors(report: Report) -> list[tuple[str, str, int | None]]:
    return sorted((f.kind, f.file, f.line) for f in report.findings if f.level == "error")


def counts(data: Path) -> int:
    """Return the number of objects that training reads in the set's training images."""
    info = {"names": {0: "a", 1: "b"}, "kpt_shape": yaml.safe_load(data.read_text()).get("kpt_shape", (0, 0))}
    dataset = YOLODataset(img_path=str(data.parent / "images/train"), data=info, task="detect", augment=False)
    return sum(len(label["cls"]) for label in dataset.labels)


def test_every_tool_reads_the_same_images_and_counts_add_up(folder: Path, log: Log) -> None:
    data = write_set(folder / "mine", {"val/v.png": BOX})
    odd = write_odd_images(folder / "mine/images/train")
    (odd / "._a.png").write_bytes(b"\0\5\x16\7")  # as macOS leaves them, which training does not see
    (folder / "mine/labels/train").mkdir()
    for name in READABLE | UNREADABLE.keys():
        (folder / "mine/labels/train" / name).with_suffix(".txt").write_text(BOX)
    (folder / "mine/labels/train/._a.txt").write_bytes(b"\0\5\x16\7")
    report = check(data)
    refused = {
        f.file: f.message for f in report.findings if f.kind in ("empty-image", "unreadable-image", "dark-16-bit")
    }
    assert refused.keys() == {f"images/train/{name}" for name in UNREADABLE}
    for name, reason in UNREADABLE.items():
        assert re.search(reason, refused[f"images/train/{name}"])
    assert found(report, "unreadable-name") == [
        ("unreadable-name", f"images/train/{name}.png", None) for name in ("caf%E9", "li%0Ane")
    ]
    assert report.counts["left_out"] == {"train": len(UNREADABLE), "val": 0}
    assert report.counts["images"]["train"] == len(READABLE | UNREADABLE.keys())
    assert len(json.loads(Path("runs/check/mine/check.json").read_bytes())["findings"]) == len(report.findings)

    counted = stats(data)
    assert {Path(name).name for name in counted.skipped} == UNREADABLE.keys()
    assert counted.splits["train"].images == len(READABLE)
    json.loads(Path("runs/stats/mine/stats.json").read_bytes())

    repaired = fix(data, "fixed")
    assert {kind for kind, *_ in errors(repaired)} <= {"shared-labels", "leak"}  # deep16.png and .tif; alike on purpose
    with Path("fixed/changes.csv").open(encoding="utf-8", newline="") as stream:
        left_out = {row["file"] for row in csv.DictReader(stream) if row["done"] == "left out"}
    written = {path.name for path in Path("fixed/images/train").iterdir()}
    dark = {"deep12.tif", "deep10.png"}  # with the scale of the others they can be used
    assert {name for name in left_out if name.startswith("images")} == refused.keys() - {
        f"images/train/{n}" for n in dark
    }
    assert len(written) == len(READABLE | dark) and {"caf%E9.png", "li%0Ane.png", "a*b.png", "axb.png"} <= written

    cut_tiles(data, Path("tiles"), tile=640)
    assert len(list(Path("tiles/images/train").iterdir())) == len(READABLE)
    assert "UnicodeEncodeError" not in log.text


@pytest.fixture
def log(caplog: Log) -> Log:
    caplog.set_level("INFO")
    return caplog


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
@pytest.mark.parametrize("command", ["check", "fix", "stats"])
def test_names_that_a_terminal_cannot_show(folder: Path, command: str, locale: dict[str, str]) -> None:
    data = write_set(folder / "mine", {"train/a.png": BOX, "val/v.png": BOX, "train/é.png": "0 0.5 0.5 x 0.25\n"})
    (folder / "mine/images/train/a.png").rename(folder / "mine/images/train/caf\udce9.png")
    arguments = [sys.executable, "-m", "small_object.cli", command, str(data)]
    done = subprocess.run(arguments, env=os.environ | locale, capture_output=True, cwd=folder, check=False)
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == (command == "check") and "Traceback" not in output and "Logging error" not in output
    assert {"check": "unreadable-name", "fix": "changes.csv", "stats": "1 images left out"}[command] in output


@pytest.mark.parametrize("bits", ["", "14"])
def test_one_scale_for_all_16_bit_images_of_a_set(
    folder: Path, bits: str, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    frame = np.tile(np.arange(0, 4000, 20, np.uint16), (SIZE[0], 1))
    bright = frame.copy()
    bright[0, 0] = 4200
    frames = {"train/a.png": frame, "train/b.tif": bright, "val/c.png": frame // 2}
    data = write_set(folder / "mine", dict.fromkeys(frames, BOX), pixels=frames)
    kinds = [("dark-16-bit", f"images/{name}", None) for name in frames]
    assert errors(check(data)) == kinds
    if bits:
        monkeypatch.setenv("SMALL_OBJECT_BITS", bits)
        assert errors(check(data)) == [] and stats(data).total.images == 3
    report = fix(data, "fixed")
    used = int(bits or 13)  # the fewest that hold 4200
    assert errors(report) == []
    for name, pixels in frames.items():
        np.testing.assert_array_equal(read_image(Path("fixed/images") / name)[..., 0], pixels >> (used - 8))
    said = f"scaled from {used} bits to 8; prediction on such images also needs SMALL_OBJECT_BITS={used}"
    assert said in log.text and said in Path("fixed/changes.csv").read_text()
    monkeypatch.setenv("SMALL_OBJECT_BITS", str(used))  # so prediction sees the same
    for name in frames:
        np.testing.assert_array_equal(
            read_image(Path("fixed/images") / name), read_image(data.parent / "images" / name)
        )


@pytest.mark.slow
def test_a_large_flat_image_is_read_by_all(folder: Path) -> None:
    data = write_set(folder / "mine", {"train/a.png": BOX, "val/v.png": BOX})
    (folder / "mine/images/train/a.png").write_bytes(build_png(20_000, 9_000, bytes(9_000 * 20_001)))
    report = check(data)
    assert errors(report) == [] and report.counts["objects"] == {"train": 1, "val": 1}
    assert stats(data).splits["train"].side[50] == pytest.approx((5000 * 2250) ** 0.5, rel=1e-3)
    assert errors(fix(data, "fixed")) == []
    assert Path("fixed/images/train/a.png").read_bytes() == (folder / "mine/images/train/a.png").read_bytes()


POSES = {  # shape, good lines, and what is kept of a box that leaves the image
    "[1, 3]": ("0 0.5 0.5 0.25 0.25 0.5 0.5 2\n1 0.2 0.2 0.1 0.1 0 0 0\n", " 0.5 0.5 2"),
    "[2, 2]": ("0 0.5 0.5 0.25 0.25 0.4 0.4 0.9 0.9\n", " 0.4 0.4 0.9 0.9"),
    "[2, 3]": ("0 0.5 0.5 0.25 0.25 0.4 0.4 2 1.5 0.5 1\r\n1 0.2 0.2 0.1 0.1\r\n", " 0.4 0.4 2 1.5 0.5 1"),
}


@pytest.mark.parametrize("shape", POSES)
def test_boxes_with_keypoints_are_boxes(folder: Path, shape: str) -> None:
    good, points = POSES[shape]
    head = f"names: [a, b]\nkpt_shape: {shape}"
    data = write_set(folder / "mine", {"train/a.png": good, "val/v.png": "1 0.5 0.5 0.25 0.25\n"}, head)
    report = check(data)
    number = good.count("\n")
    assert found(report, "wrong-fields", "mixed-labels", "outside", "not-numbers") == [] and not report.harmful
    assert report.counts["objects"]["train"] == stats(data).splits["train"].objects == number == counts(data)
    assert stats(data).splits["train"].classes[0].side[50] == pytest.approx((50 * 25) ** 0.5, abs=0.01)
    assert errors(fix(data, "fixed")) == []
    assert Path("fixed/labels/train/a.txt").read_bytes() == (folder / "mine/labels/train/a.txt").read_bytes()
    assert counts(Path("fixed/mine.yaml")) == number
    num_fields = 5 + len(points.split())
    truth = read_truth(folder / "mine/images/train/a.png", *SIZE[::-1], num_fields)
    assert truth[0].tolist() == pytest.approx([0, 75, 37.5, 125, 62.5]) and len(truth) == number
    text, changes = repair_lines(f"0 0.95 0.5 0.2 0.5{points}\n{good}", 2, SIZE[::-1], num_fields)
    assert text == f"0 0.925000 0.500000 0.150000 0.500000{points}\n{good}" and [n for n, *_ in changes] == [1]


@pytest.mark.parametrize(
    "text",
    [
        f"{BOX}0 0.502 0.5 0.25 0.25\n",
        f"{BOX}{BOX}1 1.004 0.5 0.2 0.2\n0 0.98 0.5 0.3 0.3\n",
        "0 0.1 0.1 0.3 0.1 0.3 0.3\n0 0.1 0.1 0.3 0.1 0.3 0.31\n",
        "0 0.5 0.5 0.2 0.2 0.4 0.4 1\n0 0.5 0.5 0.2 0.2 0.4 0.3 1\n",
    ],
)
def test_no_repair_deletes_a_label_that_training_uses(folder: Path, text: str) -> None:
    data = write_set(folder / "mine", {"train/a.png": text, "val/v.png": BOX}, "names: [a, b]\nkpt_shape: [1, 3]")
    before = counts(data)
    fix(data, "fixed")
    assert counts(Path("fixed/mine.yaml")) == before > 0


@pytest.mark.parametrize("case", ["label", "image", "symlink", "annotated/txt"])
def test_labels_where_training_does_not_look(folder: Path, case: str) -> None:
    names = {"train/a.png": BOX, "train/b.png": BOX, "val/v.png": BOX}
    data = write_set(folder / "mine", names)
    if case == "image":
        (folder / "mine/images").rename(folder / "mine/image")
        data.write_text(data.read_text().replace("images/", "image/"))
    elif case == "symlink":
        (folder / "mine/images/train").rename(folder / "photos")
        (folder / "mine/images/train").symlink_to(folder / "photos")
    else:
        (folder / "mine" / case).parent.mkdir(exist_ok=True)
        (folder / "mine/labels").rename(folder / "mine" / case)
    place = {"image": "labels", "symlink": "labels"}.get(case, case)
    report = check(data)
    messages = {f.message for f in report.findings if f.kind == "no-labels"}
    assert report.harmful and len(messages) == (1 if case == "symlink" else 2)
    (train,) = (message for message in messages if "no image of train has a label file" in message)
    assert f"files with these names are in {place}/train (2)" in train
    assert main(["check", str(data)]) == 1


def test_labels_that_are_nowhere(folder: Path) -> None:
    data = write_set(folder / "mine", {"train/a.png": None, "val/v.png": BOX, "test/t.png": None})
    data.write_text(data.read_text() + "test: images/test\n")
    (finding,) = (f for f in check(data).findings if f.kind == "no-labels")
    assert (
        "no image of train" in finding.message
        and f"no file with these names is in {folder / 'mine'}" in finding.message
    )


def test_classes_of_one_name_count_by_number(folder: Path) -> None:
    data = write_set(folder / "mine", {"train/a.png": BOX, "val/v.png": BOX * 1}, "names: [a, a, b]")
    report = check(data)
    assert report.counts["classes"] == {
        "a (0)": {"train": 1, "val": 1},
        "a (1)": {"train": 0, "val": 0},
        "b": {"train": 0, "val": 0},
    }
    (finding,) = (f for f in report.findings if f.kind == "same-class-name")
    assert finding.message == "2 classes have the name a: 0, 1"
    assert [f.message for f in report.findings if f.kind == "unused-class"] == [
        "class a (1) has no objects",
        "class b has no objects",
    ]
    assert [part.name for part in stats(data).total.classes] == ["a (0)", "a (1)", "b"]


LISTS = {  # lines with the number of each that training leaves out
    "blank": ("{0}\n{1} \n{2}\t\n{3}\n", [2, 3]),
    "comment": ("# mine\n{0}\n{1}\n", [1]),
    "class": ("{0}\n3\n{1} 0\n", [2, 3]),
    "quotes": ("{0}\n\"{1}\"\n'{2}'\n", [2, 3]),
    "suffix": ("{0}\nimages/train/b\n", [2]),
    "last": ("{0}\n{1} \n\n", []),  # upstream strips the whole text
    "first": ("\n \t{0}\n\n{1}\n", []),
    "first of a folder": (" {0}\n{1} \n{2}\n", [2]),
}


@pytest.mark.parametrize("case", LISTS)
def test_lines_of_a_list_that_training_leaves_out(folder: Path, case: str) -> None:
    names = [f"train/{name}.png" for name in "abcd"]
    data = write_set(folder / "mine", dict.fromkeys([*names, "val/v.png"], BOX))
    text, numbers = LISTS[case]
    (folder / "mine/list.txt").write_text(text.format(*(f"./images/{name}" for name in names)))
    data.write_text(data.read_text().replace("images/train", "list.txt"))
    report = check(data)
    assert errors(report) == [("ignored-line", "list.txt", number) for number in numbers]
    assert all("training ignores this line" in f.message for f in report.findings if f.kind == "ignored-line")
    training = YOLODataset(
        img_path=str(folder / "mine/list.txt"), data={"names": {0: "a"}}, task="detect", augment=False
    )
    assert report.counts["images"]["train"] == len(training.labels) == stats(data).splits["train"].images
    assert main(["check", str(data)]) == bool(numbers)
    assert stats(data).skipped.keys() == {f"list.txt:{number}" for number in numbers}


def test_images_of_other_bands_than_the_yaml_says(folder: Path) -> None:
    names = {"train/a.png": BOX, "val/v.png": BOX}
    for channels, number in ((1, 0), (4, 2)):
        data = write_set(folder / f"set{channels}", names, f"names: [a]\nchannels: {channels}")
        assert len(errors(check(data))) == number
    deep = {"train/a.png": np.dstack([picture("a").astype(np.uint16)] * 2)[..., :4]}
    data = write_set(folder / "deep", names, "names: [a]\nchannels: 4", deep)
    kinds = [("dark-16-bit", "images/train/a.png", None), ("unreadable-image", "images/val/v.png", None)]
    assert errors(check(data)) == kinds and [Path(name).name for name in stats(data).skipped] == ["a.png"]


def test_ignore_regions_go_along(folder: Path) -> None:
    data = write_set(folder / "mine", {"train/a.png": BOX, "train/b.png": BOX, "val/v.png": BOX})
    regions = folder / "mine/ignore/train/a.txt"
    write_tree(regions.parent, {"a.txt": "0.75 0.5 0.5 0.2\n0.1 0.1 0.1 0.1\n"})
    assert found(check(data)) == []
    assert errors(fix(data, "fixed")) == []
    assert Path("fixed/ignore/train/a.txt").read_bytes() == regions.read_bytes()
    cut_tiles(data, Path("tiles"), tile=100, overlap=0)
    # pixels: (100, 40, 200, 60) and (10, 5, 30, 15) in tiles of 100 px; the box is (75, 37.5, 125, 62.5)
    assert Path("tiles/ignore/train/a_100_0.txt").read_text() == "0.500000 0.500000 1.000000 0.200000\n"
    assert Path("tiles/ignore/train/a_0_0.txt").read_text() == "0.200000 0.100000 0.200000 0.100000\n"
    assert sorted(path.name for path in Path("tiles/ignore/train").iterdir()) == ["a_0_0.txt", "a_100_0.txt"]
    for text in ("0.5 0.5\n", "a b c d\n", "0.5 0.5 nan 0.1\n"):
        regions.write_text(text)
        (folder / "mine/ignore/train/lone.txt").write_text("")
        assert found(check(data)) == [
            ("bad-regions", "ignore/train/a.txt", None),
            ("labels-without-image", "ignore/train/lone.txt", None),
        ]

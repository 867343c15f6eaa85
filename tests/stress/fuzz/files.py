"""Files of images: their names, formats, depths, sizes and bands, in folders and in lists."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from hypothesis import strategies as st
from ultralytics import cfg
from ultralytics.data.build import load_inference_source
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils.patches import read_image

from small_object.datasets.check import check
from small_object.datasets.fix import fix
from small_object.datasets.stats import stats
from small_object.errors import UserError
from small_object.images import BITS_VARIABLE, UnreadableImageError
from tests.helpers.common import read_files
from tests.helpers.odd_images import build_png
from tests.stress.fuzz.data import CLASSES, OBJECTS, png, write_set
from tests.stress.fuzz.values import ERROR, RESULT, clear

FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}  # by the channels of a data set
SUFFIXES = ["png", "png", "jpg", "tif", "tif", "bmp", "webp", "jp2", "avif"]
DEPTHS = ["uint8", "uint16"]
DTYPES = {"png": DEPTHS, "jp2": DEPTHS, "tif": [*DEPTHS, "int8", "int16", "int32", "float32", "float64"]}
BANDS = {"tif": [1, 3, 3, 4, 2, 5], "png": [1, 3, 3, 4], "bmp": [1, 3, 3, 4]}
LARGE = [(10, 16_000), (9000, 10), (1, 5000), (1200, 1200), (12, 66_000)]  # the last is more than some formats hold
BROKEN = ["cut", "tail", "flip", "empty", "text", "bomb"]
STEMS = ["a*b", "axb", "li\nne", "quo'te\"", "caf\udce9", "é", "日本", "[x]", "?", "%E9", " b ", "._a", ".h", "a.b",
         "-x", "#", "\t", "\\", "x" * 200, "images", "labels", "\x7f", "\u202e", "a\r", "\x1b[0m", "{0}"]  # fmt: skip
stems = st.sampled_from(STEMS) | st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=5)
sides = st.sampled_from([1, 9, 10, 11, 64, 100]) | st.integers(1, 120)


@dataclass(frozen=True)
class OddFile:
    """An image file: its name, pixels (H, W, bands) from 0 to `top` of a type, and damage."""

    name: str
    form: str  # suffix of its format
    kind: str
    shape: tuple[int, int, int]
    top: float
    damage: str

    def encode(self, seed: int) -> bytes:
        """Return the content."""
        if self.damage in {"empty", "text", "bomb"}:
            bomb = build_png(*(min(65_537 * side, 2**31 - 1) for side in self.shape[:2]))
            return {"empty": b"", "text": b"no image", "bomb": bomb}[self.damage]
        share = np.random.default_rng(seed).random(self.shape)
        pixels = (share * self.top).astype(self.kind)
        if self.shape[2] in {1, 3, 4}:
            data = bytes(cv2.imencode(f".{self.form}", pixels)[1])  # empty where the format can't hold them
        else:  # bands as pages
            data = bytes(cv2.imencodemulti(".tif", [*np.moveaxis(pixels, 2, 0).copy()])[1])
        middle = len(data) // 2
        flipped = data[:middle] + b"\xff\0" + data[middle + 2 :]
        return {"cut": data[:middle], "tail": data + b"\0\0tail", "flip": flipped}.get(self.damage, data)


@st.composite
def odd_files(draw: Callable[..., Any]) -> OddFile:
    """Make an image file."""
    form = draw(st.sampled_from(SUFFIXES))
    kind = draw(st.sampled_from(DTYPES.get(form, DEPTHS[:1])))
    bands = draw(st.sampled_from(BANDS.get(form, [1, 3, 3])))
    height, width = draw(sides), draw(sides)
    if draw(st.integers(0, 9)) == 0:
        height, width = draw(st.sampled_from(LARGE[: 5 if form in {"png", "tif"} else 4]))
    top = 255 if "8" in kind else draw(st.sampled_from([1, 255, 1023, 4095, 16_383, 32_767, 65_535]))
    suffix = draw(st.sampled_from([form] * 6 + [form.upper(), "jpeg", "tiff", "png"]))
    name = draw(stems)[: 250 // 3 if form == "tif" else 200] + f".{suffix}"
    damage = draw(st.sampled_from([""] * 15 + BROKEN))
    return OddFile(name, form, kind, (height, width, bands), top, damage)


# image files of a folder, the channels that the data set's YAML asks for, and `SMALL_OBJECT_BITS`
folders = st.tuples(
    st.lists(odd_files(), min_size=1, max_size=3, unique_by=lambda file: file.name.rpartition(".")[0].casefold()),
    st.sampled_from([3] * 8 + [1, 2, 4, 5]),
    st.sampled_from([None, None, None, 8, 10, 12, 16]),
)


def verdict(file: Path, channels: int) -> np.ndarray | None:
    """Read an image; return None if that is refused, by a clear reason."""
    try:
        pixels = read_image(file, FLAGS.get(channels, cv2.IMREAD_UNCHANGED))
    except UnreadableImageError as error:
        clear(error)
        return None
    assert pixels.dtype == np.uint8 and pixels.ndim == 3, (pixels.dtype, pixels.shape)
    assert pixels.shape[2] == channels or channels not in FLAGS, pixels.shape
    return pixels


def load_all(source: Any, channels: int = 3) -> tuple[list[str], list[str]]:
    """Read a source as `yolo predict` does; return the files that were read, which are as verdict has them, and not."""
    loader = load_inference_source(source, batch=2, channels=channels)
    read = []
    for paths, images, _ in loader:
        for path, image in zip(paths, images, strict=True):
            np.testing.assert_array_equal(image, verdict(Path(path), channels), err_msg=path)
            read.append(path)
    return read, loader.unreadable


def training_set(images: Path, channels: int = 3) -> YOLODataset:
    """Return the images that training takes."""
    data = {"names": dict(enumerate(CLASSES)), "channels": channels}
    hyp = cfg.get_cfg(overrides={"mosaic": 0.0})
    return YOLODataset(img_path=str(images), imgsz=64, batch_size=2, augment=False, hyp=hyp, data=data)


@mock.patch.dict(os.environ)
def run_folder(case: tuple[list[OddFile], int, int | None], folder: Path) -> str:
    """Read a folder by prediction, check, stats, fix and training; each file is used by all, or named and left out."""
    (odd, channels, bits), root, images = case, folder / "set", folder / "set/images/train"
    write_set(root)
    if bits is not None:
        os.environ[BITS_VARIABLE] = str(bits)
    good = "good.tif" if channels not in FLAGS else "0.png"
    for split, seed in (("train", 90), ("val", 91)) if good == "good.tif" else ():
        for file in (root / "images" / split).iterdir():
            file.unlink()
        content = OddFile(good, "tif", "uint8", (40, 60, channels), 255, "").encode(seed)
        (root / "images" / split / good).write_bytes(content)
        (root / "labels" / split / "good.txt").write_bytes(OBJECTS)
    for seed, odd_file in enumerate(odd):
        (images / odd_file.name).write_bytes(odd_file.encode(seed))
        (root / "labels/train" / odd_file.name).with_suffix(".txt").write_bytes(OBJECTS)
    yaml = root / "set.yaml"
    yaml.write_text(f"train: images/train\nval: images/val\nnames: {CLASSES}\nchannels: {channels}\n")
    names = sorted(file.name for file in images.iterdir() if not file.name.startswith("."))
    before = read_files(root)

    readable = {name for name in names if verdict(images / name, channels) is not None}
    read, unreadable = load_all(images, channels)
    assert sorted(Path(path).name for path in read + unreadable) == names, (read, unreadable)
    assert {Path(path).name for path in read} == readable, (read, unreadable)

    report = check(yaml, 64, folder / "check")
    clear(str({f.message for f in report.findings}))
    found = stats(yaml, 64, folder / "stats")
    fixed = fix(yaml, folder / "fixed", 64)
    assert read_files(root) == before, "the set is not as it was"

    dataset = training_set(images, channels)
    kept = {Path(file).name for file in dataset.im_files}
    if channels not in FLAGS:  # at other numbers of bands a training stops
        kept = {name for name in kept if np.shape(verdict(images / name, channels))[2:] == (channels,)}
    for i, file in enumerate(dataset.im_files):
        try:
            dataset.load_image(i)
        except Exception as error:
            raise AssertionError(f"training takes {file}, but: {error!r}") from error
    assert kept <= readable, f"training takes {kept - readable}"
    errors = [f for f in report.findings if f.level == "error" and f.kind.endswith(("-image", "16-bit"))]
    blamed = {Path(f.image).name for f in errors}
    assert blamed >= set(names) - kept, f"check is silent about {set(names) - kept - blamed}"
    counted = report.counts["images"]["train"], report.counts["left_out"]["train"]
    assert counted == (len(names), len(names) - len(kept)), f"{counted}: training takes {kept} of {names}"
    assert channels not in FLAGS or len(found.skipped) == len(names) - len(kept), (found.skipped, kept)
    assert report.counts["objects"]["train"] == 2 * len(kept), report.counts
    assert fixed.counts["left_out"]["train"] == 0, fixed.findings
    assert fixed.counts["objects"]["train"] >= 2 * len(kept), "fix lost labels"
    return RESULT if kept == set(names) else ERROR


LINES = ["{}"] * 8 + ["#", "", "  ", "x"] + [
    " {}", "{} ", "{}\t", "# {}", "'{}'", '"{}"', "{} 0", "{},1", "{}.bak", "{}x.png",
]  # fmt: skip
# lines of a list of images and the image that comes in the place of `{}`; what ends a line; a byte order mark
lists = st.tuples(
    st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 8)), max_size=6),
    st.sampled_from(["\n", "\n", "\r\n", "\n\n"]),
    st.sampled_from(["", "\ufeff"]),
)


def run_list(case: tuple[list[tuple[str, int]], str, str], folder: Path) -> str:
    """Give a list to training, check, stats and prediction; each line is used, or named."""
    (lines, newline, mark), root = case, folder / "set"
    write_set(root)
    files = [root / "images/train/0.png", root / "images/train/a*b é.png", root / "images/val/2.png"]
    files[1].write_bytes(png(7))
    forms = [str(files[i // 3]) if i % 3 < 2 else f"./{files[i // 3].relative_to(root)}" for i in range(9)]
    text = newline.join(line.replace("{}", forms[i]) for line, i in lines)
    (root / "list.txt").write_bytes((mark + text).encode())
    (root / "set.yaml").write_text(f"train: list.txt\nval: images/val\nnames: {CLASSES}\n")
    filled = [line for line in text.splitlines() if line.strip()]
    usable = sum(Path(line.strip()).is_file() or (root / line.strip()).is_file() for line in filled)

    try:
        read, unreadable = load_all(root / "list.txt")
    except (UserError, FileNotFoundError) as error:
        assert not usable, error
        clear(error, "list.txt")
    else:
        assert (len(read), len(unreadable)) == (usable, len(filled) - usable), (read, unreadable)
    try:
        kept: set[str] | None = set(training_set(root / "list.txt").im_files)
    except Exception:
        kept = None
    try:
        report = check(root / "set.yaml", 64, folder / "check")
        found = stats(root / "set.yaml", 64, folder / "stats")
    except UserError as error:
        assert kept is None, f"training takes {kept}: {error}"
        return clear(error, str(root))
    named = {f.line for f in report.findings if f.file == "list.txt"}
    counted = report.counts["images"]["train"] - report.counts["left_out"]["train"]
    assert counted == len(kept or ()), (report.counts, kept)
    assert counted + len(named) == len(filled), f"{counted} are used, lines {named} are named"
    assert found.splits["train"].images == counted, found
    return RESULT if not named else ERROR

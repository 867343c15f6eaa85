"""Finds what is wrong with a detection data set before training does: its images, labels, pairs and splits.

Everything is read as training reads it. A fault's level says what it does there: an `error` makes training leave an
image out, learn something wrong or score itself too well; a `warning` is probably a mistake; an `advice` is none, but
good to know. `dataset_fix.py` repairs what can be repaired without a look at the pictures.

    from small_object.datasets.check import check

    report = check("datasets/mine/mine.yaml", imgsz=1280)
"""

from __future__ import annotations

import filecmp
import glob
import hashlib
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from ultralytics.data.utils import IMG_FORMATS, img2label_paths
from ultralytics.utils import LOGGER, TQDM, patches
from ultralytics.utils.metrics import bbox_ioa
from ultralytics.utils.ops import segments2boxes, xywh2xyxy

from small_object.datasets.check_pictures import draw_sheet, read_pixels
from small_object.datasets.image_hash import difference_hash, near_pairs
from small_object.datasets.layout import read_data_yaml
from small_object.errors import UserError
from small_object.files import replacing

LEVELS = ("error", "warning", "advice")

# Each kind of finding with its level and what to do, in the order of the report.
KINDS: dict[str, tuple[str, str]] = {
    "missing-image": ("error", "take the line out, or start its path with ./ if it is relative to the list's folder"),
    "empty-image": ("error", "get the file anew, or take it out together with its labels"),
    "unreadable-image": ("error", "convert it to JPEG or PNG, or take it out together with its labels"),
    "damaged-image": ("error", "get the file anew, or take it out together with its labels"),
    "dark-16-bit": ("error", "stretch the values to the full range and save them as 8 bits a channel"),
    "shared-labels": ("error", "give each image a name and labels of its own, or keep one of them"),
    "unreadable-labels": ("error", "save it as plain text in UTF-8, one line an object: class cx cy w h"),
    "not-numbers": ("error", "write class cx cy w h as finite numbers, or take the line out"),
    "wrong-fields": ("error", "write class cx cy w h (a sixth field may be a confidence), or a polygon's points"),
    "mixed-labels": ("error", "write only boxes, or only polygons, in a file"),
    "broken-class": ("error", "write the class as the index of a name"),
    "unknown-class": ("error", "add the class to `names`, or correct the line"),
    "no-size": ("error", "take the line out, or give the box a width and a height"),
    "outside": ("error", "divide x and w by the image's width, y and h by its height; clip the box to the image"),
    "leak": ("error", "keep the image in one split only"),
    "rewritten-image": ("warning", "cut off what follows the picture, since training would write over the file"),
    "turned-image": ("warning", "see that the boxes fit the turned image, since training turns it; or save it turned"),
    "wrong-turn": ("warning", "take the EXIF orientation out, since programs differ in what they make of it"),
    "16-bit": ("warning", "save it as 8 bits a channel, which is what training keeps"),
    "transparent": ("warning", "save it without transparency, since training shows what lies beneath"),
    "same-name": ("warning", "rename one, since file systems that ignore case keep only one of them"),
    "image-without-labels": ("warning", "label it, or give it an empty label file if it shows no object"),
    "labels-without-image": ("warning", "add the image, or take the label file out"),
    "slightly-outside": ("warning", "clip the box to the image"),
    "leaves-image": ("warning", "clip the box to the image"),
    "duplicate-box": ("warning", "take the line out"),
    "near-duplicate-box": ("warning", "keep one of the two lines"),
    "duplicate-image": ("warning", "keep one of them"),
    "near-leak": ("warning", "keep what shows the same scene in one split; look at the two images"),
    "unused-class": ("warning", "label such objects in the training images, or take the name out"),
    "other-colours": ("advice", "nothing: training reads it right, as three channels of 8 bits"),
    "class-not-in-val": ("advice", "move some images with such objects to val, or its score says nothing of the class"),
    "tiny-objects": ("advice", "train at a larger imgsz, or cut the images into tiles"),
}
DROPPED = {"not-numbers", "wrong-fields", "broken-class", "unknown-class", "no-size", "duplicate-box"}
"""Faults of a line that leave no object in it."""

TOLERATED = 0.01  # beyond 0..1: what training still accepts
ROUNDING = 1e-6  # of a number in a label file
STRIDE = 4  # pixels of a cell of the finest head
ENOUGH = 0.95  # share of the objects that a suggested size is for
SLACK = 0.01  # pixels that rounding in a label file may take from a side
EDGE = 0.5  # pixels that a box may leave the image, or differ from another, by rounding
NEAR_IOU = 0.95
NEAR_BITS = 8  # of 256: saved anew, resized or brightened, an image differs in 0 to 2; another scene in 65 and more
DARK = 64  # a brightest value below this in 16-bit images' high byte leaves three quarters of the range empty
EXAMPLES = 3

Fault = tuple[str, str]  # kind and message
_open = getattr(patches, "_image_open", Image.open)  # upstream's would install pi-heif for any file PIL does not know


@dataclass
class Finding:
    """One fault at one place.

    Attributes:
        kind: Key of `KINDS`.
        file: File, relative to the data set's folder if it lies there.
        message: What is wrong.
        line: Line in the file, from 1.
        image: Path of the image to show.
        box: Box in that image, xyxy in pixels.
        other: Path of the other image of a pair.
        hint: What to do.
        level: `error`, `warning` or `advice`.
    """

    kind: str
    file: str
    message: str
    line: int | None = None
    image: str | None = None
    box: tuple[float, ...] | None = None
    other: str | None = None
    hint: str = ""
    level: str = field(init=False)

    def __post_init__(self) -> None:
        self.level, hint = KINDS[self.kind]
        self.hint = self.hint or hint

    @property
    def place(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Report:
    """What `check` found.

    Attributes:
        findings: All findings, errors first.
        counts: Number of `images` and of usable `objects` by split, and of the objects of each class (`classes`).
    """

    findings: list[Finding]
    counts: dict[str, dict]

    @property
    def harmful(self) -> bool:
        """Whether something would hurt training."""
        return any(finding.level == "error" for finding in self.findings)

    def table(self) -> str:
        """Return a text: for each kind its level, its count, some examples and the hint; the totals last."""
        rows = []
        for kind, count in Counter(finding.kind for finding in self.findings).items():
            examples = [finding for finding in self.findings if finding.kind == kind][:EXAMPLES]
            rows.append(f"{examples[0].level:8}{kind:22}{count:6}")
            rows += [f"    {example.place}: {example.message}" for example in examples]
            rows += [f"    ... and {count - EXAMPLES} more"] * (count > EXAMPLES) + [f"    -> {examples[0].hint}"]
        levels = Counter(finding.level for finding in self.findings)
        images = ", ".join(f"{split} {n}" for split, n in self.counts["images"].items())
        found = ", ".join(
            f"{levels[level]} {level}" + "s" * (level != "advice" and levels[level] != 1) for level in LEVELS
        )
        return "\n".join([*rows, f"images: {images}; objects: {sum(self.counts['objects'].values())}; found: {found}"])


# What a data set consists of ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """What is kept of an image."""

    size: tuple[int, int]  # width and height in pixels, as training sees it
    digest: bytes  # SHA-256 of its shape and pixels
    look: np.ndarray  # perceptual hash (256,), bool


@dataclass
class Entry:
    """An image of a data set."""

    file: Path
    label: Path  # its label file, whether there or not
    name: str  # its file name, with the folders between its split's folder and it
    splits: list[str]
    picture: Picture | None = None  # set by `inspect`, if the image can be read
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # class, width and height in pixels; likewise


@dataclass
class DataSet:
    """A data set as its YAML file gives it."""

    yaml: Path
    root: Path  # folder that its paths are relative to
    names: list[str]
    channels: int  # of an image, as training reads it
    splits: list[str]  # train, val and, where given, test
    entries: list[Entry] = field(default_factory=list)  # each image once
    sources: list[Path] = field(default_factory=list)  # folders and lists of images
    findings: list[Finding] = field(default_factory=list)  # faults of the lists

    def place(self, file: Path) -> str:
        """Return a path relative to the data set's folder if it lies there."""
        return (file.relative_to(self.root) if file.is_relative_to(self.root) else file).as_posix()


def load_dataset(data: str | Path) -> DataSet:
    """Read a YAML file as training does (which may make a demo set), and list the images without opening them.

    Raises:
        UserError: If the YAML cannot be used, or a split has no images.
    """
    info = read_data_yaml(data)
    names = [info["names"][index] for index in range(len(info["names"]))]
    splits = [split for split in ("train", "val", "test") if info.get(split)]
    if not splits:
        raise UserError(f"{data}: gives no images; `train` and `val` must each be a folder or a list of images")
    dataset = DataSet(Path(info["yaml_file"]).resolve(), Path(info["path"]).resolve(), names, info["channels"], splits)
    entries: dict[str, Entry] = {}
    for split in splits:
        paths = info[split] if isinstance(info[split], list) else [info[split]]
        listed = sorted((item for path in paths for item in _images(Path(path), data, split)), key=lambda item: item[0])
        if not listed:
            raise UserError(f"{data}: `{split}` has no images: {', '.join(map(str, paths))}")
        for file, name, source, line in listed:
            entry, place = entries.get(file), (dataset.place(source if line else Path(file)), line or None)
            if entry and split in entry.splits:
                message = f"{file} is in {split} already"
                dataset.findings.append(Finding("duplicate-image", place[0], message, place[1], file))
            elif entry:
                entry.splits.append(split)
            elif line and not Path(file).is_file():
                dataset.findings.append(Finding("missing-image", place[0], f"there is no file {file}", place[1]))
            else:
                entries[file] = Entry(Path(file), Path(img2label_paths([file])[0]), name, [split])
        dataset.sources += map(Path, paths)
    dataset.entries = list(entries.values())
    return dataset


def _images(source: Path, data: str | Path, split: str) -> Iterator[tuple[str, str, Path, int]]:
    """List a folder or a list as upstream's `BaseDataset.get_img_files`: path, name, source and line (0: no list)."""
    if source.is_dir():
        found = glob.glob(f"{glob.escape(str(source))}/**/*.*", recursive=True)  # noqa: PTH207 - it skips hidden files
        lines = [(path, Path(path).relative_to(source).as_posix(), 0) for path in found]
    else:
        try:
            text = source.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = "does not exist" if isinstance(error, FileNotFoundError) else "is no folder or text file"
            raise UserError(f"{data}: `{split}`: {source} {why}") from None
        here = [f"{source.parent}{os.sep}{x[2:]}" if x.startswith("./") else x for x in text]
        lines = [(path, Path(path).name, number) for number, path in enumerate(here, 1)]
    for path, name, number in lines:
        if path.rpartition(".")[-1].lower() in IMG_FORMATS:
            yield path.replace("/", os.sep), name, source, number


def _of_image(kind: str, dataset: DataSet, entry: Entry, message: str, other: Entry | None = None) -> Finding:
    """Make a finding about an image, or a pair of them."""
    image, second = str(entry.file), str(other.file) if other else None
    return Finding(kind, dataset.place(entry.file), message, image=image, other=second)


# One image ------------------------------------------------------------------------------------------------------------


def read_image(file: Path, channels: int = 3) -> tuple[Picture | None, list[Fault]]:
    """Read an image as training does, to the last byte.

    OpenCV alone is too lenient with damaged files in some versions and too strict in others, so PIL reads it as well;
    a JPEG at an eighth of its size, which takes all of the file, but half of the time.

    Args:
        file: The image.
        channels: Channels that training reads, `channels` in the YAML.

    Returns:
        What is kept of it, None if training cannot use it; its faults.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        return None, [("unreadable-image", f"cannot be opened: {error.strerror}")]
    if not data:
        return None, [("empty-image", "has no bytes")]
    try:
        opener = Image.open if file.suffix.lower() in (".heic", ".heif") else _open
        with opener(io.BytesIO(data)) as image:
            mode, form, turn = image.mode, (image.format or "").upper(), _turn(image)
            if form == "PNG":
                image.verify()
            else:
                image.draft("L", (max(image.width // 8, 1), max(image.height // 8, 1)))
                image.load()
    except UnidentifiedImageError:
        return None, [("unreadable-image", "is no image that can be read")]
    except Exception as error:  # PIL's plugins raise anything
        return None, [("damaged-image", f"is damaged or cut off: {' '.join(str(error).split())[:80]}")]
    if form.lower() not in IMG_FORMATS | {"jpeg2000"}:
        return None, [("unreadable-image", f"is {form} inside, which training leaves out")]
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH}.get(channels, cv2.IMREAD_UNCHANGED)
    pixels = read_pixels(file, flags)  # as upstream's loader, but for 16 bits, which it cuts to 8
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None, [("unreadable-image", f"cannot be read by OpenCV, so training stops there ({form}, {mode})")]
    height, width = pixels.shape[:2]
    if min(width, height) < 10:
        return None, [("unreadable-image", f"is {width}x{height} pixels; training leaves out images of less than 10")]
    faults: list[Fault] = []
    if form == "JPEG" and not data.endswith(b"\xff\xd9"):
        faults.append(("rewritten-image", "has bytes behind its end, which training takes for damage"))
    if turn in range(2, 9):
        faults.append(("turned-image", f"has EXIF orientation {turn}: boxes must be in the turned frame"))
    elif turn not in (None, 1):
        faults.append(("wrong-turn", f"has EXIF orientation {turn}, which does not exist"))
    brightest = None
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
        brightest = int(pixels.max())
    if channels == 3:
        faults += _colour_faults(data, mode, brightest)
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.shape[2] == 3 else pixels
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels))
    return Picture((width, height), digest.digest(), difference_hash(grey)), faults


def _turn(image: Image.Image) -> int | None:
    """Return the EXIF orientation if there is one."""
    if image.format == "PNG" and "exif" not in image.info:
        return None  # PIL would decode all of the image to look behind it
    try:
        return image.getexif().get(274)
    except Exception:  # PIL raises anything where the data is damaged; then nothing is turned
        return None


def _colour_faults(data: bytes, mode: str, brightest: int | None) -> Iterator[Fault]:
    """Find what is not 8-bit RGB; `brightest` is the largest high byte of a 16-bit image."""
    if brightest is not None:
        if brightest < DARK:
            yield "dark-16-bit", f"is almost black to training, which keeps the high byte: at most {brightest} of 255"
        else:
            yield "16-bit", "has 16 bits a channel, of which training keeps the upper 8"
        return
    if mode in ("RGBA", "LA", "PA", "P", "RGBa", "La"):
        with _open(io.BytesIO(data)) as image:
            if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                yield "transparent", f"has transparent pixels ({mode})"
                return
    if mode != "RGB":
        kinds = {"L": "grey", "1": "black and white", "LA": "grey", "P": "with a palette", "RGBA": "RGBA, all opaque"}
        yield "other-colours", f"is {kinds.get(mode, mode)}"


@dataclass
class Line:
    """One line of a label file."""

    number: int  # from 1
    faults: list[Fault] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))  # its numbers; empty where they cannot be read
    box: np.ndarray | None = None  # (4,) xyxy as shares, as labelled; None where it cannot be read

    @property
    def polygon(self) -> bool:
        """Whether it is a polygon."""
        return len(self.values) > 5

    def has(self, *kinds: str) -> bool:
        """Say whether it has one of some kinds of faults."""
        return any(kind in kinds for kind, _ in self.faults)


def read_lines(text: str, classes: int, size: tuple[int, int] | None) -> list[Line]:
    """Read the lines of a label file and find their faults.

    Args:
        text: Content of the file.
        classes: Number of classes.
        size: Width and height of the image in pixels; None leaves out what needs it.

    Returns:
        The lines that are not blank.
    """
    rows = enumerate(text.splitlines(), 1)
    lines = [_read_line(number, row.split(), classes, size) for number, row in rows if row.strip()]
    read = [line for line in lines if line.box is not None]
    odd = next((line for line in read if line.polygon != read[0].polygon), None)
    if odd:
        what = "polygon among boxes" if odd.polygon else "box among polygons"
        odd.faults.append(("mixed-labels", f"is a {what}: training leaves the whole image out"))
    _mark_duplicates([line for line in read if not line.has(*DROPPED)], size)
    return lines


def _read_line(number: int, fields: list[str], classes: int, size: tuple[int, int] | None) -> Line:
    """Read one line; of faults that come of each other, find the first."""
    line, out = Line(number), "training leaves the whole image out"
    values = np.array([_number(x) for x in fields])
    if not np.isfinite(values).all():
        what = fields[int(np.isfinite(values).argmin())]
        line.faults.append(("not-numbers", f"has `{what[:30]}`, which is no finite number: {out}"))
        return line
    if len(values) != 5 and not (len(values) > 6 and len(values) % 2):
        line.faults.append(("wrong-fields", f"has {len(values)} fields, not 5: {out}"))
        return line
    line.values = values
    xywh = values[1:] if len(values) == 5 else segments2boxes([values[1:].reshape(-1, 2)])[0]
    line.box = xywh2xyxy(xywh)
    if values[0] % 1:
        line.faults.append(("broken-class", f"has class {values[0]:g}, which is not whole: {out}"))
    elif not 0 <= values[0] < classes:
        line.faults.append(("unknown-class", f"has class {values[0]:.0f}; `names` has 0 to {classes - 1}: {out}"))
    low, high = xywh.min(), xywh.max()
    width, height = size or (0, 0)
    x0, y0, x1, y1 = line.box * (width, height, width, height)
    beyond = max(-x0, -y0, x1 - width, y1 - height)
    far = low < -TOLERATED or high > 1 + TOLERATED
    if min(xywh[2:]) <= 0:
        what = out if far or min(xywh[2:]) < 0 else "which no prediction can match"
        line.faults.append(("no-size", f"has a box of {xywh[2]:g} x {xywh[3]:g}: {what}"))
    elif far:
        worst = low if -low > high - 1 else high
        line.faults.append(("outside", f"has {worst:g}, beyond 0..1 by more than {TOLERATED:.0%}: {out}"))
    elif low < -ROUNDING or high > 1 + ROUNDING:
        message = f"has {low if low < 0 else high:g}, beyond 0..1; training tolerates up to {TOLERATED:.0%}"
        line.faults.append(("slightly-outside", message))
    elif beyond > EDGE:
        line.faults.append(("leaves-image", f"has a box that leaves the image by {beyond:.1f} pixels"))
    return line


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _mark_duplicates(lines: list[Line], size: tuple[int, int] | None) -> None:
    """Mark what repeats an earlier line: exactly, as training compares them (float32), or nearly."""
    first: dict[bytes, int] = {}
    for line in lines:
        number = first.setdefault(line.values.astype(np.float32).tobytes(), line.number)
        if number != line.number:
            line.faults.append(("duplicate-box", f"repeats line {number}; training removes it"))
    lines = [line for line in lines if not line.has("duplicate-box")]
    if size is None or len(lines) < 2:
        return
    boxes = np.array([line.box for line in lines]).clip(0, 1) * (*size, *size)
    for later, earlier in near_duplicates(boxes, np.array([line.values[0] for line in lines])):
        message = f"is nearly the box of line {lines[earlier].number}"
        lines[later].faults.append(("near-duplicate-box", message))


def near_duplicates(boxes: np.ndarray, classes: np.ndarray) -> list[tuple[int, int]]:
    """Find boxes that are nearly an earlier one of the same class: one object that was labelled twice.

    That is an IoU of at least 0.95, or all four edges within half a pixel: rounding alone takes two boxes of a few
    pixels below that IoU, while the boxes of two objects that both can be seen lie further apart.

    Args:
        boxes: Boxes (N, 4), xyxy in pixels; those without area match none.
        classes: Classes (N,).

    Returns:
        Index of each such box with that of an earlier one which is not itself such a box.
    """
    found: dict[int, int] = {}
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    for start in range(0, len(boxes), 256):  # in pieces, as there may be thousands
        rows = slice(start, start + 256)
        near = bbox_ioa(boxes[rows], boxes, iou=True) >= NEAR_IOU
        near |= (np.abs(boxes[rows, None] - boxes) <= EDGE).all(2)
        near &= (classes[rows, None] == classes) & solid[rows, None] & solid
        for later, earlier in np.argwhere(np.tril(near, start - 1)).tolist():
            if later + start not in found and earlier not in found:
                found[later + start] = earlier
    return list(found.items())


def read_text(file: Path) -> str | None:
    """Read a label file; None where there is none.

    Raises:
        UnicodeDecodeError: If it is not UTF-8, with or without a byte-order mark.
    """
    return file.read_bytes().decode("utf-8-sig") if file.is_file() else None


def inspect(entry: Entry, dataset: DataSet) -> list[Finding]:
    """Read an image with its labels: set its `picture` and `objects`, and return what is wrong."""
    entry.picture, faults = read_image(entry.file, dataset.channels)
    found = [_of_image(kind, dataset, entry, message) for kind, message in faults]
    label = dataset.place(entry.label)
    try:
        text = read_text(entry.label)
    except UnicodeDecodeError:
        message = "is no text in UTF-8: training leaves the whole image out"
        return [*found, Finding("unreadable-labels", label, message, image=str(entry.file))]
    if text is None:
        message = "has no label file: background to training"
        return found + [_of_image("image-without-labels", dataset, entry, message)] * (entry.picture is not None)
    size = entry.picture.size if entry.picture else None
    lines = read_lines(text, len(dataset.names), size)
    for line in lines:
        box = tuple((line.box * (*size, *size)).tolist()) if line.box is not None and size else None
        for kind, message in line.faults:
            found.append(Finding(kind, label, message, line.number, str(entry.file), box))
    usable = [line for line in lines if size and not line.has("outside", *DROPPED)]
    if usable:
        boxes = np.array([line.box for line in usable])
        entry.objects = np.column_stack([[line.values[0] for line in usable], (boxes[:, 2:] - boxes[:, :2]) * size])
    return found


# The set as a whole ---------------------------------------------------------------------------------------------------


def same_names(dataset: DataSet) -> Iterator[Finding]:
    """Find images that share a label file, and those whose names differ only in case."""
    groups = defaultdict(list)
    for entry in dataset.entries:
        groups[str(entry.label).casefold()].append(entry)
    for group in groups.values():
        for number, entry in enumerate(group[1:], 1):
            twin = next((e for e in group[:number] if e.label == entry.label), None)
            if twin:
                message = f"reads the same labels as {twin.file.name}, {dataset.place(twin.label)}"
                yield _of_image("shared-labels", dataset, entry, message, twin)
            else:
                message = f"differs from {group[0].file.name} only in case"
                yield _of_image("same-name", dataset, entry, message, group[0])


def lone_labels(dataset: DataSet) -> list[Path]:
    """List the label files without an image, listed or not."""
    known = {entry.label for entry in dataset.entries}
    found = {file for folder in {label.parent for label in known} for file in folder.glob("*.txt")}
    for source in dataset.sources:
        folder = Path(img2label_paths([source / "x.jpg"])[0]).parent
        if folder != source:  # else labels lie beside the images, and any text may lie around
            found |= set(folder.rglob("*.txt"))
    images, labels = (f"{os.sep}{name}{os.sep}" for name in ("images", "labels"))

    @cache
    def stems(folder: Path) -> set[str]:
        files = folder.iterdir() if folder.is_dir() else ()
        return {file.stem for file in files if file.suffix[1:].lower() in IMG_FORMATS}

    def alone(label: Path) -> bool:
        image = Path(images.join(str(label).rsplit(labels, 1)))  # what `img2label_paths` does, backwards
        return label.stem not in stems(image.parent)

    others = {file for file in found - known - set(dataset.sources) if not file.name.startswith((".", "classes.txt"))}
    return sorted(file for file in others if alone(file))


def leaks(dataset: DataSet) -> Iterator[Finding]:
    """Find images that are in train and in another split, or twice in a split, and pairs that look alike.

    Val and test may share images: that is how sets without a test split are often given.
    """
    seen = [entry for entry in dataset.entries if entry.picture]
    groups = defaultdict(list)
    for entry in seen:
        groups[entry.picture.digest].append(entry)
    fresh = []  # images that are not in train
    for group in groups.values():
        train = [entry for entry in group if "train" in entry.splits]
        for number, entry in enumerate(group):
            twin = next((other for other in group[:number] if set(other.splits) & set(entry.splits)), None)
            if twin:
                yield _of_image("duplicate-image", dataset, entry, _same(entry, twin, dataset, ""), twin)
            if entry.splits == ["train"]:
                continue
            if "train" in entry.splits:
                yield _of_image("leak", dataset, entry, f"is in {' and '.join(entry.splits)}")
            elif train:
                yield _of_image("leak", dataset, entry, _same(entry, train[0], dataset, " in train"), train[0])
            else:
                fresh.append(entry)
    train = [entry for entry in seen if "train" in entry.splits]
    if not train or not fresh:
        return
    least, who = np.full(len(fresh), NEAR_BITS + 1), np.zeros(len(fresh), np.int64)
    looks = [np.array([entry.picture.look for entry in some]) for some in (train, fresh)]
    for i, j, distance in near_pairs(looks[0], NEAR_BITS, looks[1]):
        order = np.argsort(-distance, kind="stable")  # of several values for one place, the last stays
        order = order[distance[order] < least[j[order]]]
        least[j[order]], who[j[order]] = distance[order], i[order]
    for j in np.flatnonzero(least <= NEAR_BITS):
        twin = train[who[j]]
        message = f"looks like {dataset.place(twin.file)} in train ({least[j]} of 256 bits differ)"
        yield _of_image("near-leak", dataset, fresh[j], message, twin)


def _same(entry: Entry, twin: Entry, dataset: DataSet, where: str) -> str:
    what = "file" if filecmp.cmp(entry.file, twin.file, shallow=False) else "picture"
    return f"is the same {what} as {dataset.place(twin.file)}{where}"


def count_objects(dataset: DataSet) -> dict[str, dict]:
    """Count images, usable objects and the objects of each class by split."""
    counts: dict[str, dict] = {"images": {}, "objects": {}, "classes": {name: {} for name in dataset.names}}
    for split in dataset.splits:
        entries = [entry for entry in dataset.entries if split in entry.splits]
        classes = np.concatenate([np.zeros(0), *(entry.objects[:, 0] for entry in entries)]).astype(np.int64)
        counts["images"][split], counts["objects"][split] = len(entries), len(classes)
        for name, count in zip(dataset.names, np.bincount(classes, minlength=len(dataset.names)).tolist(), strict=True):
            counts["classes"][name][split] = count
    return counts


def missing_classes(dataset: DataSet, counts: dict[str, dict]) -> Iterator[Finding]:
    """Find the classes that nothing can be learned of, and those that are not validated."""
    for name, by_split in counts["classes"].items():
        if not by_split.get("train"):
            where = [split for split, count in by_split.items() if count]
            message = f"class {name} has " + (f"objects in {' and '.join(where)} only" if where else "no objects")
            yield Finding("unused-class", dataset.place(dataset.yaml), message)
        elif by_split.get("val") == 0:
            yield Finding("class-not-in-val", dataset.place(dataset.yaml), f"class {name} has no objects in val")


def tiny_objects(dataset: DataSet, imgsz: int) -> Finding | None:
    """Find how many objects are so small at `imgsz` that no cell of stride 4 may have its centre in them.

    Training resizes the longest side of an image to `imgsz`, up or down. The finding suggests the size, a multiple of
    32, at which 95 % of the objects are at least 4 pixels wide and high, and the tiles which do that at this `imgsz`.
    """
    entries = [entry for entry in dataset.entries if len(entry.objects)]
    if not entries:
        return None
    longest = np.concatenate([np.full(len(entry.objects), max(entry.picture.size)) for entry in entries])
    objects = np.concatenate([entry.objects for entry in entries])
    side, least = objects[:, 1:].min(1), STRIDE - SLACK
    tiny = side * imgsz / longest < least
    if not tiny.any():
        return None
    many = math.ceil(ENOUGH * len(objects)) - 1
    size = 32 * math.ceil(np.sort(least * longest / side)[many] / 32)
    tile = 32 * math.floor(max(np.sort(side * imgsz / least)[::-1][many], 32) / 32)
    classes = []
    for index, name in enumerate(dataset.names):
        of = objects[:, 0] == index
        if (tiny & of).any():
            classes.append(f"{name} {(tiny & of).sum()} of {of.sum()}")
    message = (
        f"{tiny.mean():.1%} of {len(objects)} objects are less than {STRIDE} pixels wide or high at imgsz={imgsz}, so "
        f"that perhaps no cell of stride {STRIDE} has its centre in them ({', '.join(classes)})"
    )
    enough = f"{ENOUGH:.0%} of the objects are at least {STRIDE} pixels wide and high"
    hint = f"at imgsz={size} {enough}" if size > imgsz else f"not needed: {enough}"
    if tile < longest.max():
        hint += f"; or cut the images into tiles of {tile}x{tile} for imgsz={imgsz}"
    return Finding("tiny-objects", dataset.place(dataset.yaml), message, hint=hint)


def check(data: str | Path, imgsz: int = 640, out: str | Path | None = None) -> Report:
    """Check a detection data set, print what was found and write `check.json` and `check.jpg`.

    Args:
        data: The data set's YAML file, or what else training takes as `data`.
        imgsz: Size of the training in pixels.
        out: Folder for the results, `runs/check/<name of the YAML>` under the working folder by default.

    Returns:
        What was found.

    Raises:
        UserError: If the YAML cannot be used, or a split has no images.

    Examples:
        >>> from small_object.datasets.check import check
        >>> check("datasets/ASS1-demo/ASS1-demo.yaml").harmful
        False
    """
    if imgsz < 32:
        raise UserError(f"imgsz must be at least 32 pixels, not {imgsz}")
    dataset = load_dataset(data)
    findings = list(dataset.findings)
    labels: set[Path] = set()
    each = in_parallel(partial(inspect, dataset=dataset), dataset.entries, "checking images")
    for entry, found in zip(dataset.entries, each, strict=True):
        again = dataset.place(entry.label) if entry.label in labels else None  # reported with another image
        findings += [finding for finding in found if finding.file != again]
        labels.add(entry.label)
    findings += [*same_names(dataset), *leaks(dataset)]
    findings += [Finding("labels-without-image", dataset.place(f), "has no image") for f in lone_labels(dataset)]
    counts = count_objects(dataset)
    findings += [*missing_classes(dataset, counts), *filter(None, [tiny_objects(dataset, imgsz)])]
    kinds = list(KINDS)
    findings.sort(key=lambda f: (LEVELS.index(f.level), kinds.index(f.kind), f.file, f.line or 0))
    report = Report(findings, counts)
    out = Path(out) if out is not None else Path("runs/check") / dataset.yaml.stem
    out.mkdir(parents=True, exist_ok=True)
    about = {"data": str(dataset.yaml), "imgsz": imgsz, "harmful": report.harmful, "counts": counts}
    text = json.dumps(about | {"findings": [asdict(finding) for finding in findings]}, indent=1, ensure_ascii=False)
    with replacing(out / "check.json") as new:
        new.write_text(text, encoding="utf-8")
    sheet = draw_sheet(findings)
    if sheet is None:
        (out / "check.jpg").unlink(missing_ok=True)
    else:
        with replacing(out / "check.jpg") as new:
            new.write_bytes(sheet)
    pictures = f", pictures in {out / 'check.jpg'}" if sheet else ""
    LOGGER.info(f"{report.table()}\nall of them in {out / 'check.json'}{pictures}")
    return report


def in_parallel(function: Callable, items: Sequence, what: str) -> Iterator:
    """Call a function for each item on all CPUs; give the results in order, with a progress bar."""
    with ThreadPool(os.cpu_count()) as pool:  # threads do: images are decoded without Python's lock
        yield from TQDM(pool.imap(function, items), desc=what, total=len(items), unit="image", leave=False)

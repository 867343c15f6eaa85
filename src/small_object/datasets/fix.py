"""Writes a copy of a detection data set, with all repairs that need no look at the pictures.

It leaves leaks, images that look alike, boxes that nearly repeat another, images without labels and labels shared by
several images to a person. It drops no label that training would use.
"""

import csv
import itertools
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from ultralytics.utils import LOGGER, YAML
from ultralytics.utils.ops import xyxy2xywh

from small_object.datasets.check import check, find_orphan_labels
from small_object.datasets.dataset import DataSet, Entry, load_dataset, new_dataset, readable_path
from small_object.datasets.findings import Fault, Report
from small_object.datasets.images import JPEG_END, inspect_image, largest_value, read_flags
from small_object.datasets.labels import NO_OBJECT, LabelLine, parse_lines
from small_object.errors import UserError
from small_object.ignore import ignore_file
from small_object.images import BITS_VARIABLE, read_bits, read_pixels, readable_name, scale_to_8_bit
from small_object.parallel import map_threads

PATH_KEYS = {"path", "download", "train", "val", "validation", "test", "minival"}  # of a data YAML
SAVED_ANEW = {"dark-16-bit", "16-bit", "transparent", "turned-image"}
Job = tuple[Entry, str, str]  # an image, its split and its new name
Change = tuple[str, int | str, str, str]  # file and line in the old set, the old content, and what was done


def fix(data: str | Path, out: str | Path, imgsz: int = 640) -> Report:
    """Write a repaired copy of a data set: `images/`, `labels/`, the YAML, `changes.csv` and its check in `check/`.

    Boxes are clipped to the image; lines without a usable object and repeated boxes are dropped; images with 16 bits,
    transparency or an EXIF orientation are saved again as training sees them. All images with 16 bits get one scale:
    the bits in `SMALL_OBJECT_BITS`, else the fewest bits that hold their largest value. An image is left out with its
    label file if either can't be read, as are label files without an image. Subfolders of a split's folder become part
    of the names, and names are made readable. All else, with ignore regions and keypoints, is copied byte for byte. The
    old set is not changed.

    Args:
        data: The data set's YAML file.
        out: Folder of the new set, which must be empty or missing.
        imgsz: Input size of the training in pixels, for the check of the new set.

    Returns:
        The result of `check` for the new set.

    Raises:
        UserError: If the YAML can't be used, a split has no images, or the folder is not empty.

    Examples:
        >>> fix("datasets/mine/mine.yaml", "datasets/mine-fixed").harmful
        False
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and all(file.name.startswith(".staging-") for file in out.iterdir())):
        raise UserError(f"{out}: is not empty; choose a new folder, or remove it")
    dataset = load_dataset(data)
    jobs = _choose_names(dataset)
    bits = read_bits()
    findings = [f for f in dataset.findings if f.kind in ("missing-image", "ignored-line", "duplicate-image")]
    changes: list[Change] = [(f.file, f.line or "", f.message, "left out") for f in findings]
    if dataset.channels in (1, 3):
        largest = max(map_threads(largest_value, [entry.file for entry in dataset.entries], "reading 16-bit images"))
        if largest >= 0:
            bits = bits or max(8, largest.bit_length())
            scale = f"scaled from {bits} bits to 8; prediction on such images also needs {BITS_VARIABLE}={bits}"
            changes.append(("", "", f"16-bit images with values up to {largest}", scale))
            LOGGER.warning(f"{data}: 16-bit images, with values up to {largest}, are {scale}")
    with new_dataset(out, dataset.splits) as new:
        repair = partial(_repair, dataset=dataset, root=new, bits=bits)
        for own, label, content in map_threads(repair, jobs, "repairing images"):
            changes += own
            if content is not None:
                label.write_bytes(content)
        for label in find_orphan_labels(dataset):
            changes.append((dataset.relative_path(label), "", "has no image", "left out"))
        kept = {key: value for key, value in YAML.load(dataset.yaml).items() if key not in PATH_KEYS}
        YAML.save(new / dataset.yaml.name, {split: f"images/{split}" for split in dataset.splits} | kept)
        with (new / "changes.csv").open("w", encoding="utf-8", newline="") as stream:
            rows = [("file", "line", "was", "done"), *dict.fromkeys(changes)]
            csv.writer(stream).writerows([readable_name(str(cell)) for cell in row] for row in rows)
    LOGGER.info(readable_name(f"{out / 'changes.csv'} lists {len(dict.fromkeys(changes))} changes"))
    return check(out / dataset.yaml.name, imgsz, out / "check")


def _choose_names(dataset: DataSet) -> list[Job]:
    """Give each image its split and a name that is unique there, also for its label file and when case is ignored.

    Images that share a label file keep sharing it, since only a person can tell which image it belongs to.
    """
    jobs: list[Job] = []
    owners: dict[tuple[str, str], Path] = {}  # image and label file by split and name
    for split, entry in ((s, entry) for s in dataset.splits for entry in dataset.entries if s in entry.splits):
        path = Path(readable_path(entry.name).replace("/", "_"))
        for number in itertools.count(1):
            name = path.name if number == 1 else f"{path.stem}-{number}{path.suffix}"
            wanted = {(split, name.casefold()): entry.file, (split, Path(name).stem.casefold()): entry.label}
            if all(owners.get(key, owner) == owner for key, owner in wanted.items()):
                break
        owners |= wanted
        jobs.append((entry, split, name))
    return jobs


def _repair(job: Job, dataset: DataSet, root: Path, bits: int | None) -> tuple[list[Change], Path, bytes | None]:
    """Write an image; return the changes, its label file and the content to write there, if any."""
    entry, split, name = job
    file, label = dataset.relative_path(entry.file), dataset.relative_path(entry.label)
    image, target = root / "images" / split / name, (root / "labels" / split / name).with_suffix(".txt")
    old_regions, regions = ignore_file(entry.file), (root / "ignore" / split / name).with_suffix(".txt")
    changes: list[Change] = []
    picture, faults = inspect_image(entry.file, dataset.channels, bits)
    content = entry.label.read_bytes() if entry.label.is_file() else None
    text = ""
    try:
        text = (content or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        picture = None
        faults.append(Fault("unreadable-labels", f"has labels that are not UTF-8 text, {label}"))
    if picture is None:
        changes.append((file, "", faults[-1].message, "left out"))
        for path in (entry.label, old_regions):
            if path.is_file():
                changes.append((dataset.relative_path(path), "", "belongs to an image that is left out", "left out"))
        return changes, target, None
    kinds, was = {fault.kind for fault in faults}, ", ".join(fault.message for fault in faults)
    if kinds & SAVED_ANEW and dataset.channels in (1, 3):
        image = _resave(entry.file, image, dataset.channels, bits)
        form = "8-bit RGB" if dataset.channels == 3 else "8-bit grey"
        changes.append((file, "", was, f"saved upright and as {form}: images/{split}/{image.name}"))
    elif "rewritten-image" in kinds:
        data = entry.file.read_bytes()
        image.write_bytes(data[: data.rindex(JPEG_END) + len(JPEG_END)])
        changes.append((file, "", was, "removed the bytes after the end of the picture"))
    else:
        shutil.copyfile(entry.file, image)
    if image.stem != entry.file.stem:
        done = f"renamed to images/{split}/{image.name}, with its labels"
        changes.append((file, "", "has a name that is taken or unreadable, or is in a subfolder", done))
    if old_regions.is_file():
        regions.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old_regions, regions)
    fixed, rows = repair_lines(text, len(dataset.names), picture.size, dataset.num_fields)
    changes += [(label, *row) for row in rows]
    return changes, target, fixed.encode() if rows else content


def _resave(file: Path, target: Path, channels: int, bits: int | None) -> Path:
    """Save an image as training sees it, in its format if PIL can, else as PNG; return the path."""
    pixels = scale_to_8_bit(read_pixels(file, read_flags(channels)), bits)
    if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
        target = target.with_suffix(".png")
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if channels == 3 else pixels[..., 0]))
    try:
        picture.save(target, quality=95, subsampling=0, lossless=True)
    except (OSError, ValueError):  # a format that can't hold so many pixels per side
        target.unlink(missing_ok=True)
        target = target.with_suffix(".png")
        picture.save(target)
    return target


def repair_lines(
    text: str, num_classes: int, size: tuple[int, int], num_fields: int = 5
) -> tuple[str, list[tuple[int, str, str]]]:
    """Repair label lines; lines without a fault and keypoints stay unchanged. See `labels.parse_lines`.

    Returns:
        The repaired content, and for each change the line, its old content and what was done.
    """
    lines = {line.number: line for line in parse_lines(text, num_classes, size, num_fields)}
    boxes_only = any(line.has("mixed-labels") for line in lines.values())
    rows = dict(enumerate(text.splitlines(keepends=True), 1))
    repaired: dict[int, str | None] = dict(rows)
    for number, line in lines.items():
        if line.has(*(NO_OBJECT - {"duplicate-box"} if line.keypoints else NO_OBJECT)):  # a pose may differ
            repaired[number] = None
        elif line.has("outside", "leaves-image") or (boxes_only and line.is_polygon):
            repaired[number] = _clip(line, boxes_only)
    clipped = "".join(row or "\n" for row in repaired.values())
    for line in parse_lines(clipped, num_classes, size, num_fields):
        if line.has("duplicate-box") and not line.keypoints:  # a clipped box may now repeat another
            repaired[line.number] = None
    changes = []
    for number, line in lines.items():
        if (new := repaired[number]) != rows[number]:
            messages = [fault.message for fault in line.faults] or ["is a polygon among boxes or repeats a clipped box"]
            done = "dropped" if new is None else f"written as `{new.strip()}`"
            changes.append((number, f"`{rows[number].strip()}` {', '.join(messages)}", done))
    return "".join(row or "" for row in repaired.values()), changes


def _clip(line: LabelLine, boxes_only: bool) -> str | None:
    """Return a line with its box or polygon clipped to the image; None if nothing is left."""
    box = line.xyxy.clip(0, 1)
    if (box[2:] - box[:2]).min() < 1e-6:  # less than a label file can express
        return None
    values = np.clip(line.values[1:], 0, 1) if line.is_polygon and not boxes_only else xyxy2xywh(box)
    fields = [f"{line.values[0]:.0f}", *(f"{value:.6f}" for value in values), *line.keypoints]
    return " ".join(fields) + "\n"

"""Finds what is wrong with a detection data set before training does: its images, labels, pairs and splits.

Everything is read as training reads it. A fault's level says what it does there: an `error` makes training leave an
image out, learn something wrong or score itself too well; a `warning` is probably a mistake; an `advice` is none, but
good to know. `fix` repairs what can be repaired without a look at the pictures.
"""

from __future__ import annotations

import filecmp
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import IMG_FORMATS, img2label_paths
from ultralytics.utils import LOGGER

from small_object.datasets.check_pictures import draw_sheet
from small_object.datasets.counts import MAX_THIN, STRIDE, suggest_imgsz
from small_object.datasets.dataset import DataSet, Entry, load_dataset
from small_object.datasets.findings import LEFT_OUT, Finding, Report
from small_object.datasets.image_hash import near_pairs
from small_object.datasets.images import Picture, read_image
from small_object.datasets.labels import NO_OBJECT, check_lines
from small_object.errors import UserError
from small_object.files import replacing
from small_object.parallel import map_threads

SLACK = 0.01  # pixels that rounding in a label file may take from a side
NEAR_BITS = 8  # of 256: saved anew, resized or brightened, an image differs in 0 to 2; another scene in 65 and more


@dataclass
class CheckedImage:
    """What was seen in an image of a data set."""

    entry: Entry
    picture: Picture | None  # None if it cannot be read
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # class, width and height in pixels
    findings: list[Finding] = field(default_factory=list)  # what is wrong with it and its labels


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
    images = list(map_threads(partial(check_image, dataset=dataset), dataset.entries, "checking images"))
    findings = list(dataset.findings)
    labels: set[Path] = set()
    for image in images:
        label = image.entry.label
        reported = dataset.relative_path(label) if label in labels else None  # with another image
        findings += [finding for finding in image.findings if finding.file != reported]
        labels.add(label)
    findings += [*find_same_names(dataset), *find_leaks(dataset, images)]
    findings += [
        Finding("labels-without-image", dataset.relative_path(file), "has no image")
        for file in find_lone_labels(dataset)
    ]
    counts = count_by_split(dataset, images)
    findings += [*find_missing_classes(dataset, counts), *find_tiny_objects(dataset, images, imgsz)]
    report = Report(findings, counts)
    out = Path(out) if out is not None else Path("runs/check") / dataset.yaml.stem
    out.mkdir(parents=True, exist_ok=True)
    content = {"data": str(dataset.yaml), "imgsz": imgsz, "harmful": report.harmful, "counts": counts}
    content["findings"] = [asdict(finding) for finding in report.findings]
    with replacing(out / "check.json") as new:
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    sheet, pictures = draw_sheet(report.findings), ""
    if sheet is None:
        (out / "check.jpg").unlink(missing_ok=True)
    else:
        with replacing(out / "check.jpg") as new:
            new.write_bytes(sheet)
        pictures = f", pictures in {out / 'check.jpg'}"
    LOGGER.info(f"{report.table()}\nall of them in {out / 'check.json'}{pictures}")
    return report


def check_image(entry: Entry, dataset: DataSet) -> CheckedImage:
    """Read an image with its labels and find what is wrong with them."""
    picture, faults = read_image(entry.file, dataset.channels)
    image = CheckedImage(entry, picture)
    image.findings += [_image_finding(kind, dataset, entry, message) for kind, message in faults]
    label, shown = dataset.relative_path(entry.label), str(entry.file)
    if not entry.label.is_file():
        if picture:
            message = "has no label file: background to training"
            image.findings.append(_image_finding("image-without-labels", dataset, entry, message))
        return image
    try:
        text = entry.label.read_bytes().decode()
    except UnicodeDecodeError:
        image.findings.append(Finding("unreadable-labels", label, f"is no text in UTF-8: {LEFT_OUT}", image=shown))
        return image
    lines = check_lines(text, len(dataset.names), picture.size if picture else None)
    for line in lines:
        box = None
        if picture and line.xyxy is not None:
            box = tuple((line.xyxy * (*picture.size, *picture.size)).tolist())
        image.findings += [Finding(kind, label, message, line.number, shown, box) for kind, message in line.faults]
    usable = [(line.values[0], *line.xywh[2:]) for line in lines if line.xywh and not line.has("outside", *NO_OBJECT)]
    if picture and usable:
        image.objects = np.array(usable) * (1, *picture.size)
    return image


def _image_finding(kind: str, dataset: DataSet, entry: Entry, message: str, other: Entry | None = None) -> Finding:
    """Make a finding about an image, or a pair of them."""
    second = str(other.file) if other else None
    return Finding(kind, dataset.relative_path(entry.file), message, image=str(entry.file), other=second)


def find_same_names(dataset: DataSet) -> Iterator[Finding]:
    """Find images that share a label file, and those whose names differ only in case."""
    groups = defaultdict(list)
    for entry in dataset.entries:
        groups[str(entry.label).casefold()].append(entry)
    for group in groups.values():
        for number, entry in enumerate(group[1:], 1):
            twin = next((other for other in group[:number] if other.label == entry.label), None)
            if twin:
                message = f"reads the same labels as {twin.file.name}, {dataset.relative_path(twin.label)}"
                yield _image_finding("shared-labels", dataset, entry, message, twin)
            else:
                message = f"differs from {group[0].file.name} only in case"
                yield _image_finding("same-name", dataset, entry, message, group[0])


def find_lone_labels(dataset: DataSet) -> list[Path]:
    """List the label files without an image, listed or not."""
    known = {entry.label for entry in dataset.entries}
    files = {file for folder in {label.parent for label in known} for file in folder.glob("*.txt")}
    for source in dataset.sources:
        folder = Path(img2label_paths([source / "x.jpg"])[0]).parent
        if folder != source:  # else labels lie in the folder of the images, and any text may lie around
            files |= set(folder.rglob("*.txt"))
    images, labels = (f"{os.sep}{name}{os.sep}" for name in ("images", "labels"))

    @cache
    def image_stems(folder: Path) -> set[str]:
        found = folder.iterdir() if folder.is_dir() else ()
        return {file.stem for file in found if file.suffix[1:].lower() in IMG_FORMATS}

    lone = []
    for file in sorted(files - known - set(dataset.sources)):
        folder = Path(images.join(str(file).rsplit(labels, 1))).parent  # what `img2label_paths` does, backwards
        if not file.name.startswith((".", "classes.txt")) and file.stem not in image_stems(folder):
            lone.append(file)
    return lone


def find_leaks(dataset: DataSet, images: Sequence[CheckedImage]) -> Iterator[Finding]:
    """Find images that are in train and in another split, or twice in a split, and pairs that look alike.

    Val and test may share images: that is how sets without a test split are often given.
    """
    groups = defaultdict(list)
    for image in images:
        if image.picture:
            groups[image.picture.digest].append(image.entry)
    others = []  # images that are not in train
    for group in groups.values():
        train = [entry for entry in group if "train" in entry.splits]
        for number, entry in enumerate(group):
            twin = next((other for other in group[:number] if set(other.splits) & set(entry.splits)), None)
            if twin:
                yield _image_finding("duplicate-image", dataset, entry, _describe_copy(entry, twin, dataset), twin)
            if entry.splits == ["train"]:
                continue
            if "train" in entry.splits:
                yield _image_finding("leak", dataset, entry, f"is in {' and '.join(entry.splits)}")
            elif train:
                message = f"{_describe_copy(entry, train[0], dataset)} in train"
                yield _image_finding("leak", dataset, entry, message, train[0])
            else:
                others.append(entry)
    looks = {image.entry.file: image.picture.look for image in images if image.picture}
    train = [image.entry for image in images if image.picture and "train" in image.entry.splits]
    if not train or not others:
        return
    nearest: dict[int, tuple[int, int]] = {}  # number of bits and index in train by index in others
    train_looks, other_looks = (np.array([looks[entry.file] for entry in entries]) for entries in (train, others))
    for pairs in near_pairs(train_looks, NEAR_BITS, other_looks):
        for i, j, distance in zip(*(part.tolist() for part in pairs), strict=True):
            nearest[j] = min(nearest.get(j, (distance, i)), (distance, i))
    for j, (distance, i) in nearest.items():
        message = f"looks like {dataset.relative_path(train[i].file)} in train ({distance} of 256 bits differ)"
        yield _image_finding("near-leak", dataset, others[j], message, train[i])


def _describe_copy(entry: Entry, twin: Entry, dataset: DataSet) -> str:
    what = "file" if filecmp.cmp(entry.file, twin.file, shallow=False) else "picture"
    return f"is the same {what} as {dataset.relative_path(twin.file)}"


def count_by_split(dataset: DataSet, images: Sequence[CheckedImage]) -> dict[str, dict[str, Any]]:
    """Count images, usable objects and the objects of each class by split."""
    counts: dict[str, dict[str, Any]] = {"images": {}, "objects": {}, "classes": {name: {} for name in dataset.names}}
    for split in dataset.splits:
        objects = [image.objects for image in images if split in image.entry.splits]
        classes = np.concatenate([np.zeros((0, 3)), *objects])[:, 0].astype(np.int64)
        counts["images"][split], counts["objects"][split] = len(objects), len(classes)
        for name, count in zip(dataset.names, np.bincount(classes, minlength=len(dataset.names)).tolist(), strict=True):
            counts["classes"][name][split] = count
    return counts


def find_missing_classes(dataset: DataSet, counts: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Find the classes that nothing can be learned of, and those that are not validated."""
    for name, by_split in counts["classes"].items():
        if not by_split.get("train"):
            others = [split for split, count in by_split.items() if count]
            message = f"class {name} has " + (f"objects in {' and '.join(others)} only" if others else "no objects")
            yield Finding("unused-class", dataset.relative_path(dataset.yaml), message)
        elif by_split.get("val") == 0:
            message = f"class {name} has no objects in val"
            yield Finding("class-not-in-val", dataset.relative_path(dataset.yaml), message)


def find_tiny_objects(dataset: DataSet, images: Sequence[CheckedImage], imgsz: int) -> Iterator[Finding]:
    """Find how many objects are so small at `imgsz` that no cell of stride 4 may have its centre in them.

    Training resizes the longest side of an image to `imgsz`, up or down. The finding suggests the size, a multiple of
    32, at which 95 % of the objects are at least 4 pixels wide and high, and the tiles which do that at this `imgsz`.
    """
    objects = np.concatenate([np.zeros((0, 3)), *(image.objects for image in images)])
    longest = np.array([max(image.picture.size) for image in images if image.picture for _ in image.objects])
    side, limit = objects[:, 1:].min(1), STRIDE - SLACK
    tiny = side * imgsz < limit * longest if len(objects) else np.zeros(0, bool)
    if not tiny.any():
        return
    size = suggest_imgsz(limit * longest / side)
    assert size is not None
    tile = 32 * math.floor(max(np.sort(side * imgsz / limit)[int(MAX_THIN * len(side))], 32) / 32)
    classes = []
    for index, name in enumerate(dataset.names):
        own = objects[:, 0] == index
        if (tiny & own).any():
            classes.append(f"{name} {(tiny & own).sum()} of {own.sum()}")
    message = (
        f"{tiny.mean():.1%} of {len(objects)} objects are less than {STRIDE} pixels wide or high at imgsz={imgsz}, so "
        f"that perhaps no cell of stride {STRIDE} has its centre in them ({', '.join(classes)})"
    )
    enough = f"{1 - MAX_THIN:.0%} of the objects are at least {STRIDE} pixels wide and high"
    hint = f"at imgsz={size} {enough}" if size > imgsz else f"not needed: {enough}"
    if tile < longest.max():
        hint += f"; or cut the images into tiles of {tile}x{tile} for imgsz={imgsz}"
    yield Finding("tiny-objects", dataset.relative_path(dataset.yaml), message, hint=hint)

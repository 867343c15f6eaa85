"""Finds faults in the images, labels and splits of a detection data set before training does.

Everything is read as in training. A fault's level says what it does there: an `error` makes training leave an image
out, learn something wrong or score itself too well; a `warning` is probably a mistake; an `advice` is no mistake, but
useful. `fix` repairs whatever needs no look at the pictures.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER

from small_object.datasets.check_pictures import draw_sheet
from small_object.datasets.dataset import DataSet, Entry, load_dataset, readable_path
from small_object.datasets.findings import LEFT_OUT, Finding, Report
from small_object.datasets.images import Picture, inspect_image, near_pairs
from small_object.datasets.labels import NO_OBJECT, parse_lines
from small_object.datasets.stats import STRIDE, SplitStats, count_dataset
from small_object.errors import UserError
from small_object.files import default_folder, write_file
from small_object.ignore import ignore_file, read_regions
from small_object.images import find_files, read_bits, readable_name
from small_object.parallel import map_threads

NEAR_BITS = 8  # of 256; a re-saved, resized or brightened image differs in 0 to 2, another scene in 65 or more


@dataclass
class CheckedImage:
    """An image of a data set and the findings in it."""

    entry: Entry
    picture: Picture | None  # None if it cannot be read
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))  # see `count_dataset`
    findings: list[Finding] = field(default_factory=list)  # faults of the image and its labels

    @property
    def left_out(self) -> bool:
        """Whether training leaves it out."""
        return self.picture is None or any(finding.message.endswith(LEFT_OUT) for finding in self.findings)


def check(data: str | Path, imgsz: int = 640, out: str | Path | None = None) -> Report:
    """Check a detection data set, print the findings and write `check.json` and `check.jpg`.

    Args:
        data: The data set's YAML file, or whatever training accepts as `data`.
        imgsz: Input size of the training in pixels.
        out: Folder for the results, `runs/check/<name of the YAML>` in the current directory by default.

    Returns:
        The findings.

    Raises:
        UserError: If the YAML cannot be used, or a split has no images.

    Examples:
        >>> check("datasets/ASS1-demo/ASS1-demo.yaml").harmful
        False
    """
    if imgsz < 32:
        raise UserError(f"imgsz must be at least 32 pixels, not {imgsz}")
    dataset = load_dataset(data)
    images = list(map_threads(partial(check_image, dataset=dataset), dataset.entries, "checking images"))
    found = {(f.kind, f.file, f.line): f for image in images for f in image.findings}  # shared labels count once
    findings = [*dataset.findings, *found.values()]
    findings += [*find_missing_labels(dataset), *find_shared_labels(dataset), *find_leaks(dataset, images)]
    findings += [dataset.finding("labels-without-image", "has no image", file) for file in find_orphan_labels(dataset)]
    total, splits = count_dataset([(image.objects, image.entry.splits) for image in images], dataset, imgsz)
    counts: dict[str, dict[str, Any]] = {
        "images": {split: part.images for split, part in splits.items()},
        "left_out": {split: sum(i.left_out and split in i.entry.splits for i in images) for split in splits},
        "objects": {split: part.objects for split, part in splits.items()},
        "classes": {
            name: {split: part.classes[i].objects for split, part in splits.items()}
            for i, name in enumerate(dataset.class_titles)
        },
    }
    findings += [*find_missing_classes(dataset, counts), *find_tiny_objects(dataset, total, imgsz)]
    report = Report(findings, counts)
    out = Path(out) if out is not None else default_folder("check", dataset.yaml)
    content = {"data": str(dataset.yaml), "imgsz": imgsz, "harmful": report.harmful, "counts": counts}
    content["findings"] = [asdict(finding) for finding in report.findings]
    write_file(out / "check.json", readable_name(json.dumps(content, indent=1, ensure_ascii=False)))
    sheet, pictures = draw_sheet(report.findings), ""
    if sheet is None:
        (out / "check.jpg").unlink(missing_ok=True)
    else:
        write_file(out / "check.jpg", sheet)
        pictures = f", pictures in {out / 'check.jpg'}"
    LOGGER.info(f"{report.table()}\nall of them in {out / 'check.json'}{pictures}")
    return report


def check_image(entry: Entry, dataset: DataSet) -> CheckedImage:
    """Read an image with its labels and find their faults."""
    picture, faults = inspect_image(entry.file, dataset.channels, read_bits())
    image, shown = CheckedImage(entry, picture), str(entry.file)
    image.findings += [dataset.image_finding(kind, message, entry) for kind, message in faults]
    try:
        read_regions(entry.file)
    except UserError:
        message = "has a line that is not an ignore region; training stops there"
        image.findings.append(dataset.finding("bad-regions", message, ignore_file(entry.file), image=shown))
    if not entry.label.is_file():
        if picture:
            message = "has no label file, so training takes it as background"
            image.findings.append(dataset.image_finding("image-without-labels", message, entry))
        return image
    try:
        text = entry.label.read_bytes().decode()
    except UnicodeDecodeError:
        message = f"is not UTF-8 text: {LEFT_OUT}"
        image.findings.append(dataset.finding("unreadable-labels", message, entry.label, image=shown))
        return image
    lines = parse_lines(text, len(dataset.names), picture.size if picture else None, dataset.num_fields)
    for line in lines:
        box = tuple((line.xyxy * (picture.size * 2)).tolist()) if picture and line.xywh else None
        place = {"line": line.number, "image": shown, "box": box}
        image.findings += [dataset.finding(kind, message, entry.label, **place) for kind, message in line.faults]
    usable = [line for line in lines if line.xywh and not line.has("outside", *NO_OBJECT)]
    if picture and usable:
        rows = np.array([(line.values[0], *line.xywh[2:], 1) for line in usable])
        image.objects = rows * (1, *picture.size, max(picture.size))
    return image


def find_shared_labels(dataset: DataSet) -> Iterator[Finding]:
    """Find images that read the same label file as an earlier one."""
    first: dict[Path, Path] = {}
    for entry in dataset.entries:
        if (twin := first.setdefault(entry.label, entry.file)) != entry.file:
            message = f"reads the same labels as {readable_path(twin.name)}, {dataset.relative_path(entry.label)}"
            yield dataset.image_finding("shared-labels", message, entry)


def find_missing_labels(dataset: DataSet) -> Iterator[Finding]:
    """Find splits without any label file where training looks, and the places of such files."""
    for split in dataset.splits:
        entries = [entry for entry in dataset.entries if split in entry.splits]
        if split == "test" or not entries or any(entry.label.is_file() for entry in entries):
            continue
        folders = ", ".join(sorted({dataset.relative_path(entry.label.parent) for entry in entries})[:3])
        message = f"no image of {split} has a label file where training looks, in {folders}"
        names = {f"{entry.label.stem}.txt" for entry in entries}
        files = (Path(file) for file in find_files(dataset.root, {"txt"}))
        found = Counter(dataset.relative_path(file.parent) for file in files if file.name in names)
        if found:
            places = [f"{folder} ({number})" for folder, number in found.most_common(3)]
            message += f"; files with these names are in {', '.join(places)}"
        else:
            message += f"; no file with these names is in {readable_path(dataset.root)}"
        yield dataset.finding("no-labels", message)


def find_orphan_labels(dataset: DataSet) -> list[Path]:
    """Return the label files and ignore-region files without an image in the label folders of the images."""
    orphans = []
    files = [(file, entry.file) for entry in dataset.entries for file in (entry.label, ignore_file(entry.file))]
    for labels, images in sorted({(file.parent, image.parent) for file, image in files}):
        stems = {file.stem for file in images.iterdir() if file.suffix[1:].lower() in IMG_FORMATS}
        for file in sorted(labels.glob("*.txt")):
            is_label = not file.name.startswith((".", "classes.txt")) and file not in dataset.sources
            if is_label and file.stem not in stems:
                orphans.append(file)
    return orphans


def find_leaks(dataset: DataSet, images: Sequence[CheckedImage]) -> Iterator[Finding]:
    """Find images that are in train and another split, or twice in a split, and pairs that look alike.

    Val and test may share images, as is common for sets without a separate test split.
    """
    groups, looks = defaultdict(list), {}
    for image in images:
        if image.picture:
            groups[image.picture.digest].append(image.entry)
            looks[image.entry.file] = image.picture.look
    others = []  # images that are not in train
    for group in groups.values():
        train = [entry for entry in group if "train" in entry.splits]
        for number, entry in enumerate(group):
            twin = next((other for other in group[:number] if set(other.splits) & set(entry.splits)), None)
            if twin:
                message = f"is the same picture as {dataset.relative_path(twin.file)}"
                yield dataset.image_finding("duplicate-image", message, entry)
            if "train" in entry.splits:
                if len(entry.splits) > 1:
                    yield dataset.image_finding("leak", f"is in {' and '.join(entry.splits)}", entry)
            elif train:
                message = f"is the same picture as {dataset.relative_path(train[0].file)} in train"
                yield dataset.image_finding("leak", message, entry)
            else:
                others.append(entry)
    train = [image.entry for image in images if image.picture and "train" in image.entry.splits]
    if not train or not others:
        return
    nearest: dict[int, tuple[int, int]] = {}  # number of bits and index in train by index in others
    train_looks, other_looks = (np.array([looks[entry.file] for entry in entries]) for entries in (train, others))
    for pairs in near_pairs(train_looks, other_looks, NEAR_BITS):
        for i, j, distance in zip(*(part.tolist() for part in pairs), strict=True):
            nearest[j] = min(nearest.get(j, (distance, i)), (distance, i))
    for j, (distance, i) in nearest.items():
        message = f"looks like {dataset.relative_path(train[i].file)} in train ({distance} of 256 bits differ)"
        yield dataset.image_finding("near-leak", message, others[j])


def find_missing_classes(dataset: DataSet, counts: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Find the classes without training objects, and those without validation objects."""
    for name, by_split in counts["classes"].items():
        if not by_split.get("train"):
            others = [split for split, count in by_split.items() if count]
            message = f"class {name} has " + (f"objects only in {' and '.join(others)}" if others else "no objects")
            yield dataset.finding("unused-class", message)
        elif by_split.get("val") == 0:
            yield dataset.finding("class-not-in-val", f"class {name} has no objects in val")


def find_tiny_objects(dataset: DataSet, total: SplitStats, imgsz: int) -> Iterator[Finding]:
    """Find out whether objects are so small at `imgsz` that they may contain no centre of a cell of stride 4."""
    if not total.thin:
        return
    classes = ", ".join(f"{c.name} {c.thin * c.objects:.0f} of {c.objects}" for c in total.classes if c.thin)
    message = (
        f"{total.thin:.1%} of {total.objects} objects are less than {STRIDE} pixels wide or high at imgsz={imgsz}, so "
        f"they may contain no centre of a cell of stride {STRIDE} ({classes})"
    )
    hint = f"train at a larger imgsz, or cut the images into tiles{total.advice()}" if total.advice() else "not needed"
    yield dataset.finding("tiny-objects", message, hint=hint)

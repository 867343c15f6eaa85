"""Imports data sets with COCO or Pascal VOC annotations into YOLO's layout."""

import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER, TQDM, YAML

from small_object.datasets.dataset import SPLIT_WORDS, SPLITS, Sample, new_dataset, readable_path, unique_names
from small_object.datasets.images import scan_image
from small_object.datasets.labels import yolo_lines
from small_object.datasets.split import write_dataset
from small_object.errors import UserError, one_line
from small_object.ignore import region_lines
from small_object.images import UnreadableImageError, read_bits, read_names, readable_name
from small_object.parallel import map_threads

VOC_LISTS = (("train", "val"), ("trainval", "test"), ("train", "test"))  # in ImageSets/Main; the first pair counts
IGNORED = re.compile("ignored?([ _-]*regions?)?", re.IGNORECASE)  # name of a category, such as VisDrone's
MAX_NAMED = 10  # images in a message
MIN_SIDE = 5e-7  # fraction of an image's side; less would be written as 0


@dataclass(frozen=True)
class LabelledImage:
    """An image with its objects."""

    file: Path
    objects: list[tuple[str, list[float]]] = field(default_factory=list)  # class name and box, xyxy in pixels
    size: tuple[int, int] | None = None  # width and height that the boxes refer to, if the annotations give them
    regions: list[list[float]] = field(default_factory=list)  # boxes of ignore regions
    side: str = ""  # of a published split: train, val or test


def from_coco(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    images: str | Path | None = None,
    split: str | Path | None = None,
    skip_missing: bool = False,
) -> Path:
    """Import a data set with COCO annotations.

    Classes are the categories in the order of their ids, including those without objects. Crowds (`iscrowd`), objects
    with `ignore: 1` and those of a category like "ignored regions" become ignore regions, see `small_object.ignore`.
    An object without a box gets the box around its polygons. Images that can't be read are left out and counted, as are
    objects of unlisted images or categories, without a box or polygon, or without area inside the image.

    Args:
        files: COCO's JSON; boxes are x, y, width, height in pixels. Several files are a published split. Each is named
            after its split, such as `instances_val2017.json` or `val/annotations.json`, or given as `val=FILE`.
        out: Folder of the new data set; gets `images/{train,val}`, `labels/{train,val}`, `split.csv`, `<out>.yaml` and,
            if there are any, `ignore/{train,val}` and `left_out.csv`, the list of images that are left out.
        images: Folder that the file's image names are relative to, or a folder that holds one per split. By default the
            folder with most of the images among: the file's own, its `images`, `../images`, `../<part>` and
            `../images/<part>`, where `<part>` is `train2017` for `instances_train2017.json`.
        split: Split file to follow instead of the published split or ours, see `split.read_split`.
        skip_missing: Leave out images whose files are missing, instead of refusing the import.

    Returns:
        The data YAML.

    Raises:
        UserError: If a file is not COCO's or its split is unknown, an image is missing, `out` holds a data set or the
            split does not fit.

    Examples:
        >>> from_coco(["instances_train2017.json", "instances_val2017.json"], "datasets/mine").name
        'mine.yaml'
    """
    yaml = _new_yaml(Path(out))
    labelled: list[LabelledImage] = []
    names: dict[str, None] = {}  # in order
    left_out: Counter[str] = Counter()
    sources = _name_splits([files] if isinstance(files, (str, Path)) else files)
    for file, side in sources:
        own, own_names = _read_coco(file, left_out)
        folder, missing = _find_images(file, [image.file for image in own], images, side)
        if missing and not skip_missing:
            ask = "" if images else "; give their folder with --images, or leave them out with --skip-missing"
            shown = ", ".join(one_line(folder / name) for name in missing[:MAX_NAMED])
            raise UserError(f"{file}: {len(missing)} of {len(own)} images are missing, such as {shown}{ask}")
        labelled += [replace(image, file=folder / image.file, side=side) for image in own]
        names |= dict.fromkeys(own_names)
    if not names:
        raise UserError(f"{sources[0][0]}: has only categories of ignore regions")
    return _write(yaml, labelled, list(names), left_out, " and ".join(str(file) for file, _ in sources), split)


def _name_splits(files: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Return each file with its split, which is empty for a single file."""
    sources: list[tuple[Path, str]] = []
    for text in files:
        given, _, rest = str(text).partition("=")
        if rest and given in SPLIT_WORDS:
            sources.append((Path(rest), SPLIT_WORDS[given]))
            continue
        file = Path(text)
        if len(files) == 1:
            return [(file, "")]
        folder = file.absolute().parent.name.lower().rstrip("0123456789")
        sides = {SPLIT_WORDS[word] for word in re.findall("[a-z]+", file.stem.lower()) if word in SPLIT_WORDS}
        sides = sides or {side for word, side in SPLIT_WORDS.items() if word == folder}
        if len(sides) != 1:
            raise UserError(f"{file}: its split is unknown; write train={file}, val={file} or test={file}")
        sources.append((file, sides.pop()))
    if lost := [side for side in SPLITS if side not in {own for _, own in sources}]:
        raise UserError(f"no file for the split {lost[0]}; give one as {lost[0]}=FILE, or import a single file")
    return sources


def from_voc(folder: str | Path, out: str | Path, split: str | Path | None = None) -> Path:
    """Import a data set with Pascal VOC annotations.

    Classes are in alphabetical order, as in VOC. Objects marked difficult are kept. Boxes are VOC's: pixels count from
    1, and the last one belongs to the box. But if any box of the set starts at 0, all are taken as corner points, which
    many tools write. An image without an annotation file counts as an image without objects.

    Args:
        folder: Holds `JPEGImages` (or `images`) and `Annotations`, or images and XML files side by side. If there are
            lists `train.txt` and `val.txt` in `ImageSets/Main` (or else `trainval` and `test`, or `train` and `test`),
            they are the split, and images in neither are left out.
        out: Folder of the new data set; gets `images/{train,val}`, `labels/{train,val}`, `split.csv` and `<out>.yaml`.
        split: Split file to follow instead of the published split or ours, see `split.read_split`.

    Returns:
        The data YAML.

    Raises:
        UserError: If a file cannot be used, an image is missing, `out` holds a data set or the split does not fit.

    Examples:
        >>> from_voc("VOCdevkit/VOC2012", "datasets/mine").name
        'mine.yaml'
    """
    folder, yaml = Path(folder), _new_yaml(Path(out))
    images, annotations = _list_voc(folder)
    sides = _read_voc_lists(folder, {image.stem for image in images})
    used = [image for image in images if not sides or image.stem in sides]
    left_out = Counter({"images in neither list": len(images) - len(used)})
    labelled = []
    for image in TQDM(used, desc="reading annotations", unit="file", leave=False):
        own = LabelledImage(image, side=sides.get(image.stem, ""))
        labelled.append(_read_voc_file(own, annotations[image.stem]) if image.stem in annotations else own)
    names = sorted({name for image in labelled for name, _ in image.objects})
    if not names:
        raise UserError(f"{folder}: its annotation files hold no object")
    if num_bare := sum(image.stem not in annotations for image in used):
        LOGGER.warning(f"{folder}: {num_bare} images without an annotation file, taken as images without objects")
    boxes = [box for image in labelled for _, box in image.objects]
    if any(0 <= low < 1 for box in boxes for low in box[:2]):
        LOGGER.warning(f"{folder}: boxes start at 0, so all are taken as corner points instead of VOC's pixels from 1")
    else:
        for box in boxes:  # the first pixel is 1, and the last one belongs to the box
            box[:2] = box[0] - 1, box[1] - 1
    return _write(yaml, labelled, names, left_out, str(folder), split)


def _new_yaml(out: Path) -> Path:
    """Return the data YAML to write; refuse a folder with files that would be replaced."""
    yaml = out / f"{out.resolve().name}.yaml"
    for path in (*(out / name for name in ("images", "labels", "ignore", "split.csv")), yaml):
        if path.exists():
            raise UserError(f"{path} already exists: choose another folder for the new data set")
    return yaml


def _parse_size(*sides: Any) -> tuple[int, int] | None:
    """Return a width and height, or None if they are not given."""
    try:
        width, height = (int(float(side)) for side in sides)
    except (TypeError, ValueError, OverflowError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _write(
    yaml: Path,
    labelled: Sequence[LabelledImage],
    names: Sequence[str],
    left_out: Counter[str],
    source: str,
    split: str | Path | None,
) -> Path:
    """Write the data set and log what was left out of `source`; `left_out` has the objects by reason; return `yaml`."""
    samples, mismatches = [], []
    unusable: dict[str, str] = {}
    files = [image.file.absolute() for image in labelled]
    new_names = unique_names(files, Path(os.path.commonpath([file.parent for file in files])))
    sizes = map_threads(_try_size, files, "reading image sizes")
    for image, file, name, real in zip(labelled, files, new_names, sizes, strict=True):
        if isinstance(real, str):
            unusable[readable_path(file)] = real
            left_out["of images left out"] += len(image.objects) + len(image.regions)
            continue
        size = image.size or real
        if real != size:
            mismatches.append(f"{file.name} ({size[0]} x {size[1]}, the file has {real[0]} x {real[1]})")
        boxes, has_area = _clip_boxes([box for _, box in image.objects], size)
        regions, is_region = _clip_boxes(image.regions, size)
        classes = np.array([names.index(cls) for cls, _ in image.objects], np.int64)[has_area]
        left_out["without area in the image"] += int((~has_area).sum() + (~is_region).sum())
        text, region_text = yolo_lines(boxes, classes, *size), region_lines(regions, *size)
        samples.append(Sample(file, name, text, region_text, image.side))
    if mismatches:
        text = f"gives another size for {len(mismatches)} images, such as {mismatches[0]}: check their boxes"
        LOGGER.warning(readable_name(f"{source}: {text}"))
    for path, why in list(unusable.items())[:MAX_NAMED]:
        LOGGER.warning(f"{path} is left out: {why}")
    sides = {sample.side for sample in samples}
    lost = [side for side in SPLITS if any(sides) and side not in sides]
    if lost or not samples:
        first = next((f", such as {path}: {why}" for path, why in unusable.items()), "")
        raise UserError(f"{source}: no image of {lost[0] if lost else 'the set'} can be used{first}")
    root = yaml.parent
    with new_dataset(root) as made:
        used = write_dataset(samples, made, split)
        data = {side: f"images/{side}" for side in (*SPLITS, "test") if side in {*SPLITS, *used}}
        header = f"# From {Path(source).name}. Paths are relative to this file's folder.\n"
        YAML.save(made / yaml.name, data | {"names": dict(enumerate(names))}, readable_name(header))
        if unusable:
            with (made / "left_out.csv").open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows([("image", "reason"), *unusable.items()])
    left_out[f"images (see {root / 'left_out.csv'})"] = len(unusable)
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number) or "nothing"
    num_objects = sum(sample.text.count("\n") for sample in samples)
    num_regions = sum(sample.regions.count("\n") for sample in samples)
    regions_found = f", {num_regions} ignore regions" if num_regions else ""
    found = f"{len(samples)} images, {num_objects} objects of {len(names)} classes{regions_found}; left out: {reasons}"
    LOGGER.info(readable_name(f"{source} is in {root}: {found}"))
    return yaml


def _clip_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes with area inside an image, clipped to it, and whether each box has such area."""
    clipped: np.ndarray = np.array(boxes, np.float64).reshape(-1, 4).clip(0, size * 2)
    has_area: np.ndarray = (clipped[:, 2:] - clipped[:, :2] > MIN_SIDE * np.array(size)).all(1)
    return clipped[has_area], has_area


def _try_size(file: Path) -> tuple[int, int] | str:
    """Return an image's width and height, or why it can't be read. Dark 16-bit images count as readable."""
    try:
        return scan_image(file, read_bits() or 16) if file.is_file() else "is missing"
    except UnreadableImageError as error:
        return str(error)


def _read_coco(file: Path, left_out: Counter[str]) -> tuple[list[LabelledImage], list[str]]:
    """Read a COCO file; count the objects left out by reason in `left_out`.

    Returns:
        The images, with paths as in the file, and the class names.
    """
    if not file.is_file():
        raise UserError(f"no file {file}")
    try:
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON ({one_line(error)})") from None
    for kind in ("images", "categories", "annotations"):
        items = data.get(kind) if isinstance(data, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UserError(f"{file}: is not a COCO file: it has no list of `{kind}`")
        if not items and kind != "annotations":
            raise UserError(f"{file}: its list of `{kind}` is empty")

    def by_id(kind: str, key: str, id_types: tuple[type, ...], types: tuple[type, ...]) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for i, item in enumerate(data[kind]):
            usable = isinstance(item.get("id"), id_types) and isinstance(item.get(key), types)
            if not usable or item["id"] in values:
                raise UserError(f"{file}: item {i} of its `{kind}` needs a `{key}` and a unique `id`")
            values[item["id"]] = item[key]
        return values

    files = by_id("images", "file_name", (int, float, str), (str,))
    categories = by_id("categories", "name", (int, float), (str, int))
    if twice := [name for name, count in Counter(files.values()).items() if count > 1]:
        raise UserError(f"{file}: two of its `images` are {one_line(twice[0])}")
    ignored = {key for key, name in categories.items() if IGNORED.fullmatch(str(name))}
    # one class for each name
    names = list(dict.fromkeys(str(name) for key, name in sorted(categories.items()) if key not in ignored))
    images = {}
    for item in data["images"]:
        name, size = Path(item["file_name"].replace("\\", "/")), _parse_size(item.get("width"), item.get("height"))
        images[item["id"]] = LabelledImage(name, size=size)
    for item in TQDM(data["annotations"], desc="reading annotations", unit="object", leave=False):
        box = _read_coco_box(item)
        image, category = (
            key if isinstance(key, (int, float, str)) else None
            for key in (item.get("image_id"), item.get("category_id"))
        )
        if image not in images:
            left_out["of images not listed"] += 1
        elif item.get("iscrowd") or item.get("ignore") or category in ignored:
            if box is None:
                left_out["ignore regions without a box"] += 1
            elif box not in images[image].regions:  # one region may be given as a crowd of each category
                images[image].regions.append(box)
        elif category not in categories:
            left_out["of categories not listed"] += 1
        elif box is None:
            left_out["without a box"] += 1
        else:
            images[image].objects.append((str(categories[category]), box))
    return list(images.values()), names


def _read_coco_box(item: dict[str, Any]) -> list[float] | None:
    """Return an object's box, xyxy; None if it has no box or polygon of finite numbers."""
    box, parts = item.get("bbox"), item.get("segmentation")
    try:
        if not box and parts and isinstance(parts, list):
            parts = parts if isinstance(parts[0], list) else [parts]
            points = np.concatenate([np.asarray(part, np.float64).reshape(-1, 2) for part in parts])
            box = [*points.min(0), *np.ptp(points, 0)]
        x, y, width, height = map(float, box)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    xyxy = [x, y, x + width, y + height]
    return xyxy if all(map(math.isfinite, xyxy)) else None


def _find_images(file: Path, names: Sequence[Path], images: str | Path | None, side: str) -> tuple[Path, list[Path]]:
    """Find the folder of the images that a COCO file names, and the images that are not in it."""
    for path in names:
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file}: its image {one_line(path)} must be a relative path inside the image folder")
        if path.suffix[1:].lower() not in IMG_FORMATS:
            raise UserError(f"{file}: its image {one_line(path)} has a format that training can't read")
    own, part = file.absolute().parent, file.stem.removeprefix("instances_")
    likely = [own, own / "images", own.parent / "images", own.parent / part, own.parent / "images" / part]
    folders = [Path(images, name) for name in dict.fromkeys(("", part, side))] if images else likely
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in folders}
    folder = min(missing, key=lambda folder: len(missing[folder]))
    return folder, missing[folder]


def _list_voc(folder: Path) -> tuple[list[Path], dict[str, Path]]:
    """Return the images, sorted by name, and the annotation files by stem."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    inside = {path.name.casefold(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    of_images = inside.get("jpegimages") or inside.get("images") or folder
    of_files = inside.get("annotations") or folder
    images, files = (
        [path for path in sorted(where.iterdir()) if path.suffix[1:].lower() in kinds and path.name[0] != "."]
        for where, kinds in ((of_images, IMG_FORMATS), (of_files, {"xml"}))
    )
    if not files or not images:
        what = "no XML file" if not files else "no image"
        raise UserError(f"{folder}: has {what}; give the folder that holds JPEGImages and Annotations, or both flat")
    stems = {path.stem for path in images}
    if lost := [path for path in files if path.stem not in stems]:
        raise UserError(f"{of_images}: {len(lost)} of {len(files)} images are missing, the first for {lost[0]}")
    return images, {path.stem: path for path in files}


def _read_voc_file(image: LabelledImage, file: Path) -> LabelledImage:
    """Add the content of its annotation file to an image; boxes are unchanged."""
    try:
        root = ElementTree.parse(file).getroot()  # expat follows no links and limits the expansion of entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is not XML ({one_line(error)})") from None
    if root is None or root.tag != "annotation":
        raise UserError(f"{file}: is not a VOC file: its root is not <annotation>")
    for i, entry in enumerate(root.findall("object"), 1):
        name = (entry.findtext("name") or "").strip()
        try:
            x0, y0, x1, y1 = (float(entry.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if not name or not all(map(math.isfinite, (x0, y0, x1, y1))):
            numbers = "<xmin>, <ymin>, <xmax> and <ymax>"
            raise UserError(f"{file}: object {i} needs a <name> and finite numbers as {numbers} in its <bndbox>")
        image.objects.append((name, [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]))
    return replace(image, size=_parse_size(root.findtext("size/width"), root.findtext("size/height")))


def _read_voc_lists(folder: Path, stems: set[str]) -> dict[str, str]:
    """Return the split by stem of each image in VOC's lists; empty without lists or without a split."""
    lists = folder / "ImageSets" / "Main"
    pairs = [[lists / f"{name}.txt" for name in pair] for pair in VOC_LISTS]
    sides: dict[str, str] = {}
    usable = True
    for side, file in zip(SPLITS, next((pair for pair in pairs if all(map(Path.is_file, pair))), ()), strict=False):
        lines = read_names(file)
        named = [Path(line).stem if Path(line).suffix[1:].lower() in IMG_FORMATS else line for line in lines]
        if lost := [stem for stem in named if stem not in stems]:
            raise UserError(f"{file}: {len(lost)} of {len(named)} images are missing, the first is {lost[0]}")
        usable &= bool(named) and all(sides.setdefault(stem, side) == side for stem in named)
    if not usable:
        LOGGER.warning(f"{lists}: a list is empty or an image is in both, so this published split is not used")
    return sides if usable else {}

"""Imports data sets with COCO or Pascal VOC annotations into YOLO's layout."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER, TQDM, YAML

from small_object.datasets.dataset import SPLITS, Sample, unique_names
from small_object.datasets.images import read_size
from small_object.datasets.labels import yolo_lines
from small_object.datasets.split import write_dataset
from small_object.errors import UserError, one_line
from small_object.files import staging_dir
from small_object.parallel import map_threads

VOC_LISTS = (("train", "val"), ("trainval", "test"), ("train", "test"))  # of ImageSets/Main; the first pair counts
MIN_SIDE = 5e-7  # share of an image's side; less would be written as 0


@dataclass(frozen=True)
class LabelledImage:
    """An image with its objects."""

    file: Path
    objects: list[tuple[str, list[float]]]  # class name and box, xyxy in pixels
    size: tuple[int, int] | None  # width and height that the boxes refer to, where the annotations state them


def from_coco(
    file: str | Path, out: str | Path, images: str | Path | None = None, split: str | Path | None = None
) -> Path:
    """Import a data set with COCO annotations.

    Classes are the file's categories in the order of their ids, those without objects included. Left out and counted
    are crowds, objects of images or categories that the file does not list, and objects without a box and a polygon or
    without area inside the image. An object without a box gets the one around its polygons.

    Args:
        file: COCO's JSON; boxes are x, y, width, height in pixels.
        out: Folder of the new data set; gets `images/{train,val}`, `labels/{train,val}`, `split.csv` and `<out>.yaml`.
        images: Folder that the file's image names are relative to. By default the one with most of them of: the
            file's own, its `images`, `../images`, `../<part>` and `../images/<part>`, where `<part>` is `train2017`
            for `instances_train2017.json`.
        split: Split file to follow instead of ours, see `split.read_split`.

    Returns:
        The data YAML.

    Raises:
        UserError: If the file is not COCO's, an image is missing, `out` holds a data set or the split does not fit.

    Examples:
        >>> from small_object.datasets.convert import from_coco
        >>> from_coco("annotations/instances_train2017.json", "datasets/mine").name
        'mine.yaml'
    """
    file, yaml = Path(file), _new_yaml(Path(out))
    images_read, names, left_out = _read_coco(file)
    folder = _find_images(file, [image.file for image in images_read], images)
    labelled = [replace(image, file=folder / image.file) for image in images_read]
    _write(yaml, labelled, names, left_out, file, folder, None, split)
    return yaml


def from_voc(folder: str | Path, out: str | Path, split: str | Path | None = None) -> Path:
    """Import a data set with Pascal VOC annotations.

    Classes are in alphabetical order, as VOC's own. Objects marked difficult are kept. Boxes are VOC's: pixels count
    from 1, and the last one belongs to the box. But where a box of the set starts at 0, all are taken as corner points,
    which is what many tools write. An image without an annotation file counts as one without objects.

    Args:
        folder: Holds `JPEGImages` (or `images`) and `Annotations`, or images and XML files side by side. The lists
            `train.txt` and `val.txt` in `ImageSets/Main` (without them `trainval` and `test`, or `train` and `test`)
            are the published split: it is used, and images in neither are left out.
        out: Folder of the new data set; gets `images/{train,val}`, `labels/{train,val}`, `split.csv` and `<out>.yaml`.
        split: Split file to follow instead of the published split or ours, see `split.read_split`.

    Returns:
        The data YAML.

    Raises:
        UserError: If a file cannot be used, an image is missing, `out` holds a data set or the split does not fit.

    Examples:
        >>> from small_object.datasets.convert import from_voc
        >>> from_voc("VOCdevkit/VOC2012", "datasets/mine").name
        'mine.yaml'
    """
    folder, yaml = Path(folder), _new_yaml(Path(out))
    images, annotations = _list_voc(folder)
    sides = _read_voc_lists(folder, images)
    used = [image for image in images if not sides or image in sides]
    left_out = Counter({"images in neither list": len(images) - len(used)})
    labelled = [
        _read_voc_file(image, annotations.get(image.stem))
        for image in TQDM(used, desc="reading annotations", unit="file", leave=False)
    ]
    names = sorted({name for image in labelled for name, _ in image.objects})
    if not names:
        raise UserError(f"{folder}: its annotation files hold no object")
    if num_bare := sum(image.stem not in annotations for image in used):
        LOGGER.warning(f"{folder}: {num_bare} images without an annotation file, taken as images without objects")
    boxes = [box for image in labelled for _, box in image.objects]
    if any(0 <= low < 1 for box in boxes for low in box[:2]):
        LOGGER.warning(f"{folder}: boxes start at 0, so all are taken as corner points, not as VOC's pixels from 1 on")
    else:
        for box in boxes:  # the first pixel is 1, and the last one belongs to the box
            box[:2] = box[0] - 1, box[1] - 1
    published = [sides[image] for image in used] if sides else None
    _write(yaml, labelled, names, left_out, folder, used[0].parent, published, split)
    return yaml


def _new_yaml(out: Path) -> Path:
    """Return the data YAML to write; refuse a folder where something would be replaced."""
    yaml = out / f"{out.resolve().name}.yaml"
    for path in (out / "images", out / "labels", out / "split.csv", yaml):
        if path.exists():
            raise UserError(f"{path} is there already: choose another folder for the new data set")
    return yaml


def _parse_size(*sides: object) -> tuple[int, int] | None:
    """Return a width and height, None where they are not stated."""
    try:
        width, height = (int(float(side)) for side in sides)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _write(
    yaml: Path, labelled: Sequence[LabelledImage], names: Sequence[str], left_out: Counter[str], source: Path,
    base: Path, sides: Sequence[str] | None, split: str | Path | None,
) -> None:  # fmt: skip
    """Write the data set; `left_out` counts objects by reason, `base` is a folder that holds all images."""
    samples, mismatches, kept = [], [], 0
    new_names = unique_names([image.file for image in labelled], base)
    sizes = map_threads(_try_size, [image.file for image in labelled], "reading image sizes")
    for image, name, real in zip(labelled, new_names, sizes, strict=True):
        size = image.size or real
        if size is None:
            raise UserError(f"{image.file}: cannot be read as an image, and its size is not stated")
        if real and real != size:
            mismatches.append(f"{image.file.name} ({size[0]} x {size[1]}, the file has {real[0]} x {real[1]})")
        boxes = np.array([box for _, box in image.objects], np.float64).reshape(-1, 4).clip(0, size * 2)
        classes = np.array([names.index(cls) for cls, _ in image.objects], np.int64)
        keep = (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE * np.array(size)).all(1)
        left_out["without area in the image"] += int((~keep).sum())
        kept += int(keep.sum())
        samples.append(Sample(image.file, name, yolo_lines(boxes[keep], classes[keep], *size)))
    if mismatches:
        text = f"states another size for {len(mismatches)} images, such as {mismatches[0]}: see their boxes"
        LOGGER.warning(f"{source}: {text}")
    root = yaml.parent
    with staging_dir(root) as made:
        data = {side: f"images/{side}" for side in SPLITS} | {"names": dict(enumerate(names))}
        YAML.save(made / "set" / yaml.name, data, f"# From {source.name}. Paths are relative to this file's folder.\n")
        write_dataset(samples, root, made, sides, split)
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number) or "nothing"
    LOGGER.info(
        f"{source} is in {root}: {len(samples)} images, {kept} objects of {len(names)} classes; left out: {reasons}"
    )


def _try_size(file: Path) -> tuple[int, int] | None:
    try:
        return read_size(file)
    except OSError:  # damaged, which the check reports
        return None


def _read_coco(file: Path) -> tuple[list[LabelledImage], list[str], Counter[str]]:
    """Read a COCO file.

    Returns:
        The images, by paths as in the file; the class names; the number of objects that are left out by reason.
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
            raise UserError(f"{file}: is not COCO's, it has no list of `{kind}`")
        if not items and kind != "annotations":
            raise UserError(f"{file}: its list of `{kind}` is empty")

    def by_id(kind: str, id_types: tuple[type, ...], key: str, types: tuple[type, ...]) -> dict[Any, Any]:
        values = {}
        for i, item in enumerate(data[kind]):
            for name, allowed in (("id", id_types), (key, types)):
                if not isinstance(item.get(name), allowed):
                    raise UserError(f"{file}: item {i} of its `{kind}` has no usable `{name}`")
            if item["id"] in values:
                raise UserError(f"{file}: two of its `{kind}` have the same `id`")
            values[item["id"]] = item[key]
        return values

    files = by_id("images", (int, float, str), "file_name", (str,))
    categories = by_id("categories", (int, float), "name", (str, int))
    if twice := [name for name, count in Counter(files.values()).items() if count > 1]:
        raise UserError(f"{file}: two of its `images` are {one_line(twice[0])}")
    names = list(dict.fromkeys(str(name) for _, name in sorted(categories.items())))  # one class for each name
    left_out: Counter[str] = Counter()
    objects: dict[Any, list[tuple[str, list[float]]]] = {key: [] for key in files}
    for item in TQDM(data["annotations"], desc="reading annotations", unit="object", leave=False):
        box = _read_coco_box(item)
        image, category = (
            key if isinstance(key, (int, float, str)) else None
            for key in (item.get("image_id"), item.get("category_id"))
        )
        if image not in files:
            left_out["of images not listed"] += 1
        elif item.get("iscrowd"):
            left_out["crowds"] += 1
        elif category not in categories:
            left_out["of categories not listed"] += 1
        elif box is None:
            left_out["without a box"] += 1
        else:
            objects[image].append((str(categories[category]), box))
    images = [
        LabelledImage(
            Path(item["file_name"].replace("\\", "/")),
            objects[item["id"]],
            _parse_size(item.get("width"), item.get("height")),
        )
        for item in data["images"]
    ]
    return images, names, left_out


def _read_coco_box(item: dict[str, Any]) -> list[float] | None:
    """Return an object's box, xyxy; None where it has neither a box nor a polygon of finite numbers."""
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


def _find_images(file: Path, names: Sequence[Path], images: str | Path | None) -> Path:
    """Find the folder of the images that a COCO file names; refuse where one is not in it."""
    for path in names:
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file}: its image {one_line(path)} is not named by a path inside a folder of images")
        if path.suffix[1:].lower() not in IMG_FORMATS:
            raise UserError(f"{file}: its image {one_line(path)} has a format that training cannot read")
    own, part = file.absolute().parent, file.stem.removeprefix("instances_")
    likely = [own, own / "images", own.parent / "images", own.parent / part, own.parent / "images" / part]
    folders = [Path(images)] if images else likely
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in folders}
    folder = min(missing, key=lambda folder: len(missing[folder]))
    if lost := missing[folder]:
        ask = "" if images else "; give their folder with --images"
        first = one_line(folder / lost[0])
        raise UserError(f"{file}: {len(lost)} of {len(names)} images are missing, the first is {first}{ask}")
    return folder


def _list_voc(folder: Path) -> tuple[list[Path], dict[str, Path]]:
    """Find the images, in the order of their names, and the annotation files by their stem."""
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


def _read_voc_file(image: Path, file: Path | None) -> LabelledImage:
    """Read the annotation file of an image, if there is one; boxes are as they stand there."""
    if file is None:
        return LabelledImage(image, [], None)
    try:
        root = ElementTree.parse(file).getroot()  # expat follows no links and bounds the expansion of entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is not XML ({one_line(error)})") from None
    if root is None or root.tag != "annotation":
        raise UserError(f"{file}: is not VOC's, its root is no <annotation>")
    objects = []
    for i, entry in enumerate(root.findall("object"), 1):
        name, box = (entry.findtext("name") or "").strip(), []
        if not name:
            raise UserError(f"{file}: object {i} has no <name>")
        for tag in ("xmin", "ymin", "xmax", "ymax"):
            try:
                box.append(float(entry.findtext(f"bndbox/{tag}", "")))
            except ValueError:
                box.append(math.nan)
            if not math.isfinite(box[-1]):
                raise UserError(f"{file}: object {i} has no number as <{tag}> in its <bndbox>")
        x, y = sorted(box[::2]), sorted(box[1::2])
        objects.append((name, [x[0], y[0], x[1], y[1]]))
    return LabelledImage(image, objects, _parse_size(root.findtext("size/width"), root.findtext("size/height")))


def _read_voc_lists(folder: Path, images: Sequence[Path]) -> dict[Path, str] | None:
    """Return the split of each image that VOC's lists name; None without lists, or where they are no split."""
    lists = folder / "ImageSets" / "Main"
    by_stem = {image.stem: image for image in images}
    pairs = [[lists / f"{name}.txt" for name in pair] for pair in VOC_LISTS]
    files = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
    if files is None:
        return None
    sides: dict[Path, str] = {}
    usable = True
    for side, file in zip(SPLITS, files, strict=True):
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
        stems = [Path(line).stem if Path(line).suffix[1:].lower() in IMG_FORMATS else line for line in lines if line]
        if lost := [stem for stem in stems if stem not in by_stem]:
            raise UserError(f"{file}: {len(lost)} of {len(stems)} images are missing, the first is {lost[0]}")
        usable &= bool(stems) and all(sides.setdefault(by_stem[stem], side) == side for stem in stems)
    if not usable:
        LOGGER.warning(f"{lists}: a list is empty or an image is in both, so that this published split is not used")
    return sides if usable else None

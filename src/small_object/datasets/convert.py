"""Imports data sets with COCO or Pascal VOC annotations into this fork's layout; the library supervision reads them.

What a file says is checked here first, so that a fault is named with its file, and masks are taken out: supervision
would paint and keep one for every object.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import numpy as np
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, exif_size
from ultralytics.utils import LOGGER, TQDM, YAML

from small_object.datasets.labels import yolo_lines
from small_object.datasets.dataset import SPLITS, Sample, unique_names
from small_object.datasets.split import place
from small_object.errors import UserError
from small_object.files import staging_dir

VOC_LISTS = (("train", "val"), ("trainval", "test"), ("train", "test"))  # of ImageSets/Main; the first pair counts
VOC_PIXEL = (  # the first pixel of an image, as VOC writes it
    "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox>"
    "</object></annotation>"
)
LEAST = 5e-7  # share of an image's side; less would be written as 0
NO_AREA = "without area in the image"


@dataclass(frozen=True)
class _Found:
    """An image with its objects."""

    image: Path
    boxes: np.ndarray  # (N, 4), xyxy in pixels
    classes: np.ndarray  # (N,), indices
    stated: tuple[int, int] | None  # width and height, where the annotations state those that their boxes refer to


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
        split: Split file to follow instead of ours, see `frame_split.read_split`.

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
    supervision = _package("supervision")
    coco, left = _read_coco(file)
    folder = _images_folder(file, [image["file_name"] for image in coco["images"]], images)
    with TemporaryDirectory() as scratch:  # passes as the folder of images, as those in ours may be links to elsewhere
        checked = Path(scratch, "coco.json")
        checked.write_text(json.dumps(coco), encoding="utf-8")
        try:
            dataset = supervision.DetectionDataset.from_coco(scratch, str(checked))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{file}: {_line(error)}") from None
    found = []
    for image, path in zip(coco["images"], dataset.image_paths, strict=True):
        objects, stated = dataset.annotations[path], _size(image["width"], image["height"])
        found.append(_Found(folder / image["file_name"], objects.xyxy, objects.class_id, stated))
    _write(yaml, found, dataset.classes, left, file, folder, None, split)
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
        split: Split file to follow instead of the published split or ours, see `frame_split.read_split`.

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
    read_objects = _voc_reader()
    images, annotations = _voc_files(folder)
    sides = _published_split(folder, images)
    listed = [image for image in images if not sides or image in sides]
    left = Counter({"images in neither list": len(images) - len(listed)})
    found: list[_Found] = []
    classes: list[str] = []
    for image in TQDM(listed, desc="reading annotations", unit="file", leave=False):
        file = annotations.get(image.stem)
        root = _voc_root(file) if file else Element("annotation")
        try:
            objects, classes = read_objects(root, classes, (1, 1))  # the size would be that of masks
        except ValueError as error:
            raise UserError(f"{file}: {_line(error)}") from None
        stated = _size(root.findtext("size/width"), root.findtext("size/height"))
        found.append(_Found(image, objects.xyxy, objects.class_id, stated))
    if not classes:
        raise UserError(f"{folder}: its annotation files hold no object")
    if bare := sum(image.stem not in annotations for image in listed):
        LOGGER.warning(f"{folder}: {bare} images without an annotation file, taken as images without objects")
    if any(((f.boxes[:, :2] >= -1) & (f.boxes[:, :2] < 0)).any() for f in found):
        LOGGER.warning(f"{folder}: boxes start at 0, so all are taken as corner points, not as VOC's pixels from 1 on")
        found = [replace(f, boxes=f.boxes + np.array((1, 1, 0, 0))) for f in found]
    names = sorted({name.strip() for name in classes})
    order = np.array([names.index(name.strip()) for name in classes])
    found = [replace(f, classes=order[f.classes]) for f in found]
    _write(yaml, found, names, left, folder, listed[0].parent, sides and [sides[image] for image in listed], split)
    return yaml


# What both share ------------------------------------------------------------------------------------------------------


def _new_yaml(out: Path) -> Path:
    """Return the data YAML to write; refuse a folder where something would be replaced."""
    yaml = out / f"{out.resolve().name}.yaml"
    for path in (out / "images", out / "labels", out / "split.csv", yaml):
        if path.exists():
            raise UserError(f"{path} is there already: choose another folder for the new data set")
    return yaml


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"this needs a package that is not here: pip install supervision ({error})") from None


def _line(error: object) -> str:
    return " ".join(str(error).split())


def _size(*sides: object) -> tuple[int, int] | None:
    """Return a width and height, None where they are not stated."""
    try:
        width, height = (int(float(side)) for side in sides)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _file_size(image: Path) -> tuple[int, int] | None:
    """Return the width and height at which an image is loaded; None where it is damaged, which `--check` reports."""
    try:
        with Image.open(image) as opened:
            return exif_size(opened)
    except (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError):  # upstream imports plugins
        return None


def _write(
    yaml: Path,
    found: Sequence[_Found],
    names: Sequence[str],
    left: Counter[str],
    source: Path,
    base: Path,
    sides: Sequence[str] | None,
    split: str | Path | None,
) -> None:
    """Write the data set; `left` counts what was left out by reason, `base` is a folder that holds all images."""
    samples, differ, kept = [], [], 0
    new_names = unique_names([f.image for f in found], base)
    for f, name in zip(TQDM(found, desc="reading image sizes", unit="image", leave=False), new_names, strict=True):
        real = _file_size(f.image)
        size = f.stated or real
        if size is None:
            raise UserError(f"{f.image}: cannot be read as an image, and its size is not stated")
        if real and real != size:
            differ.append(f"{f.image.name} ({size[0]} x {size[1]}, the file has {real[0]} x {real[1]})")
        boxes = f.boxes.astype(np.float64).clip(0, size * 2)
        keep = (boxes[:, 2:] - boxes[:, :2] > LEAST * np.array(size)).all(1)
        left[NO_AREA] += int((~keep).sum())
        kept += int(keep.sum())
        samples.append(Sample(f.image, name, yolo_lines(boxes[keep], f.classes[keep], *size)))
    if differ:
        LOGGER.warning(f"{source}: states another size for {len(differ)} images, such as {differ[0]}: see their boxes")
    root = yaml.parent
    with staging_dir(root) as made:
        data = {side: f"images/{side}" for side in SPLITS} | {"names": dict(enumerate(names))}
        YAML.save(made / "set" / yaml.name, data, f"# From {source.name}. Paths are relative to this file's folder.\n")
        place(samples, root, made, sides, split)
    reasons = ", ".join(f"{number} {reason}" for reason, number in left.items() if number) or "nothing"
    LOGGER.info(
        f"{source} is in {root}: {len(samples)} images, {kept} objects of {len(names)} classes; left out: {reasons}"
    )


# COCO -----------------------------------------------------------------------------------------------------------------


def _read_coco(file: Path) -> tuple[dict[str, list[dict[str, Any]]], Counter[str]]:
    """Read what an import needs of a COCO file, and count the objects that are left out by reason."""
    if not file.is_file():
        raise UserError(f"no file {file}")
    try:
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON ({_line(error)})") from None
    for kind in ("images", "categories", "annotations"):
        entries = data.get(kind) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{file}: is not COCO's, it has no list of `{kind}`")
        if not entries and kind != "annotations":
            raise UserError(f"{file}: its list of `{kind}` is empty")

    def field(kind: str, index: int, key: str, *types: type) -> Any:
        value = data[kind][index].get(key)
        if not isinstance(value, types):
            raise UserError(f"{file}: item {index} of its `{kind}` has no usable `{key}`")
        return value

    images = {}
    for i, entry in enumerate(data["images"]):
        name = field("images", i, "file_name", str).replace("\\", "/")
        width, height = _size(entry.get("width"), entry.get("height")) or (0, 0)
        key = field("images", i, "id", int, float, str)
        images[key] = {"id": key, "file_name": name, "width": width, "height": height}
    categories = {
        field("categories", i, "id", int, float): str(field("categories", i, "name", str, int))
        for i in range(len(data["categories"]))
    }
    for kind, known in (("images", images), ("categories", categories)):
        if len(known) < len(data[kind]):
            raise UserError(f"{file}: two of its `{kind}` have the same `id`")
    # supervision finds categories by their name: those of one name become one class
    first = {name: key for key, name in sorted(categories.items(), reverse=True)}
    left: Counter[str] = Counter()
    objects = []
    for entry in TQDM(data["annotations"], desc="reading annotations", unit="object", leave=False):
        box = _coco_box(entry)
        image, category = entry.get("image_id"), entry.get("category_id")
        if not _known(image, images):
            left["of images not listed"] += 1
        elif entry.get("iscrowd"):
            left["crowds"] += 1
        elif not _known(category, categories):
            left["of categories not listed"] += 1
        elif box is None:
            left["without a box"] += 1
        elif min(box[2:]) <= 0:  # below 0, supervision refuses the whole file
            left[NO_AREA] += 1
        else:
            objects.append({"image_id": image, "category_id": first[categories[category]], "bbox": box})
    classes = [{"id": key, "name": name} for name, key in first.items()]
    return {"images": list(images.values()), "annotations": objects, "categories": classes}, left


def _known(key: object, keys: Collection[int | float | str]) -> bool:
    return isinstance(key, (int, float, str)) and key in keys


def _coco_box(entry: dict[str, Any]) -> list[float] | None:
    """Return an object's x, y, width and height; None where it has neither a box nor a polygon of finite numbers."""
    box, parts = entry.get("bbox"), entry.get("segmentation")
    try:
        if not box and parts and isinstance(parts, list):
            parts = parts if isinstance(parts[0], list) else [parts]
            points = np.concatenate([np.asarray(part, np.float64).reshape(-1, 2) for part in parts])
            box = [*points.min(0), *(points.max(0) - points.min(0))]
        x, y, width, height = (float(value) for value in box)  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError):
        return None
    return [x, y, width, height] if all(map(math.isfinite, (x, y, width, height))) else None


def _images_folder(file: Path, names: Sequence[str], images: str | Path | None) -> Path:
    """Find the folder of the images that a COCO file names; refuse where one is not in it."""
    for path in map(Path, names):
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{file}: its image {_line(path)} is not named by a path inside a folder of images")
        if path.suffix[1:].lower() not in IMG_FORMATS:
            raise UserError(f"{file}: its image {_line(path)} has a format that training cannot read")
    own, part = file.absolute().parent, file.stem.removeprefix("instances_")
    likely = [own, own / "images", own.parent / "images", own.parent / part, own.parent / "images" / part]
    missing = {
        folder: [path for path in (folder / name for name in names) if not path.is_file()]
        for folder in ([Path(images)] if images else likely)
    }
    folder = min(missing, key=lambda folder: len(missing[folder]))
    if absent := missing[folder]:
        ask = "" if images else "; give their folder with --images"
        raise UserError(
            f"{file}: {len(absent)} of {len(names)} images are missing, the first is {_line(absent[0])}{ask}"
        )
    return folder


# VOC ------------------------------------------------------------------------------------------------------------------


def _voc_reader() -> Callable[[Element, list[str], tuple[int, int]], tuple[Any, list[str]]]:
    """Return supervision's reader of one file; that of a folder decodes all images and names no file in its errors."""
    _package("supervision")
    read = getattr(_package("supervision.dataset.formats.pascal_voc"), "detections_from_xml_obj", None)
    # up to 0.31.0 it made each box a pixel too narrow and too low, a quarter of a side of 4 pixels
    if read is None or read(fromstring(VOC_PIXEL), [], (1, 1))[0].xyxy.tolist() != [[0, 0, 1, 1]]:
        raise UserError("this version of supervision reads VOC's boxes wrongly: pip install supervision==0.31.2")
    return read


def _voc_files(folder: Path) -> tuple[list[Path], dict[str, Path]]:
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


def _voc_root(file: Path) -> Element:
    """Read an annotation file, without its polygons, of which supervision would make masks."""
    try:
        root = _package("defusedxml.ElementTree").parse(file).getroot()  # what supervision itself reads with
    except (SyntaxError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is not XML ({_line(error)})") from None
    if root.tag != "annotation":
        raise UserError(f"{file}: is not VOC's, it holds <{root.tag}> instead of <annotation>")
    for entry in root.findall("object"):
        for polygon in entry.findall("polygon"):
            entry.remove(polygon)
    return root


def _published_split(folder: Path, images: Sequence[Path]) -> dict[Path, str] | None:
    """Return the side of each image that VOC's lists name; None without lists, or where they are no split."""
    lists = folder / "ImageSets" / "Main"
    by_stem = {image.stem: image for image in images}
    pairs = [[lists / f"{name}.txt" for name in pair] for pair in VOC_LISTS]
    files = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
    if files is None:
        return None
    sides: dict[Path, str] = {}
    both = False
    for side, file in zip(SPLITS, files, strict=True):
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
        stems = [Path(line).stem if Path(line).suffix[1:].lower() in IMG_FORMATS else line for line in lines if line]
        if lost := [stem for stem in stems if stem not in by_stem]:
            raise UserError(f"{file}: {len(lost)} of {len(stems)} images are missing, the first is {lost[0]}")
        both |= not stems or any(sides.setdefault(by_stem[stem], side) != side for stem in stems)
    if both:
        LOGGER.warning(f"{lists}: a list is empty or an image is in both, so that this published split is not used")
    return None if both else sides

"""Imports data sets with COCO or Pascal VOC annotations into this fork's layout; the library supervision reads them.

What a file says is checked here first, so that a fault is named with its file, and masks are taken out: supervision
would paint and keep one for every object.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import numpy as np
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER, TQDM, YAML

from small_object.datasets.dataset import SPLITS, Sample, unique_names
from small_object.datasets.images import read_size
from small_object.datasets.labels import yolo_lines
from small_object.datasets.split import write_dataset
from small_object.errors import UserError, one_line
from small_object.files import staging_dir

VOC_LISTS = (("train", "val"), ("trainval", "test"), ("train", "test"))  # of ImageSets/Main; the first pair counts
VOC_PIXEL = (  # the first pixel of an image, as VOC writes it
    "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox>"
    "</object></annotation>"
)
VocReader = Callable[[Element, list[str], tuple[int, int]], tuple[Any, list[str]]]
MIN_SIDE = 5e-7  # share of an image's side; less would be written as 0
NO_AREA = "without area in the image"


@dataclass(frozen=True)
class LabelledImage:
    """An image with its objects."""

    file: Path
    boxes: np.ndarray  # (N, 4), xyxy in pixels
    classes: np.ndarray  # (N,), indices
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
    supervision = _import("supervision")
    coco, left_out = _read_coco(file)
    folder = _find_images(file, [image["file_name"] for image in coco["images"]], images)
    with TemporaryDirectory() as scratch:  # passes as the folder of images, as those in ours may be links to elsewhere
        checked = Path(scratch, "coco.json")
        checked.write_text(json.dumps(coco), encoding="utf-8")
        try:
            dataset = supervision.DetectionDataset.from_coco(scratch, str(checked))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{file}: {one_line(error)}") from None
    labelled = []
    for image, path in zip(coco["images"], dataset.image_paths, strict=True):
        objects, size = dataset.annotations[path], _parse_size(image["width"], image["height"])
        labelled.append(LabelledImage(folder / image["file_name"], objects.xyxy, objects.class_id, size))
    _write(yaml, labelled, dataset.classes, left_out, file, folder, None, split)
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
    read_objects = _voc_reader()
    images, annotations = _list_voc(folder)
    sides = _read_voc_lists(folder, images)
    used = [image for image in images if not sides or image in sides]
    left_out = Counter({"images in neither list": len(images) - len(used)})
    labelled: list[LabelledImage] = []
    classes: list[str] = []
    for image in TQDM(used, desc="reading annotations", unit="file", leave=False):
        file = annotations.get(image.stem)
        root = _read_voc_file(file) if file else Element("annotation")
        try:
            objects, classes = read_objects(root, classes, (1, 1))  # the size would be that of masks
        except ValueError as error:
            raise UserError(f"{file}: {one_line(error)}") from None
        size = _parse_size(root.findtext("size/width"), root.findtext("size/height"))
        labelled.append(LabelledImage(image, objects.xyxy, objects.class_id, size))
    if not classes:
        raise UserError(f"{folder}: its annotation files hold no object")
    if num_bare := sum(image.stem not in annotations for image in used):
        LOGGER.warning(f"{folder}: {num_bare} images without an annotation file, taken as images without objects")
    if any(((image.boxes[:, :2] >= -1) & (image.boxes[:, :2] < 0)).any() for image in labelled):
        LOGGER.warning(f"{folder}: boxes start at 0, so all are taken as corner points, not as VOC's pixels from 1 on")
        labelled = [replace(image, boxes=image.boxes + np.array((1, 1, 0, 0))) for image in labelled]
    names = sorted({name.strip() for name in classes})
    order = np.array([names.index(name.strip()) for name in classes])
    labelled = [replace(image, classes=order[image.classes]) for image in labelled]
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


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"this needs a package that is not here: pip install supervision ({error})") from None


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
    for image, name in zip(
        TQDM(labelled, desc="reading image sizes", unit="image", leave=False), new_names, strict=True
    ):
        try:
            real = read_size(image.file)
        except OSError:  # damaged, which the check reports
            real = None
        size = image.size or real
        if size is None:
            raise UserError(f"{image.file}: cannot be read as an image, and its size is not stated")
        if real and real != size:
            mismatches.append(f"{image.file.name} ({size[0]} x {size[1]}, the file has {real[0]} x {real[1]})")
        boxes = image.boxes.astype(np.float64).clip(0, size * 2)
        keep = (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE * np.array(size)).all(1)
        left_out[NO_AREA] += int((~keep).sum())
        kept += int(keep.sum())
        samples.append(Sample(image.file, name, yolo_lines(boxes[keep], image.classes[keep], *size)))
    if mismatches:
        LOGGER.warning(
            f"{source}: states another size for {len(mismatches)} images, such as {mismatches[0]}: see their boxes"
        )
    root = yaml.parent
    with staging_dir(root) as made:
        data = {side: f"images/{side}" for side in SPLITS} | {"names": dict(enumerate(names))}
        YAML.save(made / "set" / yaml.name, data, f"# From {source.name}. Paths are relative to this file's folder.\n")
        write_dataset(samples, root, made, sides, split)
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number) or "nothing"
    LOGGER.info(
        f"{source} is in {root}: {len(samples)} images, {kept} objects of {len(names)} classes; left out: {reasons}"
    )


def _read_coco(file: Path) -> tuple[dict[str, list[dict[str, Any]]], Counter[str]]:
    """Read what an import needs of a COCO file, and count the objects that are left out by reason."""
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
    sizes = {item["id"]: _parse_size(item.get("width"), item.get("height")) or (0, 0) for item in data["images"]}
    images = [
        {"id": key, "file_name": name.replace("\\", "/"), "width": sizes[key][0], "height": sizes[key][1]}
        for key, name in files.items()
    ]
    # supervision finds categories by their name: those of one name become one class
    first = {str(name): key for key, name in sorted(categories.items(), reverse=True)}
    left_out: Counter[str] = Counter()
    objects = []
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
        elif min(box[2:]) <= 0:  # below 0, supervision refuses the whole file
            left_out[NO_AREA] += 1
        else:
            objects.append({"image_id": image, "category_id": first[str(categories[category])], "bbox": box})
    classes = [{"id": key, "name": name} for name, key in first.items()]
    return {"images": images, "annotations": objects, "categories": classes}, left_out


def _read_coco_box(item: dict[str, Any]) -> list[float] | None:
    """Return an object's x, y, width and height; None where it has neither a box nor a polygon of finite numbers."""
    box, parts = item.get("bbox"), item.get("segmentation")
    try:
        if not box and parts and isinstance(parts, list):
            parts = parts if isinstance(parts[0], list) else [parts]
            points = np.concatenate([np.asarray(part, np.float64).reshape(-1, 2) for part in parts])
            box = [*points.min(0), *np.ptp(points, 0)]
        x, y, width, height = map(float, box)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return [x, y, width, height] if all(map(math.isfinite, (x, y, width, height))) else None


def _find_images(file: Path, names: Sequence[str], images: str | Path | None) -> Path:
    """Find the folder of the images that a COCO file names; refuse where one is not in it."""
    for path in map(Path, names):
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


def _voc_reader() -> VocReader:
    """Return supervision's reader of one file; that of a folder decodes all images and names no file in its errors."""
    _import("supervision")
    read: VocReader | None = getattr(_import("supervision.dataset.formats.pascal_voc"), "detections_from_xml_obj", None)
    # up to 0.31.0 it made each box a pixel too narrow and too low, a quarter of a side of 4 pixels
    if read is None or read(fromstring(VOC_PIXEL), [], (1, 1))[0].xyxy.tolist() != [[0, 0, 1, 1]]:
        raise UserError("this version of supervision reads VOC's boxes wrongly: pip install supervision==0.31.2")
    return read


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


def _read_voc_file(file: Path) -> Element:
    """Read an annotation file, without its polygons, of which supervision would make masks."""
    try:
        root: Element = _import("defusedxml.ElementTree").parse(file).getroot()  # what supervision itself reads with
    except (SyntaxError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is not XML ({one_line(error)})") from None
    if root.tag != "annotation":
        raise UserError(f"{file}: is not VOC's, it holds <{root.tag}> instead of <annotation>")
    for entry in root.findall("object"):
        for polygon in entry.findall("polygon"):
            entry.remove(polygon)
    return root


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

"""Cuts a data set into tiles, with labels in YOLO's and COCO's formats.

Training and validation images are cut separately, and equally each time. Objects are cut as in training on tiles, see
`cut_objects`, and dropped if they keep less than the fraction `keep` of their area. A tile that holds only dropped
objects or ignore regions is left out, since it is not background.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.data import YOLODataset
from ultralytics.utils import LOGGER, TQDM, YAML
from ultralytics.utils.ops import xywhn2xyxy
from ultralytics.utils.patches import imread

from small_object.arguments import MAX_OVERLAP, MIN_TILE
from small_object.datasets.dataset import SPLITS, new_dataset, read_data_yaml, unique_names, write_labels
from small_object.datasets.images import read_flags
from small_object.datasets.labels import yolo_lines
from small_object.errors import UserError
from small_object.ignore import read_regions, region_lines
from small_object.slicing.dataset import cut_keypoints, cut_objects
from small_object.slicing.tiling import tile_grid

KEPT_KEYS = ("names", "channels", "kpt_shape", "flip_idx", "kpt_names")  # of the data YAML
DECIMALS = 6  # of a pixel in COCO's annotations; removes floating-point noise only
LOSSY = (".jpg", ".jpeg", ".webp")  # their tiles are JPEGs of quality 95, all others are PNGs


@dataclass(frozen=True)
class Tile:
    """A part of an image, with its objects."""

    image: Path
    name: str  # file name
    xyxy: tuple[int, int, int, int]  # its corners in pixels of the image
    classes: np.ndarray  # class indices of its objects, shape (N,)
    boxes: np.ndarray  # their boxes, xyxy in pixels of the tile, shape (N, 4)
    regions: np.ndarray  # its ignore regions, likewise
    points: list[np.ndarray]  # a polygon's corners, (P, 2), or keypoints, (K, 3), of each object; empty for plain boxes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1]


def cut_tiles(
    data: str | Path, out: Path, tile: int = 640, overlap: float = 0.2, keep: float = 0.4, empty: float = 0.1
) -> Path:
    """Cut a data set into tiles.

    Args:
        data: Its data YAML.
        out: Folder of the new set.
        tile: Side of a tile in pixels; a smaller image is one tile.
        overlap: Minimum overlap of neighbouring tiles as a fraction of their side, 0..0.9.
        keep: Minimum fraction of its area that an object must keep to stay in a tile.
        empty: Number of tiles without objects to keep, per tile with objects.

    Returns:
        The data YAML of the new set, `<out>/<name of out>.yaml`. COCO's annotations are in
        `<out>/annotations/instances_{train,val,test}.json`.

    Raises:
        UserError: If an argument is out of its range, the data can't be used or `out` already holds images.
    """
    if tile < MIN_TILE or not 0 <= overlap <= MAX_OVERLAP or not 0 < keep <= 1 or not empty >= 0:
        limits = f"tile must be at least {MIN_TILE}, overlap from 0 to {MAX_OVERLAP}, keep above 0 and at most 1"
        raise UserError(f"{limits}, empty at least 0")
    if (out / "images").exists():
        raise UserError(f"{out}: already holds images; remove them or choose another folder")
    info = read_data_yaml(data)
    task = "pose" if any(info.get("kpt_shape", ())) else "detect"  # which reads polygons too
    try:
        splits = [*SPLITS, "test"] if info.get("test") else SPLITS
        sets = {split: YOLODataset(img_path=info[split], data=info, task=task, augment=False) for split in splits}
    except Exception as error:
        raise UserError(f"{data}: {str(error).strip().partition(chr(10))[0]}") from error
    if info["channels"] not in (1, 3):
        raise UserError(f"{data}: only images of 1 or 3 channels can be cut, not of {info['channels']}")
    file = out / f"{out.absolute().name}.yaml"
    names = [info["names"][index] for index in range(len(info["names"]))]
    with new_dataset(out, splits) as made:
        (made / "annotations").mkdir()
        for split, dataset in sets.items():
            planned = plan_tiles(dataset, tile, overlap, keep, empty)
            tiles = _write_tiles(planned, made, split, info)
            instances = json.dumps(build_instances(names, tiles))
            (made / f"annotations/instances_{split}.json").write_text(instances, encoding="utf-8")
            counts = [len(tile.classes) for tile in tiles]
            objects = f"{np.count_nonzero(counts)} with {sum(counts)} objects"
            LOGGER.info(f"{split}: {len(tiles)} tiles of {len(dataset.labels)} images, {objects}")
        what = f"{Path(data).stem} in tiles of {tile} px, overlap {overlap:g}, keep {keep:g}"
        content = {split: f"images/{split}" for split in splits} | {k: info[k] for k in KEPT_KEYS if k in info}
        YAML.save(made / file.name, content, f"# {what}\n\n")
    LOGGER.info(f"the tiles are in {file}")
    return file


def plan_tiles(dataset: YOLODataset, tile: int, overlap: float, keep: float, empty: float) -> list[Tile]:
    """Return the tiles of a split; for the arguments see `cut_tiles`."""
    files = [Path(label["im_file"]) for label in dataset.labels]
    names = unique_names([file.absolute() for file in files], Path(files[0].absolute().anchor))
    with_objects, background = [], []
    for file, name, label in zip(files, names, dataset.labels, strict=True):
        height, width = label["shape"]
        boxes = xywhn2xyxy(label["bboxes"].astype(np.float64), width, height)
        boxes = np.clip(boxes.round(2), 0, (width, height) * 2)  # labels are rounded: a box of whole pixels stays so
        polygons = [(polygon * (width, height)).round(2) for polygon in label["segments"]]
        regions = read_regions(file) * ((width, height) * 2)
        for x1, y1, x2, y2 in tile_grid(height, width, tile, overlap).tolist():
            kept, inside, touched, cut = cut_objects(boxes, polygons, (x1, y1, x2, y2), keep)
            points = [polygon - (x1, y1) for polygon in cut]
            if label["keypoints"] is not None:  # those that don't count become 0 0 0, as is COCO's custom
                keypoints = cut_keypoints(label["keypoints"][kept], (width, height), (x1, y1, x2, y2))
                points = list((keypoints * (keypoints[..., 2:] > 0) * (x2 - x1, y2 - y1, 1)).round(2))
            classes = label["cls"][kept, 0].astype(int)
            corner = (x1, y1, x1, y1)
            own = regions.clip(corner, (x2, y2, x2, y2)) - corner
            own = own[(own[:, 2:] - own[:, :2] >= 1).all(1)]
            title = f"{Path(name).stem}_{x1}_{y1}" + (".jpg" if file.suffix.lower() in LOSSY else ".png")
            planned = Tile(file, title, (x1, y1, x2, y2), classes, inside - corner, own, points)
            if len(classes):
                with_objects.append(planned)
            elif not touched and not len(own):
                background.append(planned)
    background.sort(key=lambda tile: hashlib.sha256(tile.name[:-4].encode()).digest())  # the same choice each time
    return with_objects + background[: round(empty * len(with_objects))]


def _write_tiles(tiles: Sequence[Tile], folder: Path, split: str, info: dict[str, Any]) -> list[Tile]:
    """Write tiles, grouped by image, so that each image is read once.

    `info` is what `read_data_yaml` returns.

    Returns:
        The tiles written. Images that can't be read are left out with a warning.
    """
    written, num_values = [], info.get("kpt_shape", (0, 3))[1]
    ordered = TQDM(sorted(tiles, key=lambda tile: (tile.image, tile.name)), desc=split, unit="tile", leave=False)
    for file, own in groupby(ordered, key=lambda tile: tile.image):
        image = imread(file, read_flags(info["channels"]))
        for tile in () if image is None else own:
            (x1, y1, x2, y2), (width, height) = tile.xyxy, tile.size
            options = [cv2.IMWRITE_JPEG_QUALITY, 95] if tile.name.endswith(".jpg") else []
            data = cv2.imencode(tile.name[-4:], image[y1:y2, x1:x2], options)[1]
            (folder / "images" / split / tile.name).write_bytes(data.tobytes())
            text = yolo_lines(tile.boxes, tile.classes, width, height, tile.points, num_values)
            write_labels(folder, split, tile.name, text, region_lines(tile.regions, width, height))
            written.append(tile)
    return written


def build_instances(names: Sequence[str], tiles: Sequence[Tile]) -> dict[str, list[dict[str, Any]]]:
    """Return COCO's annotations of tiles. Ids start at 1; a category's id is its class index plus 1.

    An ignore region becomes a crowd (`iscrowd`) of each category, since COCO's evaluation is per category.
    """
    found: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    found["categories"] = [{"id": index, "name": name} for index, name in enumerate(names, 1)]
    for number, tile in enumerate(tiles, 1):
        width, height = tile.size
        found["images"].append({"id": number, "file_name": tile.name, "width": width, "height": height})
        objects = [(cls + 1, box, 0) for cls, box in zip(tile.classes.tolist(), tile.boxes.tolist(), strict=True)]
        objects += [(category["id"], region, 1) for region in tile.regions.tolist() for category in found["categories"]]
        for i, (category, (x1, y1, x2, y2), is_crowd) in enumerate(objects):
            x, y, w, h = (round(value, DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1))
            annotation = {"id": len(found["annotations"]) + 1, "image_id": number, "category_id": category}
            annotation |= {"bbox": [x, y, w, h], "area": round(w * h, DECIMALS), "iscrowd": is_crowd}
            if tile.points and tile.points[0].shape[1] == 3:  # COCO's evaluation reads those of crowds too
                own = tile.points[0] * 0 if is_crowd else tile.points[i]
                annotation |= {"keypoints": own.ravel().tolist(), "num_keypoints": int((own[:, 2] > 0).sum())}
            elif tile.points:
                own = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) if is_crowd else tile.points[i]
                area = round(cv2.contourArea(own.astype(np.float32)), DECIMALS)
                annotation |= {"segmentation": [own.round(DECIMALS).ravel().tolist()], "area": area}
            found["annotations"].append(annotation)
    return found

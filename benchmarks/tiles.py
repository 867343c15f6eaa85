"""Cuts a data set into tiles for benchmarks: python benchmarks/tiles.py DATA.yaml --tile 640 --overlap 0.2 --out DIR.

Training and validation images are cut separately, the same each time. A box is cut to its tile and dropped there where
less than 40 % of it remain; a tile with nothing but such remains is left out, since it is no background either. Of the
tiles without objects a tenth as many are kept as there are tiles with objects. `DIR/<name of DIR>.yaml` is the new set.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from ultralytics.data import YOLODataset
from ultralytics.utils import LOGGER, TQDM, YAML
from ultralytics.utils.ops import xywhn2xyxy

from small_object.datasets.labels import yolo_lines
from small_object.datasets.dataset import SPLITS, put_in_place, read_data_yaml, unique_names
from small_object.errors import UserError
from small_object.files import staging_dir
from small_object.slicing.dataset import cut_boxes
from small_object.slicing.tiling import tile_grid

LOSSY = (".jpg", ".jpeg", ".webp")  # their tiles are JPEGs of quality 95; all others are PNGs


@dataclass(frozen=True)
class Tile:
    """A part of an image, with the objects in it.

    Attributes:
        image: The file it is cut from.
        name: File name without suffix.
        xyxy: Its place there, in pixels.
        boxes: Objects (N, 4), xyxy in pixels of the tile.
        classes: Their classes (N,).
    """

    image: Path
    name: str
    xyxy: tuple[int, int, int, int]
    boxes: np.ndarray
    classes: np.ndarray


def plan(dataset: YOLODataset, tile: int, overlap: float, keep: float, empty: float) -> list[Tile]:
    """Return the tiles of a split, see `cut` for the arguments."""
    files = [Path(label["im_file"]) for label in dataset.labels]
    names = unique_names([file.absolute() for file in files], Path(files[0].absolute().anchor))
    full, blank = [], []
    for file, name, label in zip(files, names, dataset.labels, strict=True):
        height, width = label["shape"]
        boxes = xywhn2xyxy(label["bboxes"].astype(np.float64), width, height)
        boxes = np.clip(boxes.round(2), 0, (width, height) * 2)  # labels are rounded: a box of whole pixels stays one
        for x0, y0, x1, y1 in tile_grid(height, width, tile, overlap).tolist():
            which, inside, touched = cut_boxes(boxes, (x0, y0, x1, y1), keep)
            classes = label["cls"][which, 0].astype(int)
            made = Tile(file, f"{Path(name).stem}_{x0}_{y0}", (x0, y0, x1, y1), inside - (x0, y0, x0, y0), classes)
            if len(inside):
                full.append(made)
            elif not touched:
                blank.append(made)
    blank.sort(key=lambda made: hashlib.sha256(made.name.encode()).digest())  # a choice that stays the same
    return full + blank[: round(empty * len(full))]


def cut(data: str, out: Path, tile: int = 640, overlap: float = 0.2, keep: float = 0.4, empty: float = 0.1) -> Path:
    """Cut a data set into tiles.

    Args:
        data: Its data YAML.
        out: Folder of the new set.
        tile: Side of a tile in pixels; a smaller image is a tile as it is.
        overlap: Share of a tile that the next one covers again, at least, 0 to 0.9.
        keep: Share of its area from which on a box stays in a tile.
        empty: Tiles without objects to keep, for each with objects.

    Returns:
        The data YAML of the new set.

    Raises:
        UserError: If an argument is out of its range, the data cannot be used or `out` holds images already.
    """
    if tile < 64 or not 0 <= overlap <= 0.9 or not 0 < keep <= 1 or not empty >= 0:
        raise UserError("tile must be at least 64, overlap from 0 to 0.9, keep from above 0 to 1, empty at least 0")
    if (out / "images").exists():
        raise UserError(f"{out}: holds images already; remove them or choose another folder")
    found = read_data_yaml(data)
    try:
        sets = {split: YOLODataset(img_path=found[split], data=found, task="detect", augment=False) for split in SPLITS}
    except Exception as error:
        raise UserError(f"{data}: {str(error).strip().partition(chr(10))[0]}") from error
    with staging_dir(out) as made:
        for split, dataset in sets.items():
            tiles = plan(dataset, tile, overlap, keep, empty)
            _write(tiles, made, split)
            with_objects, objects = (
                sum(f(t) for t in tiles) for f in (lambda t: len(t.boxes) > 0, lambda t: len(t.boxes))
            )
            LOGGER.info(
                f"{split}: {len(tiles)} tiles of {len(dataset.labels)} images, {with_objects} with {objects} objects"
            )
        header = (
            f"# {Path(data).stem} in tiles of {tile} px, overlap {overlap:g}, boxes from {keep:g} of their area on.\n\n"
        )
        content = {"train": "images/train", "val": "images/val", "names": found["names"]}
        YAML.save(made / f"{out.absolute().name}.yaml", content, header)
        put_in_place(made, out)
    return out / f"{out.absolute().name}.yaml"


def _write(tiles: list[Tile], made: Path, split: str) -> None:
    """Write the images and labels of tiles; those of one image one after the other, so that it is read once."""
    for kind in ("images", "labels"):
        (made / kind / split).mkdir(parents=True)
    image, read = np.zeros((0, 0, 3)), None
    for tile in TQDM(sorted(tiles, key=lambda tile: (tile.image, tile.name)), desc=split, unit="tile", leave=False):
        if tile.image != read:
            image, read = cv2.imread(str(tile.image)), tile.image  # turned as its EXIF says, as in training
        x0, y0, x1, y1 = tile.xyxy
        lossy = tile.image.suffix.lower() in LOSSY
        picture = made / "images" / split / (tile.name + (".jpg" if lossy else ".png"))
        cv2.imwrite(str(picture), image[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, 95] if lossy else [])
        text = yolo_lines(tile.boxes, tile.classes, x1 - x0, y1 - y0)
        (made / "labels" / split / f"{tile.name}.txt").write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="data YAML of the set to cut")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new set")
    parser.add_argument("--tile", type=int, default=640, help="side of a tile in pixels, default 640")
    parser.add_argument("--overlap", type=float, default=0.2, help="share covered by the next tile, default 0.2")
    parser.add_argument("--keep", type=float, default=0.4, help="share of its area that a box keeps, default 0.4")
    parser.add_argument("--empty", type=float, default=0.1, help="empty tiles for each with objects, default 0.1")
    try:
        LOGGER.info(f"the tiles are in {cut(**vars(parser.parse_args(argv)))}")
    except (UserError, OSError) as error:
        sys.exit(f"tiles.py: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes the page on which the detections of several models are compared, one file to open in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import LOGGER, YAML
from ultralytics.utils.ops import xywh2xyxy

from small_object.datasets.labels import read_labels
from small_object.errors import UserError
from small_object.files import replacing
from small_object.sizes import SIZE_GROUPS

TEMPLATE = Path(__file__).with_suffix(".html")
FOLDER = "index_files"  # beside the page: what it shows and is not there already
SHOWN = frozenset({"avif", "bmp", "jpeg", "jpg", "mpo", "png", "webp"})  # image formats that browsers show
THUMBNAIL = 288, 96  # largest width and height in pixels


@dataclass
class Shown:
    """An image on the page.

    Attributes:
        file: The image.
        number: Its place among those of the page, from 0.
        width: Width in pixels.
        height: Height in pixels.
        truth: Its objects (class, x1, y1, x2, y2), xyxy in pixels, shape (N, 5); None where it has no labels.
        source: The file to show: the image, or a copy where browsers do not know its format.
    """

    file: Path
    number: int
    width: int
    height: int
    truth: np.ndarray | None
    source: Path


@dataclass
class Found:
    """What one model found in an image.

    Attributes:
        rows: (class, score, x1, y1, x2, y2), xyxy in pixels, shape (N, 6), by falling score.
        picture: The image with these drawn.
    """

    rows: np.ndarray
    picture: Path


@dataclass
class ComparisonPage:
    """Collects what models find in images, and writes a page that shows them side by side.

    The images stay where they are: the page names their files, relative to itself where it can. It holds the boxes
    itself, so it needs no network and no server.

    Args:
        folder: Folder of the page, which is there.
        title: What the page is about.
        names: Class names of the labels; None: of the data set's YAML file, else of the first model.
    """

    folder: Path
    title: str
    names: dict[int, str] | None = None
    _images: dict[str, Shown] = field(default_factory=dict)
    _models: dict[str, tuple[dict[str, Found], dict[int, str], float]] = field(default_factory=dict)
    _files: set[Path] = field(default_factory=set)

    def look(self, file: Path, image: np.ndarray) -> None:
        """Put an image on the page, unless it is there: read its labels, write its thumbnail.

        Args:
            file: The image's file.
            image: The image (H, W, C), BGR.
        """
        if str(file) in self._images:
            return
        number = len(self._images)
        height, width = image.shape[:2]
        scale = min(1.0, *(most / side for most, side in zip(THUMBNAIL, (width, height), strict=True)))
        small = max(1, round(width * scale)), max(1, round(height * scale))
        self._write(f"{number:05d}.jpg", cv2.resize(image, small, interpolation=cv2.INTER_AREA))
        source = file
        if file.suffix[1:].lower() not in SHOWN:
            source = self._write(f"{number:05d}.png", image)
        truth = _truth(file, width, height)
        self._images[str(file)] = Shown(file, number, width, height, truth, source)

    def objects(self, file: Path) -> np.ndarray:
        """Return the objects that the labels of an image on the page state, see `Shown.truth`; none without labels."""
        truth = self._images[str(file)].truth
        return np.zeros((0, 5)) if truth is None else truth

    def add(self, model: str, found: dict[str, Found], names: dict[int, str], milliseconds: float) -> None:
        """Put a model on the page.

        Args:
            model: Its name.
            found: What it found, by the name of the image's file.
            names: Its class names.
            milliseconds: Its mean time for an image.
        """
        self._models[model] = found, names, milliseconds

    def write(self) -> Path | None:
        """Write `index.html` and return it; None where there is no image or no model to show."""
        if not self._images or not self._models:
            return None
        page = self.folder / "index.html"
        template = TEMPLATE.read_text(encoding="utf-8")
        script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() if script else ""
        # Nothing in a JSON text ends a script element but `<`; JSON has no other place for it than in strings.
        data = json.dumps(self._data(), ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
        fields = {"TITLE": html.escape(self.title), "SCRIPT_HASH": digest, "DATA": data}
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)
        with replacing(page) as new:
            new.write_text(text, encoding="utf-8")
        for left in (self.folder / FOLDER).iterdir():  # of an earlier page of more images
            if re.fullmatch(r"\d{5,}\.(jpg|png)", left.name) and left not in self._files:
                left.unlink()
        return page

    def _write(self, name: str, image: np.ndarray) -> Path:
        file = self.folder / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_bytes(cv2.imencode(file.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        self._files.add(file)
        return file

    def _occurring(self, labels: dict[int, str]) -> Iterator[tuple[dict[int, str], set[int]]]:
        """Yield names and which of their classes occur, of the labels and of each model."""
        truths = [image.truth for image in self._images.values() if image.truth is not None]
        yield labels, {int(c) for truth in truths for c in truth[:, 0]}
        for found, names, _ in self._models.values():
            yield names, {int(c) for each in found.values() for c in each.rows[:, 0]}

    def _data(self) -> dict[str, Any]:
        """Return what the page shows; classes of models and labels are brought together by their names."""
        labels = self.names or _data_names([image.file for image in self._images.values()])
        labels = labels or next(iter(self._models.values()))[1]
        classes: dict[str, int] = {}  # those that occur, in the order of the labels' names, then the models'
        all_names = [labels, *(names for _, names, _ in self._models.values())]
        seen = {str(names[c]) for names, at in self._occurring(labels) for c in at if c in names}
        for name in (str(name) for names in all_names for name in names.values()):
            if name in seen:
                classes.setdefault(name, len(classes))
        images, told = [], set()
        for key, image in self._images.items():
            truth, known = None, image.truth
            if known is not None:
                if nameless := {int(c) for c in known[:, 0]} - labels.keys() - told:
                    told |= nameless
                    LOGGER.warning(f"labels of {image.file}: class {min(nameless)} has no name: left out of the page")
                truth = [[classes[str(labels[int(c)])], *_short(box)] for c, *box in known.tolist() if int(c) in labels]
            entry = {
                "name": image.file.name,
                "source": _address(image.source, self.folder),
                "thumbnail": f"{FOLDER}/{image.number:05d}.jpg",
                "size": [image.width, image.height],
                "truth": truth,
                "found": [],
                "pictures": [],
            }
            for found, names, _ in self._models.values():
                rows = found[key].rows.tolist() if key in found else []
                entry["found"].append([[classes[str(names[int(c)])], round(s, 3), *_short(box)] for c, s, *box in rows])
                entry["pictures"].append(_address(found[key].picture, self.folder) if key in found else None)
            images.append(entry)
        return {
            "title": self.title,
            "classes": list(classes),
            "sizes": [
                [name, low**0.5, high**0.5 if high < float("inf") else None]
                for name, (low, high) in SIZE_GROUPS.items()
            ],
            "models": [{"name": name, "milliseconds": round(ms, 1)} for name, (_, _, ms) in self._models.items()],
            "images": images,
        }


def found_of(result: Any, picture: Path) -> Found:
    """Return what a result of `model.predict` holds.

    Args:
        result: Upstream's result of one image.
        picture: The image with the detections drawn.
    """
    boxes = result.boxes
    rows = np.column_stack([part.cpu().numpy() for part in (boxes.cls, boxes.conf, boxes.xyxy)])
    return Found(rows[np.argsort(-rows[:, 1], kind="stable")], picture)


def _truth(file: Path, width: int, height: int) -> np.ndarray | None:
    """Return the objects that the label file of an image states, see `Shown.truth`."""
    label = Path(img2label_paths([str(file.absolute())])[0])
    if not label.is_file():  # in a folder of labels an image without a file has no objects
        return np.zeros((0, 5)) if label.parent.is_dir() and label.parent != file.parent else None
    try:
        rows = read_labels(label)
        if not np.isfinite(rows).all():
            raise UserError(f"{label}: holds a value that is not a number")
    except (UserError, OSError) as error:
        LOGGER.warning(f"{error}: the page shows {file.name} without ground truth")
        return None
    boxes = xywh2xyxy(rows[:, 1:]) * (width, height, width, height)
    return np.column_stack((rows[:, 0], boxes))


def _data_names(files: list[Path]) -> dict[int, str] | None:
    """Return the class names in the one YAML file beside the folder `images` that holds the files, if it is so."""
    homes = {parent.parent for file in files for parent in file.absolute().parents if parent.name == "images"}
    found = [path for home in homes for path in (*home.glob("*.yaml"), *home.glob("*.yml"))]
    if len(found) != 1:
        return None
    try:
        names = YAML.load(found[0])["names"]
        return {int(c): name for c, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except Exception:  # not a data set's: any error of the YAML reader
        return None


def _address(file: Path, folder: Path) -> str:
    """Return the address of a file for a page in a folder, relative where both are on one drive."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
    except ValueError:
        return file.absolute().as_uri()


def _short(box: list[float]) -> list[float]:
    """Return a box in tenths of pixels, without decimals that are 0: the page holds very many."""
    return [int(v) if v == int(v) else v for v in (round(value, 1) for value in box)]

"""Writes the page on which the detections of several models are compared, one file to open in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from ultralytics.data.utils import img2label_paths
from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywh2xyxy

from small_object.datasets.labels import read_labels
from small_object.errors import UserError
from small_object.files import replacing
from small_object.images import read_bits, utf8_name
from small_object.sizes import SIZE_GROUPS

FOLDER = "index_files"  # next to the page: thumbnails, and copies of images that browsers can't show
BROWSER_FORMATS = frozenset({"avif", "bmp", "jpeg", "jpg", "mpo", "png", "webp"})
THUMBNAIL = 288, 96  # largest width and height in pixels


@dataclass
class PageImage:
    """An image on the page."""

    file: Path
    source: Path  # the file to show: the image, or a copy if browsers don't know its format
    thumbnail: Path
    size: tuple[int, int]  # width and height in pixels
    truth: np.ndarray | None  # labelled objects, class and xyxy in pixels, shape (N, 5); None without labels


@dataclass
class PageModel:
    """A model on the page: its class names, and its results by the path of the image."""

    names: dict[int, str]
    boxes: dict[str, np.ndarray] = field(default_factory=dict)  # as `Results.boxes.data`, by falling confidence
    annotated: dict[str, Path | None] = field(default_factory=dict)  # files of the annotated images
    milliseconds: float = 0.0  # of all images


@dataclass
class ComparisonPage:
    """Collects the results of models, and writes a page that shows them side by side.

    The images stay where they are: the page links to them, relative to itself if it can. It holds the boxes itself, so
    it needs no network and no server.

    Args:
        folder: Folder of the page.
        title: Title of the page.
        names: Class names of the labels; those of the first model by default.
        num_fields: Fields of a label line with a box and keypoints, see `DataSet.num_fields`.
        notes: Lines on what is not shown, and why.
    """

    folder: Path
    title: str
    names: dict[int, str] | None = None
    num_fields: int = 5
    notes: list[str] = field(default_factory=list)
    _images: dict[str, PageImage] = field(default_factory=dict)
    _models: dict[str, PageModel] = field(default_factory=dict)
    _written: set[Path] = field(default_factory=set)

    def add(self, model: str, result: Results, annotated: Path | None) -> None:
        """Put what a model finds in an image on the page, and the image too unless it is there.

        Args:
            model: Name of the model.
            result: Upstream's result of the image.
            annotated: File of the annotated image, if there is one.
        """
        if result.path not in self._images:
            self._add_image(result.path, result.orig_img)
        entry = self._models.setdefault(model, PageModel(result.names))
        boxes = result.boxes.cpu().numpy().data
        entry.boxes[result.path] = boxes[np.argsort(-boxes[:, 4], kind="stable")]
        entry.annotated[result.path] = annotated
        entry.milliseconds += sum(result.speed.values())

    def drop_model(self, model: str, reason: str) -> None:
        """Take a model that was not finished from the page, and say why."""
        self._models.pop(model, None)
        self.notes.append(f"{model}: {reason}")

    def write(self) -> Path | None:
        """Write `index.html` and return it; None if there is no image or no model to show."""
        if not self._images or not self._models:
            return None
        page = self.folder / "index.html"
        template, style, script = (
            Path(__file__).with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".html", ".css", ".js")
        )
        # In JSON, `<` occurs only in strings; escaped, it can't end the script element.
        data = json.dumps(self._data(), separators=(",", ":")).replace("<", "\\u003c")
        digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
        fields = {
            "TITLE": html.escape(utf8_name(self.title)),
            "NOTES": "".join(f"<li>{html.escape(utf8_name(note))}</li>" for note in self.notes),
            "STYLE": style,
            "SCRIPT": script,
            "SCRIPT_HASH": digest,
            "DATA": data,
        }
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)
        with replacing(page) as new:
            new.write_text(text, encoding="utf-8")
        for file in (self.folder / FOLDER).iterdir():  # of an earlier page of more images
            if re.fullmatch(r"\d{5,}\.(jpg|png)", file.name) and file not in self._written:
                file.unlink()
        return page

    def _add_image(self, path: str, image: np.ndarray) -> None:
        file, number = Path(path), f"{len(self._images):05d}"
        height, width = image.shape[:2]
        scale = min(1.0, THUMBNAIL[0] / width, THUMBNAIL[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        thumbnail = self._write_image(f"{number}.jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        source = file
        is_scaled = file.suffix.lower() == ".png" and read_bits()  # else it may be all but black
        if is_scaled or file.suffix[1:].lower() not in BROWSER_FORMATS:
            source = self._write_image(f"{number}.png", image)
        truth = read_truth(file, width, height, self.num_fields)
        self._images[path] = PageImage(file, source, thumbnail, (width, height), truth)

    def _write_image(self, name: str, image: np.ndarray) -> Path:
        file = self.folder / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_bytes(cv2.imencode(file.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        self._written.add(file)
        return file

    def _data(self) -> dict[str, Any]:
        """Return what the page shows; classes of models and labels are matched by name."""
        models = self._models.values()
        names = self.names or next(iter(models)).names
        truths = [image.truth[:, 0] for image in self._images.values() if image.truth is not None]
        if unnamed := {int(c) for array in truths for c in np.unique(array)} - names.keys():
            LOGGER.warning(f"labels: class {min(unnamed)} has no name and is left out of the page")
        columns = [(names, truths), *((model.names, [rows[:, 5] for rows in model.boxes.values()]) for model in models)]
        used = {known[int(c)] for known, arrays in columns for a in arrays for c in np.unique(a) if int(c) in known}
        classes = [name for name in dict.fromkeys(n for known, _ in columns for n in known.values()) if name in used]
        indices = {name: index for index, name in enumerate(classes)}
        limits = [(name, low**0.5, high**0.5) for name, (low, high) in SIZE_GROUPS.items()]
        return {
            "title": self.title,
            "classes": classes,
            "sizes": [[name, low, high if np.isfinite(high) else None] for name, low, high in limits],
            "models": [
                {"name": name, "milliseconds": round(model.milliseconds / len(model.boxes), 1)}
                for name, model in self._models.items()
            ],
            "images": [self._image_data(path, names, indices) for path in self._images],
        }

    def _image_data(self, path: str, names: dict[int, str], indices: dict[str, int]) -> dict[str, Any]:
        image, truth = self._images[path], None
        if image.truth is not None:
            truth = [[indices[names[int(c)]], *_tenths(xyxy)] for c, *xyxy in image.truth.tolist() if int(c) in names]
        detections, annotated = [], []
        for model in self._models.values():
            rows = model.boxes.get(path, np.zeros((0, 6))).tolist()
            detections.append([[indices[model.names[int(c)]], round(s, 3), *_tenths(xyxy)] for *xyxy, s, c in rows])
            picture = model.annotated.get(path)
            annotated.append(picture and _url(picture, self.folder))
        return {
            "name": utf8_name(image.file.name),
            "source": _url(image.source, self.folder),
            "thumbnail": _url(image.thumbnail, self.folder),
            "size": image.size,
            "truth": truth,
            "detections": detections,
            "annotated": annotated,
        }


def read_truth(file: Path, width: int, height: int, num_fields: int = 5) -> np.ndarray | None:
    """Return the objects in the label file of an image, see `PageImage.truth`; an unusable file counts as missing."""
    label = Path(img2label_paths([str(file.absolute())])[0])
    if not label.is_file():  # in a folder of labels an image without a file has no objects
        return np.zeros((0, 5)) if label.parent.is_dir() and label.parent != file.parent else None
    try:
        rows = read_labels(label, num_fields=num_fields)
        if not np.isfinite(rows).all():
            raise UserError(f"{label}: holds a value that is not a number")
    except (UserError, OSError) as error:
        LOGGER.warning(f"{error}: the page shows {file.name} without ground truth")
        return None
    return np.column_stack((rows[:, 0], xywh2xyxy(rows[:, 1:]) * (width, height, width, height)))


def _url(file: Path, folder: Path) -> str:
    """Return the URL of a file for a page in a folder, relative if both are on one drive."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
    except ValueError:
        return file.absolute().as_uri()


def _tenths(box: list[float]) -> list[float]:
    """Return a box in tenths of pixels, without decimals that are 0: the page holds very many."""
    return [int(v) if v == int(v) else v for v in (round(value, 1) for value in box)]

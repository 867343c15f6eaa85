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
class PageModel:
    """A model on the page: its class names, and its results by the path of the image."""

    names: dict[int, str]
    boxes: dict[str, np.ndarray] = field(default_factory=dict)  # as `Results.boxes.data`, by falling confidence
    annotated: dict[str, str | None] = field(default_factory=dict)  # URLs of the annotated images
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
    _images: dict[str, dict[str, Any]] = field(default_factory=dict)  # what the page knows of each, by its path
    _truths: dict[str, np.ndarray | None] = field(default_factory=dict)  # see `read_truth`
    _models: dict[str, PageModel] = field(default_factory=dict)

    def add(self, model: str, result: Results, annotated: Path | None) -> None:
        """Put what a model finds in an image on the page, with the file of the annotated image if there is one."""
        if result.path not in self._images:
            self._add_image(result.path, result.orig_img)
        entry = self._models.setdefault(model, PageModel(result.names))
        boxes = result.boxes.cpu().numpy().data
        entry.boxes[result.path] = boxes[np.argsort(-boxes[:, 4], kind="stable")]
        entry.annotated[result.path] = self._url(annotated) if annotated else None
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
        written = {image[key] for image in self._images.values() for key in ("source", "thumbnail")}
        for file in (self.folder / FOLDER).iterdir():  # of an earlier page of more images
            if re.fullmatch(r"\d{5,}\.(jpg|png)", file.name) and f"{FOLDER}/{file.name}" not in written:
                file.unlink()
        return page

    def _add_image(self, path: str, image: np.ndarray) -> None:
        file, number = Path(path), f"{len(self._images):05d}"
        height, width = image.shape[:2]
        scale = min(1.0, THUMBNAIL[0] / width, THUMBNAIL[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        thumbnail = self._write_image(f"{number}.jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        source = self._url(file)
        is_scaled = file.suffix.lower() == ".png" and read_bits()  # else it may be all but black
        if is_scaled or file.suffix[1:].lower() not in BROWSER_FORMATS:
            source = self._write_image(f"{number}.png", image)
        self._truths[path] = read_truth(file, width, height, self.num_fields)
        name = utf8_name(file.name)
        self._images[path] = {"name": name, "source": source, "thumbnail": thumbnail, "size": (width, height)}

    def _write_image(self, name: str, image: np.ndarray) -> str:
        """Write an image, and return its URL."""
        file = self.folder / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_bytes(cv2.imencode(file.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        return self._url(file)

    def _url(self, file: Path) -> str:
        """Return the URL of a file for the page, relative if both are on one drive."""
        try:
            return quote(os.fsencode(Path(os.path.relpath(file, self.folder)).as_posix()))
        except ValueError:
            return file.absolute().as_uri()

    def _data(self) -> dict[str, Any]:
        """Return what the page shows; classes of models and labels are matched by name."""
        models = self._models.values()
        names = self.names or next(iter(models)).names
        labelled = {int(c) for truth in self._truths.values() if truth is not None for c in np.unique(truth[:, 0])}
        if unnamed := labelled - names.keys():
            LOGGER.warning(f"labels: class {min(unnamed)} has no name and is left out of the page")
        used = {names[c] for c in labelled & names.keys()}
        for model in models:
            used |= {model.names[int(c)] for rows in model.boxes.values() for c in np.unique(rows[:, 5])}
        known = dict.fromkeys(name for each in (names, *(model.names for model in models)) for name in each.values())
        classes = [name for name in known if name in used]
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
        labelled, truth = self._truths[path], None
        if labelled is not None:
            truth = [[indices[names[int(c)]], *_tenths(xyxy)] for c, *xyxy in labelled.tolist() if int(c) in names]
        detections = []
        for model in self._models.values():
            rows = model.boxes.get(path, np.zeros((0, 6))).tolist()
            detections.append([[indices[model.names[int(c)]], round(s, 3), *_tenths(xyxy)] for *xyxy, s, c in rows])
        annotated = [model.annotated.get(path) for model in self._models.values()]
        return self._images[path] | {"truth": truth, "detections": detections, "annotated": annotated}


def read_truth(file: Path, width: int, height: int, num_fields: int = 5) -> np.ndarray | None:
    """Return the objects in the label file of an image, class and xyxy in pixels, shape (N, 5); None without labels.

    An unusable file counts as missing.
    """
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


def _tenths(box: list[float]) -> list[float]:
    """Return a box in tenths of pixels, without decimals that are 0: the page holds very many."""
    return [int(v) if v == int(v) else v for v in (round(value, 1) for value in box)]

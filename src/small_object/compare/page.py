"""Writes the page that compares the detections of several models in a browser.

The page counts with `Facts`, so it needs the boxes only of the images that it shows.
"""

import base64
import hashlib
import html
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
import torch
from ultralytics.data.utils import img2label_paths
from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywh2xyxy

from small_object.compare.facts import NO_BOXES, NO_CELL, Boxes, Cell, Facts
from small_object.compare.kinds import FOREGROUND, Kind, find_pairs
from small_object.datasets.labels import read_labels
from small_object.errors import UserError
from small_object.files import write_file
from small_object.ignore import find_ignored, read_regions
from small_object.images import read_bits, utf8_name
from small_object.sizes import SIZE_GROUPS
from small_object.slicing.region import Region

FOLDER = "index_files"  # next to the page: thumbnails, copies of images that browsers can't show, and data
BROWSER_FORMATS = frozenset({"avif", "bmp", "jpeg", "jpg", "mpo", "png", "webp"})
THUMBNAIL = 288, 96  # maximum width and height in pixels
MAX_INLINE = 1000  # images; a page with more loads the boxes of `SHARD` images when it shows one of them
SHARD = 100
RULES = [(iou, same_class) for same_class in (True, False) for iou in (0.1, 0.3, FOREGROUND, 0.75)]
"""Definitions of found that the page offers: the minimum IoU, and whether the classes must agree."""


class PageImage(NamedTuple):
    """An image on the page."""

    about: dict[str, Any]  # its name, files and size
    objects: Boxes | None  # None without labels
    rows: str  # the objects as JSON
    regions: np.ndarray = NO_BOXES.xyxy  # ignore regions, xyxy in pixels, shape (N, 4)


@dataclass
class PageModel:
    """A model on the page; its dictionaries are by the path of the image."""

    names: dict[int, str]
    cells: dict[str, Cell] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)  # the detections as JSON
    annotated: dict[str, str | None] = field(default_factory=dict)  # URLs of the annotated images
    milliseconds: float = 0.0  # of all images


@dataclass
class ComparisonPage:
    """Collects the results of models and writes a page that shows them side by side.

    The images stay where they are: the page links to them, with relative paths if possible. The boxes are part of the
    page, so it needs no network and no server.

    Args:
        folder: Folder of the page.
        title: Title of the page.
        names: Class names of the labels; those of the first model by default.
        num_fields: Fields of a label line with a box and keypoints, see `DataSet.num_fields`.
        region: Where to look; objects with their centre outside don't count.
        wanted: Names of the classes to find; labels of others don't count. All if empty, or if the labels have none.
        left_out: Files that can't be read, and why.
        notes: Notes on what else is missing, by subject.
    """

    folder: Path
    title: str
    names: dict[int, str] | None = None
    num_fields: int = 5
    region: Region | None = None
    wanted: set[str] = field(default_factory=set)
    left_out: dict[Path, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    _images: dict[str, PageImage] = field(default_factory=dict)  # by path
    _models: dict[str, PageModel] = field(default_factory=dict)
    _classes: dict[str, int] = field(default_factory=dict)  # the page's index by name; those without a box are hidden
    _written: set[str] = field(default_factory=set)  # URLs of the data files of the latest page

    def add(self, model: str, result: Results, annotated: Path | None) -> None:
        """Add a model's results of an image to the page, with the file of the annotated image if there is one."""
        self.names = self.names or result.names
        entry, path = self._models.setdefault(model, PageModel(result.names)), result.path
        if path not in self._images:
            self._images[path] = self._read_image(path, result.orig_img, self.names)
        image = self._images[path]
        if image.objects is not None and set(self.names.values()).isdisjoint(result.names.values()):
            self._warn(f"{model}: has no class of the labels, so all models are matched by boxes alone")
        data = result.boxes.cpu().numpy().data.astype(np.float64)
        data = data[np.argsort(-data[:, 4], kind="stable")]
        found = Boxes(data[:, :4], self._find_classes(data[:, 5], result.names), data[:, 4])
        ignored, pairs = np.zeros(len(data), bool), NO_CELL.pairs
        if image.objects is not None:
            pairs = find_pairs(found.xyxy, image.objects.xyxy)
            arrays = found.xyxy, found.classes, image.objects.xyxy, image.objects.classes, image.regions
            ignored = find_ignored(*map(torch.from_numpy, arrays)).numpy()
        entry.cells[path] = Cell(found, image.objects, ignored, pairs)
        entry.rows[path] = _rows(found.classes, found.scores.round(3), found.xyxy)
        entry.annotated[path] = self._url(annotated) if annotated else None
        entry.milliseconds += sum(result.speed.values())

    def write(self) -> Path | None:
        """Write `index.html` and return it; None if there is no image to show.

        Data files are written first, under new names, so the page is complete at any time.
        """
        if not self._models:
            return None
        page = self.folder / "index.html"
        template, style, script = (
            Path(__file__).with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".html", ".css", ".js")
        )
        # In JSON, `<` occurs only in strings; escaped, it can't end the script element.
        data = self._data().replace("<", "\\u003c")
        digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
        notes = [f"{file.name}: left out: {reason}" for file, reason in self.left_out.items()]
        notes += self.notes.values()
        fields = {
            "TITLE": html.escape(utf8_name(self.title)),
            "NOTES": "".join(f"<li>{html.escape(utf8_name(note))}</li>" for note in notes),
            "STYLE": style,
            "SCRIPT": script,
            "SCRIPT_HASH": digest,
            "DATA": data,
        }
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)
        write_file(page, text)
        self._written |= {image.about[key] for image in self._images.values() for key in ("source", "thumbnail")}
        old = re.compile(r"\d{5,}\.(jpg|png)|[0-9a-f]{16}\.js")
        for file in (self.folder / FOLDER).iterdir():  # of an earlier page
            if old.fullmatch(file.name) and f"{FOLDER}/{file.name}" not in self._written:
                file.unlink()
        return page

    def count_kinds(self) -> dict[str, np.ndarray]:
        """Return the numbers of detections and objects by size group and `Kind` for each model, int64, shape (5, 9).

        Images without labels don't count; if none has labels, the result is empty. `UNDETECTED` includes `MISSED`.
        """
        if all(image.objects is None for image in self._images.values()):
            return {}
        facts = self._facts()
        counts = facts.count(facts.codes(*self._rules()[0]))
        return {name: counts[number :: len(self._models)].sum(0) for number, name in enumerate(self._models)}

    def _read_image(self, path: str, image: np.ndarray, names: dict[int, str]) -> PageImage:
        """Write an image's thumbnail and return its entry on the page."""
        file, number = Path(path), f"{len(self._images):05d}"
        height, width = image.shape[:2]
        scale = min(1.0, THUMBNAIL[0] / width, THUMBNAIL[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        thumbnail = self._write_image(f"{number}.jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        source = self._url(file)
        is_scaled = file.suffix.lower() == ".png" and read_bits()  # else it may be almost black
        if is_scaled or file.suffix[1:].lower() not in BROWSER_FORMATS:
            source = self._write_image(f"{number}.png", image)
        about = {"name": utf8_name(file.name), "source": source, "thumbnail": thumbnail, "size": (width, height)}
        truth = read_truth(file, width, height, self.num_fields)
        if truth is None:
            return PageImage(about | {"labelled": False}, None, "null")
        if self.region is not None:
            centres = torch.from_numpy(truth[:, 1:3] + truth[:, 3:]) / 2
            truth = truth[self.region.contains(centres, (height, width)).numpy()]
        if self.wanted.intersection(names.values()):
            truth = truth[np.isin(truth[:, 0], [number for number, name in names.items() if name in self.wanted])]
        known = np.isin(truth[:, 0], list(names))
        if not known.all():
            note = f"labels: class {truth[~known, 0].min():.0f} has no name and is not shown on the page"
            self._warn(note)
        try:
            regions = read_regions(path) * (width, height, width, height)
        except UserError as error:
            LOGGER.warning(f"{error}: the page does not show them")
            regions = NO_BOXES.xyxy
        objects = Boxes(truth[known, 1:], self._find_classes(truth[known, 0], names), np.zeros(known.sum()))
        return PageImage(about | {"labelled": True}, objects, _rows(objects.classes, None, objects.xyxy), regions)

    def _warn(self, note: str) -> None:
        """Log a warning, once, and note it on the page."""
        if note not in self.notes:
            LOGGER.warning(note)
        self.notes[note] = note

    def _find_classes(self, numbers: np.ndarray, names: dict[int, str]) -> np.ndarray:
        """Return the page's indices of classes."""
        indices = {number: self._classes.setdefault(name, len(self._classes)) for number, name in names.items()}
        return np.array([indices[int(number)] for number in numbers], int)

    def _write_image(self, name: str, image: np.ndarray) -> str:
        """Write an image, and return its URL."""
        file = self.folder / FOLDER / name
        write_file(file, cv2.imencode(file.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
        return self._url(file)

    def _url(self, file: Path) -> str:
        """Return the URL of a file for the page, relative if both are on one drive."""
        try:
            return quote(os.fsencode(Path(os.path.relpath(file, self.folder)).as_posix()))
        except ValueError:
            return file.absolute().as_uri()

    def _write_data(self, content: str) -> str:
        """Write JSON that the page loads on demand, unless it exists; return the URL."""
        text = f"received({content});\n"
        file = self.folder / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.js"
        if not file.is_file():
            write_file(file, text)
        self._written.add(self._url(file))
        return self._url(file)

    def _facts(self) -> Facts:
        models = self._models.values()
        return Facts([model.cells.get(path, NO_CELL) for path in self._images for model in models])

    def _rules(self) -> list[tuple[float, bool]]:
        """Return the rules that the page offers, starting with the one it applies first.

        A model with other class names, such as a single class, can be compared only by boxes.
        """
        names = set((self.names or {}).values())
        first = FOREGROUND, not any(names.isdisjoint(model.names.values()) for model in self._models.values())
        return [first, *(rule for rule in RULES if rule != first)]

    def _data(self) -> str:
        """Write the data that the page loads later, and return the rest as JSON; classes are matched by name."""
        facts, models, is_small = self._facts(), self._models.values(), len(self._images) <= MAX_INLINE
        limits = [(name, low**0.5, high**0.5) for name, (low, high) in SIZE_GROUPS.items()]
        rules: list[dict[str, Any]] = []
        used, self._written = np.zeros(0, np.uint32), set()
        for iou, same_class in self._rules():
            codes = facts.codes(iou, same_class)
            used = np.union1d(used, codes >> 17)
            rule: dict[str, Any] = {"codes": _base64(codes), "ends": _base64(facts.ends)}
            if rules or not is_small:
                rule = {"file": self._write_data(json.dumps(rule))}
            rules.append({"iou": iou, "sameClass": same_class} | rule)
        images, boxes = [], []
        for path, image in self._images.items():
            images.append(image.about | {"annotated": [model.annotated.get(path) for model in models]})
            detections = ",".join(model.rows.get(path, "null") for model in models)
            boxes.append(f'{{"truth":{image.rows},"detections":[{detections}]}}')
        shards = [boxes[start : start + SHARD] for start in range(0, len(boxes), SHARD)]
        content = {
            "title": self.title,
            "classes": list(self._classes),
            "used": used.tolist(),
            "kinds": [kind.name.lower() for kind in Kind],
            "sizes": [[name, low, high if np.isfinite(high) else None] for name, low, high in limits],
            "models": [
                {"name": name, "milliseconds": round(model.milliseconds / len(model.cells), 1)}
                for name, model in self._models.items()
            ],
            "lowest": facts.lowest,
            "rules": rules,
            "images": images,
            "shard": SHARD,
            "shards": [] if is_small else [self._write_data(f"[{','.join(shard)}]") for shard in shards],
        }
        text = json.dumps(content, separators=(",", ":"))
        return f'{text[:-1]},"boxes":[{",".join(boxes) if is_small else ""}]}}'


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


def _rows(classes: np.ndarray, scores: np.ndarray | None, xyxy: np.ndarray) -> str:
    """Return boxes as JSON rows: class, score if any, and the corners in tenths of pixels."""
    columns = [classes.tolist(), *([] if scores is None else [scores.tolist()])]
    corners = xyxy.round(1).tolist()
    rows = [
        [*values, *(int(v) if v == int(v) else v for v in row)] for *values, row in zip(*columns, corners, strict=True)
    ]
    return json.dumps(rows, separators=(",", ":"))


def _base64(array: np.ndarray) -> str:
    """Return integers as base64 with 32 bits each."""
    return base64.b64encode(array.astype("<u4").tobytes()).decode()

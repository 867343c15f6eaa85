"""Runs several models over the same images and saves what each of them finds."""

from __future__ import annotations

import glob
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from ultralytics import YOLO
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import imread

from small_object.compare.page import ComparisonPage
from small_object.datasets.dataset import count_fields, read_data_yaml
from small_object.errors import UserError, one_line

MAX_COLUMNS = 12  # classes in the table before those without an object are left out


@dataclass(frozen=True)
class ModelRun:
    """What one model found."""

    name: str
    num_images: int  # images and video frames
    num_objects: Counter[str]  # by class name
    milliseconds: float  # mean time per image: preprocessing, inference and postprocessing
    folder: Path  # of the annotated images
    num_full: int | None = None  # objects that the pass over whole images finds alone, None without slicing


def compare(
    models: Sequence[Path],
    out: Path,
    data: str | Path | None = None,
    source: str | Path | None = None,
    title: str = "What each model finds",
    **options: Any,
) -> list[ModelRun]:
    """Run models over the same images, print a table and write a page that shows them side by side.

    Args:
        models: See `find_weights`.
        out: Folder for the results; gets one folder per model and `index.html`.
        data: Data YAML, whose validation images are run; made or fetched if it has a `download:`.
        source: Image, video, folder, glob or list to run instead.
        title: Title of the page.
        **options: See `predict`.

    Returns:
        The runs; models that fail are left out and named in the log.

    Raises:
        UserError: If there is no model or nothing to run.
    """
    if not data and not source:
        raise UserError("give --data, --source or both")
    weights = find_weights(models)
    info = read_data_yaml(data) if data else {}
    files = find_images(source) if source else find_images(info["val"], recursive=True)
    page = ComparisonPage(out.absolute(), title, info.get("names"), count_fields(info))
    runs = []
    for name, path in weights.items():
        try:
            runs.append(predict(name, path, files, out.absolute() / name, page, **options))
        except Exception as error:  # a model that can't be loaded or run must not stop the others
            page.remove_model(name)
            LOGGER.error(f"{path}: skipped: {one_line(error)}")
    if runs:
        LOGGER.info(format_table(runs))
    if file := page.write():
        LOGGER.info(f"side by side, to open in a browser: {file}")
    return runs


def find_weights(models: Sequence[Path]) -> dict[str, Path]:
    """Return the weights to run by the name of their model.

    Args:
        models: Weights, in any format that `yolo predict` takes; runs, each with `weights/best.pt`; folders of runs.

    Raises:
        UserError: If one is none of these.
    """
    weights: dict[str, Path] = {}
    for path in models:
        files = sorted(path.glob("weights/best.pt")) or sorted(path.glob("*/weights/best.pt"))
        if not files and (path.is_file() or path.name.endswith("_model")):  # such folders hold an exported model
            files = [path]
        if not files:
            runs = [file.parent.parent.name for file in sorted(path.parent.glob("*/weights/best.pt"))]
            advice = f"there are: {', '.join(runs)}" if runs else f"train one: yolo detect train ... project={path}"
            raise UserError(f"{path}: no weights, and no folder of runs with */weights/best.pt; {advice}")
        for file in files:
            folder = file.absolute().parent
            stem = folder.parent.name if folder.name == "weights" else file.stem
            name, number = stem, 1
            while name in weights:
                number += 1
                name = f"{stem}-{number}"
            weights[name] = file
    return weights


def airport_data(name: str, root: Path) -> Path:
    """Return the data YAML of ASS1 or ASS2, or of its demo set if its validation images are missing."""
    images = root / "datasets" / name / "images/val"
    if not images.is_dir() or not any(images.iterdir()):
        name = f"{name}-demo"
        LOGGER.info(f"{images} holds no images: using {name}")
    return root / "datasets" / name / f"{name}.yaml"


def find_images(source: str | Path | Sequence[str], recursive: bool = False) -> list[Path]:
    """Return images and videos; those that can't be read are named and left out.

    Args:
        source: File, folder, list of files (.txt) or glob, or several of these.
        recursive: Whether to search the folders in a folder too.

    Raises:
        UserError: If a source is missing or none holds anything readable.
    """
    sources = [source] if isinstance(source, (str, Path)) else source
    files = [file for each in sources for file in _expand(each, recursive)]
    readable = []
    for file in TQDM(files, desc="checking images", leave=False):
        if _is_readable(file):
            readable.append(file)
        else:
            LOGGER.warning(f"{file}: skipped: not a readable image or video")
    if not readable:
        raise UserError(f"source {', '.join(map(str, sources))}: holds no readable image or video")
    return readable


def _expand(source: str | Path, recursive: bool) -> list[Path]:
    """Return the files with the suffix of an image or a video that a source stands for."""
    path = Path(source)
    if path.is_dir():
        files = sorted(path.rglob("*") if recursive else path.iterdir())
    elif path.suffix == ".txt" and path.is_file():
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"source {source}: not a text file in UTF-8") from error
        # relative to the working folder, or to the list after `./`, as in upstream
        files = [path.parent / line if line.startswith("./") else Path(line) for line in lines]
    elif path.is_file():
        files = [path]
    elif names := glob.glob(str(source), recursive=True):  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [Path(name) for name in sorted(names)]
    else:
        raise UserError(f"source {source}: no such image, folder, video or glob")
    return [file for file in files if file.suffix[1:].lower() in IMG_FORMATS | VID_FORMATS]


def _is_readable(file: Path) -> bool:
    if file.suffix[1:].lower() in IMG_FORMATS:
        return imread(str(file)) is not None
    return cv2.VideoCapture(str(file)).isOpened()


def predict(
    name: str,
    weights: Path,
    files: Sequence[Path],
    folder: Path,
    page: ComparisonPage | None = None,
    save_txt: bool = False,
    **options: Any,
) -> ModelRun:
    """Run one model over images and videos and save them annotated.

    Args:
        name: Name of the model.
        weights: Weights of the model, in any format that `yolo predict` takes.
        files: Images and videos.
        folder: Folder for the annotated images.
        page: Page to put the model and the images on; videos are left out.
        save_txt: Whether to save labels in YOLO format too, in `labels/` in `folder`.
        **options: Arguments of `yolo predict`, such as `imgsz`, `conf`, `device` and `slice`.

    Raises:
        UserError: If the model doesn't find boxes.
    """
    model = YOLO(weights)
    if model.task != "detect":
        options.pop("slice", None)
    is_sliced = bool(options.get("slice"))
    num_images, num_full, milliseconds = 0, 0, 0.0
    num_objects = Counter(dict.fromkeys(model.names.values(), 0))
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "files.txt"
        manifest.write_text("\n".join(str(file.absolute()) for file in files), encoding="utf-8")
        results = model.predict(
            source=str(manifest),
            stream=True,
            save=True,
            save_txt=save_txt,
            project=str(folder.parent.absolute()),
            name=folder.name,
            exist_ok=True,
            verbose=False,
            line_width=2,  # objects of a few pixels would vanish under upstream's width for large images
            **options,
        )
        has_videos = any(file.suffix[1:].lower() in VID_FORMATS for file in files)
        for result in TQDM(results, desc=name, total=None if has_videos else len(files)):
            if result.boxes is None:
                raise UserError(f"a model of task {model.task} has no boxes to compare")
            num_images += 1
            num_objects.update(result.names[int(c)] for c in result.boxes.cls)
            if is_sliced:
                num_full += len(result.boxes) if result.num_full is None else result.num_full
            milliseconds += sum(result.speed.values())
            if page is not None and Path(result.path).suffix[1:].lower() in IMG_FORMATS:
                # upstream numbers the files of equal stems
                page.add(name, result, folder / f"{model.predictor.txt_path.name}.jpg")
    mean = milliseconds / max(num_images, 1)
    return ModelRun(name, num_images, num_objects, mean, folder, num_full if is_sliced else None)


def format_table(runs: Sequence[ModelRun]) -> str:
    """Return runs as text, one line per model, with a column for each class; of many, for those found.

    For sliced images, `full` is the number of objects that the pass over the whole images finds alone, and `gained` how
    many more slicing finds.
    """
    classes = list(dict.fromkeys(name for run in runs for name in run.num_objects))
    if len(classes) > MAX_COLUMNS:
        classes = [name for name in classes if any(run.num_objects[name] for run in runs)]
    is_sliced = any(run.num_full is not None for run in runs)
    table = [["model", "images", *classes, *(["full", "gained"] if is_sliced else []), "ms/image", "folder"]]
    for run in runs:
        row = [run.name, str(run.num_images), *(str(run.num_objects[name]) for name in classes)]
        if is_sliced:
            row += [str(run.num_full), f"{run.num_objects.total() - (run.num_full or 0):+d}"]
        table.append([*row, f"{run.milliseconds:.1f}", str(run.folder)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligns = "<" + ">" * (len(widths) - 2) + "<"
    form = "  ".join(f"{{:{align}{width}}}" for align, width in zip(aligns, widths, strict=True))
    return "\n".join(("", *(form.format(*row).rstrip() for row in table)))

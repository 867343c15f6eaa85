"""Runs several models over the same images and saves what each of them finds."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.data.loaders import LoadImagesAndVideos
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import read_image

from small_object.compare.page import FOLDER as PICTURES
from small_object.compare.page import ComparisonPage
from small_object.datasets.dataset import count_fields, read_data_yaml
from small_object.errors import UserError, one_line
from small_object.files import make_writable
from small_object.images import find_files, read_names, readable_name
from small_object.parallel import map_threads

TASKS = {"detect", "segment", "pose"}  # of models that find boxes
FORMATS = IMG_FORMATS | VID_FORMATS
MAX_COLUMNS = 12  # classes in the table before those without an object are left out


@dataclass(frozen=True)
class ModelRun:
    """What one model found."""

    name: str
    num_images: int  # images and video frames; 0 if the model failed
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
        source: What to run instead, see `find_images`.
        title: Title of the page.
        **options: See `predict`.

    Returns:
        The runs, one per model. A model that fails does not stop the others.

    Raises:
        UserError: If there is no model or nothing to run, or `out` can't be written.
        KeyboardInterrupt: After Ctrl-C; the page shows the models that were finished.
    """
    if not data and not source:
        raise UserError("give --data, --source or both")
    weights, out = find_weights(models), out.absolute()
    info = read_data_yaml(data) if data else {}
    files = find_images(source or info["val"], [out, *(out / name for name in (*weights, PICTURES))])
    unreadable = find_unreadable(files)
    for file, reason in unreadable.items():
        LOGGER.warning(f"{file}: left out: {reason}")
    files = [file for file in files if file not in unreadable]
    if not files:
        raise UserError(f"source {source or info['val']}: none of {len(unreadable)} files can be read")
    make_writable(out)
    page = ComparisonPage(out, title, info.get("names"), count_fields(info))
    page.notes += [f"{file.name}: left out: {reason}" for file, reason in unreadable.items()]
    runs: list[ModelRun] = []
    try:
        for name, path in weights.items():
            try:
                runs.append(predict(name, path, files, out / name, page, **options))
            except Exception as error:
                reason = one_line(error) or type(error).__name__
                runs.append(ModelRun(name, 0, Counter(), 0.0, out / name))
                page.drop_model(name, f"failed: {reason}")
                LOGGER.error(f"{path}: failed: {reason}")
    except KeyboardInterrupt:
        for name in list(weights)[len(runs) :]:
            page.drop_model(name, "interrupted")
        raise
    finally:
        if finished := [run for run in runs if run.num_images]:
            LOGGER.info(format_table(finished))
        if page_file := page.write():
            LOGGER.info(f"side by side, to open in a browser: {page_file}")
    return runs


def find_weights(models: Sequence[Path]) -> dict[str, Path]:
    """Return the weights to run by the name of their model.

    A model is weights, in any format that `yolo predict` takes, a run with `weights/best.pt`, or a folder of runs.

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
            stem = readable_name(folder.parent.name if folder.name == "weights" else file.stem)
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


def find_images(source: str | Path | Sequence[str], exclude: Sequence[Path] = ()) -> list[Path]:
    """Return the images and videos of a source, whether they can be read or not.

    A source is a file, a folder with its subfolders but those of `exclude`, a list of files (.txt), a glob, or several.

    Raises:
        UserError: If a source is missing, or there is no image and no video.
    """
    sources = [source] if isinstance(source, (str, Path)) else source
    files = [file for each in sources for file in _expand(each, exclude)]
    if not files:
        raise UserError(f"source {', '.join(map(str, sources))}: holds no image or video")
    return files


def _expand(source: str | Path, exclude: Sequence[Path]) -> list[Path]:
    """Return the files that a source stands for; of a folder or a glob those with the suffix of an image or a video."""
    path = Path(source)
    if path.is_dir():
        folder = path.absolute()
        without = {each for each in exclude if each != folder and each.is_relative_to(folder)}
        found = (Path(file) for file in find_files(path, FORMATS))
        files = sorted(file for file in found if not without.intersection(file.absolute().parents))
        if nested := sum(file.parent != path for file in files):
            LOGGER.info(f"{path}: {nested} of {len(files)} files lie in subfolders")
    elif path.suffix == ".txt" and path.is_file():
        # relative to the working folder, or to the list after `./`, as in upstream
        files = [path.parent / name if name.startswith("./") else Path(name) for name in read_names(path)]
    elif path.is_file():
        files = [path]
    elif names := glob.glob(str(source), recursive=True):  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [Path(name) for name in sorted(names) if name.rpartition(".")[-1].lower() in FORMATS]
    else:
        raise UserError(f"source {source}: no such image, folder, video or glob")
    return files


def find_unreadable(files: Sequence[Path]) -> dict[Path, str]:
    """Return which images and videos can't be read, and why."""
    reasons = zip(files, map_threads(_explain, files, "checking images"), strict=True)
    return {file: reason for file, reason in reasons if reason}


def _explain(file: Path) -> str:
    """Return why an image or video can't be read; an empty text if it can."""
    try:
        if file.suffix[1:].lower() in IMG_FORMATS:
            read_image(file)
        elif file.suffix[1:].lower() not in VID_FORMATS:
            return "has no suffix of an image or a video"
        elif not LoadImagesAndVideos(str(file)).cap.isOpened():
            return "is no video that can be read, or damaged"
    except OSError as error:
        return str(error)
    return ""


def predict(
    name: str,
    weights: Path,
    files: Sequence[Path],
    folder: Path,
    page: ComparisonPage | None = None,
    **options: Any,
) -> ModelRun:
    """Run one model over images and videos, and save them annotated in a folder.

    Args:
        name: Name of the model.
        weights: Weights of the model, in any format that `yolo predict` takes.
        files: Images and videos.
        folder: Folder for the annotated images.
        page: Page to put the model and the images on; videos are left out.
        **options: Arguments of `yolo predict`, such as `imgsz`, `conf`, `save_txt` and `slice`.

    Raises:
        UserError: If the model doesn't find boxes.
    """
    model = YOLO(weights)
    if model.task not in TASKS:
        raise UserError(f"a model of task {model.task} has no boxes to compare")
    if model.task != "detect":
        options.pop("slice", None)
    is_sliced = bool(options.get("slice"))
    num_images, num_full, milliseconds = 0, 0, 0.0
    num_objects = Counter(dict.fromkeys(model.names.values(), 0))
    results = model.predict(
        source=[str(file.absolute()) for file in files],
        stream=True,
        save=True,
        project=str(folder.parent.absolute()),
        name=folder.name,
        exist_ok=True,
        verbose=False,
        **options,
    )
    has_videos = any(file.suffix[1:].lower() in VID_FORMATS for file in files)
    for result in TQDM(results, desc=name, total=None if has_videos else len(files)):
        num_images += 1
        num_objects.update(result.names[int(c)] for c in result.boxes.cls)
        if is_sliced:
            num_full += len(result.boxes) if result.num_full is None else result.num_full
        milliseconds += sum(result.speed.values())
        if page is not None and Path(result.path).suffix[1:].lower() in IMG_FORMATS:
            page.add(name, result, model.predictor.picture)
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

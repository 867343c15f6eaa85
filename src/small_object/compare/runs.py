"""Runs several models over the same images and saves their results."""

import contextlib
import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import read_image

from small_object.compare.kinds import ERRORS, Kind
from small_object.compare.page import FOLDER as PICTURES
from small_object.compare.page import ComparisonPage
from small_object.datasets.dataset import count_fields, read_data_yaml
from small_object.errors import UserError, explain, one_line
from small_object.files import make_writable
from small_object.images import find_files, read_names, readable_name
from small_object.sizes import SIZE_GROUPS, UPRIGHT_TASKS
from small_object.slicing.region import read_region

FORMATS = IMG_FORMATS | VID_FORMATS
MAX_COLUMNS = 12  # classes in the table; with more, those without an object are left out


@dataclass
class ModelRun:
    """The results of one model, or those so far if it was interrupted or failed."""

    name: str
    folder: Path  # of the annotated images
    num_images: int = 0  # images and video frames
    num_objects: Counter[str] = field(default_factory=Counter)  # by class name
    milliseconds: float = 0.0  # of all images: preprocessing, inference and postprocessing
    num_full: int | None = None  # objects found in whole images without tiles, None without slicing
    fault: str = "interrupted"  # what ended it before the last file; empty if nothing did


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
        data: Data YAML, whose validation images are run; created or fetched if it has a `download:`.
        source: Images to run instead, see `find_images`.
        title: Title of the page.
        **options: See `predict`.

    Returns:
        The runs, one per model. A model that fails does not stop the others.

    Raises:
        UserError: If there is no model or nothing to run, or `out` can't be written.
        KeyboardInterrupt: After Ctrl-C; the page shows the results until then.
    """
    weights, out = find_weights(models), out.absolute()
    info = read_data_yaml(data) if data else {}
    files = find_images(source or info["val"], [out, *(out / name for name in (*weights, PICTURES))])
    make_writable(out)
    region = read_region(options["slice_roi"]) if options.get("slice_roi") else None
    page = ComparisonPage(out, title, info.get("names"), count_fields(info), region)
    for file in files:  # the loader refuses these; others that it can't read it leaves out later
        if file.suffix[1:].lower() not in FORMATS or not file.is_file():
            page.left_out[file] = _explain(file)
            LOGGER.warning(f"{file}: left out: {page.left_out[file]}")
    runs: list[ModelRun] = []
    try:
        for name, path in weights.items():
            if not (left := [file for file in files if file not in page.left_out]):
                break
            runs.append(ModelRun(name, out / name))
            try:
                predict(runs[-1], path, left, page, **options)
            except Exception as error:
                runs[-1].fault = f"failed: {explain(error) or one_line(error) or type(error).__name__}"
                LOGGER.error(f"{path}: {runs[-1].fault}")
            _note(runs[-1], page)
        if all(file in page.left_out for file in files):
            raise UserError(f"source {source or info['val']}: none of {len(files)} files can be read")
    except KeyboardInterrupt:
        _note(runs[-1], page)
        page.notes |= {name: f"{name}: not run" for name in list(weights)[len(runs) :]}
        raise
    finally:
        if any(run.num_images for run in runs):
            kinds = page.count_kinds()
            LOGGER.info(format_table([run for run in runs if run.num_images], kinds))
            if kinds:
                LOGGER.info(format_errors(kinds))
        if page_file := page.write():
            LOGGER.info(f"side by side, to open in a browser: {page_file}")
    return runs


def _note(run: ModelRun, page: ComparisonPage) -> None:
    """Add a note to the page on what ended a run early."""
    if run.fault:
        after = f", after {run.num_images} images" if run.num_images else ""
        page.notes[run.name] = f"{run.name}: {run.fault}{after}"


def find_weights(models: Sequence[Path]) -> dict[str, Path]:
    """Return the weights to run by model name; if names are equal, with the name of the folder above in front.

    A model is weights in any format that `yolo predict` takes, a run with `weights/best.pt`, or a folder of runs.

    Raises:
        UserError: If one is none of these.
    """
    found, weights = list[Path](), dict[str, Path]()
    for path in models:
        files = sorted(path.glob("weights/best.pt")) or sorted(path.glob("*/weights/best.pt"))
        if not files and (path.is_file() or path.name.endswith("_model")):  # such folders hold an exported model
            files = [path]
        if not files:
            others = [file.parent.parent.name for file in sorted(path.parent.glob("*/weights/best.pt"))]
            advice = f"available: {', '.join(others)}" if others else f"train one: yolo detect train ... project={path}"
            raise UserError(f"{path}: neither weights nor a folder of runs with */weights/best.pt; {advice}")
        found += map(Path.absolute, files)
    runs = [file.parents[1] if file.parent.name == "weights" else file.with_suffix("") for file in found]
    times = Counter(run.name for run in runs)
    for file, run in zip(found, runs, strict=True):
        name = readable_name(run.name if times[run.name] == 1 else f"{run.parent.name}-{run.name}")
        while name in weights:
            name += "-2"
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
    """Return the images and videos of a source, even if they can't be read.

    A source is a file, a folder with its subfolders except `exclude`, a list of files (.txt), a glob, or several.

    Raises:
        UserError: If a source is missing, or there is no image and no video.
    """
    sources = [source] if isinstance(source, (str, Path)) else source
    files = [file for each in sources for file in _expand(each, exclude)]
    if not files:
        raise UserError(f"source {', '.join(map(str, sources))}: holds no image or video")
    return files


def _expand(source: str | Path, exclude: Sequence[Path]) -> list[Path]:
    """Return the files of a source; for a folder or a glob, those with an image or video suffix."""
    path = Path(source)
    files: list[Path] = []
    if path.is_dir():
        folder = path.absolute()
        without = {each for each in exclude if each != folder and each.is_relative_to(folder)}
        found = (Path(file) for file in find_files(path, FORMATS))
        files = sorted(file for file in found if not without.intersection(file.absolute().parents))
        if nested := sum(file.parent != path for file in files):
            LOGGER.info(f"{path}: {nested} of {len(files)} files lie in subfolders")
    elif path.suffix == ".txt" and path.is_file():
        # after `./` relative to the list, others to the current directory or else to the list, as in `yolo`
        for name in read_names(path):
            next_to_list = name.startswith("./") or not Path(name).exists()
            files.append(path.parent / name if next_to_list else Path(name))
    elif path.is_file():
        files = [path]
    elif names := glob.glob(str(source), recursive=True):  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [Path(name) for name in sorted(names) if name.rpartition(".")[-1].lower() in FORMATS]
    else:
        raise UserError(f"source {source}: no such image, folder, video or glob")
    return files


def _explain(file: Path) -> str:
    """Return why an image or video can't be read."""
    if file.suffix[1:].lower() not in FORMATS:
        return "has no image or video suffix"
    try:
        if file.suffix[1:].lower() in IMG_FORMATS:
            read_image(file)
    except OSError as error:
        return str(error)
    return "can't be read as a video; it may be damaged"


def predict(
    run: ModelRun, weights: Path, files: Sequence[Path], page: ComparisonPage, pictures: bool = True, **options: Any
) -> None:
    """Run one model over images and videos; save annotated copies in the folder of the run.

    Args:
        run: Run to update, image by image.
        weights: Weights of the model, in any format that `yolo predict` takes.
        files: Images and videos.
        page: Page for the model, the images and the files that can't be read, but not for videos.
        pictures: Whether to save annotated images.
        **options: Arguments of `yolo predict`, such as `imgsz`, `conf`, `save_txt`, `save_json` and `slice`.

    Raises:
        UserError: If the model doesn't find boxes, or has no class of a number in `classes`.
    """
    model = YOLO(weights)
    if model.task not in UPRIGHT_TASKS:
        raise UserError(f"a model of task {model.task} finds no upright boxes to compare")
    if unknown := set(classes := options.get("classes") or ()).difference(model.names):
        raise UserError(f"--classes: the model has no class {min(unknown)}, only 0 to {max(model.names)}")
    page.wanted |= {model.names[number] for number in classes}
    run.num_full = 0 if options.get("slice") else None
    run.num_objects.update(dict.fromkeys(model.names.values(), 0))
    results = model.predict(
        source=[str(file.absolute()) for file in files],
        stream=True,
        save=pictures,
        project=str(run.folder.parent.absolute()),
        name=run.folder.name,
        exist_ok=True,
        verbose=False,
        **options,
    )
    has_videos = any(file.suffix[1:].lower() in VID_FORMATS for file in files)
    by_name = {str(file.absolute()): file for file in files}

    def leave_out() -> None:
        for file in map(by_name.__getitem__, model.predictor.dataset.unreadable):  # a warning has named it
            if file not in page.left_out:
                page.left_out[file] = _explain(file)

    with contextlib.closing(results):  # which ends its files
        for result in TQDM(results, desc=run.name, total=None if has_videos else len(files)):
            run.num_images += 1
            run.num_objects.update(result.names[int(c)] for c in result.boxes.cls)
            if run.num_full is not None:
                run.num_full += len(result.boxes) if result.num_full is None else result.num_full
            run.milliseconds += sum(result.speed.values())
            if Path(result.path).suffix[1:].lower() in IMG_FORMATS:
                page.add(run.name, result, model.predictor.picture)
            leave_out()
        leave_out()
        run.fault = ""


def format_table(runs: Sequence[ModelRun], kinds: Mapping[str, np.ndarray]) -> str:
    """Return runs as text, one line per model, with a column for each class; with many classes, for those found.

    With labels, `found` and `missed` are the numbers of objects found and not found, and `false` is that of false
    alarms. Without labels, for sliced images, `full` is the number of objects found in whole images without tiles, and
    `gained` is how many more slicing finds.

    For `kinds` see `ComparisonPage.count_kinds`.
    """
    classes = list(dict.fromkeys(name for run in runs for name in run.num_objects))
    if len(classes) > MAX_COLUMNS:
        classes = [name for name in classes if any(run.num_objects[name] for run in runs)]
    is_sliced = not kinds and any(run.num_full is not None for run in runs)
    more = ["found", "missed", "false"] if kinds else ["full", "gained"] if is_sliced else []
    table = [["model", "images", *classes, *more, "ms/image", "folder"]]
    for run in runs:
        row = [run.name, run.num_images, *(run.num_objects[name] for name in classes)]
        if kinds:
            num = kinds[run.name].sum(0) if run.name in kinds else np.zeros(len(Kind), int)  # of a video
            row += [num[Kind.FOUND], num[Kind.UNDETECTED], num[Kind.CLASS : Kind.IGNORED].sum()]
        if is_sliced:
            row += [run.num_full, f"{run.num_objects.total() - (run.num_full or 0):+d}"]
        folder = run.folder if run.folder.is_dir() else "-"
        table.append([*map(str, row), f"{run.milliseconds / run.num_images:.1f}", str(folder)])
    return _align(table, "<" + ">" * (len(table[0]) - 2) + "<")


def format_errors(kinds: Mapping[str, np.ndarray]) -> str:
    """Return the counts of `ComparisonPage.count_kinds` as text: the errors by model, object size and kind."""
    table = [["errors", "size", "found", *(kind.name.lower() for kind in ERRORS[:-1]), "missed outright"]]
    for name, counts in kinds.items():
        for size, row in (("all", counts.sum(0)), *zip(SIZE_GROUPS, counts, strict=True)):
            row = row[[Kind.FOUND, *ERRORS]]
            if row.any():
                table.append([name, size, *map(str, row)])
    return _align(table, "<<" + ">" * (len(table[0]) - 2))


def _align(table: Sequence[Sequence[str]], aligns: str) -> str:
    """Return rows as text after an empty line; each column has its own alignment, as in a format specification."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    form = "  ".join(f"{{:{align}{width}}}" for align, width in zip(aligns, widths, strict=True))
    return "\n".join(("", *(form.format(*row).rstrip() for row in table)))

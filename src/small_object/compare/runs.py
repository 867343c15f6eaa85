"""Runs every trained model of a data set over the same images and saves what each of them finds."""

from __future__ import annotations

import argparse
import glob
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
from ultralytics import YOLO
from ultralytics.cfg import MIN_TILE
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import imread

from small_object.compare.page import ComparisonPage, Found, found_of
from small_object.errors import UserError
from small_object.scenes.generate import make_demo

MOST_CLASSES = 12  # columns of the table before those without an object are left out


@dataclass(frozen=True)
class Row:
    """What one model found.

    Attributes:
        model: Name of the model.
        images: Number of images and video frames.
        objects: Number of objects by class name.
        milliseconds: Mean time for an image: preprocessing, inference and postprocessing.
        folder: Where the annotated images lie.
        plain: Number of objects that the pass over whole images finds alone, None without slicing.
    """

    model: str
    images: int
    objects: Counter[str]
    milliseconds: float
    folder: Path
    plain: int | None = None


def main(dataset: str, root: Path, argv: list[str] | None = None) -> int:
    """Run the command line of `predict1.py` and `predict2.py`.

    Args:
        dataset: Name of the data set, `ASS1` or `ASS2`.
        root: Folder that holds `datasets/` and `runs/`.
        argv: Arguments; those of the process by default.

    Returns:
        Exit status: 0 where at least one model ran over at least one image, else 1.
    """
    args = _parser(dataset).parse_args(argv)
    out = (args.out or root / "runs/predict" / dataset).absolute()
    try:
        weights = find_weights(root / "runs" / dataset, args.models, args.weights)
        files = find_images(args.source or _validation_images(dataset, root))
    except UserError as error:
        LOGGER.error(str(error))
        return 1
    options = {
        key: getattr(args, key) for key in ("imgsz", "conf", "device", "slice") if getattr(args, key) is not None
    }
    rows, page = [], ComparisonPage(out, title=f"{dataset}: what each model finds")
    for model, path in weights.items():
        try:
            rows.append(predict(model, path, files, out / model, save_txt=args.save_txt, page=page, **options))
        except Exception as error:  # a model that cannot be loaded or run must not stop the others
            LOGGER.error(f"{path}: skipped: {' '.join(str(error).split())}")
    if rows:
        LOGGER.info(table(rows))
    if file := page.write():
        LOGGER.info(f"side by side, to open in a browser: {file}")
    return 0 if any(row.images for row in rows) else 1


def find_weights(runs: Path, models: list[str] | None = None, weights: list[Path] | None = None) -> dict[str, Path]:
    """Return the weights to run by the name of their model, in order of name.

    Args:
        runs: Folder of the runs; each holds `weights/best.pt`.
        models: Names of the runs to take; all by default.
        weights: Files to take instead of those in `runs`.

    Raises:
        UserError: If there are none, or one that was asked for is missing.
    """
    if weights:
        if missing := [str(path) for path in weights if not path.exists()]:
            raise UserError(f"--weights: no file {', '.join(missing)}")
        found: dict[str, Path] = {}
        for path in weights:
            stem = path.absolute().parent.parent.name if path.parent.name == "weights" else path.stem
            name, k = stem, 1
            while name in found:
                k += 1
                name = f"{stem}-{k}"
            found[name] = path
        return found
    found = {path.parent.parent.name: path for path in sorted(runs.glob("*/weights/best.pt"))}
    if not found:
        raise UserError(
            f"no trained model under {runs}/*/weights/best.pt; train one "
            f"(yolo detect train ... project=runs/{runs.name} name=yolo11n) or name a file with --weights"
        )
    if missing := [name for name in models or [] if name not in found]:
        raise UserError(f"--models: no {', '.join(missing)} under {runs}; there are: {', '.join(found)}")
    return {name: path for name, path in found.items() if not models or name in models}


def find_images(source: str | Path) -> list[Path]:
    """Return the images and videos of a file, folder or glob; those that cannot be read are named and left out.

    Raises:
        UserError: If the source is missing or holds nothing readable.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(path.iterdir())
    elif path.is_file():
        files = [path]
    else:
        # Path.glob takes no absolute pattern
        files = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]  # noqa: PTH207
        if not files:
            raise UserError(f"source {source}: no such image, folder, video or glob")
    files = [file for file in files if file.suffix[1:].lower() in IMG_FORMATS | VID_FORMATS]
    good = []
    for file in TQDM(files, desc="checking images", leave=False):
        if _readable(file):
            good.append(file)
        else:
            LOGGER.warning(f"{file}: skipped: not a readable image or video")
    if not good:
        raise UserError(f"source {source}: holds no readable image or video")
    return good


def _readable(file: Path) -> bool:
    if file.suffix[1:].lower() in IMG_FORMATS:
        return imread(str(file)) is not None
    video = cv2.VideoCapture(str(file))
    try:
        return video.isOpened()
    finally:
        video.release()


def _validation_images(dataset: str, root: Path) -> Path:
    """Return the folder of a data set's validation images, or of its demo set's, which is made where it is missing."""
    real = root / "datasets" / dataset / "images/val"
    if real.is_dir() and any(real.iterdir()):
        return real
    demo = f"{dataset}-demo"
    LOGGER.info(f"{real} holds no images: using {demo}")
    folder = root / "datasets" / demo
    if not (folder / "images/val").is_dir():
        make_demo(demo, folder)
    return folder / "images/val"


def predict(
    name: str,
    weights: Path,
    files: list[Path],
    folder: Path,
    save_txt: bool = False,
    page: ComparisonPage | None = None,
    **options: object,
) -> Row:
    """Run one model over images and videos and save them annotated.

    Args:
        name: Name of the model, for the table.
        weights: Weights of the model, in any format that `yolo predict` takes.
        files: Images and videos.
        folder: Folder for the annotated images; labels go into its `labels/`.
        save_txt: Whether to save labels in YOLO format as well.
        page: Page to put the model and the images on; it has no place for videos.
        **options: Arguments of `yolo predict`, such as `imgsz`, `conf`, `device` and `slice`.

    Returns:
        Row of the table.
    """
    model = YOLO(weights)
    if model.task != "detect":
        options.pop("slice", None)
    plain = 0 if options.get("slice") else None
    images, objects, time = 0, Counter(dict.fromkeys(model.names.values(), 0)), 0.0
    found: dict[str, Found] = {}
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
        videos = any(file.suffix[1:].lower() in VID_FORMATS for file in files)
        for result in TQDM(results, desc=name, total=None if videos else len(files)):
            images += 1
            objects.update(result.names[int(c)] for c in result.boxes.cls)
            if plain is not None:
                plain += len(result.boxes) if result.num_full is None else result.num_full
            time += sum(result.speed.values())
            if page is not None and Path(result.path).suffix[1:].lower() in IMG_FORMATS:
                page.look(Path(result.path), result.orig_img)
                picture = folder / f"{model.predictor.txt_path.name}.jpg"  # upstream numbers files of equal stems
                found[result.path] = found_of(result, picture)
    if page is not None and found:
        page.add(name, found, model.names, time / images)
    return Row(name, images, objects, time / max(images, 1), folder, plain)


def table(rows: list[Row]) -> str:
    """Return the rows as text, one line a model, with a column for each class; of many, for those found.

    For sliced images, `plain` is the number of objects that the pass over the whole images finds alone, and `gained`
    how many more slicing finds.
    """
    classes = list(dict.fromkeys(name for row in rows for name in row.objects))
    if len(classes) > MOST_CLASSES:
        classes = [name for name in classes if any(row.objects[name] for row in rows)]
    sliced = any(row.plain is not None for row in rows)
    added = ["plain", "gained"] if sliced else []
    cells = [["model", "images", *classes, *added, "ms/image", "folder"]]
    cells += [
        [
            row.model,
            str(row.images),
            *(str(row.objects[name]) for name in classes),
            *((str(row.plain), f"{row.objects.total() - (row.plain or 0):+d}") if sliced else ()),
            f"{row.milliseconds:.1f}",
            str(row.folder),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for model, *numbers, folder in cells:
        columns = (number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True))
        lines.append("  ".join((model.ljust(widths[0]), *columns, folder)))
    return "\n".join(("", *lines))


def _parser(dataset: str) -> argparse.ArgumentParser:
    script = f"predict{dataset.removeprefix('ASS')}.py"
    parser = argparse.ArgumentParser(
        prog=script,
        description=f"Run every model trained on {dataset} over its validation images, or over those of {dataset}-demo "
        "where it is not at hand, and save the annotated images, one folder a model, and index.html, which shows the "
        "models side by side.",
        formatter_class=argparse.RawTextHelpFormatter,
    )

    def add(flag: str, example: str, text: str, **kwargs: object) -> None:
        parser.add_argument(flag, help=f"{text}\nexample: {script} {flag} {example}".rstrip(), **kwargs)

    add("--models", "yolo11n yolo11n-smallob", f"names of runs under runs/{dataset} (default: all)", nargs="+")
    add("--source", "frames/*.jpg", f"image, folder, video or glob (default: {dataset}'s validation images)")
    add("--weights", "best.pt", f"weights to run instead of those under runs/{dataset}", nargs="+", type=Path)
    add("--imgsz", "1280", "input size in pixels (default: the size that the model was trained at)", type=_size)
    text = "also run images larger than this by tiles of this side in pixels; 0: none; auto: chosen for the model"
    default = "auto" if dataset == "ASS2" else 0  # its images are panoramas
    add("--slice", "640", f"{text}\n(default: {default})", type=_slice, default=default)
    add("--conf", "0.4", "least confidence, 0 to 1 (default: 0.25)", type=_confidence)
    add("--device", "cpu", "device, as in yolo (default: a GPU where there is one)")
    add("--save-txt", "", "also save labels in YOLO format under labels/", action="store_true")
    add("--out", "found", f"folder for the results (default: runs/predict/{dataset})", type=Path)
    return parser


def _slice(text: str) -> int | str:
    if text != "auto" and (not text.isdecimal() or 0 < int(text) < MIN_TILE):
        raise argparse.ArgumentTypeError(f"'{text}' must be auto, 0 or a whole number of pixels, at least {MIN_TILE}")
    return text if text == "auto" else int(text)


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number of pixels, at least 32")
    return int(text)


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a number from 0 to 1")
    return value

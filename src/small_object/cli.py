"""The `small-object` command: everything in this project that is not a mode of `yolo`.

A function runs each subcommand and may return an exit status. It imports what it needs, so that `small-object --help`
does not wait for PyTorch.
"""

import io
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TypeAlias

from small_object.arguments import MAX_OVERLAP, MIN_TILE
from small_object.errors import UserError, one_line
from small_object.files import default_folder

Add: TypeAlias = Callable[..., object]  # `ArgumentParser.add_argument`

PROGRAM = "small-object"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        Exit status: 0; 1 after a user's mistake, or if a check found something that would hurt training; 130 after
        Ctrl-C. Arguments that can't be parsed end the process with status 2.
    """
    args = build_parser().parse_args(argv)
    return _execute(PROGRAM, args, resumable=args.command in {"data", "batch"})


def predict(name: str, root: Path, argv: Sequence[str] | None = None) -> int:
    """Run the command line of `predict1.py` or `predict2.py`: compare the models trained on an airport data set.

    Args:
        name: Name of the data set, `ASS1` or `ASS2`.
        root: Folder that holds `datasets/` and `runs/`.
        argv: Arguments; those of the process by default.

    Returns:
        Exit status, see `main`; also 1 if a model failed.
    """
    program = f"predict{name.removeprefix('ASS')}.py"
    parser = ArgumentParser(
        prog=program,
        description=f"Run every model trained on {name} over its validation images, or those of {name}-demo. "
        "Save the annotated images, one folder per model, and index.html, which shows the models side by side.",
        epilog=f'example: python {program} --models yolo11n yolo11n-smallob --source "frames/*.jpg" --conf 0.4',
    )
    runs = root / "runs" / name
    add = parser.add_argument
    add("--models", nargs="+", metavar="RUN", help=f"names of runs under runs/{name} (default: all)")
    add("--weights", nargs="+", type=Path, help=f"weights to run instead of those under runs/{name}")
    add("--out", type=Path, help=f"folder for the results (default: runs/predict/{name})")
    # The images of ASS2 are panoramas. A model trained for minutes finds many objects twice at yolo's IoU of 0.7.
    _add_prediction(add, default_slice="auto" if name == "ASS2" else 0, default_iou=0.5)

    def run(args: Namespace) -> int:
        from small_object.compare.runs import airport_data

        models = args.weights or [runs / run for run in args.models or ("",)]  # all runs by default
        data = None if args.source else airport_data(name, root)
        return _run_models(args, models, data, args.out or root / "runs/predict" / name, name)

    parser.set_defaults(run=run)
    return _execute(program, parser.parse_args(argv))


def build_parser() -> ArgumentParser:
    """Return the parser of the `small-object` command."""
    parser = ArgumentParser(prog=PROGRAM, description="Data sets, comparisons and batch jobs for small objects.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Callable[[Namespace], int | None], example: str) -> Add:
        """Add the subcommand that `run` runs, with its docstring as help; return the function that adds arguments."""
        name, text = run.__name__.lstrip("_").replace("_", "-"), run.__doc__
        added = commands.add_parser(name, help=text, description=text, epilog=f"example: {PROGRAM} {name} {example}")
        added.set_defaults(run=run)
        return added.add_argument

    add = command(_data, "ASS1")
    add("names", nargs="+", metavar="ASS1|ASS2|all", help="data sets to fetch")
    add("--archive", type=Path, help="zip, tar, 7z or rar file of the data set that you downloaded yourself")
    add("--split", type=Path, help="split to follow: CSV with the columns image and split (train or val)")
    add("--cache", type=Path, help="folder that keeps downloads (default: ~/.cache/small-object-detection)")
    add("--overwrite", action="store_true", help="replace an existing data set")
    add("--out", type=Path, help="folder of the data set, or parent folder of several (default: datasets/NAME)")

    for run, default in ((_check, "runs/check/NAME"), (_fix, "next to the data set"), (_stats, "runs/stats/NAME")):
        add = command(run, "my/data.yaml --imgsz 1280")
        add("data", help="data YAML")
        add("--imgsz", type=whole_number(32), default=640, help="input size of the training (default: 640)")
        add("--out", type=Path, help=f"folder for the result (default: {default})")

    add = command(_convert, "coco train.json val.json --out datasets/mine")
    add("format", choices=("coco", "voc"), help="format of the annotations")
    add("path", nargs="+", help="COCO JSON file, or one per split (train.json or val=FILE); or VOC folder")
    add("--out", type=Path, required=True, help="folder of the new data set")
    add("--images", type=Path, help="coco: folder of the images, if they are not next to the JSON file")
    add("--skip-missing", action="store_true", help="coco: leave out images whose files are missing")
    add("--split", type=Path, help="split to follow: CSV with the columns image and split (train or val)")

    add = command(_tiles, "my/data.yaml --tile 640 --out tiles")
    add("data", help="data YAML")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the new data set")
    add("--tile", type=whole_number(MIN_TILE), default=640, help="side of a tile in pixels (default: 640)")
    add("--overlap", type=tile_overlap, default=0.2, help="minimum overlap of neighbouring tiles (default: 0.2)")
    add("--keep", type=fraction, default=0.4, help="fraction of its area that a cut object must keep (default: 0.4)")
    add("--empty", type=float, default=0.1, help="tiles without objects to keep per tile with objects (default: 0.1)")

    add = command(_scenes, "ASS1-demo --train 500 --val 100 --out datasets/ASS1-demo")
    add("name", help="ASS1-demo or ASS2-demo")
    add("--train", type=whole_number(1), help="number of training images (default: ASS1-demo 160, ASS2-demo 24)")
    add("--val", type=whole_number(1), help="number of validation images (default: ASS1-demo 40, ASS2-demo 8)")
    add("--out", type=Path, help="folder of the data set (default: datasets/NAME)")
    add("--seed", type=whole_number(0), default=0, help="another seed gives another data set (default: 0)")
    add("--overwrite", action="store_true", help="replace existing images")

    add = command(_compare, "--data my/data.yaml --models a.pt runs/ASS2")
    add("--models", nargs="+", type=Path, required=True, metavar="MODEL", help="weights, or folders of training runs")
    add("--data", help="data YAML, which gives the validation images and the class names")
    _add_prediction(add, default_slice=0)
    add("--out", type=Path, help="folder for the results (default: runs/compare/NAME)")

    add = command(_batch, "--model best.pt --source panoramas --out found")
    add("--model", required=True, help="weights, in any format that `yolo predict` takes")
    add("--source", required=True, help="folder, list of images (.txt) or s3://bucket/prefix?region=eu-west-1")
    add("--out", required=True, help="folder for the results, or s3://bucket/prefix")
    _add_detection(add, default_slice="auto")
    add("--batch", type=whole_number(1), default=8, help="images that a worker runs at once (default: 8)")
    add("--part", type=whole_number(1), help="images per Parquet file, redone if a worker dies (default: 8 to 256)")
    add("--workers", type=whole_number(1), help="processes (default: one per GPU, or one per two cores)")
    add("--device", choices=("cpu", "cuda"), help="device (default: cuda if there is a GPU)")
    add("--address", help="Ray cluster to run on, such as auto (default: this machine alone)")

    add = command(_transfer, "yolo11n.pt yolo11n-light-smallob.yaml")
    add("weights", help="weights of a detection model, such as yolo11n.pt")
    add("model", help="YAML of the model that receives them")

    add = command(_export_stock, "best.pt --out stock.pt")
    add("weights", type=Path, help="weights of a model of this fork")
    add("--out", type=Path, required=True, help="file to write")

    command(_status, "")
    return parser


def _add_detection(add: Add, default_slice: int | str, default_iou: float = 0.7) -> None:
    """Add the arguments that all commands share that run models."""
    add("--imgsz", type=whole_number(32), help="input size in pixels (default: as in training)")
    text = "also run tiles of this side or HEIGHT,WIDTH in pixels; 0: none; auto: chosen for the model"
    add("--slice", type=tile_size, default=default_slice, help=f"{text} (default: %(default)s)")
    add("--slice-skip", type=fraction, default=0.0, help="skip tiles where no score reaches this (default: 0, run all)")
    add("--slice-overlap", type=tile_overlap, default=0.2, help="minimum overlap of neighbouring tiles (default: 0.2)")
    add("--slice-batch", type=whole_number(0), default=8, help="tiles per batch (default: 8); 0: fitted to the GPU")
    text = "maximum IoU of two objects of a class after tiles are merged (default: 0.5)"
    add("--slice-iou", type=fraction, default=0.5, help=text)
    text = "region to look at: a mask image, white where to look, or a YAML with polygons (default: everywhere)"
    add("--slice-roi", help=text)
    add("--conf", type=fraction, default=0.25, help="minimum confidence (default: 0.25)")
    text = "maximum IoU of two objects of a class in one pass (default: %(default)s)"
    add("--iou", type=fraction, default=default_iou, help=text)
    text = "maximum number of objects per image; with slices, the default limits each pass (default: 300)"
    add("--max-det", type=whole_number(1), default=300, help=text)
    add("--save-json", action="store_true", help="also save predictions.json in COCO's format")


def _add_prediction(add: Add, default_slice: int | str, default_iou: float = 0.7) -> None:
    """Add the arguments that `compare` and the predict scripts share."""
    _add_detection(add, default_slice, default_iou)
    add("--source", help="image, folder, video or glob to run instead of the validation images")
    add("--classes", nargs="+", type=whole_number(0), metavar="CLASS", help="find only the classes with these numbers")
    add("--device", help="device, as in yolo (default: a GPU if there is one)")
    add("--no-pictures", action="store_true", help="save no annotated images")
    add("--save-txt", action="store_true", help="also save labels in YOLO format under labels/")


def _execute(program: str, args: Namespace, resumable: bool = False) -> int:
    """Run a parsed command; turn a user's mistake and Ctrl-C into one line and an exit status."""
    for stream in (sys.stdout, sys.stderr):  # file names may hold bytes that a terminal can't show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return args.run(args) or 0
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
    except KeyboardInterrupt:
        print(f"{program}: interrupted" + "; run the same command to resume" * resumable, file=sys.stderr)
        return 130
    print(f"{program}: {one_line(message)}", file=sys.stderr)
    return 1


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return the argument type of a whole number."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise ArgumentTypeError(f"'{text}' must be a whole number, at least {minimum}")
        return int(text)

    return convert


def fraction(text: str, maximum: float = 1.0) -> float:
    """Convert an argument between 0 and a maximum."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= maximum:
        raise ArgumentTypeError(f"'{text}' must be a number from 0 to {maximum:g}")
    return value


tile_overlap = partial(fraction, maximum=MAX_OVERLAP)


def tile_size(text: str) -> int | str | list[int]:
    """Convert `--slice`: the side of tiles or their height,width in pixels, 0 or auto."""
    if text == "auto":
        return text
    sides = text.split(",")
    if text != "0" and (len(sides) > 2 or any(not side.isdecimal() or int(side) < MIN_TILE for side in sides)):
        raise ArgumentTypeError(f"'{text}' must be auto, 0, or one or two whole numbers of pixels, at least {MIN_TILE}")
    return int(text) if len(sides) == 1 else [*map(int, sides)]


def _data(args: Namespace) -> None:
    """Fetch ASS1 or ASS2 from the public record and split it."""
    from small_object.datasets.airport import SETS, prepare

    names = list(SETS) if "all" in args.names else args.names
    if args.archive and len(names) != 1:
        raise UserError("--archive needs exactly one data set, ASS1 or ASS2")
    for name in names:
        folder = args.out if args.out and len(names) == 1 else (args.out or Path("datasets")) / name
        prepare(name, folder, args.archive, args.split, args.cache, args.overwrite)


def _check(args: Namespace) -> int:
    """Check a data set; the exit status is 1 if something would hurt training."""
    from small_object.datasets.check import check

    return int(check(args.data, args.imgsz, args.out).harmful)


def _fix(args: Namespace) -> int:
    """Check a data set and write a repaired copy of it."""
    from small_object.datasets.dataset import read_data_yaml
    from small_object.datasets.fix import fix

    folder = Path(read_data_yaml(args.data)["yaml_file"]).absolute().parent
    return int(fix(args.data, args.out or folder.with_name(f"{folder.name}-fixed"), args.imgsz).harmful)


def _stats(args: Namespace) -> None:
    """Count the objects of a data set by class and size."""
    from small_object.datasets.stats import stats

    stats(args.data, args.imgsz, args.out)


def _convert(args: Namespace) -> None:
    """Import COCO or Pascal VOC annotations."""
    from small_object.datasets.convert import from_coco, from_voc

    if args.format == "coco":
        from_coco(args.path, args.out, args.images, args.split, args.skip_missing)
    elif args.images or args.skip_missing or len(args.path) > 1:
        raise UserError("--images, --skip-missing and several paths are only for coco")
    else:
        from_voc(args.path[0], args.out, args.split)


def _tiles(args: Namespace) -> None:
    """Cut a data set into tiles."""
    from small_object.datasets.tiles import cut_tiles

    cut_tiles(args.data, args.out, args.tile, args.overlap, args.keep, args.empty)


def _scenes(args: Namespace) -> None:
    """Generate a demo data set of synthetic airport scenes."""
    from small_object.scenes.generate import make_demo

    make_demo(args.name, args.out, args.train, args.val, args.seed, args.overwrite)


def _compare(args: Namespace) -> int:
    """Run several models over the same images and show them side by side on a page."""
    folder = default_folder("compare", args.data or args.source or "")
    return _run_models(args, args.models, args.data, args.out or folder, folder.name)


def _run_models(args: Namespace, models: Sequence[Path], data: str | Path | None, out: Path, title: str) -> int:
    if not data and not args.source:
        raise UserError("give --data, --source or both")
    from small_object.compare.runs import compare

    names = "imgsz", "conf", "iou", "max_det", "classes", "device", "save_txt", "save_json"
    options = {k: v for k, v in vars(args).items() if (k in names or k.startswith("slice")) and v is not None}
    title = f"{title}: what each model finds"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop like after Ctrl-C
    try:
        runs = compare(models, out, data, args.source, title, pictures=not args.no_pictures, **options)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0 if runs and not any(run.fault for run in runs) else 1


def _batch(args: Namespace) -> int:
    """Find objects in a large collection of images with Ray Data; resume after an interruption."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences the announcement of a new default
    try:
        import pyarrow.parquet  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError as error:
        missing = (error.name or "ray").partition(".")[0]
        raise UserError(f"{missing} is missing; run: pip install 'small-object-detection[batch]'") from error
    from small_object.batch.job import Job, run

    options = {field.name: getattr(args, field.name) for field in fields(Job)}
    if args.slice_roi:
        from small_object.slicing.region import read_region

        if not args.slice:
            raise UserError("--slice-roi needs --slice")
        read_region(args.slice_roi)  # before the workers start
    for name in ("model", "source", "out", "slice_roi"):
        if options[name] and "://" not in options[name]:
            options[name] = str(Path(options[name]).absolute())
    return 0 if run(Job(**options))["done"] else 1


def _transfer(args: Namespace) -> None:
    """Show which weights a model takes from another model, row by row."""
    from small_object.transfer import describe

    print(describe(args.weights, args.model))


def _export_stock(args: Namespace) -> None:
    """Write weights as a checkpoint that stock Ultralytics loads."""
    from small_object.export_stock import export_stock

    export_stock(args.weights, args.out)
    print(f"{args.out}: stock Ultralytics predicts, validates and exports with it")


def _status(args: Namespace) -> int:
    """Show whether the overlay is active, its folder and the version of Ultralytics."""
    from small_object.status import is_active, status

    print("\n".join(f"{name:<23}{value}" for name, value in status().items()))
    return 0 if is_active() else 1


if __name__ == "__main__":
    sys.exit(main())

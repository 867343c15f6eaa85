"""Finds objects in any number of images on Ray Data: python -m small_object.batch.command --help."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ultralytics.cfg import MAX_OVERLAP, MIN_TILE
from ultralytics.utils import LOGGER

from small_object.errors import UserError

PROGRAM = "python -m small_object.batch.command"


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        Exit status: 0 where every readable image is in the output, 130 after Ctrl-C, else 1.
    """
    args = parser().parse_args(argv)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its announcement of a new default
    try:
        import pyarrow.parquet  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError as error:
        LOGGER.error(f"{(error.name or 'Ray').split('.')[0].capitalize()} is missing. Run: pip install -e '.[archive]'")
        return 1
    from small_object.batch.job import Job, run

    for name in ("model", "source", "out"):
        if "://" not in getattr(args, name):
            setattr(args, name, str(Path(getattr(args, name)).absolute()))
    try:
        report = run(Job(**vars(args)))
    except (UserError, OSError) as error:
        LOGGER.error(str(error))
        return 1
    except KeyboardInterrupt:
        LOGGER.warning("Interrupted. What is done stays; run the same command to go on.")
        return 130
    return 0 if report["done"] else 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its names are those of `archive_job.Job`."""
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Find objects in all images of an archive, on Ray Data, and write them as Parquet files.\n"
        "Run it again, with the same arguments, to go on where it stopped.",
        formatter_class=argparse.RawTextHelpFormatter,
    )

    def add(flag: str, example: str, text: str, **kwargs: object) -> None:
        made.add_argument(flag, help=f"{text}\nexample: {flag} {example}", **kwargs)

    add("--model", "best.pt", "weights, in any format that `yolo predict` takes", required=True)
    text = "folder, with those in it; list (.txt), an image a line; or s3://bucket/prefix,\n"
    add("--source", "panoramas", text + "with pyarrow's options after a `?`, as in ?region=eu-west-1", required=True)
    add("--out", "found", "folder for the results, or s3://bucket/prefix", required=True)
    add("--imgsz", "1280", "input size in pixels (default: the size that the model was trained at)", type=_whole(32))
    add("--conf", "0.4", "least confidence, 0 to 1 (default: 0.25)", type=_share(1), default=0.25)
    add("--iou", "0.5", "highest IoU of two objects of a class, 0 to 1 (default: 0.7)", type=_share(1), default=0.7)
    add("--max-det", "1000", "most objects of an image (default: 300)", type=_whole(1), default=300)
    text = "also run images larger than this by tiles of this side in pixels; 0: none; auto: chosen for the model\n"
    add("--slice", "640", text + "(default: auto)", type=_slice, default="auto")
    text = "run only tiles where the whole image may hold an object of this score (default: 0, all)"
    add("--slice-skip", "0.1", text, type=_share(1), default=0.0)
    text = "least overlap of tiles as a share of their side (default: 0.2)"
    add("--slice-overlap", "0.3", text, type=_share(MAX_OVERLAP), default=0.2)
    text = "tiles that the model is given at a time, of all images that are run together (default: 8)"
    add("--slice-batch", "32", text, type=_whole(1), default=8)
    add("--batch", "16", "images that a worker runs together (default: 8)", type=_whole(1), default=8)
    text = "images of a Parquet file, which is what a killed worker loses at most (default: 8 to 256, by their number)"
    add("--part", "1000", text, type=_whole(1))
    add("--workers", "4", "processes that run the model (default: one a GPU; one for two cores)", type=_whole(1))
    add("--device", "cpu", "cpu or cuda (default: cuda where there is a GPU)", choices=("cpu", "cuda"))
    add("--address", "auto", "Ray cluster to run on (default: this machine alone)")
    return made


def _whole(least: int) -> object:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' must be a whole number, at least {least}")
        return int(text)

    return convert


def _share(most: float) -> object:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"'{text}' must be a number from 0 to {most}")
        return value

    return convert


def _slice(text: str) -> int | str:
    if text != "auto" and (not text.isdecimal() or 0 < int(text) < MIN_TILE):
        raise argparse.ArgumentTypeError(f"'{text}' must be auto, 0 or a whole number of pixels, at least {MIN_TILE}")
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    sys.exit(main())

"""Feeds random inputs to the code that reads users' files and arguments, and counts how they end.

    python -m tests.stress.fuzz --help

An input ends with a result, which is checked, with a clear error (one line that names the file, row or argument), or
unhandled: any other exception, a wrong result, or more than `LIMIT` seconds. The inputs are the same for the same seed
and version of Hypothesis. `tests/stress/test_fuzz.py` runs fewer of the same.
"""

import logging
import math
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hypothesis
import numpy as np
import torch
import ultralytics
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from ultralytics.utils import LOGGER, TQDM

from benchmarks.common import build_parser, markdown_table, module_command
from small_object.files import write_file
from tests.stress.fuzz import data, files, images, models
from tests.stress.fuzz.values import ERROR, RESULT

LIMIT = 30  # seconds that an input may take
UNHANDLED = "unhandled"


class Kind(NamedTuple):
    """A kind of inputs."""

    subject: str  # what is fuzzed, and what reads it
    inputs: SearchStrategy
    run: Callable[[Any, Path], str]  # with an empty folder to write to; returns `RESULT` or `ERROR`, or raises


KINDS = {
    "models": Kind("rows and keys of model YAMLs, as dictionaries and as files", models.models(), models.run_model),
    "labels": Kind(
        "label files, with and without keypoints, by `check`, `stats`, `fix` and training",
        data.label_files(), data.run_labels,
    ),
    "data": Kind("data YAMLs, by `check` and `stats`", data.data_files(), data.run_data),
    "images": Kind("shapes and types of images, sliced in every way, by prediction", images.images(), images.run_image),
    "exports": Kind(
        "TorchScript models whose inputs are not square, by prediction and validation with and without slices",
        images.exports, images.run_export,
    ),
    "files": Kind(
        "names, formats, depths, sizes and bands of image files, by prediction, `check`, `stats`, `fix` and training",
        files.folders, files.run_folder,
    ),
    "lists": Kind("lists of images, by prediction, `check`, `stats` and training", files.lists, files.run_list),
    "coco": Kind("COCO files, by `convert` and `check`", data.coco_files(), data.run_coco),
    "voc": Kind("VOC files, by `convert` and `check`", data.voc_files(), data.run_voc),
}  # fmt: skip


class Overtime(BaseException):
    """An input took too long; not an Exception, so that the code under test does not catch it."""


def stop(*_: Any) -> None:
    """End an input that takes too long."""
    raise Overtime(f"took more than {LIMIT} seconds")


def run(kind: str, case: Any) -> str:
    """Run one input of a kind in a folder of its own; return `RESULT` or `ERROR`, or raise what it raised."""
    level, old = LOGGER.level, signal.signal(signal.SIGALRM, stop)
    LOGGER.setLevel(logging.CRITICAL + 1)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fuzz-") as folder, np.errstate(all="ignore"),
            mock.patch("small_object.datasets.stats.draw_stats", lambda found, file: file.touch()),  # slow
        ):  # fmt: skip
            return KINDS[kind].run(case, Path(folder))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        LOGGER.setLevel(level)


class Counts:
    """How the inputs of a kind ended; for each unhandled error its first input and traceback, by its last lines."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.unhandled: dict[str, tuple[Any, str]] = {}
        self.slowest = 0.0  # seconds


def count(name: str, examples: int, start: int, seconds: float = math.inf) -> Counts:
    """Run and count inputs of a kind, from a seed, without shrinking; after some seconds, skip the rest."""
    counts, began = Counts(), time.perf_counter()
    bar = TQDM(total=examples, desc=name, leave=False)

    @seed(start)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], print_blob=False,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(KINDS[name].inputs)
    def each(case: Any) -> None:
        started = time.perf_counter()
        if started - began > seconds:
            return
        try:
            end = run(name, case)
        except (Exception, Overtime) as error:
            end, frame = UNHANDLED, traceback.extract_tb(error.__traceback__)[-1]
            described = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(error)[:40]!r}"
            counts.unhandled.setdefault(described, (case, traceback.format_exc()))
        counts.ended[end] += 1
        counts.slowest = max(counts.slowest, time.perf_counter() - started)
        bar.update()

    each()
    bar.close()
    return counts


def table(found: dict[str, Counts], command: str) -> str:
    """Return the counts as a table in Markdown."""
    versions = f"Ultralytics {ultralytics.__version__}, torch {torch.__version__}, Hypothesis {hypothesis.__version__}"
    rows = []
    for name, counts in found.items():
        numbers = (counts.ended.total(), *(counts.ended[end] for end in (RESULT, ERROR, UNHANDLED)))
        rows.append([name, KINDS[name].subject, *map(str, numbers), f"{counts.slowest:.1f} s"])
    header = ["kind", "inputs", "count", RESULT, ERROR, UNHANDLED, "slowest"]
    return "\n".join([f"Written by `{command}` with {versions}.", "", *markdown_table(header, rows), ""])


def main(argv: list[str] | None = None) -> int:
    """Count the inputs of each kind; return 1 if one ended unhandled."""
    parser = build_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of inputs, default all")
    parser.add_argument("--examples", type=int, default=2000, help="inputs of each kind, default 2000")
    parser.add_argument("--seconds", type=float, default=math.inf, help="maximum seconds for a kind, default no limit")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(argv)
    if args.examples < 1:
        parser.error("--examples must be at least 1")
    torch.set_num_threads(1)
    found = {}
    for name in args.kinds:
        found[name] = count(name, args.examples, args.seed, args.seconds)
        LOGGER.info(f"{name}: {dict(found[name].ended)}")
        for described, (case, trace) in found[name].unhandled.items():
            LOGGER.error(f"{name}: {described}\n    {case!r:.2000}\n{trace}")
    text = table(found, module_command("tests.stress.fuzz", sys.argv[1:] if argv is None else argv))
    LOGGER.info(text)
    if args.out:
        write_file(args.out, text)
    return int(any(counts.unhandled for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())

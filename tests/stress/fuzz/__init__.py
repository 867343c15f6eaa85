"""Random inputs for the code that reads users' files and arguments.

An input ends with a result, which is checked, with a clear error (one line that names the file, row or argument), or
unhandled: any other exception, a wrong result, or more than `LIMIT` seconds.
"""

import logging
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from hypothesis.strategies import SearchStrategy
from ultralytics.utils import LOGGER

from tests.stress.fuzz import data, files, images, models

LIMIT = 120  # seconds that an input may take


class Kind(NamedTuple):
    """A kind of inputs."""

    inputs: SearchStrategy
    run: Callable[[Any, Path], str]  # with an empty folder to write to; returns `RESULT` or `ERROR`, or raises


KINDS = {
    "models": Kind(models.models(), models.run_model),
    "labels": Kind(data.label_files(), data.run_labels),
    "data": Kind(data.data_files(), data.run_data),
    "images": Kind(images.images(), images.run_image),
    "exports": Kind(images.exports, images.run_export),
    "files": Kind(files.folders, files.run_folder),
    "lists": Kind(files.lists, files.run_list),
    "coco": Kind(data.coco_files(), data.run_coco),
    "voc": Kind(data.voc_files(), data.run_voc),
}


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

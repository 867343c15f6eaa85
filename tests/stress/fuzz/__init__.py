"""Feeds random inputs to what reads users' files and arguments.

An input ends with a result, which is checked, with a clear error (one line that names the file, row or argument), or
unhandled: any other exception, a wrong result, or more than `LIMIT` seconds. The inputs are the same for the same seed
and version of Hypothesis.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from ultralytics.utils import LOGGER, TQDM

from tests.stress.fuzz.arguments import arguments, run_arguments
from tests.stress.fuzz.data import (
    coco_files,
    data_files,
    label_files,
    run_coco,
    run_data,
    run_labels,
    run_voc,
    voc_files,
)
from tests.stress.fuzz.images import images, merges, run_image, run_merge
from tests.stress.fuzz.models import models, run_model

LIMIT = 30  # seconds that an input may take


@dataclass(frozen=True)
class Kind:
    """A kind of inputs.

    Attributes:
        subject: What is fuzzed, and what reads it.
        inputs: Strategy of the inputs.
        run: Runs one, with an empty folder to write to; returns `RESULT` or `ERROR`, or raises.
    """

    subject: str
    inputs: st.SearchStrategy
    run: Callable[[Any, Path], str]


KINDS = {
    "models": Kind("rows and keys of model YAMLs, as dictionaries and as files", models(), run_model),
    "arguments": Kind(
        "values of this fork's arguments, by `get_cfg` and the `yolo` command", arguments(), run_arguments
    ),
    "labels": Kind(
        "label files, by `check`, `stats`, `fix` and training with and without slices", label_files(), run_labels
    ),
    "data": Kind("data YAMLs, by `check` and `stats`", data_files(), run_data),
    "images": Kind("shapes and types of images, sliced in every way, by prediction", images(), run_image),
    "merges": Kind("boxes, scores and sources that are merged", merges(), run_merge),
    "coco": Kind("COCO files, by `convert` and `check`", coco_files(), run_coco),
    "voc": Kind("VOC files, by `convert` and `check`", voc_files(), run_voc),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's messages and progress bars."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL + 1)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        LOGGER.setLevel(level)


class Overtime(BaseException):
    """An input took too long; not an Exception, so that the code under test does not catch it."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Overtime in what takes longer (where there are signals: not on Windows)."""

    def stop(*_: Any) -> None:
        raise Overtime(f"took more than {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def run(kind: str, case: Any) -> str:
    """Run one input of a kind in a folder of its own; return `RESULT` or `ERROR`, or raise what it raised."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, quiet(), limited(LIMIT):
        return KINDS[kind].run(case, Path(folder))


@dataclass
class Counts:
    """How the inputs of a kind ended."""

    ended: Counter[str] = field(default_factory=Counter)
    unhandled: dict[str, tuple[Any, str]] = field(default_factory=dict)  # by error: the first input and its traceback
    slowest: float = 0.0  # seconds


def describe_error(error: BaseException) -> str:
    """Return the type of an error, the last line of this project and the last line of all in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    lines = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (mine[-1], frames[-1]))
    return f"{type(error).__name__} in {', '.join(lines)}: {str(error)[:40]!r}"


def count(name: str, examples: int, start: int, seconds: float = math.inf) -> Counts:
    """Run and count many inputs of a kind without shrinking.

    Args:
        name: The kind.
        examples: Number of inputs.
        start: Seed.
        seconds: Time after which the remaining inputs are skipped.
    """
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
            end = "unhandled"
            counts.unhandled.setdefault(describe_error(error), (case, traceback.format_exc()))
        counts.ended[end] += 1
        counts.slowest = max(counts.slowest, time.perf_counter() - started)
        bar.update()

    each()
    bar.close()
    return counts

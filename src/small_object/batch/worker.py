"""The remote side of a batch job: workers that run the model, and a journal that outlives them."""

import hashlib
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray
import torch
from ultralytics import YOLO
from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER

from small_object.batch.store import SCHEMA, Output, Source
from small_object.datasets.images import read_flags
from small_object.errors import UserError, one_line
from small_object.images import BITS_VARIABLE, UnreadableImageError
from small_object.parallel import ReadAhead
from small_object.slicing.slicer import max_batch

MAX_DEATHS = 3  # of workers on one image before it is left out
READERS = 4  # threads that read the next images while the model runs


@dataclass(frozen=True)
class Job:
    """The arguments of a batch job, see `small-object batch --help`; paths are absolute."""

    model: str
    source: str
    out: str
    imgsz: int | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    slice: int | str | list[int] = "auto"
    slice_skip: float = 0.0
    slice_overlap: float = 0.2
    slice_batch: int = 8
    slice_iou: float = 0.5
    slice_roi: str | None = None
    batch: int = 8
    part: int | None = None
    workers: int | None = None
    device: str | None = None
    address: str | None = None
    save_json: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments that affect the detections; all runs into one output must share them."""
        names = "imgsz", "conf", "iou", "max_det", "slice", "slice_skip", "slice_overlap", "slice_iou", "slice_roi"
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Task:
    """A batch job in the form that its workers get."""

    job: Job
    digest: str  # the `model_digest` of its model, which must be the same on every machine
    run: str  # see `Output.lock`
    workers: int
    device: str
    cpus: int  # that Ray reserves per worker; without a GPU, the number of its threads
    gpus: float  # likewise
    bits: int | None = None  # see `read_bits`


@dataclass
class Summary:
    """A worker's report on a part."""

    images: int = 0  # number of images that were run
    unreadable: dict[str, str] = field(default_factory=dict)  # images that can't be read or run, with the reason
    retried: bool = False  # whether an earlier worker died on the part
    began: float = field(default_factory=time.time)  # in seconds since the epoch
    error: str = ""  # why the job can't continue


def model_digest(model: Path) -> str:
    """Return the SHA-256 of a model's file, or of all files in its folder."""
    digest = hashlib.sha256()
    for file in sorted(model.rglob("*")) if model.is_dir() else [model]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Journal:
    """Records which images each worker holds, so that an image that kills workers can be found."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}
        self._deaths: Counter[str] = Counter()
        self._starts = 0

    def starting(self) -> int:
        """Return how many workers have started to load the model since the last one that succeeded."""
        self._starts += 1
        return self._starts

    def started(self) -> None:
        """Record that a worker has loaded the model."""
        self._starts = 0

    def open(self, part: str, names: list[str]) -> dict[str, int]:
        """Return the images of a part on which workers have died, and how many."""
        self._deaths.update(self._held.pop(part, ()))
        return {name: self._deaths[name] for name in names if name in self._deaths}

    def hold(self, part: str, names: list[str]) -> None:
        """Record the images of a part that its worker now holds."""
        self._held[part] = names


class Worker:
    """Runs the model over parts of a batch job and writes one Parquet file per part; Ray Data calls it.

    It never raises an exception: the summary gives the reason to the job's process.
    """

    def __init__(self, task: Task, journal: Any) -> None:  # a `Journal`
        self._task, self._journal, self._error = task, journal, ""
        try:
            self._start()
        except Exception as error:  # Ray would hide it or restart the worker forever
            self._error = describe_error(error)

    def _start(self) -> None:
        task, job, machine = self._task, self._task.job, ray.util.get_node_ip_address()
        path = Path(job.model)
        if ray.get(self._journal.starting.remote()) > MAX_DEATHS * task.workers:
            raise UserError(f"{path}: workers die while they load it; is there enough memory for {task.workers}?")
        LOGGER.setLevel("ERROR")
        os.environ[BITS_VARIABLE] = str(task.bits or "")
        if not hasattr(Results, "num_full"):
            raise UserError(f"machine {machine} runs stock Ultralytics; unset ULTRALYTICS_OVERLAY there")
        if not path.exists() or model_digest(path) != task.digest:
            raise UserError(f"{path}: missing or different on {machine}; copy it there")
        self._source, self._output = Source(job.source), Output(job.out)
        try:
            self._model = YOLO(path)
            (result,) = self._predict([np.zeros((64, 64, 3), np.uint8)], slice_roi=None)
        except UserError:
            raise
        except Exception as error:  # not a model, or invalid arguments
            raise UserError(f"{path}: {one_line(error) or type(error).__name__}") from error
        if result.boxes is None:
            raise UserError(f"{path}: finds no boxes ({self._model.task}); give a detection model")
        if task.device == "cpu":
            torch.set_num_threads(task.cpus)  # upstream sets its own number at setup
        model = self._model.predictor.model
        self._batch = int(min(job.batch, max_batch(model)))
        flags = read_flags(getattr(model, "channels", 3))
        self._read_image = ReadAhead(partial(self._source.read, flags=flags), READERS)
        ray.get(self._journal.started.remote())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Run a part, a row with its name `part` and its image `names`; return a `Summary` as JSON."""
        summary = Summary(error=self._error)
        if not self._error:
            try:
                self._run(table["part"][0].as_py(), table["names"][0].as_py(), summary)
            except Exception as error:
                summary.error = describe_error(error)
        return pa.table({"summary": [json.dumps(asdict(summary))]})

    def _run(self, part: str, names: list[str], summary: Summary) -> None:
        deaths = ray.get(self._journal.open.remote(part, names))
        summary.retried = bool(deaths)
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for images in self._read(part, names, deaths, summary):
            for name, result in self._detect(images, summary):
                add_result(columns, name, result)
                summary.images += 1
        if summary.images:
            if not self._output.is_locked_by(self._task.run):
                raise UserError(f"--out {self._task.job.out}: another job has taken it over")
            self._output.write_part(part, columns)
        ray.get(self._journal.hold.remote(part, []))

    def _read(
        self, part: str, names: list[str], deaths: dict[str, int], summary: Summary
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the images of a part in batches; read the next batch while one is in use.

        Images on which workers may have died come last, one by one, so that the next death identifies the image.
        """
        lost = {name: f"{number} workers died on it" for name, number in deaths.items() if number >= MAX_DEATHS}
        summary.unreadable |= lost
        others = [name for name in names if name not in deaths]
        batches = [others[i : i + self._batch] for i in range(0, len(others), self._batch)]
        batches += [[name] for name in deaths if name not in lost]
        for batch, following in zip(batches, [*batches, []][1:], strict=True):
            held = batch + [name for name in following if name not in deaths]
            ray.get(self._journal.hold.remote(part, held))
            for name in held:
                self._read_image.start(name)
            images = {}
            for name in batch:
                try:
                    images[name] = self._read_image(name)
                except UnreadableImageError as error:
                    summary.unreadable[name] = str(error)
            yield images
            images.clear()  # frees memory before more are read

    def _detect(self, images: dict[str, np.ndarray], summary: Summary) -> Iterator[tuple[str, Results]]:
        """Yield the detections of each image, which don't depend on the rest of the batch."""
        by_shape: dict[tuple[int, ...], list[str]] = {}  # upstream pads images of different shapes to squares
        for name, image in images.items():
            by_shape.setdefault(image.shape, []).append(name)
        for names in by_shape.values():
            try:
                yield from zip(names, self._predict([images[name] for name in names]), strict=True)
            except (cv2.error, MemoryError, torch.cuda.OutOfMemoryError, UserError) as error:
                if len(names) == 1:
                    summary.unreadable[names[0]] = f"can't be run: {one_line(error)}"
                else:
                    for name in names:
                        yield from self._detect({name: images[name]}, summary)

    def _predict(self, images: list[np.ndarray], **more: Any) -> list[Results]:
        options = {name: value for name, value in self._task.job.settings().items() if value is not None}
        options |= {
            "slice_batch": self._task.job.slice_batch,
            "device": self._task.device,
            "batch": len(images),
            **more,
        }
        return list(self._model.predict(images, verbose=False, save=False, **options))


def describe_error(error: Exception) -> str:
    """Return the message of an error that a user can act on, or the traceback of the current one."""
    return str(error) if isinstance(error, (UserError, OSError)) else traceback.format_exc()


def add_result(columns: dict[str, list[Any]], image: str, result: Results) -> None:
    """Add the detections in an image to the columns of a part, see `SCHEMA`."""
    boxes = result.boxes.cpu()
    class_ids = boxes.cls.int().tolist()
    detections = [[result.names[class_id] for class_id in class_ids], class_ids, boxes.conf.tolist()]
    detections += boxes.xyxy.T.tolist()
    num_rows = max(1, len(class_ids))
    (height, width), tiles = result.orig_shape, result.tiles or (0, 0)
    values = [[image] * num_rows, *(column or [None] for column in detections)]
    values += [[value] * num_rows for value in (width, height, *tiles)]
    for column, added in zip(columns.values(), values, strict=True):
        column += added

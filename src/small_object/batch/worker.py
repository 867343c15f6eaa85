"""What runs in the processes of an archive's job: a worker runs the model, the journal outlives workers."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
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

from small_object.batch.store import SCHEMA, Output, Source, Totals, UnreadableError
from small_object.errors import UserError
from small_object.slicing.slicer import max_batch

MOST_DEATHS = 3  # of workers at one image, before it is left out
READERS = 4  # threads that read the next images while the model runs


@dataclass(frozen=True)
class Task:
    """What a worker is to do with each image.

    Attributes:
        model: Absolute path of the model.
        digest: Its `digest_of`, which must be the same on every machine.
        source: The images, see `Source`.
        out: Where the parts go, see `Output`.
        run: Id of this run, see `Output.lock`.
        options: Arguments of `model.predict`.
        batch: Images that are run together.
        threads: Threads of a worker, 0: as PyTorch has it.
        workers: Number of workers.
    """

    model: str
    digest: str
    source: str
    out: str
    run: str
    options: dict[str, Any]
    batch: int
    threads: int
    workers: int


@dataclass
class Summary:
    """What a worker says of a part.

    Attributes:
        images: Number of images that were run.
        unreadable: Those that can't be read or run, with the reason.
        died: Whether another worker died over the part before.
        began: When it was begun, in seconds since the epoch.
        error: Why the job can't go on, empty if it can.
    """

    images: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    died: bool = False
    began: float = 0.0
    error: str = ""


def digest_of(model: Path) -> str:
    """Return the SHA-256 of a model's file, or of all files of its folder."""
    digest = hashlib.sha256()
    for file in sorted(model.rglob("*")) if model.is_dir() else [model]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Journal:
    """Remembers which images a worker holds, so that one that kills its workers again and again is found."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}
        self._deaths: Counter[str] = Counter()
        self._starts = 0

    def starting(self) -> int:
        """Return how many workers began to load the model since the last one that could."""
        self._starts += 1
        return self._starts

    def started(self) -> None:
        """Take note of a worker that has loaded the model."""
        self._starts = 0

    def open(self, part: str, names: list[str]) -> tuple[bool, dict[str, int]]:
        """Return whether a worker has died over a part, and how many at which of its images."""
        died = part in self._held
        self._deaths.update(self._held.pop(part, ()))
        return died, {name: self._deaths[name] for name in names if name in self._deaths}

    def hold(self, part: str, names: list[str]) -> None:
        """Take note of the images of a part that its worker holds from now on."""
        self._held[part] = names

    def close(self, part: str) -> None:
        """Take note of the end of a part."""
        self._held.pop(part, None)


class Worker:
    """Runs the model over parts of the archive and writes a Parquet file of each; Ray Data calls it.

    It never raises: the job's process gets the reason in the summary.

    Args:
        task: What to do.
        journal: The `Journal`.
    """

    def __init__(self, task: Task, journal: Any) -> None:
        self._task, self._journal, self._error = task, journal, ""
        try:
            self._start()
        except UserError as error:
            self._error = str(error)
        except Exception:  # it would be lost in Ray's, or the worker be started again and again
            self._error = traceback.format_exc()

    def _start(self) -> None:
        task = self._task
        if ray.get(self._journal.starting.remote()) > MOST_DEATHS * task.workers:
            raise UserError(f"{task.model}: the workers die while they load it; is there memory for {task.workers}?")
        LOGGER.setLevel("ERROR")
        path = Path(task.model)
        if not path.exists() or digest_of(path) != task.digest:
            raise UserError(f"{path}: is missing or another one on {ray.util.get_node_ip_address()}; copy it there")
        self._source, self._output = Source(task.source), Output(task.out)
        try:
            self._model = YOLO(path)
            (result,) = self._predict([np.zeros((64, 64, 3), np.uint8)])
        except UserError:
            raise
        except Exception as error:  # not a model, or not with these arguments
            raise UserError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from error
        if result.boxes is None:
            raise UserError(f"{path}: finds no boxes ({self._model.task}); give a model that detects")
        if task.threads:
            torch.set_num_threads(task.threads)  # upstream sets its own when it sets the model up
        model = self._model.predictor.model
        self._batch = int(min(task.batch, max_batch(model)))
        channels = getattr(model, "channels", 3)
        self._flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)  # as upstream
        self._readers = ThreadPoolExecutor(READERS)
        ray.get(self._journal.started.remote())

    def __call__(self, table: pa.Table) -> pa.Table:
        """Run a part.

        Args:
            table: One row: `part`, its name, and `names`, those of its images.

        Returns:
            One row: `summary`, a `Summary` as JSON.
        """
        summary = Summary(error=self._error, began=time.time())
        if not self._error:
            try:
                self._run(table["part"][0].as_py(), table["names"][0].as_py(), summary)
            except (UserError, OSError) as error:
                summary.error = str(error)
            except Exception:
                summary.error = traceback.format_exc()
        return pa.table({"summary": [json.dumps(asdict(summary))]})

    def _run(self, part: str, names: list[str], summary: Summary) -> None:
        summary.died, deaths = ray.get(self._journal.open.remote(part, names))
        columns: dict[str, list] = {name: [] for name in SCHEMA.names}
        totals = Totals()
        for images in self._images(part, names, deaths, summary):
            for name, result in self._results(images, summary):
                add(columns, totals, name, result)
        if columns["image"]:
            if not self._output.owned_by(self._task.run):
                raise UserError(f"--out {self._task.out}: another job has taken it over")
            self._output.write_part(part, columns, totals)
        summary.images = totals.images
        ray.get(self._journal.close.remote(part))

    def _images(
        self, part: str, names: list[str], deaths: dict[str, int], summary: Summary
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the images of a part in batches; those over which a worker may have died come last, one at a time."""
        fresh = [name for name in names if name not in deaths]
        yield from self._read_ahead(
            part, [fresh[i : i + self._batch] for i in range(0, len(fresh), self._batch)], summary
        )
        for name, times in deaths.items():
            if times < MOST_DEATHS:
                yield from self._read_ahead(part, [[name]], summary)
            else:
                summary.unreadable[name] = f"{times} workers died over it"

    def _read_ahead(self, part: str, batches: list[list[str]], summary: Summary) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches of images while the next one is read."""
        reading: deque[dict[str, Future[np.ndarray]]] = deque()
        left = deque(batches)
        while left or reading:
            while left and len(reading) < 2:
                held = [name for batch in reading for name in batch] + left[0]
                ray.get(self._journal.hold.remote(part, held))
                reading.append({name: self._readers.submit(self._source.read, name, self._flags) for name in left[0]})
                left.popleft()
            images = {}
            for name, image in reading[0].items():
                try:
                    images[name] = image.result()
                except UnreadableError as error:
                    summary.unreadable[name] = str(error)
            reading.popleft()
            yield images
            images.clear()  # before others are read

    def _results(self, images: dict[str, np.ndarray], summary: Summary) -> Iterator[tuple[str, Results]]:
        """Yield what the model finds in each image, as if it were run alone."""
        shapes: dict[tuple[int, ...], list[str]] = {}  # upstream pads images of several shapes to squares
        for name, image in images.items():
            shapes.setdefault(image.shape, []).append(name)
        for names in shapes.values():
            try:
                yield from zip(names, self._predict([images[name] for name in names]), strict=True)
            except (cv2.error, MemoryError, torch.cuda.OutOfMemoryError):
                for name in names:
                    try:
                        yield name, self._predict([images[name]])[0]
                    except (cv2.error, MemoryError, torch.cuda.OutOfMemoryError) as error:
                        summary.unreadable[name] = f"can't be run: {' '.join(str(error).split())}"

    def _predict(self, images: list[np.ndarray]) -> list[Results]:
        return self._model.predict(images, batch=len(images), verbose=False, save=False, **self._task.options)


def add(columns: dict[str, list], totals: Totals, image: str, result: Results) -> None:
    """Add what was found in an image to the columns of a part.

    Args:
        columns: The columns, see `archive_store.SCHEMA`.
        totals: What the part holds.
        image: Name of the image.
        result: What was found.
    """
    (height, width), (run, skipped) = result.orig_shape, result.tiles or (0, 0)
    boxes = result.boxes.cpu()
    ids = [int(each) for each in boxes.cls]
    classes = [result.names[each] for each in ids]
    found = [classes, ids, boxes.conf.tolist(), *(boxes.xyxy.T.tolist() if ids else [[]] * 4)]
    rows = max(1, len(ids))
    values = [[image] * rows, *(column or [None] for column in found)]
    values += [[each] * rows for each in (width, height, run, skipped)]
    for column, added in zip(columns.values(), values, strict=True):
        column += added
    totals.add(Totals(1, Counter(classes), run, skipped))

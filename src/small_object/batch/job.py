"""The job over an archive: lists its images, has Ray Data run those that are not done, and counts what came out."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import math
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ultralytics import __version__
from ultralytics.utils import LOGGER, TQDM

from small_object.batch.store import Output, Source, Totals
from small_object.batch.worker import Journal, Summary, Task, Worker, digest_of
from small_object.errors import UserError

RESULT = "imgsz", "conf", "iou", "max_det", "slice", "slice_skip", "slice_overlap"
"""The arguments that what is found depends on: those of one output must be the same."""

PART = 256  # most images of a part, unless asked for
PARTS = 16  # least parts of a worker, if there are images enough: none waits long for the last
STORE = 2**28  # bytes of Ray's object store on one machine; it holds names alone, and spills to the disk
SHOWN = 10  # unreadable images that are named at the end; the report has all


@dataclass(frozen=True)
class Job:
    """The arguments of the command line, see `archive.parser`."""

    model: str
    source: str
    out: str
    imgsz: int | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    slice: int | str = "auto"
    slice_skip: float = 0.0
    slice_overlap: float = 0.2
    slice_batch: int = 8
    batch: int = 8
    part: int | None = None
    workers: int | None = None
    device: str | None = None
    address: str | None = None


def run(job: Job) -> dict[str, Any]:
    """Run the model over all images that are not done, and write the report.

    Args:
        job: What to do; paths are absolute.

    Returns:
        The content of `report.json`.

    Raises:
        UserError: If the arguments can't be used, or not with this output, or the job can't go on.
    """
    started = time.time()
    if not Path(job.model).exists():
        raise UserError(f"--model {job.model}: no such file")
    digest = digest_of(Path(job.model))
    source, out = Source(job.source), Output(job.out)
    listed, unreadable = source.names()
    names = pa.chunked_array([listed], pa.large_string())  # an eighth of the memory
    images = len(listed) + len(unreadable)
    del listed
    id = uuid.uuid4().hex
    with out.lock(id):
        begin(out, job, digest)
        done_before, *_ = count(out, names)
        left = names.filter(pc.invert(done_before))
        before = len(names) - len(left)
        if before:
            LOGGER.info(f"{before} of {images} images are done; going on with the others.")
        running = 0.0
        if len(left):
            with cluster(job) as place:
                task = Task(
                    job.model, digest, job.source, job.out, id, options_of(job, place.device), job.batch,
                    place.threads, place.workers,
                )  # fmt: skip
                running = work_off(task, place, left, job.part, unreadable)
        done, totals, doubled = count(out, names)
        total = pc.sum(done).as_py() or 0
        now = total - before
        report = {
            "images": images,
            "done": total,
            "done_before": before,
            "done_now": now,
            "missing": images - total - len(unreadable),
            "doubled": doubled,
            "no_longer_in_source": totals.images - doubled - total,
            "detections": dict(sorted(totals.detections.items())),
            "tiles_run": totals.tiles_run,
            "tiles_skipped": totals.tiles_skipped,
            "seconds": round(time.time() - started, 3),
            "running_seconds": round(running, 3),  # without the start and the end of Ray
            "images_per_second": round(now / running, 4) if running else 0.0,
            "model": job.model,
            "model_sha256": digest,
            "arguments": asdict(job),
            "versions": {"ultralytics": __version__, "torch": torch.__version__, "ray": ray.__version__}
            | {"pyarrow": pa.__version__, "python": sys.version.split()[0]},
            "unreadable": [{"image": name, "reason": reason} for name, reason in sorted(unreadable.items())],
        }
        out.write_json("report.json", report)
    LOGGER.info(
        f"{total} of {images} images done, {now} of them now, {len(unreadable)} unreadable; "
        f"{totals.detections.total()} objects. Report: {job.out}/report.json"
    )
    for name, reason in sorted(unreadable.items())[:SHOWN]:
        LOGGER.warning(f"{ascii(name)[1:-1]}: {reason}")
    if len(unreadable) > SHOWN:
        LOGGER.warning(f"... and {len(unreadable) - SHOWN} more")
    if report["missing"] or doubled:
        raise UserError(
            f"--out {job.out}: {report['missing']} images are missing and {doubled} doubled; see the report"
        )
    return report


def begin(out: Output, job: Job, digest: str) -> None:
    """Write `job.json`, or refuse to go on with what another model or other arguments have begun.

    Raises:
        UserError: If so.
    """
    mine = {"model_sha256": digest, "source": job.source} | {name: getattr(job, name) for name in RESULT}
    if out.parts():
        theirs = out.read_json("job.json")
        if theirs is None:
            raise UserError(f"--out {job.out}: holds parts but no job.json that can be read; give another --out")
        differ = [name for name in mine if mine[name] != theirs.get(name)]
        if differ:
            what = [
                f"the model {theirs.get('model')}" if name == "model_sha256"
                else f"--{name.replace('_', '-')} {theirs.get(name)} (now {mine[name]})"
                for name in differ
            ]  # fmt: skip
            raise UserError(f"--out {job.out}: was begun with {', '.join(what)}; give the same, or another --out")
        return
    out.write_json("job.json", {"model": job.model} | mine)


def count(out: Output, names: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Totals, int]:
    """Return which of the names stand in the output's parts, what the parts hold, and how many images twice."""
    found, totals = out.scan()
    return pc.is_in(names, value_set=found), totals, len(found) - len(pc.unique(found))


def options_of(job: Job, device: str) -> dict[str, Any]:
    """Return the arguments of `model.predict` for a job."""
    options = {name: getattr(job, name) for name in (*RESULT, "slice_batch")}
    return {name: value for name, value in options.items() if value is not None} | {"device": device}


@dataclass(frozen=True)
class Place:
    """What Ray gives the workers.

    Attributes:
        workers: Number of workers.
        device: Device of the model.
        threads: Threads of a worker, 0: as PyTorch has it.
        cpus: CPUs that Ray keeps for a worker.
        gpus: GPUs that Ray keeps for a worker.
    """

    workers: int
    device: str
    threads: int
    cpus: int
    gpus: float


@contextlib.contextmanager
def cluster(job: Job) -> Iterator[Place]:
    """Start Ray on this machine or join a cluster, unless this process has; leave it at the end.

    Raises:
        UserError: If it can't be joined or lacks what the job wants.
    """
    mine = not ray.is_initialized()
    if mine:
        options: dict[str, Any] = {"address": job.address}
        if job.address is None:
            cpus = max(cores(), job.workers or 1)
            options = {"address": "local", "num_cpus": cpus, "object_store_memory": STORE, "include_dashboard": False}
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR", configure_logging=True)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise UserError(f"--address {job.address or 'local'}: {' '.join(str(error).split())}") from error
    try:
        logging.getLogger("ray").setLevel("ERROR")
        if mine and job.address is not None:
            check_nodes()
        yield share(job, ray.cluster_resources())
    finally:
        if mine:
            ray.shutdown()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_nodes() -> None:
    """Refuse a cluster with a machine that lacks this project.

    Raises:
        UserError: If so.
    """
    for node in ray.nodes():
        if node["Alive"]:
            only = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            find = ray.remote(num_cpus=0, scheduling_strategy=only, max_retries=0)(importlib.util.find_spec)
            try:
                found = ray.get(find.remote(Worker.__module__))
            except (RayError, ImportError):
                found = None
            if found is None:
                raise UserError(
                    f"Ray's machine {node['NodeManagerAddress']} lacks this project, or runs it with "
                    "ULTRALYTICS_OVERLAY=0. Run there: pip install -e '.[archive]'"
                )


def share(job: Job, resources: dict[str, float]) -> Place:
    """Divide what a cluster has among the workers.

    Args:
        job: What is asked for.
        resources: What the cluster has, with `CPU` and `GPU`.

    Raises:
        UserError: If there is too little.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    device = job.device or ("cuda" if gpus else "cpu")
    if device == "cuda":
        if not gpus:
            raise UserError("--device cuda: Ray finds no GPU; give --device cpu")
        workers = job.workers or gpus
        each = max(1, min(4, cpus // workers))  # to read images
        place = Place(workers, device, 0, each, 1 / -(-workers // gpus))
    else:
        workers = job.workers or max(1, cpus // 2)
        each = max(1, cpus // workers)
        place = Place(workers, device, each, each, 0)
    if workers * place.cpus > cpus:
        raise UserError(f"--workers {workers}: Ray has {cpus} CPUs, and each worker takes one; give fewer")
    return place


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from the terminal what Ray says of its insides and of dead workers; `LOGGER` and bars are heard."""
    saved = os.dup(2)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 2)  # its C++ writes there
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def work_off(task: Task, place: Place, names: pa.ChunkedArray, part: int | None, unreadable: dict[str, str]) -> float:
    """Have workers run images and write the parts.

    Args:
        task: What to do.
        place: What Ray gives the workers.
        names: Names of the images.
        part: Images of a part, None to choose.
        unreadable: Takes those that can't be read, with the reason.

    Returns:
        Seconds from the first worker's beginning to the last one's end.

    Raises:
        UserError: If it can't go on.
    """
    fair = -(-len(names) // (task.workers * PARTS * task.batch)) * task.batch  # full batches
    size = part or max(task.batch, min(PART, fair))
    parts = []
    for start in range(0, len(names), size):
        chosen = names.slice(start, size).to_pylist()
        name = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:32]
        parts.append(pa.table({"part": [name], "names": [chosen]}))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel("ERROR")
    first, ended, done = math.inf, 0.0, 0
    bar = TQDM(total=len(names), desc="images", unit="img")
    try:
        with quiet():
            data = ray.data.from_arrow(parts).map_batches(
                Worker,
                fn_constructor_args=(task, Journal.remote()),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=place.workers),
                num_cpus=place.cpus,
                num_gpus=place.gpus,
            )
            for row in data.iter_rows():
                summary = Summary(**json.loads(row["summary"]))
                if summary.error:
                    raise (RuntimeError if "\n" in summary.error else UserError)(summary.error)
                if summary.died:
                    LOGGER.warning("A worker died; another one runs its images again.")
                first = min(first, summary.began)
                unreadable.update(summary.unreadable)
                done += summary.images
                bar.update(summary.images + len(summary.unreadable))
                ended = time.time()
    except KeyboardInterrupt:
        LOGGER.warning(f"Interrupted: {done} images done in this run.")
        raise
    except RayError as error:
        raise UserError(f"Ray: {' '.join(str(error).split())}") from error
    finally:
        bar.close()
    return ended - first

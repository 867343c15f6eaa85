"""Runs a batch job: lists the images, runs those that are not done on Ray Data, and counts the results."""

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.exceptions import RayError
from ultralytics.utils import LOGGER, TQDM

from small_object.batch.store import TILES, Output, Source
from small_object.batch.worker import Job, Journal, Summary, Task, Worker, model_digest
from small_object.errors import UserError, one_line
from small_object.images import BITS_VARIABLE, read_bits

__all__ = ["Job", "run"]

MAX_PART = 256  # images per part, unless the user gives a number
MIN_PARTS = 16  # parts per worker, if there are enough images, so that none waits long for the last one
OBJECT_STORE = 2**28  # bytes of Ray's object store on one machine; it holds only names, and spills to disk
MAX_SHOWN = 10  # unreadable images named at the end; the report has all


def run(job: Job) -> dict[str, Any]:
    """Run the model over all images that are not done; write and return the report.

    Raises:
        UserError: If the arguments are invalid or don't fit this output, or the job can't continue.
    """
    started, running = time.time(), 0.0
    if not Path(job.model).exists():
        raise UserError(f"--model {job.model}: no such file")
    digest = model_digest(Path(job.model))
    source, out = Source(job.source), Output(job.out)
    listed, unreadable = source.names()
    names = pa.chunked_array([listed], pa.large_string())  # an eighth of the memory
    num_images = len(listed) + len(unreadable)
    del listed
    run_id = uuid.uuid4().hex
    with out.lock(run_id):
        begin(out, job, digest)
        is_done = pc.is_in(names, value_set=out.scan()[0])
        todo = names.filter(pc.invert(is_done))
        num_before = len(names) - len(todo)
        if num_before:
            LOGGER.info(f"{num_before} of {num_images} images are done; resuming with the rest.")
        if len(todo):
            with cluster(job) as resources:
                task = Task(job, digest, run_id, *allocate(job, resources), read_bits())
                running = run_parts(task, todo, unreadable)
        found, detections, tiles = out.scan()
        num_done = pc.sum(pc.is_in(names, value_set=found)).as_py() or 0
        num_found, duplicated = len(pc.unique(found)), len(found) - len(pc.unique(found))
        num_now = num_done - num_before
        report = {
            "images": num_images,
            "done": num_done,
            "done_before": num_before,
            "done_now": num_now,
            "missing": num_images - num_done - len(unreadable),
            "duplicated": duplicated,
            "no_longer_in_source": num_found - num_done,
            "detections": dict(sorted(detections.items())),
            **{name: tiles[name] for name in TILES},
            "seconds": round(time.time() - started, 3),
            "running_seconds": round(running, 3),  # without Ray's start and end
            "images_per_second": round(num_now / running, 4) if running else 0.0,
            "model_sha256": digest,
            "arguments": asdict(job) | {BITS_VARIABLE: read_bits()},
            "versions": {name: version(name) for name in ("ultralytics", "torch", "ray", "pyarrow")}
            | {"python": platform.python_version()},
            "unreadable": [{"image": name, "reason": reason} for name, reason in sorted(unreadable.items())],
        }
        out.write_json("report.json", report)
        if job.save_json:
            out.write("predictions.json", out.encode_predictions())
            stems = pc.replace_substring_regex(pc.unique(found), r"^.*/|\.[^./]*$", "")
            if shared := num_found - len(pc.unique(stems)):
                LOGGER.warning(f"predictions.json: {shared} images share an image_id; tell them apart by file_name")
    LOGGER.info(
        f"{num_done} of {num_images} images done, {num_now} of them now, {len(unreadable)} unreadable; "
        f"{detections.total()} objects. Report: {job.out}/report.json"
    )
    for name, reason in sorted(unreadable.items())[:MAX_SHOWN]:
        LOGGER.warning(f"{ascii(name)[1:-1]}: {reason}")
    if len(unreadable) > MAX_SHOWN:
        LOGGER.warning(f"... and {len(unreadable) - MAX_SHOWN} more")
    if report["missing"] or duplicated:
        lost = f"{report['missing']} images are missing and {duplicated} duplicated"
        raise UserError(f"--out {job.out}: {lost}; see the report")
    return report


def begin(out: Output, job: Job, digest: str) -> None:
    """Write `job.json`; refuse to resume a job with another model or other arguments."""
    digests = {"model_sha256": digest, "slice_roi_sha256": job.slice_roi and model_digest(Path(job.slice_roi))}
    ours = {**digests, "source": job.source, **job.settings(), BITS_VARIABLE: read_bits()}
    if not out.parts():
        out.write_json("job.json", {"model": job.model, **ours})
        return
    try:
        theirs = json.loads(out.read("job.json") or b"")
    except ValueError as error:
        raise UserError(f"--out {job.out}: holds parts but no readable job.json; give another --out") from error
    differences = [
        f"{name if name.isupper() else '--' + name.replace('_', '-')} {theirs.get(name)} (now {value})"
        for name, value in ours.items()
        if value != theirs.get(name) and name not in digests
    ]
    if not differences and theirs.get("slice_roi_sha256") != digests["slice_roi_sha256"]:
        differences.append("other contents of --slice-roi")
    if digest != theirs.get("model_sha256"):
        differences.insert(0, f"the model {theirs.get('model')}")
    if differences:
        raise UserError(f"--out {job.out}: was started with {', '.join(differences)}; give the same, or another --out")


@contextlib.contextmanager
def cluster(job: Job) -> Iterator[dict[str, float]]:
    """Start Ray here or join a cluster, unless this process already has; yield its resources; leave it at the end."""
    owned = not ray.is_initialized()
    if owned:
        options: dict[str, Any] = {"address": job.address}
        if job.address is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            options = {"address": "local", "num_cpus": max(cores, job.workers or 1)}
            options |= {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise UserError(f"--address {job.address or 'local'}: {one_line(error)}") from error
    try:
        logging.getLogger("ray").setLevel("ERROR")
        yield ray.cluster_resources()
    finally:
        if owned:
            ray.shutdown()


def allocate(job: Job, resources: dict[str, float]) -> tuple[int, str, int, float]:
    """Divide the resources `CPU` and `GPU`: return the number of workers, their device, the CPUs and GPUs of each."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    device = job.device or ("cuda" if gpus else "cpu")
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: Ray finds no GPU; give --device cpu")
    workers = job.workers or (gpus if device == "cuda" else max(1, cpus // 2))
    if workers > cpus:
        raise UserError(f"--workers {workers}: Ray has {cpus} CPUs, and each worker needs one; give fewer")
    if device == "cpu":
        return workers, device, cpus // workers, 0.0
    return workers, device, min(4, cpus // workers), 1 / math.ceil(workers / gpus)  # the CPUs read images


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hide Ray's messages about itself and dead workers from the terminal; `LOGGER` and bars still print."""
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 2)  # its C++ writes there
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def run_parts(task: Task, names: pa.ChunkedArray, unreadable: dict[str, str]) -> float:
    """Run images and write parts in the workers; return the seconds from the first worker's start to the end.

    It adds images that can't be read to `unreadable`, with the reason.
    """
    batch = task.job.batch
    fair = math.ceil(len(names) / (task.workers * MIN_PARTS * batch)) * batch  # full batches
    size = task.job.part or max(batch, min(MAX_PART, fair))
    parts = []
    for start in range(0, len(names), size):
        chosen = names.slice(start, size).to_pylist()
        name = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:32]
        parts.append(pa.table({"part": [name], "names": [chosen]}))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel("ERROR")
    began, ended, done = math.inf, 0.0, 0
    bar = TQDM(total=len(names), desc="images", unit="img")
    try:
        with silenced():
            summaries = ray.data.from_arrow(parts).map_batches(
                Worker,
                fn_constructor_args=(task, Journal.remote()),  # type: ignore[attr-defined]
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=task.workers),
                num_cpus=task.cpus,
                num_gpus=task.gpus,
            )
            for row in summaries.iter_rows():
                summary = Summary(**json.loads(row["summary"]))
                if summary.error:
                    raise (RuntimeError if "\n" in summary.error else UserError)(summary.error)
                if summary.retried:
                    LOGGER.warning("A worker died; another one runs its images again.")
                unreadable.update(summary.unreadable)
                done += summary.images
                bar.update(summary.images + len(summary.unreadable))
                began, ended = min(began, summary.began), time.time()
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # Ray's executor, destroyed halfway, would print a traceback
        LOGGER.warning(f"Interrupted: {done} images done in this run.")
        raise
    except RayError as error:
        raise UserError(f"Ray: {one_line(error)}") from error
    finally:
        bar.close()
    return ended - began

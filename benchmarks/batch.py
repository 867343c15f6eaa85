"""Measures batch jobs and kills their workers.

Overhead: a batch job with one worker and a plain loop of `model.predict` take turns on the same images with the same
batches and threads, each in its own process. Kills: SIGKILL ends worker processes at moments spread over a batch job;
afterwards the images in its Parquet files are counted. Names: the cost to the job's own process of a list of this many
images, half of which are done.
"""

import argparse
import contextlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch
from ultralytics import YOLO
from ultralytics.cfg import smart_value
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER

from benchmarks import common
from small_object.batch.store import SCHEMA, Output, Source
from small_object.errors import UserError
from small_object.files import write_file

OBJECTS = 100  # rows of an image in the synthetic parts


def options(args: argparse.Namespace) -> list[str]:
    """Return the arguments of the job that affect its speed."""
    given = {"--imgsz": args.imgsz, "--slice": args.slice, "--slice-skip": args.slice_skip, "--batch": args.batch}
    return [text for flag, value in given.items() if value is not None for text in (flag, str(value))]


def start(args: argparse.Namespace, source: Path, out: Path, *more: object) -> subprocess.Popen[bytes]:
    """Start a job on this machine's CPU."""
    files = ["--model", str(args.model), "--source", str(source), "--out", str(out)]
    return common.start_module("small_object.cli", "batch", "--device", "cpu", *options(args), *files, *map(str, more))


def run_loop(args: argparse.Namespace) -> None:
    """Run the images of a folder in a loop; print the seconds of its start and of the rest."""
    began = psutil.Process().create_time()
    keys = {"imgsz": args.imgsz, "slice": smart_value(args.slice), "slice_skip": args.slice_skip}
    keys = {key: value for key, value in keys.items() if value is not None} | {"device": "cpu", "verbose": False}
    model = YOLO(args.model)
    model.predict(np.zeros((64, 64, 3), np.uint8), **keys)
    torch.set_num_threads(common.cores())
    ready = time.time()
    for result in model.predict(args.source, batch=args.batch, stream=True, **keys):
        result.boxes.data.tolist()
    print(json.dumps([ready - began, time.time() - ready]))


def overhead(args: argparse.Namespace, files: list[Path]) -> list[dict[str, float]]:
    """Time the loop and the job in turn on the first `--images` files.

    Returns:
        Images per second of each round: `loop` and `job` without the start and end of the processes, `loop, all` and
        `job, all` with them.
    """
    rounds = []
    for i in range(args.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            few = Path(scratch, "few")
            few.mkdir()
            for file in files[: args.images]:
                (few / file.name).symlink_to(file.absolute())
            images, row = len(list(few.iterdir())), {}
            for name in ("loop", "job") if i % 2 else ("job", "loop"):
                began = time.time()
                if name == "loop":
                    more = ["--model", str(args.model), "--source", str(few), "--loop"]
                    seconds = json.loads(common.run_module("benchmarks.batch", *options(args), *more))[1]
                else:
                    if start(args, few, Path(scratch, "out"), "--workers", 1).wait():
                        raise UserError("the job failed; see above")
                    report = json.loads(Path(scratch, "out/report.json").read_text())
                    seconds = report["running_seconds"]
                row |= {name: images / seconds, f"{name}, all": images / (time.time() - began)}
            LOGGER.info(f"round {i + 1}: {row}")
            rounds.append(row)
    return rounds


def kill(args: argparse.Namespace, files: list[Path], out: Path) -> dict[str, Any]:
    """Run a job over all images into a new folder, kill workers at moments spread over it, and return the counts."""
    rng, moments, began, peak = random.Random(0), [], time.time(), 0
    more = ["--workers", args.workers] if args.workers else []
    process = start(args, args.source, out, *more)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(1)
        with contextlib.suppress(psutil.Error):
            run = len(list_images(out))
            workers = [child for child in driver.children(recursive=True) if "MapWorker" in " ".join(child.cmdline())]
            peak = max(peak, *(worker.memory_info().rss for worker in workers), 0)
            due = len(moments) < args.kills and run >= (len(moments) + 1) * len(files) / (args.kills + 1)
            if due and workers:
                time.sleep(rng.uniform(0, 5))
                victim = rng.choice(workers)
                victim.kill()
                moments.append(time.time() - began)
                LOGGER.info(f"killed {victim.pid} after {moments[-1]:.0f} s, {run} images done")
    if process.returncode:
        raise UserError("the job failed; see above")
    found, parts = list_images(out), [*(out / "parts").iterdir()]
    report = json.loads((out / "report.json").read_text())
    names = {file.relative_to(args.source).as_posix() for file in files}
    return {
        "images in": len(names), "images out": len(names & set(found)), "duplicated": len(found) - len(set(found)),
        "unreadable": len(report["unreadable"]), "workers killed": len(moments), "parts": len(parts),
        "objects": sum(report["detections"].values()),
        "MiB of parts": sum(file.stat().st_size for file in parts) / 2**20,
        "images/s": report["images_per_second"], "peak MiB of a worker": peak / 2**20,
        "at": [round(moment) for moment in moments], "seconds": report["seconds"],
    }  # fmt: skip


def list_images(out: Path) -> list[str]:
    """Return the images in the parts of an output, once per part that holds them."""
    files = (out / "parts").glob("[!.]*.parquet")
    return [name for file in files for name in pads.dataset(file).to_table(["image"])["image"].unique().to_pylist()]


def names(args: argparse.Namespace) -> None:
    """Measure in this process the cost of a list of `--names` images, and print it."""
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch, "list.txt"), Output(str(Path(scratch, "out")))
        with file.open("w") as stream:
            stream.writelines(f"camera-{i % 16:02}/{i // 86400:05}/{i:012}.jpg\n" for i in range(args.names))
        size = 1000
        values = np.random.default_rng(0).integers(0, 3000, OBJECTS * size)
        numbers = {name: pa.array(values).cast(SCHEMA.field(name).type) for name in SCHEMA.names[2:]}
        things, of = pa.array(["thing"] * (OBJECTS * size)), pa.array(np.arange(OBJECTS * size) // OBJECTS, pa.int32())
        with file.open() as stream:
            for start in range(0, args.names // 2, size):
                images = pa.array([next(stream).strip() for _ in range(size)]).take(of)
                out.write_part(f"{start:012}", {"image": images, "class": things} | numbers)
        bytes_all = sum(f.stat().st_size for f in Path(scratch, "out/parts").iterdir())
        del images, numbers, things, of, values
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
        listed = pa.chunked_array([Source(str(file)).names()[0]], pa.large_string())
        read = time.time()
        done = out.scan()[0]
        expected = args.names // size // 2 * size
        assert len(done) == len(pc.unique(done)) == pc.sum(pc.is_in(listed, done)).as_py() == expected
        found = {"names": args.names, "parts": len(done) // size, "MiB of parts": bytes_all / 2**20}
        found |= {"listing, s": read - began, "reading the parts, s": time.time() - read}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(found | {"peak MiB": peak / 2**10, "before MiB": before / 2**10}))


def section(title: str, about: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a section of the report with a table."""
    return ["", f"## {title}", "", about, "", *common.markdown_table(header, rows)]


def report(args: argparse.Namespace, files: list[Path], rounds: list[dict[str, float]], killed: dict[str, Any],
           listed: dict[str, float]) -> str:  # fmt: skip
    """Return the tables as Markdown."""
    lines = [
        "# Batches", "",
        f"Weights `{common.relative_path(str(args.model))}`, {len(files)} images; commit {common.describe_setup()}, "
        f"Ultralytics {version('ultralytics')}, Ray {version('ray')}.", "",
        "```", args.command, "```",
    ]  # fmt: skip
    if rounds:
        about = (
            f"Images per second of one worker and of a loop of `model.predict`, {common.cores()} threads each, over "
            f"the first {min(args.images, len(files))} images; medians of {len(rounds)} rounds and of their ratios."
        )
        rows = []
        for text, more in (("without start and end", ""), ("with them", ", all")):
            loop, job = ([row[name + more] for row in rounds] for name in ("loop", "job"))
            ratio = statistics.median(ours / theirs for ours, theirs in zip(job, loop, strict=True))
            rows.append([text, f"{statistics.median(loop):.3f}", f"{statistics.median(job):.3f}", f"{ratio:.2f}"])
        lines += section("Against a loop", about, ("", "loop", "job", "ratio"), rows)
    if killed:
        about = f"Killed with SIGKILL after {', '.join(map(str, killed['at'])) or '-'} s of {killed['seconds']:.0f}. "
        about += "Images out: images of the source in the Parquet files. Duplicated: images in two of them."
        units = {"MiB of parts": ".1f", "images/s": ".3f", "peak MiB of a worker": ".0f"}
        columns = [name for name in killed if name not in ("at", "seconds")]
        cells = [format(killed[name], units.get(name, "")) for name in columns]
        lines += section("Killed workers", about, columns, [cells])
    if listed:
        about = f"The cost to the job's own process of a list of {listed['names']:,} images. Half of them are done, in "
        about += f"{listed['parts']:,} synthetic parts of 1000 images with {OBJECTS} objects each."
        columns = ["listing, s", "reading the parts, s", "peak MiB", "MiB of parts"]
        lines += section("Names", about, columns, [[f"{listed[name]:.0f}" for name in columns]])
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """Measure and write the report; return 1 if images were lost or too few workers were killed."""
    if args.loop or args.measure_names:
        (run_loop if args.loop else names)(args)
        return 0
    for path in (args.model, args.source):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if args.keep and args.keep.exists():
        raise UserError(f"--keep {args.keep}: already exists")
    files = sorted(file for file in args.source.rglob("*") if file.suffix[1:].lower() in IMG_FORMATS)
    rounds = overhead(args, files)
    with tempfile.TemporaryDirectory() as scratch:
        killed = {} if args.no_kills else kill(args, files, args.keep or Path(scratch, "out"))
    listed = {}
    if args.names:
        listed = json.loads(common.run_module("benchmarks.batch", *args.given, "--measure-names"))
    write_file(args.out, report(args, files, rounds, killed, listed))
    LOGGER.info(args.out.read_text())
    lost = killed and killed["images out"] + killed["unreadable"] != killed["images in"]
    return int(bool(killed and (lost or killed["duplicated"] or killed["workers killed"] < args.kills)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="WEIGHTS", help="weights to run")
    add("--source", type=Path, required=True, metavar="DIR", help="folder of images")
    add("--rounds", type=int, default=3, help="rounds of the comparison with a loop, default 3; 0: none")
    add("--images", type=int, default=40, help="images per round, default 40")
    add("--kills", type=int, default=2, help="workers to kill in a job over all images, default 2")
    add("--no-kills", action="store_true", help="leave out the job with kills")
    add("--names", type=int, default=0, help="length of a list of names to measure, default 0: none")
    add("--workers", type=int, help="workers of the job over all images, default: the job's own")
    add("--imgsz", type=int, help="input size, default: the model's")
    add("--slice", default="auto", help="side of tiles, default auto")
    add("--slice-skip", type=float, help="see small-object batch --help")
    add("--batch", type=int, default=8, help="images per batch, default 8")
    add("--out", type=Path, default=common.RESULTS / "batch.md", metavar="FILE", help="the table")
    add("--keep", type=Path, metavar="DIR", help="new folder for that job's results, default: a temporary one")
    add("--loop", action="store_true", help=argparse.SUPPRESS)
    add("--measure-names", action="store_true", help=argparse.SUPPRESS)
    return common.execute("benchmarks.batch", parser.parse_args, run, argv)


if __name__ == "__main__":
    sys.exit(main())

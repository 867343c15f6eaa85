"""Measures jobs over an archive and kills their workers: python benchmarks/batch.py --help.

Overhead: by turns, the job with one worker and a plain loop of `model.predict` run the same images with the same
batches and threads, each in a process of its own. Kills: worker processes of a job are killed with SIGKILL at moments
spread over it; afterwards the images in its Parquet files are counted. Names: what the job's own process takes for a
list of so many images, half of which are done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from ultralytics import YOLO
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import get_cpu_info

from benchmarks.common import ROOT, commit, cores, relative_path
from small_object.batch.job import count
from small_object.batch.store import SCHEMA, SUMMARY, Output, Source
from small_object.errors import UserError
from small_object.files import replacing

OBJECTS = 100  # rows of an image in the parts that are made up


def options(args: argparse.Namespace) -> list[str]:
    """Return the arguments of the job that matter to its speed."""
    given = {"--imgsz": args.imgsz, "--slice": args.slice, "--slice-skip": args.slice_skip, "--batch": args.batch}
    return [text for flag, value in given.items() if value is not None for text in (flag, str(value))]


def start(args: argparse.Namespace, source: Path, out: Path, *more: object) -> subprocess.Popen[bytes]:
    """Start a job on this machine's CPU."""
    command = [sys.executable, "-m", "small_object.cli", "batch", "--device", "cpu", *options(args)]
    command += ["--model", str(args.model), "--source", str(source), "--out", str(out), *map(str, more)]
    return subprocess.Popen(command)


def plain(args: argparse.Namespace) -> None:
    """Run the images of a folder in a loop and print the seconds of its start and of the rest."""
    began = psutil.Process().create_time()
    keys = {"imgsz": args.imgsz, "slice": args.slice, "slice_skip": args.slice_skip}
    keys = {key: value for key, value in keys.items() if value is not None} | {"device": "cpu", "verbose": False}
    model = YOLO(args.model)
    model.predict(np.zeros((64, 64, 3), np.uint8), **keys)
    torch.set_num_threads(cores())
    ready = time.time()
    for result in model.predict(args.source, batch=args.batch, stream=True, **keys):
        result.boxes.data.tolist()
    print(json.dumps([ready - began, time.time() - ready]))


def overhead(args: argparse.Namespace, files: list[Path]) -> list[dict[str, float]]:
    """Time the loop and the job by turns.

    Args:
        args: The command line.
        files: All images, of which the first `--images` are run.

    Returns:
        For each round `loop` and `job`, images per second without the start and end of the processes, and `loop, all`
        and `job, all` with them.
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
                    command = [sys.executable, __file__, *options(args), "--model", str(args.model), "--plain"]
                    run = subprocess.run([*command, "--source", str(few)], stdout=subprocess.PIPE, check=True)
                    seconds = json.loads(run.stdout.splitlines()[-1])[1]
                else:
                    if start(args, few, Path(scratch, "out"), "--workers", 1).wait():
                        raise RuntimeError("the job failed; see above")
                    report = json.loads(Path(scratch, "out/report.json").read_text())
                    seconds = report["running_seconds"]
                row |= {name: images / seconds, f"{name}, all": images / (time.time() - began)}
            LOGGER.info(f"round {i + 1}: {row}")
            rounds.append(row)
    return rounds


def kill(args: argparse.Namespace, files: list[Path], out: Path) -> dict[str, Any]:
    """Run a job over all images and kill workers, each time another share of the parts is there.

    Args:
        args: The command line.
        files: All images.
        out: Folder for the parts, new.

    Returns:
        The counts of the report, of the Parquet files, and of the kills.
    """
    rng, moments, began, peak = random.Random(0), [], time.time(), 0
    more = ["--workers", args.workers] if args.workers else []
    process = start(args, args.source, out, *more)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(1)
        with contextlib.suppress(psutil.Error):
            run = len(held(out))
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
        raise RuntimeError("the job failed; see above")
    found, parts = held(out), [*(out / "parts").iterdir()]
    report = json.loads((out / "report.json").read_text())
    names = {file.relative_to(args.source).as_posix() for file in files}
    return {
        "images in": len(names), "images out": len(names & set(found)), "doubled": len(found) - len(set(found)),
        "unreadable": len(report["unreadable"]), "kills": len(moments), "at": [round(moment) for moment in moments],
        "parts": len(parts), "objects": sum(report["detections"].values()), "seconds": report["seconds"],
        "images/s": report["images_per_second"], "MiB": sum(file.stat().st_size for file in parts) / 2**20,
        "peak": peak / 2**20,
    }  # fmt: skip


def held(out: Path) -> list[str]:
    """Return the images in the parts of an output, each as often as parts hold it."""
    files = (out / "parts").glob("[!.]*.parquet")
    return [name for file in files for name in pads.dataset(file).to_table(["image"])["image"].unique().to_pylist()]


def names(args: argparse.Namespace) -> None:
    """Measure in this process what a list of `--names` images costs, and print it."""
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch, "list.txt"), Output(str(Path(scratch, "out")))
        (Path(scratch) / "out/parts").mkdir(parents=True)
        with file.open("w") as stream:
            stream.writelines(f"camera-{i % 16:02}/{i // 86400:05}/{i:012}.jpg\n" for i in range(args.names))
        size = 1000
        values = np.random.default_rng(0).integers(0, 3000, OBJECTS * size)
        numbers = {name: pa.array(values).cast(SCHEMA.field(name).type) for name in SCHEMA.names[2:]}
        summary = {SUMMARY: json.dumps({"detections": {"thing": OBJECTS * size}, "tiles": [0, 0]})}
        things, of = pa.array(["thing"] * (OBJECTS * size)), pa.array(np.arange(OBJECTS * size) // OBJECTS, pa.int32())
        with file.open() as stream:
            for start in range(0, args.names // 2, size):
                images = pa.array([next(stream).strip() for _ in range(size)]).take(of)
                table = pa.table({"image": images, "class": things} | numbers, SCHEMA.with_metadata(summary))
                pq.write_table(table, Path(scratch, f"out/parts/{start:012}.parquet"))
        bytes_all = sum(f.stat().st_size for f in Path(scratch, "out/parts").iterdir())
        del images, table, numbers, things, of, values
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
        listed = pa.chunked_array([Source(str(file)).names()[0]], pa.large_string())
        read = time.time()
        done, totals, doubled = count(out, listed)
        assert done.to_numpy().sum() == totals.images == args.names // size // 2 * size and not doubled
        found = {"names": args.names, "parts": totals.images // size, "MiB of parts": bytes_all / 2**20}
        found |= {"listing": read - began, "reading": time.time() - read}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(found | {"peak MiB": peak / 2**10, "before MiB": before / 2**10}))


def report(args: argparse.Namespace, files: list[Path], rounds: list[dict[str, float]], killed: dict[str, Any],
           listed: dict[str, float]) -> str:  # fmt: skip
    """Return the tables as Markdown."""
    lines = [
        "# Archives", "",
        f"Weights `{relative_path(str(args.model))}`, {len(files)} images; commit {commit()}, {get_cpu_info()}, "
        f"{cores()} cores, torch {torch.__version__}, Ultralytics {version('ultralytics')}, Ray {version('ray')}.", "",
        "```", shlex.join(["python", "benchmarks/batch.py", *args.given]), "```",
    ]  # fmt: skip
    if rounds:
        lines += [
            "", "## Against a loop", "",
            f"Images per second of one worker and of a loop of `model.predict`, {cores()} threads each, over the "
            f"first {min(args.images, len(files))} images; medians of {len(rounds)} rounds, and that of their ratios.",
            "",
            "| | loop | job | ratio |", "| --- | ---: | ---: | ---: |",
        ]  # fmt: skip
        for text, more in (("without start and end", ""), ("with them", ", all")):
            loop, job = ([row[name + more] for row in rounds] for name in ("loop", "job"))
            ratio = statistics.median(mine / theirs for mine, theirs in zip(job, loop, strict=True))
            lines.append(f"| {text} | {statistics.median(loop):.3f} | {statistics.median(job):.3f} | {ratio:.2f} |")
    if killed:
        lines += [
            "", "## Killed workers", "",
            f"Killed with SIGKILL after {', '.join(map(str, killed['at'])) or '-'} s of {killed['seconds']:.0f}. "
            "Images out are those of the source that stand in the Parquet files; doubled, those in two of them.", "",
            "| images in | workers killed | images out | doubled | unreadable | parts | objects | MiB of parts | "
            "images/s | peak MiB of a worker |",
            "| ---: |" + " ---: |" * 9,
            f"| {killed['images in']} | {killed['kills']} | {killed['images out']} | {killed['doubled']} | "
            f"{killed['unreadable']} | {killed['parts']} | {killed['objects']} | {killed['MiB']:.1f} | "
            f"{killed['images/s']:.3f} | {killed['peak']:.0f} |",
        ]  # fmt: skip
    if listed:
        lines += [
            "", "## Names", "",
            f"What the job's own process takes for a list of {listed['names']:,} images of which half are done, in "
            f"{listed['parts']:,} made-up parts of 1000 images with {OBJECTS} objects each.", "",
            "| listing, s | reading the parts, s | peak MiB | MiB of parts |", "| ---: | ---: | ---: | ---: |",
            f"| {listed['listing']:.0f} | {listed['reading']:.0f} | {listed['peak MiB']:.0f} | "
            f"{listed['MiB of parts']:.0f} |",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    about = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=about[0], epilog="\n".join(about[2:]))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="WEIGHTS", help="weights to run")
    add("--source", type=Path, required=True, metavar="DIR", help="folder of images")
    add("--rounds", type=int, default=3, help="rounds of the comparison with a loop, default 3; 0: none")
    add("--images", type=int, default=40, help="images of a round, default 40")
    add("--kills", type=int, default=2, help="workers to kill in a job over all images, default 2")
    add("--no-kills", action="store_true", help="leave that job out")
    add("--names", type=int, default=0, help="length of the list of names to measure, default 0: none")
    add("--workers", type=int, help="workers of the job over all images, default the job's own")
    add("--imgsz", type=int, help="input size, default the model's")
    add("--slice", default=None, help="side of tiles, default auto")
    add("--slice-skip", type=float, help="see the job's")
    add("--batch", type=int, default=8, help="images in a batch, default 8")
    add("--out", type=Path, default=ROOT / "benchmarks/results/archive.md", metavar="FILE", help="the table")
    add("--keep", type=Path, metavar="DIR", help="new folder for what the killed job finds, default a temporary one")
    add("--plain", action="store_true", help=argparse.SUPPRESS)
    add("--measure-names", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.given = sys.argv[1:] if argv is None else argv
    args.slice = args.slice if args.slice in (None, "auto") else int(args.slice)
    if args.slice is None:
        args.slice = "auto"
    for path in (args.model, args.source):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if args.keep and args.keep.exists():
        raise UserError(f"--keep {args.keep}: is there already")
    return args


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; return the exit status."""
    try:
        args = parse_arguments(argv)
    except UserError as error:
        LOGGER.error(str(error))
        return 1
    if args.plain:
        plain(args)
        return 0
    if args.measure_names:
        names(args)
        return 0
    files = sorted(file for file in args.source.rglob("*") if file.suffix[1:].lower() in IMG_FORMATS)
    rounds = overhead(args, files)
    with tempfile.TemporaryDirectory() as scratch:
        killed = {} if args.no_kills else kill(args, files, args.keep or Path(scratch, "out"))
    listed = {}
    if args.names:
        command = [sys.executable, __file__, *args.given, "--measure-names"]
        listed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    with replacing(args.out) as new:
        new.write_text(report(args, files, rounds, killed, listed))
    LOGGER.info(args.out.read_text())
    lost = killed and killed["images out"] + killed["unreadable"] != killed["images in"]
    return int(bool(killed and (lost or killed["doubled"] or killed["kills"] < args.kills)))


if __name__ == "__main__":
    sys.exit(main())

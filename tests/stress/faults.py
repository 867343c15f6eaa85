"""Kills trainings at random moments and resumes them: python tests/stress/faults.py --help.

A training that runs through is the reference. Others, of the same seed, are killed with SIGKILL at a random moment of
an optimizer step, of a checkpoint's writing or of a validation, and resumed with `resume=True`; every other one is
killed again then. A run that was killed before its first checkpoint starts anew. At the end its rows of `results.csv`
(all but the times) and the weights of `last.pt` and `best.pt` must be those of the reference, and no checkpoint may
ever be unreadable.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics import YOLO, __version__
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER, TQDM

from benchmarks.compare import ROOT, commit
from small_object.files import replacing

PHASES = "step", "checkpoint", "validation"
MODEL = ROOT / "ultralytics/cfg/models/11/yolo11.yaml"
EPOCHS = 5
# Steps of several batches, a part of which waits for the next epoch; the mosaic ends in the middle.
ARGUMENTS = {
    "epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 12, "close_mosaic": 2, "warmup_epochs": 1.0, "plots": False,
    "device": "cpu", "pretrained": False, "verbose": False, "exist_ok": True,
}  # fmt: skip
OUTCOMES = "kills", "in the phase", "before the first checkpoint", "unreadable checkpoints", "other result"


def draw(folder: Path, images: int = 14) -> Path:
    """Write a data set of small images with two rectangles each; return its YAML."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 4)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
            rows = []
            for _ in range(2):
                (x, y), (w, h) = rng.integers(4, 40, 2), rng.integers(8, 30, 2)
                image[y : y + h, x : x + w] = 220
                rows.append(f"0 {(x + w / 2) / 96:.6f} {(y + h / 2) / 72:.6f} {w / 96:.6f} {h / 72:.6f}\n")
            cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image)
            (folder / f"labels/{split}/{i}.txt").write_text("".join(rows))
    file = folder / "set.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [thing]\n")
    return file


def train(model: Path, data: Path, folder: Path, tell: Connection) -> None:
    """Train into a folder, or go on with what is there; tell the beginning of each phase."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    LOGGER.setLevel("ERROR")
    warnings.simplefilter("ignore")
    stock = BaseTrainer.save_model

    def save_model(trainer: BaseTrainer) -> Any:
        tell.send("checkpoint")
        try:
            return stock(trainer)
        finally:
            tell.send("other")

    BaseTrainer.save_model = save_model
    last = folder / "weights/last.pt"
    yolo = YOLO(last if last.exists() else model, task="detect")
    yolo.add_callback("on_train_batch_start", lambda _: tell.send("step"))
    yolo.add_callback("on_val_start", lambda _: tell.send("validation"))
    yolo.add_callback("on_val_end", lambda _: tell.send("other"))
    options = {"resume": True} if last.exists() else ARGUMENTS | {"data": str(data)}
    yolo.train(**options, project=str(folder.parent), name=folder.name)


Told = list[tuple[float, str]]


def run(model: Path, data: Path, folder: Path, kill: tuple[str, int, float] | None = None) -> tuple[str, Told]:
    """Train in a process of its own.

    Args:
        model: The model YAML.
        data: The data YAML.
        folder: Folder of the run.
        kill: Phase, which of its times, and seconds after its beginning when the process is killed; None: never.

    Returns:
        The phase in which it was killed, empty if it came to its end, and when which phase began.
    """
    context = multiprocessing.get_context("fork")  # imports once; this process runs no thread
    listen, tell = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(model, data, folder, tell))
    process.start()
    tell.close()
    told: Told = []
    times = 0
    try:
        while True:
            told.append((time.perf_counter(), listen.recv()))
            times += kill is not None and told[-1][1] == kill[0]
            if kill is not None and times == kill[1] and told[-1][1] == kill[0]:
                time.sleep(kill[2])
                os.kill(process.pid, signal.SIGKILL)
                kill = None
    except EOFError:
        process.join()
    finally:
        process.kill()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{folder}: the training failed; see above")
    return (told[-1][1] if process.exitcode else ""), told


def lengths(told: Told) -> dict[str, tuple[int, float]]:
    """Return how often each phase began and the seconds that it took, median."""
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for (start, phase), (end, _) in pairwise(told):
        if phase in found:
            found[phase].append(end - start)
    return {phase: (len(seconds), statistics.median(seconds)) for phase, seconds in found.items()}


def result(folder: Path) -> tuple[list[list[str]], dict[str, dict[str, torch.Tensor]]]:
    """Return the rows of `results.csv` without their times, and the weights of both checkpoints."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [[row[0].strip(), *row[2:]] for row in csv.reader(file)]
    return rows, {name: load(folder / f"weights/{name}.pt") for name in ("last", "best")}


def load(file: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint."""
    checkpoint = torch.load(file, map_location="cpu", weights_only=False)
    return (checkpoint.get("model") or checkpoint["ema"]).float().state_dict()


def same(one: tuple, other: tuple) -> bool:
    """Return whether two results are equal to the bit."""
    return one[0] == other[0] and all(
        part.keys() == other[1][name].keys() and all(torch.equal(part[key], other[1][name][key]) for key in part)
        for name, part in one[1].items()
    )


def unreadable(folder: Path) -> int:
    """Return how many of the checkpoints of a run can't be loaded."""
    count = 0
    for file in (folder / "weights").glob("[!.]*.pt"):
        try:
            torch.load(file, map_location="cpu", weights_only=False)
        except Exception as error:
            LOGGER.error(f"{file}: {error}")
            count += 1
    return count


def measure(model: Path, kills: int, seed: int, folder: Path) -> dict[str, Counter]:
    """Kill and resume; return what came of it by phase."""
    data = draw(folder / "set")
    rng = random.Random(seed)
    run(model, data, folder / "scan")  # whose labels later ones find scanned: that may take random numbers
    _, told = run(model, data, folder / "reference")
    reference, length = result(folder / "reference"), lengths(told)
    counts = {phase: Counter(dict.fromkeys(OUTCOMES, 0)) for phase in PHASES}
    for trial in TQDM(range(kills * len(PHASES)), desc="killing"):
        phase, place = PHASES[trial % len(PHASES)], folder / f"run{trial}"
        count = counts[phase]
        for again in range(1 + trial // len(PHASES) % 2):
            times, seconds = length[phase]
            nth = rng.randint(1, max(1, times - 1 if not again else times // 3))  # the final validation is another
            died_in, _ = run(model, data, place, (phase, nth, rng.uniform(0, seconds)))
            if not died_in:
                continue
            count["kills"] += 1
            count["in the phase"] += died_in == phase
            count["before the first checkpoint"] += not (place / "weights/last.pt").exists()
            count["unreadable checkpoints"] += unreadable(place)
        run(model, data, place)
        count["unreadable checkpoints"] += unreadable(place)
        count["other result"] += not same(result(place), reference)
    return counts


def report(model: Path, counts: dict[str, Counter], command: str) -> str:
    """Return the table as Markdown."""
    about = f"`{command}` (commit {commit()}, Ultralytics {__version__}, torch {torch.__version__}): trainings of "
    about += f"`{model.name}` for {EPOCHS} epochs on a CPU, killed with SIGKILL at random moments and resumed. Other "
    about += "result: runs whose `results.csv` or weights differ by a bit from those of one that was not killed."
    head = f"| killed in a | {' | '.join(OUTCOMES)} |"
    lines = ["# Killed and resumed trainings", "", about, "", head, "| --- |" + " ---: |" * len(OUTCOMES)]
    for phase, count in counts.items():
        lines.append(f"| {phase} | {' | '.join(str(count[name]) for name in OUTCOMES)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="runs to kill in each phase, default 20")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments, default 0")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="YAML", help="model YAML, default yolo11.yaml")
    out = ROOT / "benchmarks/results/faults.md"
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help="table to write")
    args = parser.parse_args(argv)
    if args.kills < 1:
        parser.error("--kills must be at least 1")
    torch.set_num_threads(1)  # processes are forked, and threads would not be
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        counts = measure(args.model, args.kills, args.seed, Path(folder))
    given = sys.argv[1:] if argv is None else argv
    text = report(args.model, counts, " ".join(["python", "tests/stress/faults.py", *given]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as new:
        new.write_text(text, encoding="utf-8")
    LOGGER.info(text)
    return int(any(count["unreadable checkpoints"] + count["other result"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())

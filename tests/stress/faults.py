"""Kills trainings at random moments and resumes them: python -m tests.stress.faults --help.

Each training is killed with SIGKILL at a random moment of an optimizer step, of a checkpoint's writing or of a
validation, and resumed with `resume=True`; every other one is killed again then. A run that is killed before its first
checkpoint starts again. No checkpoint may ever be unreadable, and at the end `results.csv` has one row for each epoch.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER, TQDM

from tests.helpers.common import read_csv, write_data

PHASES = "step", "checkpoint", "validation"
MODEL = Path(__file__).resolve().parents[2] / "ultralytics/cfg/models/11/yolo11.yaml"
EPOCHS = 3
IMAGES = {"train": 8, "val": 4}
ARGUMENTS = {
    "epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 12, "close_mosaic": 2, "warmup_epochs": 1.0, "plots": False,
    "device": "cpu", "pretrained": False, "verbose": False, "exist_ok": True,
}  # fmt: skip


def train(model: Path, data: Path, folder: Path, phases: Connection) -> None:
    """Train into a folder, or resume what is there; report the beginning of each phase."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    LOGGER.setLevel("ERROR")
    warnings.simplefilter("ignore")
    stock = BaseTrainer.save_model

    def save_model(trainer: BaseTrainer) -> Any:
        phases.send("checkpoint")
        return stock(trainer)

    BaseTrainer.save_model = save_model
    last = folder / "weights/last.pt"
    yolo = YOLO(last if last.exists() else model, task="detect")
    yolo.add_callback("on_train_batch_start", lambda _: phases.send("step"))
    yolo.add_callback("on_val_start", lambda _: phases.send("validation"))
    options = {"resume": True} if last.exists() else ARGUMENTS | {"data": str(data)}
    yolo.train(**options, project=str(folder.parent), name=folder.name)


def run(model: Path, data: Path, folder: Path, kill: tuple[str, int, float] | None = None) -> bool:
    """Train in a process of its own; return whether it was killed.

    `kill` is a phase, which of its times, and the seconds after its beginning when that happens; None: never.
    """
    context = multiprocessing.get_context("fork")  # imports once; this process runs no thread
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(model, data, folder, sender))
    process.start()
    sender.close()
    phase, left, seconds = kill or ("", 0, 0.0)
    try:
        while True:
            if receiver.recv() != phase:
                continue
            left -= 1
            if left == 0:
                time.sleep(seconds)
                process.kill()
    except EOFError:
        process.join()
    finally:
        process.kill()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{folder}: the training failed; see above")
    return bool(process.exitcode)


def count_unreadable(folder: Path) -> int:
    """Return how many of the checkpoints of a run can't be loaded."""
    count = 0
    for file in (folder / "weights").glob("[!.]*.pt"):
        try:
            torch.load(file, map_location="cpu", weights_only=False)
        except Exception as error:
            LOGGER.error(f"{file}: {error}")
            count += 1
    return count


def measure(model: Path, kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill and resume; return how many kills hit, and what came of them."""
    data = write_data(folder / "set", ("thing",), IMAGES)
    rng = random.Random(seed)
    counts = dict.fromkeys(("kills", "unreadable checkpoints", "wrong results.csv"), 0)
    for trial in TQDM(range(kills * len(PHASES)), desc="killing"):
        phase, run_dir = PHASES[trial % len(PHASES)], folder / f"run{trial}"
        for _ in range(1 + trial // len(PHASES) % 2):
            kill = phase, rng.randint(1, EPOCHS), rng.uniform(0, 0.2)
            counts["kills"] += run(model, data, run_dir, kill)
            counts["unreadable checkpoints"] += count_unreadable(run_dir)
        last = run_dir / "weights/last.pt"
        if not last.exists() or torch.load(last, map_location="cpu", weights_only=False)["epoch"] >= 0:
            run(model, data, run_dir)
        counts["unreadable checkpoints"] += count_unreadable(run_dir)
        epochs = [int(row["epoch"]) for row in read_csv(run_dir / "results.csv")]
        counts["wrong results.csv"] += epochs != [*range(1, EPOCHS + 1)]
    return counts


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="runs to kill in each phase, default 20")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments, default 0")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="YAML", help="model YAML, default yolo11.yaml")
    args = parser.parse_args(argv)
    if args.kills < 1:
        parser.error("--kills must be at least 1")
    torch.set_num_threads(1)  # processes are forked, and threads would not be
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        counts = measure(args.model, args.kills, args.seed, Path(folder))
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return int(counts["unreadable checkpoints"] + counts["wrong results.csv"] > 0)


if __name__ == "__main__":
    sys.exit(main())

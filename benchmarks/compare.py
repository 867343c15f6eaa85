"""Trains and validates models under identical arguments: python -m benchmarks.compare --help.

| preset   | data                   | epochs | imgsz | batch | lr0   |
| -------- | ---------------------- | -----: | ----: | ----: | ----: |
| quick    | both demo sets, --data |     20 |   320 |     4 | 0.002 |
| standard | both demo sets, --data |    100 |   640 |    16 | 0.002 |
| full     | both demo sets, --data |    300 |   640 |    16 | 0.002 |
| q        | hit-uav, or --data     |     10 |   320 |     8 | 0.002 |
| c        | hit-uav, or --data     |     60 |   320 |     8 | 0.002 |

q (quick, 1,000 steps) and c (converged) close the mosaic 4 epochs before the end; hit-uav is in `datasets/hit-uav`.

All of them train from scratch (pretrained=False), with AdamW (`optimizer=auto` would depend on the number of steps),
momentum=0.9, nbs=batch (a step per batch), warmup_epochs=1, warmup_bias_lr=0, close_mosaic=epochs//4, amp=False,
patience=0, max_det=1000 and cache=ram. Without a preset: standard on --data alone. Options override the preset.

The default models are the five of this fork, each with and without the NWD (`nwd=0`), then
`yolo11n.yaml`, `benchmarks/models/yolo11n-p2.yaml`, `yolov8n-p2.yaml`, `yolo26n.yaml` and `yolo26n-p2.yaml`.

A run is validated at five epochs (`--points`), which gives its curve, and with its best weights at the end.
`--again slice=640 slice=auto` validates the best weights again with each of these, in separate rows. Nothing is trained
if `runs/` still holds the weights.
`--out` gets `results.csv` (one row per finished run), `curves.csv`, `report.md` with its pictures, and `runs/` with the
log and the weights of each run. After an interruption, the same command resumes after the last complete epoch.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics.cfg import get_cfg, smart_value
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils import ROOT as UPSTREAM

from benchmarks import common
from benchmarks.report import COLUMNS, CURVE_COLUMNS, add_rows, read_rows, write_report
from benchmarks.training import BEST, CURVE_POINTS, STATE, VALIDATION
from small_object.errors import UserError

PRESETS = {"quick": (20, 320, 4, 0.002), "standard": (100, 640, 16, 0.002), "full": (300, 640, 16, 0.002)}
PRESETS |= {"q": (10, 320, 8, 0.002), "c": (60, 320, 8, 0.002)}
PROTOCOLS = ("q", "c")  # presets with one real set
COMMON = {
    "pretrained": False, "optimizer": "AdamW", "momentum": 0.9, "warmup_epochs": 1, "warmup_bias_lr": 0.0, "amp": False,
    "patience": 0, "max_det": 1000, "cache": "ram",
}  # fmt: skip
DEMO_SETS = tuple(str(common.ROOT / f"datasets/{name}/{name}.yaml") for name in ("ASS1-demo", "ASS2-demo"))
MODELS = (*(path + nwd for path in common.OURS for nwd in ("", "+nwd=0")), *common.STOCK)
# Set for each run below, so models and --set may not set them.
RESERVED = (
    "model", "data", "seed", "epochs", "imgsz", "device", "workers", "project", "name", "exist_ok", "save_dir",
    "resume", "mode", "task", "val", "save", "save_period", "plots", "size_metrics", "cfg", "time",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model to compare: its label, the path or name of its YAML, and its own training arguments."""

    label: str
    path: str
    overrides: dict[str, Any]

    @cached_property
    def version(self) -> str:
        """Identify the content of the YAML, which may change under the same label, except for `paste`."""
        return digest({k: v for k, v in yaml_model_load(self.path).items() if k not in ("yaml_file", "paste")})


@dataclass(frozen=True)
class Run:
    """One training run: a model, a data YAML, a seed and all training arguments that affect the result."""

    model: Model
    data: str
    seed: int
    arguments: dict[str, Any]
    again: tuple[dict[str, Any], ...] = ()  # further arguments to validate its weights with
    points: int = CURVE_POINTS  # validations during training

    @cached_property
    def key(self) -> str:
        """Identify the run by what it computes, in any commit."""
        more = [] if self.points == CURVE_POINTS else [self.points]  # the best weights depend on it
        return digest(
            [self.model.label, self.model.version, common.relative_path(self.data), self.seed, self.arguments, *more]
        )

    @property
    def keys(self) -> list[str]:
        """Identify the rows of its validations, starting with its own."""
        return [self.key, *(digest([self.key, more]) for more in self.again)]

    @property
    def name(self) -> str:
        """Name the run for the user."""
        return f"{self.model.label} on {Path(self.data).stem}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name the folder of the run."""
        return re.sub(r"[^\w.=-]+", "_", f"{Path(self.data).stem}-{self.model.label}-s{self.seed}-{self.key[:8]}")


def digest(value: Any) -> str:
    """Return a short hash that is the same for the same value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Return training arguments given as `key=value`; raise UserError if one can't be used."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value:
            raise UserError(f"`{pair}` must be key=value")
        if key not in DEFAULT_CFG_DICT:
            near = difflib.get_close_matches(key, DEFAULT_CFG_DICT, n=1)
            raise UserError(f"`{key}` is not a training argument" + (f"; did you mean `{near[0]}`?" if near else ""))
        if key in RESERVED:
            raise UserError(f"`{key}` is equal in all runs or set by an option; see --help")
        found[key] = smart_value(value)
    try:
        get_cfg(overrides=dict(found))
    except (TypeError, ValueError) as error:
        raise UserError(_first_line(error)) from None
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def parse_model(text: str) -> Model:
    """Parse `[label=]path.yaml[+key=value...]`; raise UserError if it can't be used.

    Example:
        >>> parse_model("plain=yolo11n.yaml+nwd=0")
        Model(label='plain', path='yolo11n.yaml', overrides={'nwd': 0})
    """
    match = re.fullmatch(r"(?:([^=+/\\]+)=)?(.+?\.ya?ml)((?:\+[^+]+)*)", text)
    if not match:
        raise UserError(f"model `{text}` must be [label=]model.yaml[+key=value...]")
    label, path, rest = match.groups()
    try:
        overrides = parse_overrides(filter(None, rest.split("+")))
        paste = yaml_model_load(path).get("paste")  # no part of the network: rows have it as an argument
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"model `{text}`: {_first_line(error)}") from None
    if paste is not None:
        overrides = {"paste": paste} | overrides
    if label is None:
        unscaled = re.sub(r"(\d+)[nslmx](?=[-.])", r"\1", path)
        stock = Path(path).name == path and not Path(path).exists() and any((UPSTREAM / "cfg/models").rglob(unscaled))
        label = f"stock {Path(path).stem}" if stock else Path(path).stem
        label = " ".join([label, *(f"{k}={v}" for k, v in overrides.items())])
    return Model(label, path, overrides)


class Comparison:
    """Executes runs in child processes, several at a time, and saves their results; `failed` lists the failures."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out, self.device, self.jobs, self.command = args.out.absolute(), args.device, args.jobs, args.command
        self.deadline = float("inf") if args.time is None else time.monotonic() + 60 * args.time
        self.commit = common.commit()
        self.failed: list[str] = []

    def execute(self, runs: list[Run]) -> int:
        """Execute the runs that have no row yet; return how many remain when the time is up."""
        done = self._rows()
        pending = deque(run for run in runs if not done.keys() >= {*run.keys})
        LOGGER.info(f"{len(runs)} runs, {len(runs) - len(pending)} of them finished before; results in {self.out}")
        running: dict[subprocess.Popen[bytes], tuple[Run, float]] = {}
        idle: list[subprocess.Popen[bytes]] = []  # reused: starting a process takes long on a GPU
        total, finished, start = len(pending), 0, time.monotonic()
        try:
            while (pending or running) and time.monotonic() < self.deadline:
                while pending and len(running) < self.jobs:
                    run = pending.popleft()
                    process = idle.pop() if idle else self._start_worker()
                    self._assign(process, run)
                    running[process] = run, time.monotonic()
                time.sleep(0.1)
                for process, (run, started) in list(running.items()):
                    ended = process.poll() is not None
                    if not ended and not (self._folder(run) / "result.json").is_file():
                        continue
                    del running[process]
                    if not ended:
                        idle.append(process)
                    finished += 1
                    minutes = (time.monotonic() - start) / 60 / finished * (total - finished)
                    left = f"{total - finished} remain, about {minutes:.1f} min" if total > finished else "the last one"
                    said = self._finish(run)
                    LOGGER.info(f"{finished}/{total} {run.name}: {said} ({time.monotonic() - started:.0f} s; {left})")
        finally:
            for process in [*running, *idle]:
                process.kill()
                process.wait()
        return total - finished

    def _rows(self) -> dict[str, dict[str, str]]:
        return {row["key"]: row for row in read_rows(self.out / "results.csv")}

    def _folder(self, run: Run) -> Path:
        return self.out / "runs" / run.folder

    def _start_worker(self) -> subprocess.Popen[bytes]:
        (self.out / "runs").mkdir(exist_ok=True)
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with (self.out / "runs" / "log.txt").open("ab") as log:  # used until the first run starts
            # The folder is not read: it identifies the comparison in a list of processes.
            return common.start_module("benchmarks.training", "--work", str(self.out / "runs"), stdout=log, **pipes)

    def _assign(self, process: subprocess.Popen[bytes], run: Run) -> None:
        folder, done = self._folder(run), self._rows()
        trained = run.key in done and (folder / BEST).is_file()
        if trained:
            (folder / "result.json").unlink(missing_ok=True)
        elif not (folder / STATE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        share = max(1, common.cores() // self.jobs)
        spec = {
            "model": run.model.path, "data": run.data, "seed": run.seed, "arguments": run.arguments,
            "device": self.device, "threads": share, "workers": min(8, share), "trained": trained, "again": run.again,
            "points": run.points,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(spec), encoding="utf-8")
        with contextlib.suppress(BrokenPipeError):  # the process has ended; `execute` notices
            process.stdin.write(os.fsencode(folder) + b"\n")
            process.stdin.flush()

    def _finish(self, run: Run) -> str:
        """Save the measurements of a finished run; return a summary for the log."""
        folder = self._folder(run)
        if not (folder / "result.json").is_file():
            log = next(file for file in (folder / "log.txt", folder.parent / "log.txt") if file.is_file())
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            self.failed.append(f"{run.name}: {''.join(last)[:300]} ({log})")
            return f"FAILED, {''.join(last)[:300]}"
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        about = {
            "commit": self.commit, "finished": datetime.now().isoformat(timespec="seconds"), "command": self.command
        }  # fmt: skip
        row = self._rows()[run.key] if "row" not in result else self._save(run, result["row"] | about, result["curve"])
        said = [row]
        for key, more, scores in zip(run.keys[1:], run.again, result["again"], strict=True):
            label = f"{run.model.label}, validated with {' '.join(f'{k}={v}' for k, v in more.items())}"
            own = {"key": key, "model": label, "overrides": json.dumps(run.model.overrides | more)}
            said.append(row | {"AP_last": "", "AP50_last": ""} | scores | about | own)
            add_rows(self.out / "results.csv", COLUMNS, key, said[-1:])
        names = ("AP", "AP50", "AP_small")
        return "; ".join(", ".join(f"{name} {float(row[name]):.3f}" for name in names if row.get(name)) for row in said)

    def _save(self, run: Run, row: dict[str, Any], curve: list[list[float]]) -> dict[str, Any]:
        """Add a training's row and curve to the files; return the row."""
        arguments, own = dict(run.arguments), run.model.overrides
        about = {"key": run.key, "model": run.model.label, "data": common.relative_path(run.data), "seed": run.seed}
        points = [about | dict(zip(CURVE_COLUMNS[4:], point, strict=True)) for point in curve]
        row = about | {k: arguments.pop(k) for k in ("epochs", "imgsz", "batch")} | row
        row |= {
            "yaml": common.relative_path(run.model.path), "version": run.model.version, "overrides": json.dumps(own),
            "settings": json.dumps({k: v for k, v in arguments.items() if k not in own}, sort_keys=True),
        }  # fmt: skip
        add_rows(self.out / "curves.csv", CURVE_COLUMNS, run.key, points)  # first, so that every row has its curve
        add_rows(self.out / "results.csv", COLUMNS, run.key, [row])
        return row


def prepare_data(data: str) -> None:
    """Generate or download a missing data set and scan its labels before parallel runs do so."""
    try:
        found = check_det_dataset(data)
        for split in ("train", "val"):
            YOLODataset(img_path=found[split], data=found, task="detect", augment=False, prefix=f"{split}: ")
    except Exception as error:
        raise UserError(f"data `{data}`: {_first_line(error)}") from error


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line and apply the preset."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    add("--preset", choices=PRESETS, help="see below")
    add("--data", nargs="+", default=[], metavar="YAML", help="data YAMLs")
    add("--models", nargs="+", default=MODELS, metavar="MODEL", help="[label=]model.yaml[+key=value...]")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    add("--epochs", type=int, help="epochs per run")
    add("--imgsz", type=int, help="size of the input in pixels")
    add("--batch", type=int, help="images per batch")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more training arguments for all runs")
    add("--again", nargs="+", default=[], metavar="KEY=VALUE[+...]", help="also validate the weights with these")
    add("--points", type=int, default=CURVE_POINTS, help="validations during training, default 5")
    add("--jobs", type=int, default=2, help="parallel runs, default 2; they share the cores")
    add("--device", help="as for yolo, e.g. 0 or cpu; default: a GPU if there is one")
    add("--time", type=float, metavar="MINUTES", help="stop after this many minutes; the same command resumes")
    add("--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="default: runs/compare")
    add("--report", type=Path, metavar="DIR", help="only write the report of the results in DIR")
    args = parser.parse_args(argv)
    if args.preset in PROTOCOLS:
        args.data = args.data or [str(common.ROOT / "datasets/hit-uav/hit-uav.yaml")]
        args.set = ["close_mosaic=4", *args.set]
    elif args.preset:
        args.data = [*DEMO_SETS, *args.data]
    for name, value in zip(("epochs", "imgsz", "batch", "lr0"), PRESETS[args.preset or "standard"], strict=True):
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    return args


def plan(args: argparse.Namespace) -> list[Run]:
    """Return the runs of a command, seed by seed, so that an interrupted comparison covers all models."""
    if not args.data:
        raise UserError("give --data or --preset")
    common.check_minimums(args, epochs=1, imgsz=1, batch=1, jobs=1, points=1)
    gpu = (args.device or "0").removeprefix("cuda").removeprefix(":") or "0"
    if args.device not in {None, "cpu", "mps"} and not (gpu.isdigit() and int(gpu) < torch.cuda.device_count()):
        raise UserError(f"--device {args.device}: must be cpu or one GPU; there are {torch.cuda.device_count()} here")
    models = [parse_model(text) for text in args.models]
    labels = [model.label for model in models]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"two models are labelled `{twice[0]}`; write label=model.yaml")
    size = {"epochs": args.epochs, "imgsz": args.imgsz, "batch": args.batch}
    shared = COMMON | size | {"lr0": args.lr0, "nbs": args.batch, "close_mosaic": args.epochs // 4}
    shared |= parse_overrides(args.set)
    again = [parse_overrides(text.split("+")) for text in args.again]
    if strange := [key for more in again for key in more if key not in VALIDATION]:
        raise UserError(f"--again {strange[0]}: must be one of {', '.join(VALIDATION)}")
    for data in args.data:
        prepare_data(data)
    runs = [
        Run(
            model, str(Path(data).absolute()) if Path(data).exists() else data, seed, shared | model.overrides,
            tuple(more for more in again if not more.items() <= (shared | model.overrides).items()), args.points,
        )
        for seed in args.seeds
        for data in args.data
        for model in models
    ]  # fmt: skip
    return list({run.key: run for run in runs}.values())  # a data set may be given twice


def run(args: argparse.Namespace) -> int:
    """Run the comparison, or only write its report; return 1 if a run failed."""
    if args.report:
        write_report(args.report)
        return 0
    runs = plan(args)
    args.out.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(args)
    left = comparison.execute(runs)
    if (args.out / "results.csv").is_file():
        write_report(args.out)
    if left:
        LOGGER.info(f"time is up: {left} runs remain; the same command resumes")
    for failure in comparison.failed:
        LOGGER.error(f"failed: {failure}")
    return 1 if comparison.failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return common.execute("benchmarks.compare", parse_arguments, run, argv, "; the same command resumes")


if __name__ == "__main__":
    sys.exit(main())

"""Measures the speed of models, interleaved in one run: python -m benchmarks.speed --help.

| measurement       | what is timed                                                                                  |
| ----------------- | ---------------------------------------------------------------------------------------------- |
| PyTorch CPU, CUDA | a forward pass of the fused model, batch 1, FP32, as in predict: decoded boxes, no NMS         |
| ONNX Runtime CPU  | the same with the graph that `yolo export format=onnx` writes                                  |
| training step     | as upstream trains: forward, the model's own loss, backward, clipped gradients, AdamW and EMA, |
|                   | on random images with 20 small boxes each; on CUDA in mixed precision; without loading data    |

Each round runs every model once per measurement, so whatever slows the machine affects all models. The tables give the
median and the quartiles over the rounds, and the median of the rounds' ratios to `benchmarks/models/yolo11n-p2.yaml`,
the stock YOLO11 with a P2 head, or to the first model if that is not among --models. Weights are random.

`--out` gets `speed.csv`, one row per model and measurement, and `speed.md` with the tables.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO, __version__
from ultralytics.cfg import get_cfg
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.tasks import guess_model_task, yaml_model_load
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.torch_utils import ModelEMA, autocast, get_flops, get_num_params

from benchmarks import common
from benchmarks.compare import Model, parse_model
from small_object.errors import UserError
from small_object.files import write_file
from small_object.memory import keep_freed_memory

WARM_UP = 2  # rounds that are not counted
BOXES = 20  # in each image of a training step
Call = Callable[[Any], Any]  # of an input, which only some need
Times = dict[tuple[str, str], list[float]]  # milliseconds of each round by model and measurement


@dataclass
class Contender:
    """A model to measure: its description, network (not fused), GFLOPs and the calls to time by measurement."""

    model: Model
    network: nn.Module
    gflops: float
    calls: dict[str, Call] = field(default_factory=dict)


class Layer(NamedTuple):
    """A row of a model YAML in a profile: its index, type, stride(s), median milliseconds and share of the total."""

    index: int
    kind: str
    stride: str
    ms: float
    share: float


def build(text: str, *sizes: int) -> Contender:
    """Build a model `[label=]model.yaml[+key=value...]` for some image sizes; the GFLOPs are for the first.

    Raises:
        UserError: If it can't be built, is not a detection model or does not take images of a size.
    """
    model = parse_model(text)
    try:
        if guess_model_task(yaml_model_load(model.path)) != "detect":
            raise UserError("it is not a detection model")
        network = YOLO(model.path, task="detect").model
    except Exception as error:
        raise UserError(f"model `{text}`: {str(error).strip().partition(chr(10))[0]}") from error
    for size in sizes:
        if size % (stride := int(max(network.stride))):
            raise UserError(f"model `{text}`: the image size {size} is not a multiple of its stride {stride}")
    return Contender(model, network, get_flops(network, sizes[0]))


def fuse(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a fused copy of a model as predict runs it, with its weights in the same memory format."""
    return AutoBackend(deepcopy(network), device, verbose=False).backend.model


def add_forward_passes(contender: Contender, imgsz: int, devices: list[torch.device], threads: int) -> None:
    """Add the calls of a forward pass on one image: PyTorch on each device, and ONNX Runtime if it is installed."""
    for device in devices:
        model, image = fuse(contender.network, device), torch.rand(1, 3, imgsz, imgsz).to(device)
        call = torch.inference_mode()(lambda _, model=model, image=image: model(image))
        contender.calls[f"PyTorch {device.type.upper()}"] = call
    if not common.find_missing(common.ONNX):
        contender.calls["ONNX Runtime CPU"] = build_onnx_call(contender, imgsz, threads)


def build_onnx_call(contender: Contender, imgsz: int, threads: int) -> Call:
    """Build a forward pass of the exported model on one image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    logging.disable(logging.WARNING)  # the exporter's messages about each model
    try:
        with tempfile.TemporaryDirectory() as folder:
            yolo = YOLO(contender.model.path, task="detect")
            yolo.model = deepcopy(contender.network)
            yolo.model.pt_path = f"{folder}/model.pt"  # the exporter writes next to it
            file = yolo.export(format="onnx", imgsz=imgsz, device="cpu")
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    finally:
        logging.disable(logging.NOTSET)
    feed = {"images": torch.rand(1, 3, imgsz, imgsz).numpy()}
    return lambda _: session.run(None, feed)


def build_training_step(contender: Contender, imgsz: int, batch: int, device: torch.device) -> Call:
    """Build a training step of a copy of a model, which returns its loss."""
    network = deepcopy(contender.network).to(device).train()
    network.args = get_cfg(overrides=dict(contender.model.overrides))
    generator, boxes, amp = torch.Generator().manual_seed(0), batch * BOXES, device.type == "cuda"
    xywh = torch.rand(boxes, 4, generator=generator) * torch.tensor([0.8, 0.8, 0.07, 0.07])  # relative to the image
    labels = {
        "img": torch.rand(batch, 3, imgsz, imgsz, generator=generator), "bboxes": xywh + 0.02,
        "cls": torch.randint(network.model[-1].nc, (boxes, 1), generator=generator).float(),
        "batch_idx": torch.arange(batch).repeat_interleave(BOXES),
    }  # fmt: skip
    labels = {name: value.to(device) for name, value in labels.items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    scaler, ema = torch.amp.GradScaler(device.type, enabled=amp), ModelEMA(network)

    def step(_: Any) -> float:
        with autocast(amp, device=device.type):
            loss = network(labels)[0].sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), max_norm=10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        ema.update(network)
        return float(loss.detach())

    return step


def now() -> float:
    """Return the time in milliseconds; on CUDA, after all work is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return 1e3 * time.perf_counter()


def measure(calls: Mapping[str, Mapping[str, Call]], inputs: Collection[Any], warm_up: int) -> Times:
    """Time every call on every input; each input starts with another model.

    Args:
        calls: Calls by model and measurement.
        inputs: What the calls get, one after another.
        warm_up: How many of the first inputs don't count.
    """
    keep_freed_memory()  # as prediction does
    labels = list(calls)
    times: Times = {(label, what): [] for label in labels for what in calls[label]}
    for turn, value in enumerate(TQDM(inputs, desc="speed", unit="round", leave=False)):
        first = turn % len(labels)
        for what in calls[labels[0]]:
            for label in labels[first:] + labels[:first]:
                start = now()
                calls[label][what](value)
                if turn >= warm_up:
                    times[label, what].append(now() - start)
    return times


def summary(times: Times, reference: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return median and quartiles in milliseconds and the median of the rounds' ratios to a reference model.

    Example:
        >>> summary({("a", "x"): [1.0, 2.0, 3.0]}, "a")["a", "x"]
        {'median_ms': 2.0, 'q1_ms': 1.5, 'q3_ms': 2.5, 'ratio': 1.0}
    """
    found = {}
    for (label, what), values in times.items():
        q1, median, q3 = np.percentile(values, (25, 50, 75)).tolist()
        ratio = statistics.median(a / b for a, b in zip(values, times[reference, what], strict=True))
        found[label, what] = {"median_ms": median, "q1_ms": q1, "q3_ms": q3, "ratio": ratio}
    return found


def profile(network: nn.Module, imgsz: int, device: torch.device, rounds: int) -> tuple[list[Layer], float]:
    """Time the rows of a fused model on one image.

    Returns:
        Its rows, the slowest first, and the median milliseconds of the whole forward pass without hooks.
    """
    model, image = fuse(network, device), torch.rand(1, 3, imgsz, imgsz).to(device)
    times: list[list[float]] = [[] for _ in model.model]
    strides, totals = [""] * len(times), []

    def enter(layer: nn.Module, _: Any) -> None:
        times[layer.i].append(-now())

    def leave(layer: nn.Module, _: Any, output: Any) -> None:
        times[layer.i][-1] += now()
        mapped = isinstance(output, torch.Tensor) and output.ndim == 4
        found = [imgsz / output.shape[-1]] if mapped else layer.stride.tolist()  # for the head, those of its levels
        strides[layer.i] = ", ".join(f"{stride:g}" for stride in found)

    with torch.inference_mode():
        for _ in TQDM(range(WARM_UP + rounds), desc=f"profile, {device.type}", unit="round", leave=False):
            start = now()
            model(image)
            totals.append(now() - start)
            hooks = [layer.register_forward_pre_hook(enter) for layer in model.model]
            hooks += [layer.register_forward_hook(leave) for layer in model.model]
            model(image)
            for hook in hooks:
                hook.remove()
    medians = [statistics.median(values[WARM_UP:]) for values in times]
    kinds = [layer.type.rpartition(".")[2] for layer in model.model]
    shares = [ms / sum(medians) for ms in medians]
    layers = [Layer(*row) for row in zip(range(len(times)), kinds, strides, medians, shares, strict=True)]
    return sorted(layers, key=lambda layer: -layer.ms), statistics.median(totals[WARM_UP:])


def speed_table(rows: list[dict[str, Any]], reference: str) -> str:
    """Return the table of models by measurement from the rows of `speed.csv`."""
    whats = list(dict.fromkeys(row["measurement"] for row in rows))
    header = ["model", "M parameters", "GFLOPs", *(text for what in whats for text in (f"{what}, ms", "ratio"))]
    lines = []
    for i in range(0, len(rows), len(whats)):
        row = rows[i]
        name = f"{row['model']} (reference)" if row["model"] == reference else row["model"]
        cells = [name, f"{row['parameters'] / 1e6:.2f}", f"{row['GFLOPs']:.1f}"]
        for row in rows[i : i + len(whats)]:
            cells += [f"{row['median_ms']:.1f} ({row['q1_ms']:.1f}-{row['q3_ms']:.1f})", f"{row['ratio']:.2f}"]
        lines.append(cells)
    return "\n".join(common.markdown_table(header, lines)) + "\n"


def profile_text(label: str, hardware: str, layers: list[Layer], total: float) -> str:
    """Return the profile of a model as text with a table."""
    slowest = ", ".join(f"row {m.index} `{m.kind}` (stride {m.stride}) {m.share:.1%}" for m in layers[:3])
    lines = [f"| {m.index} | {m.kind} | {m.stride} | {m.ms:.2f} | {m.share:.1%} |" for m in layers]
    return (
        f"## The rows of {label}, PyTorch {hardware}\n\nThe slowest: {slowest}. All rows take "
        f"{sum(m.ms for m in layers):.1f} ms together, the whole forward pass {total:.1f} ms (medians).\n\n"
        "| row | module | stride | ms | share |\n| ---: | --- | ---: | ---: | ---: |\n" + "\n".join(lines) + "\n"
    )


def prepare(args: argparse.Namespace) -> tuple[list[Contender], Contender, list[torch.device]]:
    """Return the models to measure, the model to profile and the devices; the last device is for training.

    Raises:
        UserError: If the command can't be used.
    """
    common.check_minimums(args, imgsz=32, train_imgsz=32, rounds=2, threads=1, batch=1)
    gpus = torch.cuda.device_count()
    device = args.device or ("0" if gpus else "cpu")
    if device != "cpu" and not (device.isdecimal() and int(device) < gpus):
        raise UserError(f"--device {device}: must be cpu or the number of a GPU; there are {gpus} here")
    devices = [torch.device("cpu")]
    if device != "cpu":
        devices.append(torch.device("cuda", int(device)))
        torch.cuda.set_device(devices[-1])
    labels = [parse_model(text).label for text in args.models]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"two models are labelled `{twice[0]}`; write label=model.yaml")
    texts = list(dict.fromkeys([*args.models, args.profile]))
    with TQDM(texts, desc="building", unit="model", leave=False) as bar:  # closed before an error is shown
        built = {text: build(text, args.imgsz, args.train_imgsz) for text in bar}
    return [built[text] for text in args.models], built[args.profile], devices


def run(args: argparse.Namespace) -> None:
    """Measure everything and write the results."""
    made_by = common.commit()  # before anything is written
    contenders, profiled, devices = prepare(args)
    hardware = [device.type.upper() for device in devices]
    lacking = common.find_missing(common.ONNX)
    for c in TQDM(contenders, desc="preparing", unit="model", leave=False):
        add_forward_passes(c, args.imgsz, devices, args.threads)
        c.calls[f"training step {hardware[-1]}"] = build_training_step(c, args.train_imgsz, args.batch, devices[-1])
    torch.set_num_threads(args.threads)  # after the exporter, which sets them too
    stock = common.relative_path(common.YOLO11_P2)
    reference = next((c for c in contenders if common.relative_path(c.model.path) == stock), contenders[0]).model.label
    calls = {c.model.label: c.calls for c in contenders}
    results = summary(measure(calls, range(WARM_UP + args.rounds), WARM_UP), reference)
    about = {
        "reference": reference, "rounds": args.rounds, "threads": args.threads,
        "machine": common.describe_machine(devices[-1]), "torch": torch.__version__,
        "onnxruntime": "none" if lacking else version("onnxruntime"), "ultralytics": __version__, "commit": made_by,
        "command": args.command,
    }  # fmt: skip
    rows = [
        {
            "model": c.model.label, "yaml": common.relative_path(c.model.path), "parameters": get_num_params(c.network),
            "GFLOPs": round(c.gflops, 3), "measurement": what,
            "imgsz": args.train_imgsz if what.startswith("training") else args.imgsz,
            "batch": args.batch if what.startswith("training") else 1,
            **{name: round(value, 4) for name, value in results[c.model.label, what].items()}, **about,
        }
        for c in contenders for what in c.calls
    ]  # fmt: skip
    text = (
        f"# Speed\n\n`{args.command}`\n\n{args.rounds} rounds, CPU threads: {args.threads}; {about['machine']}; torch "
        f"{torch.__version__}, onnxruntime {about['onnxruntime']}, ultralytics {__version__}, commit {made_by}.\n\n"
        f"Forward pass and GFLOPs: {args.imgsz} px, batch 1, decoded boxes without NMS. Training step: "
        f"{args.train_imgsz} px, batch {args.batch}. Median (quartiles); ratio: median of ratios to {reference}.\n\n"
        + (f"ONNX Runtime is left out, since these are not installed: {', '.join(lacking)}.\n\n" if lacking else "")
        + speed_table(rows, reference)
    )
    for device, name in zip(devices, hardware, strict=True):
        layers, total = profile(profiled.network, args.imgsz, device, args.rounds)
        text += "\n" + profile_text(profiled.model.label, name, layers, total)
    common.write_csv(args.out / "speed.csv", list(rows[0]), rows)
    write_file(args.out / "speed.md", text)
    LOGGER.info(f"{text}\nspeed.csv and speed.md are in {args.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    models = [*common.OURS, *common.STOCK]
    add("--models", nargs="+", default=models, metavar="MODEL", help="[label=]model.yaml[+key=value...]")
    add("--profile", default=common.OURS[0], metavar="MODEL", help="model whose rows are timed, default: our yolo11n")
    add("--imgsz", type=int, default=640, help="image size of a forward pass in pixels, default 640")
    add("--train-imgsz", type=int, default=320, help="image size of a training step in pixels, default 320")
    add("--batch", type=int, default=8, help="images per training step, default 8")
    add("--rounds", type=int, default=15, help="number of rounds, default 15")
    add("--threads", type=int, default=1, help="CPU threads, default 1")
    add("--device", help="cpu, or the number of a GPU to measure as well; default: the first, if any")
    add("--out", type=Path, default=common.RESULTS, metavar="DIR", help="default: benchmarks/results")
    return common.execute("benchmarks.speed", parser.parse_args, run, argv, "; nothing was written")


if __name__ == "__main__":
    sys.exit(main())

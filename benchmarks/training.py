"""Trains and validates the runs of a comparison, in a child process of `benchmarks.compare`."""

import gc
import io
import json
import math
import os
import queue
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO, __version__
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import BLOCKS
from ultralytics.utils import LOGGER, torch_utils
from ultralytics.utils.loss import model_setting

from benchmarks.common import describe_machine
from small_object.files import write_file
from small_object.sizes import COCO_SMALL_NAME, SIZE_GROUPS

CURVE_POINTS = 5
BEST = "weights/best.pt"  # in the folder of a run
STATE = "state.pt"  # likewise, until its last epoch
VALIDATION = (  # training arguments that validation also takes
    "max_det", "iou", "conf", "single_cls", "split", "agnostic_nms", "classes", "slice", "slice_overlap", "slice_batch",
    "slice_full", "slice_iou", "slice_skip",
)  # fmt: skip


class Network(nn.Module):
    """The layers of a detection model without its loss, to record as a CUDA graph.

    Args:
        model: Detection model; it keeps its mode, training or evaluation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.training, self.model = model.training, model

    def forward(self, images: torch.Tensor) -> Any:
        """Return the output of the head for images (B, C, H, W)."""
        return self.model._predict_once(images)


class CurveTrainer(DetectionTrainer):
    """Validates and saves only in some epochs, and measures the training time without validation.

    An interrupted run resumes after its last complete epoch, in full precision, unlike upstream's `resume=True`. Only
    its random numbers start anew.

    Attributes:
        curve: For each validation, the epoch, the seconds of training up to it, AP50, AP and AP_small.
        seconds: Seconds of training so far.
        points: Number of validations.
    """

    def __init__(self, *args: Any, points: int = CURVE_POINTS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.curve: list[tuple[float, ...]] = []
        self.seconds = 0.0
        self.points = points
        self._started = 0.0
        self.add_callback("on_train_start", CurveTrainer._record_graphs)
        self.add_callback("on_train_epoch_start", CurveTrainer._start_clock)
        self.add_callback("on_train_epoch_end", CurveTrainer._stop_clock)
        self.add_callback("on_fit_epoch_end", CurveTrainer._add_to_curve)
        self.add_callback("on_train_end", CurveTrainer._drop_graphs)

    def _record_graphs(self) -> None:
        """On CUDA, replay the forward and backward passes as graphs: a small model mostly waits for kernel launches."""
        if self.device.type != "cuda":
            return
        self._model_train()
        model = torch_utils.unwrap_model(self.model)
        shape = self.batch_size, self.data["channels"], self.args.imgsz, self.args.imgsz
        images = torch.zeros(shape, device=self.device)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        network = torch.cuda.make_graphed_callables(Network(model), (images,), allow_unused_input=True)
        model.load_state_dict(state)  # recording changed the statistics of BatchNorm
        eager = model.predict

        def predict(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            recorded = model.training and x.shape == images.shape and not args and not any(kwargs.values())
            return network(x) if recorded else eager(x, *args, **kwargs)

        model.predict = predict

    def _drop_graphs(self) -> None:
        torch_utils.unwrap_model(self.model).__dict__.pop("predict", None)

    def _start_clock(self) -> None:
        self._started = time.perf_counter()

    def _stop_clock(self) -> None:
        self.seconds += time.perf_counter() - self._started
        interval = max(1, round(self.epochs / self.points))
        # Weights that were not validated are not saved: upstream would consider them as good as the previous ones.
        self.args.val = self.args.save = (self.epoch + 1) % interval == 0 or self.epoch + 1 == self.epochs

    def _add_to_curve(self) -> None:
        if self.args.val and self.fitness is not None:  # None: `slice_val` validated whole images
            scores = (self.metrics.get(f"metrics/{name}(B)", -1) for name in ("mAP50", "mAP50-95", "AP_small"))
            scores = (float(score) if score >= 0 else math.nan for score in scores)  # nan: no small objects
            self.curve.append((self.epoch + 1, round(self.seconds, 3), *scores))
        if self.epoch + 1 < self.epochs:
            self._save_state()

    def _save_state(self) -> None:
        state = {name: getattr(self, name) for name in ("epoch", "curve", "seconds")}
        state["best_fitness"] = self.best_fitness and float(self.best_fitness)
        state |= {name: part.state_dict() for name, part in self._parts().items()} | {"updates": self.ema.updates}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(self.save_dir / STATE, buffer.getvalue())

    def _parts(self) -> dict[str, Any]:
        return {"model": torch_utils.unwrap_model(self.model), "ema": self.ema.ema, "optimizer": self.optimizer}

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Load the state of an interrupted run if there is one."""
        super().resume_training(ckpt)
        if not (file := self.save_dir / STATE).is_file():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state.pop(name))
        self.start_epoch, self.ema.updates = state.pop("epoch") + 1, state.pop("updates")
        vars(self).update(state)
        LOGGER.info(f"Resuming after epoch {self.start_epoch} of {self.epochs}")

    def final_eval(self) -> None:
        """Skip upstream's final validation; `run_one` validates the best weights."""


def serve_runs() -> None:
    """Execute the runs whose folders arrive as lines on standard input, one by one, each with its own log.

    A failing run ends this process. So does the end of the input, when the parent ends.
    """
    folders: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def listen() -> None:
        rest = b""  # os.read, not sys.stdin: a lock on Python's buffer would block data loaders forked from here
        while received := os.read(0, 4096):
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                folders.put(Path(os.fsdecode(line)))
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        folder = folders.get()
        with (folder / "log.txt").open("ab") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        run_one(folder)
        gc.collect()  # a recorded network and its memory reference each other
        torch.cuda.empty_cache()


def run_one(folder: Path) -> None:
    """Execute the run that `folder/run.json` describes; write its measurements to `folder/result.json`."""
    spec = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    torch_utils.NUM_THREADS = spec["threads"]  # upstream would use all cores but one
    arguments, hardware = spec["arguments"], {key: spec[key] for key in ("data", "device", "workers")}
    options = {k: arguments[k] for k in ("imgsz", "batch", *VALIDATION) if k in arguments}
    options |= hardware | {"project": str(folder), "name": "val", "exist_ok": True, "plots": False, "verbose": False}
    result = {} if spec["trained"] else train(folder, spec, hardware)
    weights = folder / BEST
    if not spec["trained"]:
        result["row"] |= validate(weights, options)
    result["again"] = [validate(weights, options | more) for more in spec["again"]]
    (folder / STATE).unlink(missing_ok=True)  # only now: an interrupted validation repeats one epoch, not all
    write_file(folder / "result.json", json.dumps(result))


def train(folder: Path, spec: dict[str, Any], hardware: dict[str, Any]) -> dict[str, Any]:
    """Train a run; return its measurements by column and its curve."""
    arguments = spec["arguments"]
    model = YOLO(spec["model"], task="detect")
    model.train(
        trainer=partial(CurveTrainer, points=spec["points"]), **arguments, **hardware, seed=spec["seed"],
        project=str(folder.parent), name=folder.name, exist_ok=True, plots=False,
    )  # fmt: skip
    trainer = model.trainer
    if trainer.batch_size != arguments["batch"]:
        raise MemoryError(f"the device has too little memory for batch={arguments['batch']}")
    for weights in (trainer.best, trainer.last):
        torch_utils.strip_optimizer(weights)
    *_, AP50_last, AP_last, _ = trainer.curve[-1]
    network = torch_utils.unwrap_model(trainer.model)
    network = getattr(network, "student_model", network)  # of a distillation
    shares = {key: model_setting(network, key) for key in ("nwd", "nwd_assign")}
    changes = [*shares.values(), *(model_setting(network, key) for key in ("head_init", "paste"))]
    changes += [isinstance(module, tuple(BLOCKS)) for module in network.modules()]
    row = {
        "AP_last": AP_last, "AP50_last": AP50_last, "parameters": torch_utils.get_num_params(network),
        "GFLOPs": round(torch_utils.get_flops(network, arguments["imgsz"]), 3),
        "strides": " ".join(f"{stride:g}" for stride in network.stride.tolist()),
        "stock": "no" if any(changes) else "yes", **shares,
        "train_s": round(trainer.seconds, 3), "threads": torch.get_num_threads(),
        "machine": describe_machine(trainer.device),
        "torch": torch.__version__, "ultralytics": __version__,
    }  # fmt: skip
    return {"row": row, "curve": trainer.curve}


def validate(weights: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Validate weights; return the measurements by column."""
    found = YOLO(weights).val(**options)
    scores = {"AP": found.box.map, "AP50": found.box.map50}
    scores |= {f"{part}_ms": round(found.speed[part], 3) for part in ("inference", "postprocess")}
    if (sizes := found.size) is not None:
        scores |= {"AP_small": sizes.ap[COCO_SMALL_NAME], "AR_small": sizes.ar[COCO_SMALL_NAME]}
        scores["AP_small by object"] = sizes.by_object.ap[COCO_SMALL_NAME]
        for group in SIZE_GROUPS:
            values = sizes.ap[group], sizes.ap50[group], sizes.ar[group], sizes.counts[group]
            scores |= dict(zip((f"{what} {group}" for what in ("AP", "AP50", "AR", "objects")), values, strict=True))
    return scores


if __name__ == "__main__":
    serve_runs()

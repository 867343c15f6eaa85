"""Replaces two GPUs by two processes on the CPU when upstream trains on several GPUs.

Upstream writes the state of a trainer to a file, from which each process that it starts rebuilds the trainer. A
callback `OnCpu` in that state replaces, where it is read, what needs CUDA and nothing else: the device that a process
takes, and NCCL. All the rest is upstream's and the fork's. A callback of `Record` tells what a process saw.
"""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from tests.helpers.common import predict_objects

CPU = torch.device("cpu")


class OnCpu:
    """A callback that does nothing; the process that reads it from a trainer's state trains on the CPU.

    It takes that where upstream gives it the GPU of its rank, with gloo in the place of NCCL.
    """

    def __call__(self, trainer: Any) -> None:
        pass

    def __getstate__(self) -> dict[str, int]:
        return {"written_by": os.getpid()}  # without a state nothing is set

    def __setstate__(self, state: dict[str, int]) -> None:
        from ultralytics.engine import trainer, validator

        set_up, backend = trainer.BaseTrainer._setup_ddp, validator.AutoBackend
        parallel = nn.parallel.DistributedDataParallel

        def set_up_on_cpu(self: Any) -> None:
            set_up(self)
            self.device = CPU

        torch.set_num_threads(1)
        trainer.select_device = lambda *args, **kwargs: torch.device("cuda:0")  # by its kind upstream counts processes
        torch.cuda.set_device = lambda index: None
        torch.cuda.current_device = lambda: 0
        dist.is_nccl_available = lambda: False  # upstream then takes gloo
        trainer.BaseTrainer._setup_ddp = set_up_on_cpu
        nn.parallel.DistributedDataParallel = lambda model, device_ids, **kwargs: parallel(model, **kwargs)
        validator.AutoBackend = lambda *args, device, **kwargs: backend(*args, device=CPU, **kwargs)


class Record:
    """Callbacks that write to a folder what a process saw of a training: `seen-RANK.json` and `state-RANK.pt`.

    Args:
        folder: The folder.
        fed: Whether validations find what `predict_objects` makes up.
        kill: When the first process is killed: while it saves a checkpoint in this epoch, or "at the end", in the
            validation after the last one.
    """

    def __init__(self, folder: Path, fed: bool = False, kill: int | str | None = None) -> None:
        self.folder, self.fed, self.kill = folder, fed, kill
        self.seen: dict[str, Any] = {"samples": [], "saved": [], "validations": []}

    def add_to(self, model: Any) -> None:
        """Add the callbacks to a model."""
        model.add_callback("on_pretrain_routine_start", OnCpu())
        for event in (
            "pretrain_routine_end", "train_epoch_end", "fit_epoch_end", "model_save", "val_start", "val_end",
        ):  # fmt: skip
            model.add_callback(f"on_{event}", getattr(self, event))

    def write(self) -> None:
        """Write what was seen so far."""
        rank = dist.get_rank() if dist.is_initialized() else -1
        (self.folder / f"seen{rank}.json").write_text(json.dumps(self.seen, default=float))

    def pretrain_routine_end(self, trainer: Any) -> None:
        model = trainer.model.module
        self.seen |= {"nwd_c": getattr(model, "nwd_c", None), "kind": type(trainer.model).__name__}
        self.seen |= {"args": vars(trainer.args), "backend": dist.get_backend(), "world": dist.get_world_size()}
        self.seen["random"] = hash(random.getstate())
        data = trainer.train_loader.dataset
        get = data.get_image_and_label

        def get_and_tell(index: int) -> dict[str, Any]:
            self.seen["samples"].append([trainer.epoch, index])
            return get(index)

        data.get_image_and_label = get_and_tell

    def train_epoch_end(self, trainer: Any) -> None:
        if trainer.epoch == self.kill and dist.get_rank() == 0:  # upstream calls this while it saves a checkpoint
            trainer.read_results_csv = lambda: os.kill(os.getpid(), signal.SIGKILL)

    def model_save(self, trainer: Any) -> None:
        self.seen["saved"].append([trainer.epoch, sorted(file.name for file in trainer.wdir.iterdir())])

    def fit_epoch_end(self, trainer: Any) -> None:
        state = {"model": trainer.model.module.state_dict(), "ema": trainer.ema.ema.state_dict()}
        torch.save(state, self.folder / f"state{dist.get_rank()}.pt")
        self.write()

    def val_start(self, validator: Any) -> None:
        if self.kill == "at the end" and not validator.training and dist.get_rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fed:
            preprocess, batches = validator.preprocess, []
            validator.preprocess = lambda batch: batches.append(preprocess(batch)) or batches[-1]
            validator.postprocess = lambda preds: predict_objects(batches[-1], 2, 1, torch.float32)
        get = validator.get_stats

        def get_and_tell() -> dict[str, Any]:
            self.seen["boxes"] = [[part.tolist() for part in image] for image in validator.size_records.images]
            return get()

        validator.get_stats = get_and_tell

    def val_end(self, validator: Any) -> None:
        size, matrix = validator.metrics.size, validator.confusion_matrix.matrix.tolist()
        told = {"images": validator.seen, "tiles": validator.tiles, "matrix": matrix}
        told |= {"results": validator.metrics.results_dict, "size": repr((size, size.per_class))}
        self.seen["validations"].append(told)
        self.write()

"""Trainings that survive: checkpoints written whole or not at all, and a resumed run that is the run it resumes."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.data.build import InfiniteDataLoader, bring_to, place_of
from ultralytics.engine.trainer import BaseTrainer as StockBaseTrainer
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from small_object.errors import UserError
from small_object.files import replacing
from ultralytics_overlay import require, require_parameters

require_parameters(StockBaseTrainer.resume_training, "ckpt")
require_parameters(StockBaseTrainer.run_callbacks, "event")
for _method, _names in {
    "save_model": {"last", "best", "wdir"},
    "_do_train": {"accumulate", "run_callbacks", "optimizer_step", "zero_grad"},
    "optimizer_step": {"optimizer"},
    "final_eval": {"last", "best"},
    "_handle_nan_recovery": {"last"},
}.items():
    _gone = sorted(_names - set(getattr(StockBaseTrainer, _method).__code__.co_names))
    require(f"ultralytics.engine.trainer.BaseTrainer.{_method}", not _gone, f"no longer uses {', '.join(_gone)}")


STOPPER = "best_fitness", "best_epoch", "possible_stop"  # of upstream's EarlyStopping

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class AllEpochsDone(Exception):
    """A run that is resumed has only its final validation left."""


class BaseTrainer(StockBaseTrainer):
    """Upstream's trainer, which loses nothing when it is stopped, killed or out of disk.

    - Checkpoints are written beside their places and then moved there, `last.pt` at the end, so that each is always a
      whole one.
    - Upstream's checkpoint has the weights of the EMA in half precision, from which a resumed run goes on; it takes
      another way than the run that was stopped. Where a run can be repeated, that is without loader processes, which
      is upstream's default on a CPU, `resume-EPOCH.pt` beside `last.pt` has the rest until the run ends: all in full
      precision, gradients that wait for the next step, random states and the place in the data. From it a resumed run
      goes on to the bit.
    - Rows of `results.csv` after the checkpoint are dropped, as their epochs are run anew.
    """

    _offset = 0  # see `accumulate`
    _batches_since_step = 0
    _left: dict[str, Any] | None = None  # the rest of the checkpoint, until the first epoch begins

    @property
    def accumulate(self) -> int:
        """Batches to an optimizer step.

        Upstream compares it with the distance to the last step, which it takes to be at batch -1 when it resumes. Until
        the first step of a resumed run it is larger by what that is wrong.
        """
        return self._accumulate + self._offset

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._accumulate = value

    def optimizer_step(self) -> None:
        """Make a step, and count from it."""
        super().optimizer_step()
        self._offset = self._batches_since_step = 0

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event; when the first epoch of a resumed run begins, bring back its state first.

        Args:
            event: See upstream's.
        """
        if event == "on_train_epoch_start" and self._left is not None:
            self._bring_back(self._left)
            self._left = None
        elif event == "on_train_batch_start":
            self._batches_since_step += 1
        super().run_callbacks(event)

    def save_model(self) -> Any:
        """Save the checkpoints of an epoch; where that fails, those of the epoch before are as they were."""
        last, best, wdir = self.last, self.best, self.wdir
        staged = wdir / ".saving"
        shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed
        try:
            staged.mkdir(parents=True)
            self.wdir, self.last, self.best = staged, staged / last.name, staged / best.name
            saved = super().save_model()
            if self._is_repeatable():
                torch.save(self._rest(), staged / f"resume-{self.epoch}.pt")
            for file in sorted(staged.iterdir(), key=lambda file: file.name == last.name):
                file.replace(wdir / file.name)
            self._remove_rests(wdir, but=f"resume-{self.epoch}.pt")
        finally:
            self.last, self.best, self.wdir = last, best, wdir
            shutil.rmtree(staged, ignore_errors=True)
        return saved

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Load the state of a checkpoint, and prepare what upstream leaves out.

        Args:
            ckpt: The checkpoint, or None.

        Raises:
            AllEpochsDone: If only the final validation is left.
        """
        if not self.resume or ckpt is None or ckpt.get("optimizer") is None:
            super().resume_training(ckpt)
            return
        epoch, left = ckpt["epoch"], self._read_rest(ckpt)
        if epoch >= self.epochs - 1 or (left is not None and self._stopped_early(epoch, left["stopper"])):
            self._load_checkpoint_state(ckpt)
            self.epoch = self.start_epoch = epoch
            raise AllEpochsDone
        super().resume_training(ckpt)
        self._cut_results(epoch + 1)
        self._left = left

    def _stopped_early(self, epoch: int, stopper: dict[str, float]) -> bool:
        """Return whether upstream's EarlyStopping ended the run after an epoch, and not someone who set `stop`."""
        waited = epoch + 1 - stopper["best_epoch"]  # without validation `possible_stop` is never set
        return bool(stopper["possible_stop"]) and waited >= self.stopper.patience

    def _read_rest(self, ckpt: dict[str, Any]) -> dict[str, Any] | None:
        """Return what `_rest` returned when a checkpoint was saved, or None."""
        file = Path(self.args.model).with_name(f"resume-{ckpt['epoch']}.pt")
        if not file.is_file() or not self._is_repeatable():
            return None
        try:
            left = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever it holds, the run goes on without it
            LOGGER.warning(f"{file}: unreadable, so the resumed run will differ a little: {error}")
            return None
        ema = ckpt["ema"].state_dict()
        if left["ema"].keys() != ema.keys() or any(
            not torch.equal(_rounded(value), _rounded(ema[name])) for name, value in left["ema"].items()
        ):
            LOGGER.warning(f"{file}: not of {self.args.model}, so the resumed run will differ a little")
            return None
        if left["setting"] != self._setting():
            LOGGER.warning(f"{file}: the data, batch, imgsz or close_mosaic changed, so the resumed run will differ")
            return None
        return left

    def _setting(self) -> list[int]:
        """Return what may change when a run is resumed, and would change its way."""
        return [len(self.train_loader.dataset), self.batch_size, self.args.imgsz, int(self.args.close_mosaic)]

    def _do_train(self, *args: Any, **kwargs: Any) -> None:
        """Train; name what the user can do something about when it ends before its time."""
        try:
            super()._do_train(*args, **kwargs)
        except AllEpochsDone:
            LOGGER.info(f"All {self.epochs} epochs of {self.args.model} are done; the final validation is left.")
            self.final_eval()
            first = RANK in {-1, 0}
            if first and self.args.plots:
                self.plot_metrics()
            if first:
                self.run_callbacks("on_train_end")
        except KeyboardInterrupt:
            LOGGER.info(f"\nStopped. {self._how_to_go_on()}")
            raise
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = error.filename or self.save_dir
            raise UserError(f"{where}: {error.strerror}. Make room. {self._how_to_go_on()}") from error
        except RuntimeError as error:
            if "shared memory" not in str(error) and "Bus error" not in str(error):
                raise
            raise UserError(
                "no space in shared memory (/dev/shm), through which loader processes hand over their batches: give "
                f"workers=0, or a larger one (docker run --shm-size=8g). {' '.join(str(error).split())}"
            ) from error

    def _how_to_go_on(self) -> str:
        if not self.last.exists():
            return "No epoch was finished: start anew"
        return f"{self.last} is of the last whole epoch; go on with: yolo train resume=True model={self.last}"

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Go back to `last.pt` after an epoch whose loss is not a number, see upstream.

        Args:
            epoch: The epoch, from 0.

        Raises:
            UserError: If it happens again and again.
        """
        try:
            return super()._handle_nan_recovery(epoch)
        except RuntimeError as error:
            advice = "lower lr0, use amp=False, and look at the data with datasets/prepare.py --check"
            raise UserError(f"{error}: {advice}") from error

    def final_eval(self) -> None:
        """Strip and validate the checkpoints; `last.pt`, which upstream strips first, can be resumed until then."""
        if RANK not in {-1, 0}:
            super().final_eval()
            return
        last, staged = self.last, self.wdir / ".saving"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            if last.exists():
                staged.mkdir()
                self.last = Path(shutil.copy(last, staged))
            super().final_eval()
            if last.exists():
                self.last.replace(last)
            self._remove_rests(self.wdir)
        finally:
            self.last = last
            shutil.rmtree(staged, ignore_errors=True)

    def _is_repeatable(self) -> bool:
        loader = self.train_loader
        alone = self.world_size <= 1 and self.device.type == "cpu"
        return alone and isinstance(loader, InfiniteDataLoader) and not loader.num_workers

    @staticmethod
    def _remove_rests(folder: Path, but: str = "") -> None:
        for file in folder.glob("resume-*.pt"):
            if file.name != but:
                file.unlink(missing_ok=True)

    def _rest(self) -> dict[str, Any]:
        """Return what a resumed run needs beside upstream's checkpoint."""
        model = unwrap_model(self.model)
        waiting = self._batches_since_step
        kind, keys, *place = np.random.get_state()
        return {
            "model": model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "setting": self._setting(),
            "accumulate": self._accumulate,  # older versions of upstream leave it at the last value of the warm-up
            "waiting": waiting,
            "gradients": {name: p.grad for name, p in model.named_parameters() if waiting and p.grad is not None},
            "stopper": {name: float(getattr(self.stopper, name)) for name in STOPPER},
            "random": list(random.getstate()[1]),
            "random_gauss": random.getstate()[2],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *place],
            "torch": torch.get_rng_state(),
            "loader": place_of(self.train_loader),
        }

    def _bring_back(self, left: dict[str, Any]) -> None:
        """Bring back what `_rest` returned, when upstream is about to begin the first epoch."""
        model = unwrap_model(self.model)
        model.load_state_dict(left["model"])
        self.ema.ema.load_state_dict(left["ema"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": left["optimizer"], "param_groups": groups})
        for name, parameter in model.named_parameters():
            if name in left["gradients"]:
                parameter.grad = left["gradients"][name].clone()
        for name, value in left["stopper"].items():
            setattr(self.stopper, name, type(getattr(self.stopper, name))(value))
        closed = self.args.close_mosaic and self.start_epoch > self.epochs - self.args.close_mosaic
        bring_to(self.train_loader, left["loader"], keep=bool(closed))
        batches = self.start_epoch * len(self.train_loader)
        self.accumulate, self._batches_since_step = left["accumulate"], left["waiting"]
        self._offset = batches - left["waiting"]  # the last step was at batch `batches - 1 - waiting`, not at -1
        random.setstate((3, tuple(left["random"]), left["random_gauss"]))
        kind, keys, *place = left["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *place))
        torch.set_rng_state(left["torch"])

    def _cut_results(self, epochs: int) -> None:
        """Keep of `results.csv` the rows of the first epochs."""
        if not self.csv.exists() or RANK not in {-1, 0}:
            return
        head, *rows = self.csv.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [row for row in rows if row.endswith("\n") and row.count(",") == head.count(",")]
        kept = [row for row in whole if int(float(row.partition(",")[0])) <= epochs]
        if len(kept) < len(rows):
            with replacing(self.csv) as new:
                new.write_text("".join([head, *kept]), encoding="utf-8")


def _rounded(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor as upstream's checkpoints hold it."""
    return torch.nan_to_num(value.half()) if value.is_floating_point() else value

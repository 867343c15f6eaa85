"""Makes training survive interruptions: complete checkpoints, a clean `results.csv`, and one line of advice."""

import errno
import shutil
from pathlib import Path
from typing import Any

from ultralytics.engine.trainer import BaseTrainer as StockBaseTrainer
from ultralytics.utils import LOGGER, RANK, YAML, IterableSimpleNamespace

from small_object.arguments import drop_defaults
from small_object.errors import UserError
from small_object.files import cut_results, staging_dir

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class AllEpochsDone(Exception):
    """Only the final validation of a resumed run is left."""


class BaseTrainer(StockBaseTrainer):
    """Upstream's trainer, which can resume after it was killed or ran out of disk space at any moment.

    - Checkpoints are written to a staging folder and then moved into place, `last.pt` last.
    - A resumed run drops the rows of `results.csv` after the checkpoint, since it repeats their epochs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if RANK in {-1, 0}:
            self._save_args()

    def _save_args(self) -> None:
        """Write `args.yaml`."""
        YAML.save(self.save_dir / "args.yaml", drop_defaults(vars(self.args)))

    def save_model(self) -> Any:
        """Save the checkpoints of an epoch; if that fails, those of the previous epoch stay intact."""
        last, best, wdir, args = self.last, self.best, self.wdir, self.args
        with staging_dir(wdir) as staged:
            self.wdir, self.last, self.best = staged, staged / last.name, staged / best.name
            self.args = IterableSimpleNamespace(**drop_defaults(vars(args)))  # as upstream stores them
            try:
                saved = super().save_model()
            finally:
                self.wdir, self.last, self.best, self.args = wdir, last, best, args
            for file in sorted(staged.iterdir(), key=lambda file: file.name == last.name):
                file.replace(wdir / file.name)
        return saved

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Load the state of a checkpoint, if there is one, and drop the results after it.

        Raises:
            AllEpochsDone: If only the final validation is left.
        """
        resumable = self.resume and ckpt is not None and ckpt.get("optimizer") is not None
        if resumable and ckpt["epoch"] >= self.epochs - 1:
            self._load_checkpoint_state(ckpt)
            self.epoch = self.start_epoch = ckpt["epoch"]
            raise AllEpochsDone
        super().resume_training(ckpt)
        if resumable and RANK in {-1, 0}:
            cut_results(self.csv, self.start_epoch)

    def _do_train(self, *args: Any, **kwargs: Any) -> None:
        """Train; after an interruption, say what the user can do."""
        try:
            super()._do_train(*args, **kwargs)
        except AllEpochsDone:
            LOGGER.info(f"All {self.epochs} epochs of {self.args.model} are done; only the final validation is left.")
            self.final_eval()
            is_first = RANK in {-1, 0}
            if is_first and self.args.plots:
                self.plot_metrics()
            if is_first:
                self.run_callbacks("on_train_end")
        except KeyboardInterrupt:
            LOGGER.info(f"\nStopped. {self._resume_advice()}")
            raise
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            where = error.filename or self.save_dir
            raise UserError(f"{where}: {error.strerror}. Free some space. {self._resume_advice()}") from error
        except RuntimeError as error:
            if "shared memory" not in str(error) and "Bus error" not in str(error):
                raise
            raise UserError(
                "no space left in shared memory (/dev/shm), which data loader processes need: use "
                f"workers=0 or enlarge it (docker run --shm-size=8g). {' '.join(str(error).split())}"
            ) from error

    def _resume_advice(self) -> str:
        if not self.last.exists():
            return "No epoch was finished: start again"
        return f"The last complete epoch is saved; resume with: yolo train resume=True model={self.last}"

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Return to `last.pt` after an epoch whose loss is NaN; stop with advice if it happens again."""
        try:
            return super()._handle_nan_recovery(epoch)
        except RuntimeError as error:
            advice = "lower lr0, use amp=False, and check the data with `small-object check`"
            raise UserError(f"{error}: {advice}") from error

    def final_eval(self) -> None:
        """Strip and validate the checkpoints. `last.pt`, which upstream strips first, stays resumable until the end."""
        last = self.last
        if RANK not in {-1, 0} or not last.exists():
            super().final_eval()
            return
        with staging_dir(self.wdir) as staged:
            self.last = Path(shutil.copy(last, staged))
            try:
                super().final_eval()
                self.last.replace(last)
            finally:
                self.last = last

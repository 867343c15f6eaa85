"""Gives the loss of a model in training the scale of the normalised Wasserstein distance."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch.utils.data import DataLoader
from ultralytics.data.utils import exif_size
from ultralytics.models.yolo.detect.train import DetectionTrainer as StockDetectionTrainer
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.loss import nwd_share
from ultralytics.utils.nwd import mean_box_size
from ultralytics.utils.size_metrics import SIZE_KEYS, measures_size
from ultralytics.utils.torch_utils import unwrap_model
from ultralytics_overlay import require_parameters

require_parameters(StockDetectionTrainer.get_dataloader, "dataset_path", "batch_size", "rank", "mode")
require_parameters(StockDetectionTrainer.save_metrics, "metrics")


class DetectionTrainer(StockDetectionTrainer):
    """Upstream's trainer of detection models, which also measures C, the scale of the NWD, on the training boxes."""

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> DataLoader:
        """Return upstream's loader; the one for training also tells the model the scale of its boxes.

        Args:
            dataset_path: Folder of the images.
            batch_size: Images in a batch.
            rank: Rank of the process in distributed training.
            mode: `train` or `val`.
        """
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train" and self.args.task in {"detect", "segment", "pose"}:  # their losses hold a BboxLoss
            self._set_nwd_scale(loader)
        return loader

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Add an epoch's row to `results.csv`, which has columns for the sizes also before the first validation.

        Upstream writes values without their names, so a row must have the columns that the file began with.

        Args:
            metrics: Losses, results and learning rates of the epoch by name.
        """
        if measures_size(self.args):
            metrics = {**metrics, **{key: 0.0 for key in SIZE_KEYS.values() if key not in metrics}}
            if self.csv.exists():
                with self.csv.open(encoding="utf-8") as file:
                    columns = file.readline().strip().split(",")[2:]  # after the epoch and the time
                metrics = {column: metrics.get(column, 0.0) for column in columns}
        super().save_metrics(metrics)

    def _set_nwd_scale(self, loader: DataLoader) -> None:
        """Set `nwd_c` of the model, which the EMA model is copied from later, where its loss uses the NWD."""
        model = unwrap_model(self.model)
        model = getattr(model, "student_model", model)  # distillation: the student builds the loss
        shares = {"box loss": nwd_share(model), "assignment of small objects": nwd_share(model, "nwd_assign")}
        used = " and ".join(f"share {share:g} of the {what}" for what, share in shares.items() if share)
        if not used:
            return
        if self.args.nwd_c is None:
            model.nwd_c = mean_box_size(map(_with_shape, loader.dataset.labels), self.args.imgsz)
            source = "the mean size of the training boxes in input pixels"
        else:
            model.nwd_c = float(self.args.nwd_c)
            source = "argument nwd_c"
        if RANK in {-1, 0}:
            LOGGER.info(f"{colorstr('NWD:')} {used}, C = {model.nwd_c:.2f} px ({source})")


def _with_shape(label: dict[str, Any]) -> dict[str, Any]:
    """Return an image's labels with its (height, width), which a data set for `rect=True` has dropped."""
    if "shape" in label:
        return label
    with Image.open(label["im_file"]) as image:  # reads the header only
        width, height = exif_size(image)
    return {**label, "shape": (height, width)}

"""Measures accuracy by object size beside upstream's box metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from ultralytics.models.yolo.detect.val import DetectionValidator as StockDetectionValidator
from ultralytics.utils import LOGGER, RANK, ops
from ultralytics.utils.plotting import plot_size_metrics
from ultralytics.utils.size_metrics import SizeRecords, measures_size
from ultralytics_overlay import require, require_parameters

require_parameters(StockDetectionValidator.init_metrics, "model")
require_parameters(StockDetectionValidator._process_batch, "preds", "batch")
require_parameters(ops.scale_boxes, "img1_shape", "boxes", "img0_shape", "ratio_pad")
for _method, _name in (("update_metrics", "_process_batch"), ("get_stats", "results_dict")):
    require(
        f"ultralytics.models.yolo.detect.val.DetectionValidator.{_method}",
        _name in getattr(StockDetectionValidator, _method).__code__.co_names,
        f"no longer uses `{_name}`",
    )


class DetectionValidator(StockDetectionValidator):
    """Upstream's validator, which also measures accuracy by object size unless `size_metrics=False`.

    It does so for the tasks detect, segment and pose; for rotated boxes and tasks without boxes it is upstream's.

    Attributes:
        size_records: The boxes of the images seen, or None where accuracy by size is not measured.
    """

    size_records: SizeRecords | None = None

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start a validation of `model`."""
        super().init_metrics(model)
        self.size_records = SizeRecords() if measures_size(self.args) else None
        if self.metrics.size is not None:  # of an earlier validation
            self.metrics.size = None

    def _process_batch(self, preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return upstream's matches of one image's predictions, and record both.

        Args:
            preds: `bboxes` in xyxy of the input's pixels, shape (M, 4); `conf` and `cls`, shape (M,).
            batch: The image's `bboxes`, likewise, shape (N, 4), and `cls`, shape (N,); `imgsz` and `ori_shape`, its
                (height, width) as input and original; `ratio_pad`, how the one became the other.
        """
        if self.size_records is not None:
            shapes = batch["imgsz"], batch["ori_shape"], batch["ratio_pad"]
            targets = _original(torch.cat((batch["bboxes"], batch["cls"][:, None]), 1), *shapes)
            found = _original(torch.cat((preds["bboxes"], preds["conf"][:, None], preds["cls"][:, None]), 1), *shapes)
            columns = targets[:, :4], targets[:, 4], found[:, :4], found[:, 4], found[:, 5]
            self.size_records.add(batch["ori_shape"], *columns)
        return super()._process_batch(preds, batch)

    def gather_stats(self) -> None:
        """Bring what the processes of a distributed validation have recorded to the first."""
        super().gather_stats()
        if self.size_records is None or RANK == -1:
            return
        parts = [None] * dist.get_world_size() if RANK == 0 else None
        dist.gather_object(self.size_records.images, parts, dst=0)
        self.size_records.images = [image for part in parts or () for image in part]

    def get_stats(self) -> dict[str, Any]:
        """Return upstream's results and those by object size."""
        if self.size_records is not None and self.size_records.images:
            self.metrics.size = self.size_records.evaluate(self.names, int(self.args.max_det))
            self.size_records = SizeRecords()  # frees the memory
        return super().get_stats()

    def finalize_metrics(self) -> None:
        """Draw upstream's plots and `size_metrics.png`."""
        super().finalize_metrics()
        if self.size_records is not None and self.metrics.size is not None and self.args.plots:
            plot_size_metrics(self.metrics.size, self.save_dir / "size_metrics.png", self.on_plot)

    def print_results(self) -> None:
        """Print upstream's table and, outside training, the one by object size."""
        super().print_results()
        if self.size_records is not None and self.metrics.size is not None and not self.training:
            LOGGER.info(self.metrics.size.table(per_class=self.args.verbose and self.nc > 1))


def _original(rows: torch.Tensor, imgsz: Any, ori_shape: Any, ratio_pad: Any) -> np.ndarray:
    """Return rows that begin with xyxy in the input's pixels with xyxy in pixels of the original image."""
    rows = rows.float().cpu()  # half precision has steps of 0.5 px and more
    ops.scale_boxes(imgsz, rows[:, :4], ori_shape, ratio_pad=ratio_pad)
    return rows.numpy()

"""Measures accuracy by object size alongside upstream's box metrics, and validates large images by tiles."""

from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from ultralytics.models.yolo.detect.val import DetectionValidator as StockDetectionValidator
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK

from small_object.ignore import drop_ignored
from small_object.letterbox import unscale_boxes
from small_object.sizes import SizeRecords, measures_size, plot_size_metrics
from small_object.slicing.validator import SlicedValidator

NO_LIMIT = 1_000_000  # detections in an image


class DetectionValidator(SlicedValidator, StockDetectionValidator):
    """Upstream's validator, which also measures accuracy by object size unless `size_metrics=False`.

    This holds for the tasks detect, segment and pose. For other tasks, it is upstream's.

    Attributes:
        size_records: The boxes of the images seen so far; None if accuracy by size is not measured.
    """

    size_records: SizeRecords | None = None

    @staticmethod
    def _check_max_det(args: Any, datasets: dict[str, Any]) -> None:
        """Let upstream raise a default `max_det` to the most objects in an image. With `slice`, it limits no image."""
        if not getattr(args, "slice", 0) or args.max_det != DEFAULT_CFG.max_det:
            StockDetectionValidator._check_max_det(args, datasets)

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start a validation of `model`."""
        super().init_metrics(model)
        self.size_records = SizeRecords() if measures_size(self.args) else None
        self.metrics.size = None  # of an earlier validation

    def _process_batch(self, preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return upstream's matches of one image's predictions; record the predictions and objects.

        Args:
            preds: `bboxes` in xyxy of the input's pixels, shape (M, 4); `conf` and `cls`, shape (M,).
            batch: The image's `bboxes`, likewise, shape (N, 4), and `cls`, shape (N,); `ori_shape`, its original
                (height, width); `ratio_pad`, how it became the input.
        """
        if self.size_records is not None:
            shape, ratio_pad = batch["ori_shape"], batch["ratio_pad"]
            targets, boxes = (unscale_boxes(each["bboxes"], shape, ratio_pad) for each in (batch, preds))
            target_cls, conf, cls = (x.float().cpu().numpy() for x in (batch["cls"], preds["conf"], preds["cls"]))
            self.size_records.add(shape, targets, target_cls, boxes, conf, cls)
        return super()._process_batch(preds, batch)

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Add the detections of a batch, except those in ignore regions that match no object; see upstream.

        With `slice`, the detections in tiles replace those of large images, in the plots too.
        """
        if self.slicer is not None:
            self.merge_tiles(preds, batch)
        if self.args.task == "detect":
            preds = [
                drop_ignored(pred, self._prepare_batch(i, batch), bool(self.args.single_cls))
                for i, pred in enumerate(preds)
            ]
        super().update_metrics(preds, batch)

    def gather_stats(self) -> None:
        """Gather the records of all processes of a distributed validation in the first one."""
        super().gather_stats()
        if RANK == -1:
            return
        if self.slicer is not None:
            counts = torch.tensor(self.tiles, device=self.device)
            dist.reduce(counts, dst=0)
            self.tiles = tuple(counts.tolist())
        if self.size_records is None:
            return
        parts = [None] * dist.get_world_size() if RANK == 0 else None
        dist.gather_object(self.size_records.images, parts, dst=0)
        self.size_records.images = [image for part in parts or () for image in part]

    def get_stats(self) -> dict[str, Any]:
        """Return upstream's results and those by object size."""
        if self.size_records is not None and self.size_records.images:
            limit = int(self.args.max_det) if self.slicer is None else self.slicer.max_det or NO_LIMIT
            self.metrics.size = self.size_records.evaluate(self.names, limit)
            self.size_records = SizeRecords()  # frees the memory
        return super().get_stats()

    def finalize_metrics(self) -> None:
        """Draw upstream's plots and `size_metrics.png`; count the time of tiles as inference."""
        if self.slicer is not None:
            self.speed["inference"] += 1e3 * self.tile_seconds / max(1, len(self.dataloader.dataset))
        super().finalize_metrics()
        if self.size_records is not None and self.metrics.size is not None and self.args.plots:
            plot_size_metrics(self.metrics.size, self.save_dir / "size_metrics.png", self.on_plot)

    def print_results(self) -> None:
        """Print upstream's table and, outside training, the one by object size."""
        super().print_results()
        if self.slicer is not None and not self.training:
            LOGGER.info(f"Tiles of {self.slicer.tile} px: {self.tiles[0]} run, {self.tiles[1]} skipped")
        if self.size_records is not None and self.metrics.size is not None and not self.training:
            LOGGER.info(self.metrics.size.table(per_class=self.args.verbose and self.nc > 1))

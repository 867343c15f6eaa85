"""Measures accuracy by object size alongside upstream's box metrics, and validates large images by tiles."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from ultralytics.data.augment import LetterBox
from ultralytics.models.yolo.detect.val import DetectionValidator as StockDetectionValidator
from ultralytics.utils import LOGGER, RANK, ops
from ultralytics.utils.torch_utils import autocast

from small_object.arguments import SLICED_TASKS
from small_object.errors import UserError
from small_object.ignore import drop_ignored
from small_object.letterbox import unscale_boxes
from small_object.sizes import SizeRecords, measures_size, plot_size_metrics
from small_object.slicing.masks import Crop, crop_masks
from small_object.slicing.objects import Objects
from small_object.slicing.results import rotated_rows
from small_object.slicing.slicer import Slicer, build_slicer, select_boxes
from small_object.slicing.validation import ImageReader, mask_gain, scale_back, select_targets
from ultralytics_overlay import require_parameters

require_parameters(StockDetectionValidator.init_metrics, "model")
require_parameters(StockDetectionValidator._process_batch, "preds", "batch")


SLICED_VALIDATORS = {f"yolo.{task}.val" for task in SLICED_TASKS}  # not RT-DETR's, which stretches its inputs
NO_LIMIT = 1_000_000  # detections in an image


class DetectionValidator(StockDetectionValidator):
    """Upstream's validator, which also measures accuracy by object size unless `size_metrics=False`.

    It does so for the tasks detect, segment and pose; for rotated boxes and tasks without boxes it is upstream's. With
    `slice` images larger than a tile are also run by tiles, read again at full resolution; what is found goes into
    upstream's metrics, plots and files in place of what the whole image shows alone.

    Attributes:
        size_records: The boxes of the images seen, or None where accuracy by size is not measured.
        slicer: How images are cut, None without `slice`.
        tiles: How many tiles were run and skipped so far.
        crops: The masks of a batch's sliced images, by their file.
    """

    size_records: SizeRecords | None = None
    slicer: Slicer | None = None
    tiles = 0, 0
    crops: dict[str, list[Crop]]

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start a validation of `model`."""
        super().init_metrics(model)
        self.size_records = SizeRecords() if measures_size(self.args) else None
        self.metrics.size = None  # of an earlier validation
        imgsz = self.args.imgsz
        shape = tuple(imgsz) if isinstance(imgsz, (list, tuple)) else (imgsz, imgsz)
        self.slicer = build_slicer(self.args, model, shape)
        if self.slicer is not None:
            if type(self).__module__.partition(".models.")[2] not in SLICED_VALIDATORS:
                raise UserError(f"slice={self.args.slice} is not supported by the validation of this kind of model")
            stride = max(32, int(torch.as_tensor(getattr(model, "stride", 32)).max()))
            self._model, self._likely, self.crops = model, None, {}
            self._tile_shape = LetterBox(shape, auto=bool(self.args.rect), stride=stride)
            self._images = ImageReader(self.dataloader.dataset)
            self.tiles, self._tile_seconds = (0, 0), 0.0
            is_augmented = self.args.augment and not self.training and getattr(model, "base_model", True)
            self._augment = {"augment": True} if is_augmented else {}

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return upstream's batch, with `slice_roi` without the objects outside the region."""
        batch = super().preprocess(batch)
        if self.slicer is not None and self.slicer.region is not None and "batch_idx" in batch:
            select_targets(batch, self.slicer.region)
        return batch

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Return upstream's detections of each image; see there."""
        if self.slicer is not None and self.slicer.skip and self._likely is None:
            self._likely = self._select(preds)  # of the whole images, not of their tiles
        return super().postprocess(preds)

    def _merge_tiles(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Run the tiles of a batch's large images, and put what is found there in place of their detections."""
        started, likely = time.perf_counter(), self._likely
        self.crops = {}
        large = [i for i, shape in enumerate(batch["ori_shape"]) if self.slicer.is_large(shape)]
        images = self._images.read([batch["im_file"][i] for i in large])
        for i, pred in enumerate(preds):
            shape, ratio_pad = batch["ori_shape"][i], batch["ratio_pad"][i]
            scale = {"imgsz": batch["img"].shape[2:], "ori_shape": shape, "ratio_pad": ratio_pad}
            whole = self._objects(pred, scale)
            if i in large:
                image, proposals = next(images), None
                if likely is not None:
                    boxes = ops.scale_boxes(scale["imgsz"], likely[i].float(), shape, ratio_pad)
                    proposals = self.slicer.propose([image], self._look, [boxes])
                (found,) = self.slicer.detect([image], self._detect, proposals)
                self.tiles = self.tiles[0] + len(found.tiles), self.tiles[1] + found.skipped
                whole, _ = self.slicer.merge(shape, found, whole)
            elif self.slicer.region is not None:
                whole = self.slicer.select(whole, shape)
            else:
                continue
            preds[i] = scale_back(pred, whole, batch, i, int(self.args.max_det))
            self.crops[batch["im_file"][i]] = whole.masks or []
        self._likely = None
        self._tile_seconds += time.perf_counter() - started

    def _objects(self, pred: dict[str, Any], scale: dict[str, Any]) -> Objects:
        """Return the detections of an input in the pixels of its image or tile.

        Args:
            pred: The detections, see upstream.
            scale: `imgsz`, `ori_shape` and `ratio_pad`, as upstream's `scale_preds` has them.
        """
        scale_preds = StockDetectionValidator.scale_preds if "masks" in pred else type(self).scale_preds
        found = scale_preds(self, {key: value for key, value in pred.items() if key != "masks"}, scale)
        more = torch.stack((pred["conf"], pred["cls"]), 1).float()
        rotated = found["bboxes"].float() if self.args.task == "obb" else None
        rows = torch.cat((found["bboxes"].float(), more), 1) if rotated is None else rotated_rows(rotated, more)
        masks = None
        if "masks" in pred:
            masks = crop_masks(pred["masks"], rows[:, :4], *mask_gain(pred["masks"].shape[1:], scale))
        return Objects(rows, rotated, found.get("keypoints"), None, masks)

    def _run(self, tiles: list[np.ndarray]) -> tuple[Any, torch.Size]:
        """Run the model on tiles (H, W, C) of one shape; return its output and the (height, width) of its input."""
        images = np.stack([self._tile_shape(image=tile) for tile in tiles])
        images = images[..., None] if images.ndim == 3 else images  # grey images
        images = images[..., ::-1] if images.shape[-1] == 3 else images  # BGR to RGB
        inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        inputs = StockDetectionValidator.preprocess(self, {"img": inputs})["img"]
        with autocast(self.training and self.args.quantize == 16, device=self.device.type):
            return self._model(inputs, **self._augment), inputs.shape[2:]

    def _detect(self, tiles: list[np.ndarray]) -> list[Objects]:
        """Return what the model finds in tiles (H, W, C), in the pixels of each."""
        preds, shape = self._run(tiles)
        outputs = self.postprocess(preds)
        scales = ({"imgsz": shape, "ori_shape": tile.shape[:2], "ratio_pad": None} for tile in tiles)
        return [self._objects(pred, scale) for pred, scale in zip(outputs, scales, strict=True)]

    def _look(self, parts: list[np.ndarray]) -> list[torch.Tensor]:
        """Return where in parts of an image (H, W, C) objects may be: xyxy in the pixels of each, shapes (K, 4)."""
        preds, shape = self._run(parts)
        pairs = zip(self._select(preds), parts, strict=True)
        return [ops.scale_boxes(shape, rows.float(), part.shape) for rows, part in pairs]

    def _select(self, preds: Any) -> list[torch.Tensor]:
        options = {"task": self.args.task, "end2end": self.end2end}
        return select_boxes(preds, self.slicer.skip, self.nc, self.slicer.classes, **options)

    def _process_batch(self, preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return upstream's matches of one image's predictions, and record both.

        Args:
            preds: `bboxes` in xyxy of the input's pixels, shape (M, 4); `conf` and `cls`, shape (M,).
            batch: The image's `bboxes`, likewise, shape (N, 4), and `cls`, shape (N,); `ori_shape`, its original
                (height, width); `ratio_pad`, how it became the input.
        """
        if self.size_records is not None:
            shapes = batch["ori_shape"], batch["ratio_pad"]
            targets = unscale_boxes(torch.cat((batch["bboxes"], batch["cls"][:, None]), 1), *shapes)
            found = unscale_boxes(_rows(preds), *shapes)
            columns = targets[:, :4], targets[:, 4], found[:, :4], found[:, 4], found[:, 5]
            self.size_records.add(batch["ori_shape"], *columns)
        return super()._process_batch(preds, batch)

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Add the detections of a batch, without those in ignore regions that match no object; see upstream.

        With `slice`, those of large images are replaced by what their tiles show, for the plots, too.
        """
        if self.slicer is not None:
            self._merge_tiles(preds, batch)
        if self.args.task == "detect":
            preds = [
                drop_ignored(pred, self._prepare_batch(i, batch), bool(self.args.single_cls))
                for i, pred in enumerate(preds)
            ]
        super().update_metrics(preds, batch)

    def gather_stats(self) -> None:
        """Bring what the processes of a distributed validation have recorded to the first."""
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
            self.speed["inference"] += 1e3 * self._tile_seconds / max(1, len(self.dataloader.dataset))
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


def _rows(preds: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return detections as rows (x1, y1, x2, y2, score, class), shape (N, 6)."""
    return torch.cat((preds["bboxes"], preds["conf"][:, None], preds["cls"][:, None]), 1).float()

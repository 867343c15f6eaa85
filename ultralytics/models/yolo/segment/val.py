"""Measures the masks of sliced images at full resolution."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment.val import SegmentationValidator as StockSegmentationValidator
from ultralytics.utils import ops

from small_object.slicing.masks import CropMasks, crop_ious
from small_object.slicing.validator import target_crops

CHUNK = 8  # full-size masks in memory at a time


class SegmentationValidator(StockSegmentationValidator):
    """Upstream's validator of masks, which takes the masks of sliced images from their crops.

    For sliced images it compares the labels' polygons with the found masks at full resolution. Upstream compares masks
    at a quarter of the input's resolution, where the small objects of a large image vanish.
    """

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start a validation of `model`."""
        super().init_metrics(model)
        if self.slicer is not None:
            self.process = ops.process_mask_native

    def _prepare_pred(self, pred: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return upstream's detections of an image, without masks if only those for pictures were drawn."""
        pred = super()._prepare_pred(pred)
        return pred if len(pred["masks"]) == len(pred["cls"]) else {k: v for k, v in pred.items() if k != "masks"}

    def _process_batch(self, preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return upstream's matches of one image's predictions by boxes and by masks."""
        found = self.crops.get(batch["im_file"])
        if found is None:
            return super()._process_batch(preds, batch)
        matches = DetectionValidator._process_batch(self, preds, batch)
        classes, targets = target_crops(self.dataloader.dataset, batch["im_file"], self.slicer.region)
        ious, classes = torch.from_numpy(crop_ious(targets, found)), torch.from_numpy(classes).to(preds["cls"])
        return matches | {"tp_m": self.match_predictions(preds["cls"], classes, ious.to(classes)).cpu().numpy()}

    def scale_preds(self, predn: dict[str, Any], pbatch: dict[str, Any]) -> dict[str, Any]:
        """Return detections in pixels of the image, with `crops` as the masks of a sliced one; see upstream."""
        if (crops := self.crops.get(pbatch["im_file"])) is None:
            return super().scale_preds(predn, pbatch)
        return DetectionValidator.scale_preds(self, predn, pbatch) | {"crops": CropMasks(crops, pbatch["ori_shape"])}

    def pred_to_json(self, predn: dict[str, Any], pbatch: dict[str, Any]) -> None:
        """Add the detections of an image to the output of `save_json`; see upstream."""
        if (crops := predn.pop("crops", None)) is None:
            super().pred_to_json(predn, pbatch)
            return
        for start in range(0, len(crops), CHUNK):
            rows = slice(start, start + CHUNK)
            part = {key: value[rows] for key, value in predn.items()} | {"masks": crops[rows].data}
            super().pred_to_json(part, pbatch)
        predn["crops"] = crops  # for the text files

    def save_one_txt(self, predn: dict[str, Any], save_conf: bool, shape: tuple[int, int], file: Path) -> None:
        """Save the detections of an image as text; see upstream."""
        if "crops" not in predn:
            super().save_one_txt(predn, save_conf, shape, file)
            return
        rows = torch.cat((predn["bboxes"], predn["conf"][:, None], predn["cls"][:, None]), 1)
        result = Results(np.zeros(shape, np.uint8), path=None, names=self.names, boxes=rows)
        result.masks = predn["crops"]
        result.save_txt(file, save_conf=save_conf)

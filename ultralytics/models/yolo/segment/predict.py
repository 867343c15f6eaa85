"""Keeps the masks of whole images in little memory, where tiles are cut from them."""

from typing import Any

import numpy as np
import torch
from ultralytics.engine.results import Results
from ultralytics.models.yolo.segment.predict import SegmentationPredictor as StockSegmentationPredictor

from small_object.slicing.objects import concatenate, result_objects, update_result

MAX_STACK = 2**26  # bytes of whole masks in memory at a time


class SegmentationPredictor(StockSegmentationPredictor):
    """Upstream's predictor of masks, which crops those of a large image in parts if `retina_masks` makes them large."""

    def construct_result(self, pred: torch.Tensor, img: torch.Tensor, orig_img: np.ndarray, *args: Any) -> Results:
        """Return the results of an image or a tile; see upstream.

        Args:
            pred: Rows (x1, y1, x2, y2, score, class, mask coefficients) in pixels of the input.
            img: The input, shape (B, C, H, W).
            orig_img: The image (H, W, C).
            *args: See upstream's.
        """
        count = max(1, MAX_STACK // (orig_img.shape[0] * orig_img.shape[1]))
        if self.slicer is None or not self.args.retina_masks or len(pred) <= count:
            return super().construct_result(pred, img, orig_img, *args)
        parts = []
        for rows in pred.split(count):  # the masks of the previous rows are cropped before those of the next are made
            result = super().construct_result(rows, img, orig_img, *args)
            parts.append(result_objects(result))
        update_result(result, concatenate(parts), pred.device)
        return result

"""Predicts large images by tiles where `slice` asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.engine.predictor import BasePredictor
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect.predict import DetectionPredictor as StockDetectionPredictor
from ultralytics.utils import LOGGER, nms, ops

from small_object.slicing.slicer import Found, Slicer, build_slicer, likely_boxes
from ultralytics_overlay import require_parameters

require_parameters(BasePredictor.inference, "im")
require_parameters(BasePredictor.write_results, "i", "p", "im", "s")
require_parameters(StockDetectionPredictor.postprocess, "preds", "img", "orig_imgs")
require_parameters(nms.non_max_suppression, "prediction", "conf_thres", "iou_thres", "classes", "agnostic", "max_det")


class DetectionPredictor(StockDetectionPredictor):
    """Upstream's predictor of boxes, which runs images larger than `slice` by tiles as well, see `engine.slicing`.

    The results are of the whole images, so all that comes after them is upstream's; `tiles` and `plain` of those of
    large images say what slicing did. The time of the tiles counts as inference.

    Attributes:
        slicer: How images are cut, None without `slice`.
        found: What the tiles of the images of this batch showed, by their place in it.
    """

    slices = True
    slicer: Slicer | None = None
    found: dict[int, Found]

    def setup_source(self, *args: Any, **kwargs: Any) -> None:
        """Set up the source, and the slicing of its images."""
        super().setup_source(*args, **kwargs)
        self.found = {}
        self.slicer = build_slicer(self.args, self.model, max(self.imgsz)) if self.args.task == "detect" else None
        if self.slicer and (self.source_type.tensor or self.args.embed or self.args.visualize):
            what = "tensors" if self.source_type.tensor else "embed" if self.args.embed else "visualize"
            LOGGER.warning(f"'slice' is not used with {what}: images are run as a whole.")
            self.slicer = None

    def inference(self, im: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the model on a batch of inputs, and on the tiles of those images that are larger than one.

        Args:
            im: Inputs of whole images, shape (B, C, H, W).
            *args: Passed on to the model.
            **kwargs: Likewise.

        Returns:
            The output for the whole images, or None where that is not wanted of any of them.
        """
        if self.slicer is None:
            return super().inference(im, *args, **kwargs)
        images, slicer = self.batch[1], self.slicer
        large = [i for i, image in enumerate(images) if slicer.wants(image)]
        needless = len(large) == len(images) and not slicer.full and not slicer.skip
        preds = None if needless else super().inference(im, *args, **kwargs)
        run = super().inference

        def likely(preds: Any, inputs: torch.Tensor, parts: list[np.ndarray]) -> list[torch.Tensor]:
            boxes = likely_boxes(preds, slicer.skip, len(self.model.names))
            pairs = zip(boxes, parts, strict=True)
            return [ops.scale_boxes(inputs.shape[2:], rows.float(), part.shape) for rows, part in pairs]

        def look(parts: list[np.ndarray]) -> list[torch.Tensor]:
            inputs = self.preprocess(parts)
            return likely(run(inputs, *args, **kwargs), inputs, parts)

        def detect(tiles: list[np.ndarray]) -> list[torch.Tensor]:
            inputs = self.preprocess(tiles)
            rows = self._nms(run(inputs, *args, **kwargs))
            for tile, found in zip(tiles, rows, strict=True):
                ops.scale_boxes(inputs.shape[2:], found[:, :4], tile.shape)
            return rows

        cut, hints = [images[i] for i in large], None
        if large and slicer.skip:
            seen = likely(preds, im, images)
            hints = slicer.scout(cut, look, [seen[i] for i in large])
        self.found = dict(zip(large, slicer.find(cut, detect, hints), strict=True))
        self._feats = None  # those of the last tiles, not of the boxes that a tracker will be given
        return preds

    def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: Any, **kwargs: Any) -> list[Results]:
        """Return the results of whole images, in which what their tiles showed is merged.

        Args:
            preds: Output for the whole images, or None.
            img: Inputs of whole images, shape (B, C, H, W).
            orig_imgs: The images (H, W, C).
            **kwargs: See upstream's.
        """
        if preds is None:
            none = torch.zeros(0, 6, device=img.device)
            results = [
                Results(image, path=path, names=self.model.names, boxes=none)
                for image, path in zip(orig_imgs, self.batch[0], strict=True)
            ]
        else:
            results = super().postprocess(preds, img, orig_imgs, **kwargs)
        for i, found in self.found.items():
            result = results[i]
            options = {"agnostic": self.args.agnostic_nms, "max_det": self.args.max_det}
            rows = self.slicer.merge(result.orig_shape, found, result.boxes.data, **options)
            result.plain = len(result.boxes) if self.slicer.full else 0
            result.update(boxes=rows)
            result.tiles = len(found.tiles), found.skipped
        return results

    def write_results(self, i: int, p: Path, im: torch.Tensor, s: list[str]) -> str:
        """Save what is asked for of an image, see upstream; return what to say of it, with its tiles."""
        said = super().write_results(i, p, im, s)
        if found := self.found.get(i):
            said = f"{len(found.tiles)} tiles{f' ({found.skipped} skipped)' if found.skipped else ''} {said}"
        return said

    def _nms(self, preds: Any) -> list[torch.Tensor]:
        return nms.non_max_suppression(
            preds, self.args.conf, self.args.iou, self.args.classes, self.args.agnostic_nms,
            max_det=self.args.max_det, end2end=getattr(self.model, "end2end", False),
        )  # fmt: skip

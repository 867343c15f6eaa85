"""Predicts large images by tiles with `slice`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect.predict import DetectionPredictor as StockDetectionPredictor
from ultralytics.utils import LOGGER, ops

from small_object.letterbox import letterbox_tiles, move_to_device
from small_object.slicing.objects import Objects, result_objects, update_result
from small_object.slicing.slicer import Slicer, TileDetections, build_slicer, select_boxes


class DetectionPredictor(StockDetectionPredictor):
    """Upstream's predictor of boxes, which also runs tiles. Those of rotated boxes, masks and poses inherit from it.

    With `slice`, larger images are run by tiles. Upstream's results of the tiles are merged into results of the whole
    image, so all that follows is upstream's. Their `tiles` and `num_full` say what slicing did. The time of the tiles
    counts as inference.

    Attributes:
        slicer: Cuts images and merges the results; None without `slice`.
        tile_detections: The detections in the tiles of this batch's large images, by the image's index in the batch;
            None while tiles are run.
        cuts_on_device: Whether images go to the device before they are cut; None: yes, unless it is the CPU.
    """

    slices = True
    cuts_on_device: bool | None = None
    slicer: Slicer | None = None
    tile_detections: dict[int, TileDetections] | None = None

    def setup_source(self, *args: Any, **kwargs: Any) -> None:
        """Set up the source, and the slicing of its images."""
        super().setup_source(*args, **kwargs)
        self.slicer = build_slicer(self.args, self.model, tuple(self.imgsz), self.device)
        unsliced = {"tensors": self.source_type.tensor, "embed": self.args.embed, "visualize": self.args.visualize}
        if self.slicer and (what := next((name for name, given in unsliced.items() if given), "")):
            LOGGER.warning(f"'slice' is ignored with {what}: images are run as a whole.")
            self.slicer = None

    def inference(self, im: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the model on the inputs of whole images, (B, C, H, W), and on the tiles of those larger than a tile.

        Returns:
            The output for the whole images, or a pair of None if none of them needs it.
        """
        if self.slicer is None:
            return super().inference(im, *args, **kwargs)
        images, slicer, run = self.batch[1], self.slicer, super().inference
        large = [i for i, image in enumerate(images) if slicer.is_large(image.shape)]
        needed = len(large) < len(images) or slicer.full or slicer.skip
        preds = run(im, *args, **kwargs) if needed else (None, None)  # a pair, since masks need two outputs
        features = getattr(self, "_feats", None)  # of the whole images, for a tracker's ReID

        def propose(parts: list[np.ndarray], inputs: torch.Tensor, preds: Any) -> list[torch.Tensor]:
            options = {"task": self.args.task, "end2end": getattr(self.model, "end2end", False)}
            boxes = select_boxes(preds, slicer.skip, len(self.model.names), slicer.classes, **options)
            pairs = zip(boxes, parts, strict=True)
            return [ops.scale_boxes(inputs.shape[2:], xyxy.float(), part.shape) for xyxy, part in pairs]

        def propose_in_parts(parts: list[np.ndarray]) -> list[torch.Tensor]:
            inputs = self._build_inputs(parts)
            return propose(parts, inputs, run(inputs, *args, **kwargs))

        def detect(tiles: list[np.ndarray]) -> list[Objects]:
            inputs = self._build_inputs(tiles)
            preds = run(inputs, *args, **kwargs)
            self.batch = [""] * len(tiles), tiles, *batch[2:]
            return [*map(result_objects, self.postprocess(preds, inputs, tiles))]

        large_images, proposals = move_to_device([images[i] for i in large], self.device, self.cuts_on_device), None
        if large and slicer.skip:
            whole = propose(images, im, preds)
            proposals = slicer.propose(large_images, propose_in_parts, [whole[i] for i in large])
        self.tile_detections, batch = None, self.batch
        try:
            found = slicer.detect(large_images, detect, proposals)
        finally:
            self.batch = batch
        self.tile_detections = dict(zip(large, found, strict=True))
        if features is not None:
            self._feats = features
        return preds

    def _build_inputs(self, tiles: list[Any]) -> torch.Tensor:
        """Return the input for tiles (H, W, C) of one shape, arrays or views of images on the device."""
        if not isinstance(tiles[0], torch.Tensor):
            inputs: torch.Tensor = self.preprocess(tiles)
            return inputs
        blank = np.zeros((*tiles[0].shape[:2], 1), np.uint8)
        height, width = self.pre_transform([blank] * len(tiles))[0].shape[:2]
        return letterbox_tiles(tiles, (height, width), torch.half if self.model.fp16 else torch.float)

    def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: Any, **kwargs: Any) -> list[Results]:
        """Return the results of whole images, with the detections of their tiles merged in, or the results of tiles.

        `preds` is the output for the inputs `img`, (B, C, H, W), of the images (H, W, C), or None.
        """
        if self.slicer is None or self.tile_detections is None:
            return super().postprocess(preds, img, orig_imgs, **kwargs)
        if preds is None or preds[0] is None:
            pairs = zip(orig_imgs, self.batch[0], strict=True)
            none = torch.zeros(0, 6, device=img.device)
            results = [Results(image, path=path, names=self.model.names, boxes=none) for image, path in pairs]
        else:
            results = super().postprocess(preds, img, orig_imgs, **kwargs)
        for i, result in enumerate(results):
            if detections := self.tile_detections.get(i):
                whole = result_objects(result)
                objects, left_out = self.slicer.merge(result.orig_shape, detections, whole)
                if left_out:
                    count = f"at least {left_out} objects are left out"
                    LOGGER.warning(f"{result.path}: {count}; raise max_det={self.args.max_det}")
                num_inside = int(self.slicer.is_inside(whole.rows, result.orig_shape).sum())
                result.num_full = num_inside if self.slicer.full else 0
                result.tiles = len(detections.tiles), detections.skipped
                update_result(result, objects, img.device)
            elif self.slicer.region is not None:
                inside = self.slicer.is_inside(result_objects(result).rows, result.orig_shape)
                results[i] = result[inside.to(img.device)]
                if isinstance(features := getattr(result, "feats", None), torch.Tensor):  # for a tracker
                    results[i].feats = features[inside.to(features.device)]
        return results

    def write_results(self, i: int, p: Path, im: torch.Tensor, s: list[str]) -> str:
        """Save what the arguments ask for, see upstream; return a line about the image and its tiles."""
        line = super().write_results(i, p, im, s)
        if self.slicer and self.tile_detections and (detections := self.tile_detections.get(i)):
            skipped = f" ({detections.skipped} skipped)" if detections.skipped else ""
            line = f"{len(detections.tiles)} tiles{skipped} {line}"
        return line

"""Validation by tiles: a base of the validators of all tasks with boxes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ops
from ultralytics.utils.torch_utils import autocast

from small_object.arguments import SLICED_TASKS
from small_object.errors import UserError
from small_object.parallel import ReadAhead
from small_object.slicing.dataset import read_full_image
from small_object.slicing.masks import Crop, crop_masks
from small_object.slicing.objects import Objects
from small_object.slicing.results import rotated_rows
from small_object.slicing.slicer import build_slicer, select_boxes
from small_object.slicing.validation import mask_gain, scale_back, select_targets

if TYPE_CHECKING:
    from ultralytics.models.yolo.detect.val import DetectionValidator as Base
else:
    Base = object

NUM_AHEAD = 2  # images to decode while another one runs
MODULES = {f"yolo.{task}.val" for task in SLICED_TASKS}  # not RT-DETR's, which stretches its inputs


class SlicedValidator(Base):
    """Adds `slice` to upstream's validator of boxes; comes before it in the list of bases.

    Images larger than a tile are read again at full resolution and run by tiles. The merged detections replace those of
    the whole image in upstream's metrics, plots and files.

    Attributes:
        slicer: Cuts images and merges the results; None without `slice`.
        tiles: Number of tiles run and skipped so far.
        tile_seconds: Seconds that this took.
        crops: The masks of a batch's sliced images by file.
    """

    slicer: Any = None  # Slicer | None
    tiles = 0, 0
    tile_seconds = 0.0
    crops: dict[str, list[Crop]]

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start a validation of `model`.

        Raises:
            UserError: If this kind of model can't be validated by tiles.
        """
        super().init_metrics(model)
        imgsz = self.args.imgsz
        height, width = imgsz if isinstance(imgsz, (list, tuple)) else (imgsz, imgsz)
        self.slicer = build_slicer(self.args, model, (height, width))
        self.crops = {}
        if self.slicer is not None:
            if type(self).__module__.partition(".models.")[2] not in MODULES:
                raise UserError(f"slice={self.args.slice} is not supported for validating this kind of model")
            stride = max(32, int(torch.as_tensor(getattr(model, "stride", 32)).max()))
            self._model: Any = model
            self._likely: list[torch.Tensor] | None = None
            self._letterbox = LetterBox((height, width), auto=bool(self.args.rect), stride=stride)
            dataset = self.dataloader.dataset
            index = {file: i for i, file in enumerate(dataset.im_files)}
            self._read_image = ReadAhead(lambda file: np.asarray(read_full_image(dataset, index[file])), NUM_AHEAD)
            self.tiles, self.tile_seconds = (0, 0), 0.0
            is_augmented = self.args.augment and not self.training and getattr(model, "base_model", True)
            self._augment = {"augment": True} if is_augmented else {}

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return upstream's batch; with `slice_roi`, without the objects outside the region."""
        batch = super().preprocess(batch)
        if self.slicer is not None and self.slicer.region is not None and "batch_idx" in batch:
            select_targets(batch, self.slicer.region)
        return batch

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Return upstream's detections of each image."""
        if self.slicer is not None and self.slicer.skip and self._likely is None:
            self._likely = self._select(preds)  # of the whole images, not of their tiles
        outputs: list[dict[str, torch.Tensor]] = super().postprocess(preds)
        return outputs

    def merge_tiles(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Run the tiles of a batch's large images; replace their detections by the merged ones."""
        started, likely = time.perf_counter(), self._likely
        self.crops = {}
        large = [i for i, shape in enumerate(batch["ori_shape"]) if self.slicer.is_large(shape)]
        coming = [batch["im_file"][i] for i in large]
        for i, pred in enumerate(preds):
            if i not in large and self.slicer.region is None:
                continue
            shape, ratio_pad = batch["ori_shape"][i], batch["ratio_pad"][i]
            scale = {"imgsz": batch["img"].shape[2:], "ori_shape": shape, "ratio_pad": ratio_pad}
            whole = self._objects(pred, scale)
            if i in large:
                for file in coming[: 1 + NUM_AHEAD]:
                    self._read_image.start(file)
                image, proposals = self._read_image(coming.pop(0)), None
                if likely is not None:
                    boxes = ops.scale_boxes(scale["imgsz"], likely[i].float(), shape, ratio_pad)
                    proposals = self.slicer.propose([image], self._look, [boxes])
                (found,) = self.slicer.detect([image], self._detect, proposals)
                self.tiles = self.tiles[0] + len(found.tiles), self.tiles[1] + found.skipped
                whole, _ = self.slicer.merge(shape, found, whole)
            else:
                whole = self.slicer.select(whole, shape)
            preds[i] = scale_back(pred, whole, batch, i, int(self.args.max_det))
            self.crops[batch["im_file"][i]] = list(whole.masks or ())
        self._likely = None
        self.tile_seconds += time.perf_counter() - started

    def _objects(self, pred: dict[str, Any], scale: dict[str, Any]) -> Objects:
        """Return the detections of an input in pixels of its image or tile.

        Args:
            pred: The detections, see upstream.
            scale: `imgsz`, `ori_shape` and `ratio_pad`, as in upstream's `scale_preds`.
        """
        scale_preds = super().scale_preds if "masks" in pred else self.scale_preds
        found = scale_preds({key: value for key, value in pred.items() if key != "masks"}, scale)
        more = torch.stack((pred["conf"], pred["cls"]), 1).float()
        rotated = found["bboxes"].float() if self.args.task == "obb" else None
        rows = torch.cat((found["bboxes"].float(), more), 1) if rotated is None else rotated_rows(rotated, more)
        masks = None
        if "masks" in pred:
            masks = crop_masks(pred["masks"], rows[:, :4], *mask_gain(pred["masks"].shape[1:], scale))
        return Objects(rows, rotated, found.get("keypoints"), None, masks)

    def _run(self, tiles: list[np.ndarray]) -> tuple[Any, torch.Size]:
        """Run the model on tiles (H, W, C) of one shape; return its output and the (height, width) of its input."""
        images = np.stack([self._letterbox(image=tile) for tile in tiles])
        images = images[..., None] if images.ndim == 3 else images  # grey images
        images = images[..., ::-1] if images.shape[-1] == 3 else images  # BGR to RGB
        inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        inputs = super().preprocess({"img": inputs})["img"]
        with autocast(self.training and self.args.quantize == 16, device=self.device.type):
            return self._model(inputs, **self._augment), inputs.shape[2:]

    def _detect(self, tiles: list[np.ndarray]) -> list[Objects]:
        """Return the objects that the model finds in tiles (H, W, C), in pixels of each tile."""
        preds, shape = self._run(tiles)
        outputs = self.postprocess(preds)
        scales = ({"imgsz": shape, "ori_shape": tile.shape[:2], "ratio_pad": None} for tile in tiles)
        return [self._objects(pred, scale) for pred, scale in zip(outputs, scales, strict=True)]

    def _look(self, parts: list[np.ndarray]) -> list[torch.Tensor]:
        """Return where objects may be in parts of an image (H, W, C): xyxy in pixels of each part, shapes (K, 4)."""
        preds, shape = self._run(parts)
        pairs = zip(self._select(preds), parts, strict=True)
        return [ops.scale_boxes(shape, rows.float(), part.shape) for rows, part in pairs]

    def _select(self, preds: Any) -> list[torch.Tensor]:
        options = {"task": self.args.task, "end2end": self.end2end}
        return select_boxes(preds, self.slicer.skip, self.nc, self.slicer.classes, **options)

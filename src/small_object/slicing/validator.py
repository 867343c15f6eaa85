"""Validation by tiles: a base of the validators of all tasks with boxes, and what it needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils import ops
from ultralytics.utils.torch_utils import autocast

from small_object.arguments import BOX_TASKS, NEEDED_TO_SLICE
from small_object.errors import UserError
from small_object.letterbox import gain_and_pad, letterbox_gain, letterbox_tiles, move_to_device
from small_object.parallel import ReadAhead
from small_object.slicing.dataset import add_shape, read_full_image
from small_object.slicing.masks import Crop, crop_masks, draw_masks, polygon_crops
from small_object.slicing.objects import Objects, rotated_rows
from small_object.slicing.region import Region
from small_object.slicing.slicer import build_slicer, select_boxes

if TYPE_CHECKING:
    from ultralytics.models.yolo.detect.val import DetectionValidator as Base
else:
    Base = object

NUM_AHEAD = 2  # images to decode while another one runs
MAX_MEMORY = 80  # percent of the memory in use, above which no more images are kept
MODULES = {f"yolo.{task}.val" for task in BOX_TASKS}  # not RT-DETR's, which stretches its inputs


class SlicedValidator(Base):
    """Adds `slice` to upstream's validator of boxes; comes before it in the list of bases.

    Images larger than a tile are read again at full resolution and run by tiles. The merged detections replace those of
    the whole image in upstream's metrics, plots and files.

    Attributes:
        slicer: Cuts images and merges the results; None without `slice`.
        tiles: Number of tiles run and skipped so far.
        tile_seconds: Seconds that this took.
        crops: The masks of a batch's sliced images by file.
        cuts_on_device: Whether images go to the device before they are cut; None: yes, unless it is the CPU.
    """

    cuts_on_device: bool | None = None
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
        stride = max(32, int(torch.as_tensor(getattr(model, "stride", 32)).max()))
        sides = np.broadcast_to(self.args.imgsz, 2).tolist()
        height, width = (ops.make_divisible(side, stride) for side in sides)  # as upstream's data set does
        self.slicer = build_slicer(self.args, model, (height, width), self.device)
        self.crops = {}
        if self.slicer is not None:
            import psutil  # here, since upstream's import does without it

            modules = [each.__module__ for each in type(self).__mro__ if each.__module__.startswith("ultralytics.")]
            if modules[0].partition(".models.")[2] not in MODULES:
                raise UserError(f"slice={self.args.slice} {NEEDED_TO_SLICE}")
            self._model: Any = model
            self._likely: list[torch.Tensor] | None = None
            self._letterbox = LetterBox((height, width), auto=bool(self.args.rect), stride=stride)
            dataset = self.dataloader.dataset
            index = {file: i for i, file in enumerate(dataset.im_files)}
            keeps = self.training and dataset.cache == "ram"  # for the next epochs
            kept: dict[str, np.ndarray] = dataset.__dict__.setdefault("full_images", {})

            def read(file: str) -> np.ndarray:
                if file in kept:
                    return kept[file]
                image = np.asarray(read_full_image(dataset, index[file]))
                if keeps and psutil.virtual_memory().percent < MAX_MEMORY:
                    kept[file] = image
                return image

            self._read_image = ReadAhead(read, NUM_AHEAD)
            self.tiles, self.tile_seconds = (0, 0), 0.0
            is_augmented = self.args.augment and not self.training and getattr(model, "base_model", True)
            self._augment = {"augment": True} if is_augmented else {}

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return upstream's batch; with `slice_roi`, without the objects outside the region."""
        batch = super().preprocess(batch)
        if self.slicer is not None and self.slicer.region is not None and "batch_idx" in batch:
            select_targets(batch, self.slicer.region, bool(self.args.overlap_mask))
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
                (image,) = move_to_device([self._read_image(coming.pop(0))], self.device, self.cuts_on_device)
                proposals = None
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
            ratio = pred["masks"].shape[2] / scale["imgsz"][1]  # of masks, which cover the whole input, to it
            gain, pad = letterbox_gain(scale["imgsz"], scale["ori_shape"], scale["ratio_pad"])
            masks = crop_masks(pred["masks"], rows[:, :4], [ratio * g for g in gain], [ratio * p for p in pad])
        return Objects(rows, rotated, found.get("keypoints"), None, masks)

    def _build_inputs(self, tiles: list[Any]) -> torch.Tensor:
        """Return the input for tiles (H, W, C) of one shape, arrays or views of an image on the device."""
        if isinstance(tiles[0], torch.Tensor):
            height, width = self._letterbox(image=np.zeros((*tiles[0].shape[:2], 1), np.uint8)).shape[:2]
            return letterbox_tiles(tiles, (height, width), torch.half if self.args.quantize == 16 else torch.float)
        images = np.stack([self._letterbox(image=tile) for tile in tiles])
        images = images[..., None] if images.ndim == 3 else images  # grey images
        images = images[..., ::-1] if images.shape[-1] == 3 else images  # BGR to RGB
        inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        batch: dict[str, Any] = super().preprocess({"img": inputs})
        return batch["img"]

    def _run(self, tiles: list[Any]) -> tuple[Any, torch.Size]:
        """Run the model on tiles (H, W, C) of one shape; return its output and the (height, width) of its input."""
        inputs = self._build_inputs(tiles)
        with autocast(self.training and self.args.quantize == 16, device=self.device.type):
            return self._model(inputs, **self._augment), inputs.shape[2:]

    def _detect(self, tiles: list[Any]) -> list[Objects]:
        """Return the objects that the model finds in tiles (H, W, C), in pixels of each tile."""
        preds, shape = self._run(tiles)
        outputs = self.postprocess(preds)
        scales = ({"imgsz": shape, "ori_shape": tile.shape[:2], "ratio_pad": None} for tile in tiles)
        return [self._objects(pred, scale) for pred, scale in zip(outputs, scales, strict=True)]

    def _look(self, parts: list[Any]) -> list[torch.Tensor]:
        """Return where objects may be in parts of an image (H, W, C): xyxy in pixels of each part, shapes (K, 4)."""
        preds, shape = self._run(parts)
        pairs = zip(self._select(preds), parts, strict=True)
        return [ops.scale_boxes(shape, rows.float(), part.shape) for rows, part in pairs]

    def _select(self, preds: Any) -> list[torch.Tensor]:
        options = {"task": self.args.task, "end2end": self.end2end}
        return select_boxes(preds, self.slicer.skip, self.nc, self.slicer.classes, **options)


def scale_back(pred: dict[str, Any], objects: Objects, batch: dict[str, Any], i: int, max_masks: int) -> dict[str, Any]:
    """Return the objects of an image in the format of upstream's validator, in pixels of the input.

    Args:
        pred: Detections of the whole image, which give the format and the device.
        objects: The objects in pixels of the image.
        batch: The batch, see upstream.
        i: Index of the image in it.
        max_masks: How many masks to draw for upstream's pictures; each takes a byte per pixel of the input.
    """
    gain, pad = (x.float() for x in gain_and_pad(batch["ratio_pad"][i]))
    rows = objects.rows
    boxes = rows[:, :4] * gain + pad
    if objects.rotated is not None:
        xy, wh, angles = objects.rotated[:, :2], objects.rotated[:, 2:4], objects.rotated[:, 4:]
        boxes = torch.cat((xy * gain[:2] + pad[:2], wh * gain[:2], angles), 1)
    scaled = {"bboxes": boxes, "conf": rows[:, 4], "cls": rows[:, 5]}
    if "extra" in pred:
        scaled["extra"] = rows[:, 6:]
    if objects.keypoints is not None:
        scaled["keypoints"] = objects.keypoints.clone()
        scaled["keypoints"][..., :2] = objects.keypoints[..., :2] * gain[:2] + pad[:2]
    elif "keypoints" in pred:
        scaled["keypoints"] = pred["keypoints"][:0]
    if "masks" in pred:
        shown = list(objects.masks or ())[:max_masks]
        masks = draw_masks(shown, tuple(pred["masks"].shape[1:]), gain.tolist()[:2], pad.tolist()[:2])
        scaled["masks"] = torch.from_numpy(masks)
    return {key: value.to(pred["conf"].device) for key, value in scaled.items()}


def select_targets(batch: dict[str, Any], region: Region, overlap_mask: bool) -> None:
    """Remove targets with their centre outside a region from a batch of upstream, in place.

    With `overlap_mask`, the masks of an image are one picture, numbered from 1; else each has its own.
    """
    owner, (height, width) = batch["batch_idx"], batch["img"].shape[2:]
    keep = torch.ones(len(owner), dtype=torch.bool, device=owner.device)
    for i, (shape, ratio_pad) in enumerate(zip(batch["ori_shape"], batch["ratio_pad"], strict=True)):
        own = owner == i
        gain, pad = (x[:2].to(batch["bboxes"]) for x in gain_and_pad(ratio_pad))
        centres = (batch["bboxes"][own, :2] * batch["bboxes"].new_tensor([width, height]) - pad) / gain
        keep[own] = inside = region.contains(centres, tuple(shape))
        if "masks" in batch and overlap_mask:
            numbers = torch.cat((inside.new_zeros(1), inside)).long()
            numbers = numbers.cumsum(0) * numbers
            batch["masks"][i] = numbers[batch["masks"][i].long()].to(batch["masks"].dtype)
    for key in ("batch_idx", "cls", "bboxes", "keypoints", "masks"):
        if key in batch and not (key == "masks" and overlap_mask):
            batch[key] = batch[key][keep]


def target_crops(dataset: Any, file: str, region: Region | None) -> tuple[np.ndarray, list[Crop]]:
    """Return the classes, shape (N,), and the masks of an image's labels whose centre lies in a region."""
    label = dataset.labels[dataset.im_files.index(file)]
    width, height = add_shape(label)["shape"][::-1]
    classes, polygons = label["cls"][:, 0], label["segments"]
    if region is not None:
        centres = torch.from_numpy(label["bboxes"][:, :2] * (width, height))
        inside = np.flatnonzero(region.contains(centres, (height, width)).numpy())
        classes, polygons = classes[inside], [polygons[k] for k in inside]
    return classes, polygon_crops(polygons, (height, width))

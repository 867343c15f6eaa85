"""Trains on slices, and gives the loss of a model the scale of the normalised Wasserstein distance."""

from __future__ import annotations

from math import inf
from statistics import median

from torch.utils.data import DataLoader, Dataset
from ultralytics.data.utils import get_split_fraction
from ultralytics.models.yolo.detect.train import DetectionTrainer as StockDetectionTrainer
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.loss import nwd_share
from ultralytics.utils.torch_utils import unwrap_model

from small_object.errors import UserError
from small_object.nwd import mean_box_size
from small_object.sizes import SIZE_KEYS, box_sides, measures_size
from small_object.slicing.dataset import SlicedDataset, object_size, with_shape
from ultralytics_overlay import require_parameters

require_parameters(StockDetectionTrainer.build_dataset, "img_path", "mode", "batch")
require_parameters(StockDetectionTrainer.get_dataloader, "dataset_path", "batch_size", "rank", "mode")
require_parameters(StockDetectionTrainer.save_metrics, "metrics")

TINY = 4  # pixels: a cell of the finest grid, at stride 4


class DetectionTrainer(StockDetectionTrainer):
    """Upstream's trainer of detection models, which also trains on slices and measures the scale C of the NWD."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Dataset:
        """Return upstream's data set, or, for training with `slice`, one of tiles.

        Args:
            img_path: Folder of the images.
            mode: `train` or `val`.
            batch: Images in a batch.
        """
        if mode != "train" or not self.args.slice:
            return super().build_dataset(img_path, mode, batch)
        args = self.args
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        fraction = 1.0 if self.data.get("complete") else get_split_fraction(args.fraction, "train")
        dataset = SlicedDataset(  # with the arguments that upstream's `build_yolo_dataset` gives its data set
            img_path=img_path, imgsz=args.imgsz, batch_size=batch, augment=True, hyp=args, rect=args.rect,
            cache=args.cache or None, single_cls=args.single_cls or False, stride=stride, pad=0.0,
            prefix=colorstr("train: "), task=args.task, classes=args.classes, data=self.data, fraction=fraction,
        )  # fmt: skip
        if self.args.slice == "auto":
            self._set_slice(dataset.tile)
        return dataset

    def _set_slice(self, tile: int) -> None:
        """Replace `auto` by the side of a tile in pixels, for the validation, `args.yaml` and checkpoints."""
        self.args.slice = tile
        if RANK in {-1, 0}:
            self._save_args()  # again: upstream wrote them before the labels were read
            reason = "which shows the median training object at its native size, or at 32 px if it is larger"
            LOGGER.info(f"{colorstr('slice:')} auto is {tile} px, {reason}")

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> DataLoader:
        """Return upstream's loader; the one for training also tells the model the size and scale of its boxes.

        Args:
            dataset_path: Folder of the images.
            batch_size: Images in a batch.
            rank: Rank of the process in distributed training.
            mode: `train` or `val`.

        Raises:
            UserError: If there is no label, or `slice` is given to a model whose trainer builds data sets of its own.
        """
        try:
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        except ValueError as error:  # upstream's, without any label
            raise UserError(f"{error} To find out why: small-object check {self.args.data}") from error
        if mode == "train" and self.args.task in {"detect", "segment", "pose"}:  # their losses hold a BboxLoss
            self._set_nwd_scale(loader)
        if mode == "train" and self.args.task == "detect":
            if self.args.slice and not isinstance(loader.dataset, SlicedDataset):
                raise UserError(f"slice={self.args.slice} is not supported by the training of this kind of model")
            labels, tile = [with_shape(label) for label in loader.dataset.labels], getattr(loader.dataset, "tile", inf)
            sides = box_sides(labels, self.args.imgsz, tile).min(1)
            if (tiny := int((sides < TINY).sum())) and RANK in {-1, 0}:
                LOGGER.warning(
                    f"{tiny} of {len(sides)} training boxes are less than {TINY} px wide or high at "
                    f"imgsz={self.args.imgsz}; augmentation drops those of min_box={self.args.min_box:g} px and less. "
                    "Use slice= or a larger imgsz="
                )
            model = unwrap_model(self.model)  # these go into checkpoints; `slice=auto` asks for them
            model.object_size = object_size(labels)
            model.train_scale = median(self.args.imgsz / min(max(label["shape"]), tile) for label in labels)
        return loader

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Add an epoch's row to `results.csv`, which has columns for the sizes also before the first validation.

        Upstream writes values without their names, so a row must have the columns that the file began with.
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
            tile = getattr(loader.dataset, "tile", None)
            model.nwd_c = mean_box_size(map(with_shape, loader.dataset.labels), self.args.imgsz, tile)
            source = "the mean size of the training boxes in input pixels"
        else:
            model.nwd_c = float(self.args.nwd_c)
            source = "argument nwd_c"
        if RANK in {-1, 0}:
            LOGGER.info(f"{colorstr('NWD:')} {used}, C = {model.nwd_c:.2f} px ({source})")

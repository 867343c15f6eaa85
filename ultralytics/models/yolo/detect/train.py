"""Trains on slices, and tells a model about its data before the first step."""

from torch.utils.data import DataLoader, Dataset
from ultralytics.data.utils import get_split_fraction
from ultralytics.models.yolo.detect.train import DetectionTrainer as StockDetectionTrainer
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.loss import model_setting
from ultralytics.utils.torch_utils import unwrap_model

from small_object.arguments import BOX_TASKS, NEEDED_TO_SLICE
from small_object.errors import UserError
from small_object.sizes import SIZE_KEYS, measures_size
from small_object.slicing.dataset import SlicedDataset
from small_object.slicing.region import read_region
from small_object.training import fit_to_data

WHOLE = 1 << 30  # pixels: a tile larger than any image, so that `slice_roi` counts and nothing is cut


class DetectionTrainer(StockDetectionTrainer):
    """Upstream's trainer of detection models, which also trains on slices and tells models about their data."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Dataset:
        """Return upstream's data set or, for training with `slice`, a data set of tiles; see upstream."""
        if mode != "train" or not self.args.slice:
            return super().build_dataset(img_path, mode, batch)
        if self.args.slice_roi:
            read_region(self.args.slice_roi)  # a mistake shows before the first epoch
        args, stride = self.args, max(int(unwrap_model(self.model).stride.max()), 32)
        fraction = 1.0 if self.data.get("complete") else get_split_fraction(args.fraction, "train")
        dataset = SlicedDataset(  # with the arguments that upstream's `build_yolo_dataset` gives its data set
            img_path=img_path, imgsz=args.imgsz, batch_size=batch, augment=True, hyp=args, rect=args.rect,
            cache=args.cache or None, single_cls=args.single_cls or False, stride=stride, pad=0.0,
            prefix=colorstr("train: "), task=args.task, classes=args.classes, data=self.data, fraction=fraction,
        )  # fmt: skip
        if args.slice == "auto":
            args.slice = tile = dataset.tile[0]  # for the validation, `args.yaml` and checkpoints
            if RANK in {-1, 0}:
                self._save_args()  # again: upstream wrote them before the labels were read
                reason = "which shows the median training object at its native size, or at 32 px if it is larger"
                LOGGER.info(f"{colorstr('slice:')} auto is {tile} px, {reason}")
        return dataset

    def _close_dataloader_mosaic(self) -> None:
        """Train the last epochs without mosaics and without pasted objects."""
        paste, self.args.paste = self.args.paste, 0
        super()._close_dataloader_mosaic()
        self.args.paste = paste

    def validate(self) -> tuple[dict[str, float] | None, float | None]:
        """Validate; see upstream.

        With `slice_val`, only some epochs use tiles. The others have no fitness, so they choose and stop nothing.
        """
        args, best = self.validator.args, self.best_fitness
        if not args.slice or (self.epoch + 1) % args.slice_val == 0 or self.epoch + 1 >= self.epochs:
            return super().validate()
        tile, args.slice = args.slice, WHOLE
        try:
            return super().validate()[0], None
        finally:
            args.slice, self.best_fitness = tile, best

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> DataLoader:
        """Return upstream's loader; the one for training also tells the model the size and scale of its boxes.

        Raises:
            UserError: If there is no label, or `slice` is given for a model whose trainer builds its own data sets.
        """
        model, given = unwrap_model(self.model), self.args.paste
        try:
            self.args.paste = int(model_setting(getattr(model, "student_model", model), "paste"))
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        except UserError:
            raise
        except ValueError as error:  # upstream's, without any label
            raise UserError(f"{error} To find out why: small-object check {self.args.data}") from error
        finally:
            self.args.paste = given  # stock Ultralytics resumes checkpoints without the argument
        if mode == "train" and self.args.task in BOX_TASKS:
            if self.args.slice and not isinstance(loader.dataset, SlicedDataset):
                raise UserError(f"slice={self.args.slice} {NEEDED_TO_SLICE}")
            fit_to_data(self.model, loader.dataset, self.args)
        return loader

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Add an epoch's row to `results.csv`, with the columns by size even before the first validation.

        Upstream writes values without names, so each row must have the columns of the file's header.
        """
        if measures_size(self.args):
            metrics = {**metrics, **{key: 0.0 for key in SIZE_KEYS.values() if key not in metrics}}
            if self.csv.exists():
                with self.csv.open(encoding="utf-8") as file:
                    columns = file.readline().strip().split(",")[2:]  # after the epoch and the time
                metrics = {column: metrics.get(column, 0.0) for column in columns}
        super().save_metrics(metrics)

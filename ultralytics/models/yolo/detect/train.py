"""Gives the box loss of a model in training the scale of the normalised Wasserstein distance."""

from __future__ import annotations

from ultralytics.utils.torch_utils import unwrap_model
from ultralytics_overlay import require

from ultralytics.models.yolo.detect.train import DetectionTrainer as StockDetectionTrainer
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.loss import nwd_share
from ultralytics.utils.nwd import mean_box_size

require(
    "ultralytics.models.yolo.detect.train.DetectionTrainer._build_train_pipeline",
    hasattr(StockDetectionTrainer, "_build_train_pipeline"),
    "is gone",
)


class DetectionTrainer(StockDetectionTrainer):
    """Upstream's trainer of detection models, which also measures C, the scale of the NWD, on the training boxes."""

    def _build_train_pipeline(self) -> None:
        super()._build_train_pipeline()
        self._set_nwd_scale()

    def _set_nwd_scale(self) -> None:
        """Set `nwd_c` of the model to the mean size of the training boxes, before the EMA model is copied from it."""
        model = unwrap_model(self.model)
        model = getattr(model, "student_model", model)  # distillation: the student builds the loss
        share = nwd_share(model)
        if not share:
            return
        if self.args.nwd_c is None:
            model.nwd_c = mean_box_size(self.train_loader.dataset.labels, self.args.imgsz)
            source = "the mean size of the training boxes in input pixels"
        else:
            model.nwd_c = float(self.args.nwd_c)
            source = "argument nwd_c"
        if RANK in {-1, 0}:
            LOGGER.info(f"{colorstr('NWD:')} share {share:g} of the box loss, C = {model.nwd_c:.2f} px ({source})")

"""Saves pictures and videos of any name and size and COCO's JSON, and refuses `slice` where it isn't supported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ultralytics.engine.predictor import BasePredictor as StockBasePredictor
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imwrite

from small_object.arguments import NEEDED_TO_SLICE
from small_object.coco import PredictionWriter, build_writer
from small_object.errors import UserError
from small_object.images import readable_name

MAX_JPEG_SIDE = 65_500  # pixels


class BasePredictor(StockBasePredictor):
    """Upstream's predictor.

    Attributes:
        slices: Whether predictors of this class can run large images by tiles.
        picture: File of the last picture saved; None if it could not be written.
        writer: Writer of `predictions.json`; None without `save_json` and after the run.
    """

    slices = False
    picture: Path | None = None
    writer: PredictionWriter | None = None

    def setup_source(self, *args: Any, **kwargs: Any) -> None:
        """Set up the source; refuse `slice` if this predictor does not support it."""
        if getattr(self.args, "slice", 0) and not self.slices:
            raise UserError(f"slice={self.args.slice} {NEEDED_TO_SLICE}")
        super().setup_source(*args, **kwargs)

    def stream_inference(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield upstream's results. With `save_json`, also write them, even if the run is interrupted."""
        try:
            yield from super().stream_inference(*args, **kwargs)
        finally:
            if self.writer:
                self.writer.close()
                self.writer = None

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event; after those of a batch, write its results."""
        super().run_callbacks(event)
        if event == "on_predict_start":
            self.writer = build_writer(self.args, self.save_dir)
        elif event == "on_predict_batch_end" and self.writer:
            self.writer.add(self)

    def predict_cli(self, source: Any = None, model: Any = None) -> None:
        """Run the `yolo` command's prediction; report how many files could not be read.

        Raises:
            UserError: If no file could be read.
        """
        super().predict_cli(source, model)
        if unreadable := len(getattr(self.dataset, "unreadable", ())):
            num_files = len({*self.dataset.files, *self.dataset.unreadable})
            message = f"{unreadable} of {num_files} files could not be read; the warnings above say why"
            if not self.seen:
                raise UserError(message)
            LOGGER.warning(message)

    def write_results(self, i: int, p: Path, im: torch.Tensor, s: list[str]) -> str:
        """Save what the arguments ask for, under a name that OpenCV can write; see upstream."""
        return super().write_results(i, Path(readable_name(str(p))), im, s)

    def save_predicted_images(self, save_path: Path, frame: int | None = 0) -> None:
        """Save a picture, as PNG if it is too large for JPEG, or a frame of a video; see upstream."""
        if self.dataset.mode in {"stream", "video"}:
            super().save_predicted_images(save_path, frame)
            return
        file = save_path.with_suffix(".jpg")
        if max(self.plotted_img.shape) > MAX_JPEG_SIDE:
            file = save_path.with_suffix(".png")
            LOGGER.warning(f"{file}: saved as PNG, since JPEG allows at most {MAX_JPEG_SIDE} pixels per side")
        self.picture = file if imwrite(file, self.plotted_img) else None
        if self.picture is None:
            LOGGER.warning(f"{file}: can't be written")

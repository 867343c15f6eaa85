"""Refuses slicing where a predictor would silently leave it out."""

from __future__ import annotations

from typing import Any

from ultralytics.engine.predictor import BasePredictor as StockBasePredictor

from small_object.errors import UserError
from ultralytics_overlay import require_parameters

require_parameters(StockBasePredictor.setup_source)


class BasePredictor(StockBasePredictor):
    """Upstream's predictor.

    Attributes:
        slices: Whether predictors of this class run large images by tiles.
    """

    slices = False

    def setup_source(self, *args: Any, **kwargs: Any) -> None:
        """Set up the source; refuse `slice` if this predictor does not slice."""
        if getattr(self.args, "slice", 0) and not self.slices:
            raise UserError(f"slice={self.args.slice} is not supported by the prediction of this kind of model")
        super().setup_source(*args, **kwargs)

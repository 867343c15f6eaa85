"""Adds counts of slicing to results, and draws lines thin enough not to hide small objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from ultralytics.engine.results import Results as StockResults
from ultralytics.utils.plotting import colors

from ultralytics_overlay import require, require_parameters

require("ultralytics.engine.results.Results.new", callable(getattr(StockResults, "new", None)), "is missing")
require_parameters(StockResults.plot, "conf", "line_width")

LINE_WIDTH = 2  # pixels; upstream's grows with the image: in a 4K frame its 9 px would cover an object of 8 px


class Results(StockResults):
    """Upstream's results of an image with two counts of slicing, which indexing, `cpu()` and trackers keep.

    Attributes:
        tiles: Number of tiles run and number of tiles skipped; None if only the whole image was run.
        num_full: Number of objects found in the whole image, 0 without `slice_full`; None if only that was run.
    """

    tiles: tuple[int, int] | None = None
    num_full: int | None = None

    def new(self) -> Results:
        """Return results of the same image without objects."""
        result = super().new()
        result.tiles, result.num_full = self.tiles, self.num_full
        return result

    def plot(self, conf: bool = True, line_width: float | None = None, *args: Any, **kwargs: Any) -> Any:
        """Draw the results into the image, with lines of 2 px unless `line_width` is given; see upstream."""
        if hasattr(self.masks, "paint") and not args and kwargs.get("masks", True):  # crops of a sliced image
            image = np.array(self.orig_img if kwargs.get("img") is None else kwargs["img"])
            self.masks.paint(image, [colors(int(c), True) for c in self.boxes.cls])
            kwargs |= {"img": image, "masks": False}
        return super().plot(conf, line_width or LINE_WIDTH, *args, **kwargs)

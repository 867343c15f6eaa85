"""Results that know what slicing did, and whose pictures don't hide small objects under their lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from ultralytics.engine.results import Results as StockResults
from ultralytics.utils.plotting import colors

from ultralytics_overlay import require, require_parameters

require("ultralytics.engine.results.Results.new", callable(getattr(StockResults, "new", None)), "is missing")
require_parameters(StockResults.plot, "conf", "line_width")

LINE_WIDTH = 2  # pixels; upstream's grows with the image, to 9 in a 4K frame, which covers an object of 8 px


class Results(StockResults):
    """Upstream's results of an image with two facts about slicing, which indexing, `cpu()` and trackers keep.

    Attributes:
        tiles: How many tiles of the image were run and how many skipped; None if it was run as a whole only.
        num_full: How many objects the pass over the whole image found, 0 without `slice_full`; None likewise.
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
        if hasattr(self.masks, "paint") and not args and kwargs.get("masks", True):  # crops, of a sliced image
            image = np.array(self.orig_img if kwargs.get("img") is None else kwargs["img"])
            self.masks.paint(image, [colors(int(c), True) for c in self.boxes.cls])
            kwargs |= {"img": image, "masks": False}
        return super().plot(conf, line_width or LINE_WIDTH, *args, **kwargs)

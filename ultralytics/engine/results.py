"""Results that know what slicing did."""

from __future__ import annotations

from ultralytics.engine.results import Results as StockResults

from ultralytics_overlay import require

require("ultralytics.engine.results.Results.new", callable(getattr(StockResults, "new", None)), "is missing")


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

"""Lets the solutions, such as `yolo solutions count`, slice large images."""

from dataclasses import dataclass

from ultralytics.solutions.config import SolutionConfig as StockSolutionConfig

from small_object.arguments import DEFAULTS


@dataclass
class SolutionConfig(StockSolutionConfig):
    """Upstream's arguments of a solution, and those of slicing, which mean the same as for `track`."""

    slice: int | str = DEFAULTS["slice"]
    slice_overlap: float = DEFAULTS["slice_overlap"]
    slice_batch: int = DEFAULTS["slice_batch"]
    slice_full: bool | None = DEFAULTS["slice_full"]
    slice_iou: float = DEFAULTS["slice_iou"]
    slice_skip: float = DEFAULTS["slice_skip"]
    slice_roi: str | None = DEFAULTS["slice_roi"]

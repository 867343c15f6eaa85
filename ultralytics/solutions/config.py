"""Lets the solutions, such as `yolo solutions count`, slice large images."""

from __future__ import annotations

from dataclasses import dataclass

from ultralytics.solutions.config import SolutionConfig as StockSolutionConfig
from ultralytics.utils import SMALL_OBJECT_CFG_DICT as DEFAULT


@dataclass
class SolutionConfig(StockSolutionConfig):
    """Upstream's arguments of a solution, and those of slicing, which mean what they do for `track`."""

    slice: int | str = DEFAULT["slice"]
    slice_overlap: float = DEFAULT["slice_overlap"]
    slice_batch: int = DEFAULT["slice_batch"]
    slice_full: bool = DEFAULT["slice_full"]
    slice_skip: float = DEFAULT["slice_skip"]

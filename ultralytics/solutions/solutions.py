"""Passes the arguments of slicing to the tracker of a solution."""

from typing import Any

from ultralytics.solutions.solutions import BaseSolution as StockBaseSolution


class BaseSolution(StockBaseSolution):
    """Upstream's base of all solutions, which also tracks by tiles."""

    def __init__(self, is_cli: bool = False, **kwargs: Any) -> None:
        super().__init__(is_cli, **kwargs)
        self.track_add_args |= {key: value for key, value in self.CFG.items() if key.startswith("slice")}

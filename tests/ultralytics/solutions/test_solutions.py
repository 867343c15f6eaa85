"""Solutions take the arguments of slicing."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from ultralytics.solutions import solutions
from ultralytics.solutions.config import SolutionConfig


class Tracker:
    names: ClassVar[dict[int, str]] = {}
    predictor = SimpleNamespace(trackers=[SimpleNamespace(removed_stracks_frame=[])])

    def __init__(self, model: str) -> None:
        self.arguments: dict[str, Any] = {}

    def track(self, source: Any, **arguments: Any) -> list[Any]:
        self.arguments = arguments
        return [SimpleNamespace(obb=None, boxes=None, masks=None)]


def test_a_solution_tracks_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shapely", "shapely.geometry", "shapely.prepared"):  # which upstream installs when a solution starts
        module = ModuleType(name)
        vars(module).update(LineString=None, Point=None, Polygon=None, prep=None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(solutions, "check_requirements", lambda _: None)
    monkeypatch.setattr(solutions, "YOLO", Tracker)
    solution = solutions.BaseSolution(model="tiny.pt", slice=640, slice_full=False)
    solution.extract_tracks(None)
    sliced = {key: value for key, value in solution.model.arguments.items() if key.startswith("slice")}
    assert sliced == {
        "slice": 640, "slice_overlap": 0.2, "slice_batch": 8, "slice_full": False, "slice_skip": 0.0, "slice_iou": 0.5,
        "slice_roi": None,
    }  # fmt: skip
    assert SolutionConfig().slice == 0

"""Model YAML files with mistakes in the rows of this fork's blocks."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel

from small_object.errors import UserError
from tests.stress.fuzz.values import RESULT, clear, odd, spoil, spoil_text

FORK_BLOCKS = {"DualConv", "DWR", "C3k2DWR", "ScreeningLateral", "ScreeningFusion", "LightDetect"}


@st.composite
def models(draw: Callable[..., Any]) -> tuple[dict[str, Any] | str, bool]:
    """Make a small model of all blocks of this fork, with none to three mistakes in their rows or its own keys.

    It is a dictionary or the text of a file; with it comes whether nothing in it is wrong.
    """
    width, group = st.sampled_from([8, 16, 24]), st.sampled_from([1, 2, 4])
    pyramid, mid = draw(width), draw(width)
    fusion = draw(st.sampled_from([[], [2], [4], [1]]))
    block = [draw(width), draw(st.booleans()), draw(st.sampled_from([0.5, 1.0])), False, 1, draw(st.booleans())]
    d = {
        "nc": 2,
        "backbone": [
            [-1, 1, "Conv", [8, 3, 2]],
            [-1, 1, "DualConv", [mid, 2, *draw(st.lists(group, max_size=1))]],
            [-1, draw(st.integers(1, 2)), "C3k2DWR", block[: draw(st.integers(1, 6))]],
            [-1, 1, "DWR", [draw(width), *draw(st.lists(st.booleans(), max_size=1))]],
            [-1, 1, "DualConv", [16, 2]],
        ],
        "head": [
            [-1, 1, "ScreeningLateral", [pyramid]],
            [3, 1, "ScreeningLateral", [pyramid, *draw(st.lists(group, max_size=1))]],
            [[5, 6], 1, "ScreeningFusion", fusion],
            [[7, 5], 1, draw(st.sampled_from(["Detect", "LightDetect"])), ["nc"]],
        ],
    }
    if draw(st.booleans()):
        d["scales"] = {"n": [0.5, 1.0, 1024]}
    for key in draw(st.sets(st.sampled_from(["nwd", "nwd_assign"]))):
        d[key] = draw(st.sampled_from([0, 0.5, 1]))

    def has_our_block(value: dict[str, Any], path: tuple) -> bool:
        if path[0] in {"nwd", "nwd_assign", "scales"}:
            return True
        if path[0] not in {"backbone", "head"} or len(path) == 1 or not isinstance(value[path[0]], list):
            return False
        row = value[path[0]][path[1]]
        return isinstance(row, list) and any(isinstance(part, str) and part in FORK_BLOCKS for part in row)

    wrong = spoil(draw, d, 3, has_our_block)
    for key in draw(st.sets(st.sampled_from(["nwd", "nwd_assign", "scales", "nc", "backbone", "head"]), max_size=1)):
        if draw(st.integers(0, 3)) == 0:
            d[key] = draw(odd)
            wrong += 1
    if draw(st.integers(0, 3)):
        return d, not wrong
    text = yaml.safe_dump(d, default_flow_style=None, sort_keys=False, allow_unicode=True)
    if not wrong and draw(st.booleans()):
        return text, True
    return spoil_text(draw, text), False


def run_model(case: tuple[dict[str, Any] | str, bool], folder: Path) -> str:
    """Build a model and run it."""
    (content, sound), name = case, "model YAML"
    given = deepcopy(content)
    if isinstance(given, str):
        file = folder / "fuzzed.yaml"
        file.write_bytes(given.encode("utf-8", "surrogatepass"))
        given, name = str(file), file.name
    try:
        model = DetectionModel(given, verbose=False) if isinstance(given, dict) else YOLO(given, task="detect").model
    except UserError as error:
        assert not sound, f"refused: {error}"
        return clear(error, name)
    strides = model.stride.tolist()
    assert not sound or strides == [4, 8], strides
    if not isinstance(model.model[-1], Detect):
        return RESULT  # upstream does not run a model without a head, and nothing can be done with it
    # 64 pixels are whole cells of the usual strides; upstream's command line rounds sizes likewise
    side = 64 if all(stride in {1, 2, 4, 8, 16, 32, 64} for stride in strides) else 256
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, side, side))
    anchors = sum(round(side / stride) ** 2 for stride in strides)
    assert output[0].shape == (1, 4 + model.model[-1].nc, anchors), output[0].shape
    return RESULT

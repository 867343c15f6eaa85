"""Values of this fork's arguments, given to `get_cfg` and to the `yolo` command."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from ultralytics import YOLO, cfg
from ultralytics.nn.tasks import DetectionModel

from tests.stress.fuzz.models import tiny_model, tiny_weights
from tests.stress.fuzz.values import RESULT, clear, odd, plain, whole, words


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Say whether a value is a number of a range to upstream, to which True is 1."""
    return isinstance(value, (int, float)) and low <= value <= high


def is_whole(value: Any, low: int) -> bool:
    """Say whether a value is a finite number without a fraction, and no less than `low`."""
    return is_number(value, low) and value < math.inf and value == int(value)


# What each argument may be, as README and small_object.yaml tell users.
ACCEPTED: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("nwd", "nwd_assign"), lambda v: v is None or is_number(v, 0, 1)),
    **dict.fromkeys(
        ("slice_iou", "slice_skip", "slice_full_ratio", "slice_keep", "slice_empty"), lambda v: is_number(v, 0, 1)
    ),
    **dict.fromkeys(("size_metrics", "slice_full"), lambda v: isinstance(v, bool)),
    "nwd_c": lambda v: v is None or (is_number(v, 0, sys.float_info.max) and v > 0),
    "slice": lambda v: v is None or v == "auto" or is_whole(v, 64) or (is_number(v) and v == 0),
    "slice_overlap": lambda v: is_number(v, 0, 0.9),
    "slice_batch": lambda v: is_whole(v, 1),
}


@dataclass(frozen=True)
class ArgumentCase:
    """Some arguments with their values, or the texts of these in a command, and the mode of that."""

    values: dict[str, Any]
    mode: str | None = None  # None: not by a command
    task: str = "detect"  # of a call


likely_values = [None, True, False, 0, 0.0, 1, 1.0, 0.5, 0.9, 0.91, 63, 64, 64.5, 640, 640.0, 8, 2, "auto", -1]
argument_values = st.one_of(
    odd, st.sampled_from(likely_values), st.binary(max_size=3), st.tuples(plain, plain), st.complex_numbers(),
    st.frozensets(whole, max_size=2), st.floats(), st.integers(),
)  # fmt: skip
argument_texts = st.one_of(
    argument_values.filter(lambda v: not isinstance(v, int) or abs(v) < 10**300).map(repr), words
)


@st.composite
def arguments(draw: Callable[..., Any]) -> ArgumentCase:
    """Make one to three of this fork's arguments, in a call or a command."""
    mode, values = draw(st.sampled_from([None, None, None, "train", "val", "predict"])), {}
    for name in draw(st.lists(st.sampled_from(sorted(ACCEPTED)), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            value = draw(st.sampled_from([value for value in likely_values if ACCEPTED[name](value)]))
            values[name] = str(value) if mode else value
        else:
            values[name] = draw(argument_texts if mode else argument_values)
    return ArgumentCase(values, mode, draw(st.sampled_from(["detect", "detect", "segment"])))


class Engine:
    """Stands in for a trainer, validator or predictor: takes their arguments as they do, and does nothing."""

    reached: list[Any]

    def __init__(self, overrides: dict[str, Any] | None = None, args: dict[str, Any] | None = None, **_: Any) -> None:
        self.args = cfg.get_cfg(overrides=overrides or args)
        self.reached.append(self.args)
        self.metrics, self.best, self.validator = None, tiny_weights(), self

    def __call__(self, *_: Any, **__: Any) -> list:
        """Do nothing."""
        return []

    setup_model = predict_cli = train = __call__


def run_arguments(case: ArgumentCase, folder: Path) -> str:
    """Give the arguments to `get_cfg`, or to the `yolo` command with engines that do nothing."""
    if case.mode is None:
        wrong = [name for name, value in case.values.items() if not ACCEPTED[name](value)]
        if case.values.get("slice") and case.task != "detect":
            wrong.append("slice")
        try:
            found = cfg.get_cfg(overrides={"task": case.task, **case.values})
        except (TypeError, ValueError) as error:
            assert wrong, f"refused: {error}"
            assert any(f"'{name}=" in str(error) for name in wrong), f"names none of {wrong}: {error!r}"
            return clear(" ".join(str(error).split()))  # as the command writes it: a value may have several lines
        assert not wrong, f"accepted: {wrong}"
        for name, value in case.values.items():
            assert getattr(found, name) == value
        return RESULT
    texts = case.values
    wrong = [name for name, text in texts.items() if not ACCEPTED[name](cfg.smart_value(text.strip()))]
    reached: list[Any] = []
    engine = type("Engine", (Engine,), {"reached": reached})
    tasks = {"detect": {"model": DetectionModel} | dict.fromkeys(("trainer", "validator", "predictor"), engine)}
    command = ["yolo", "detect", case.mode, f"model={tiny_model()}", "data=data.yaml", "source=none.png"]
    command += [f"{name}={text}" for name, text in texts.items()]
    plain_text = all(text and text.strip() == text and not set(text) & set("=,[]{}()") for text in texts.values())
    said = io.StringIO()
    with (
        mock.patch.object(YOLO, "task_map", tasks),
        mock.patch.object(cfg, "ARGV", command),
        mock.patch("ultralytics.engine.model.ARGV", command),
        mock.patch("ultralytics.utils.checks.check_pip_update_available", lambda: None),
        contextlib.redirect_stdout(said),
    ):
        try:
            cfg.entrypoint()
        except SystemExit as end:
            assert isinstance(end.code, str) and end.code.startswith("yolo: "), end.code
            assert wrong or not plain_text, f"refused: {end.code}"
            assert any(name in end.code for name in wrong or texts), f"names none of {wrong}: {end.code}"
            return clear(end.code)
    assert not wrong or not plain_text, f"accepted: {wrong}"
    assert reached, "no engine was started"
    return RESULT

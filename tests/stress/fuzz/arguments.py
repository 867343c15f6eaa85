"""Values of this fork's arguments, given to `get_cfg`."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from ultralytics.cfg import get_cfg

from tests.stress.fuzz.values import RESULT, clear, odd, plain, whole


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


likely_values = [None, True, False, 0, 0.0, 1, 1.0, 0.5, 0.9, 0.91, 63, 64, 64.5, 640, 640.0, 8, 2, "auto", -1]
argument_values = st.one_of(
    odd, st.sampled_from(likely_values), st.binary(max_size=3), st.tuples(plain, plain), st.complex_numbers(),
    st.frozensets(whole, max_size=2), st.floats(), st.integers(),
)  # fmt: skip


@st.composite
def arguments(draw: Callable[..., Any]) -> dict[str, Any]:
    """Make one to three of this fork's arguments, and a task."""
    values = {}
    for name in draw(st.lists(st.sampled_from(sorted(ACCEPTED)), min_size=1, max_size=3, unique=True)):
        right = st.sampled_from([value for value in likely_values if ACCEPTED[name](value)])
        values[name] = draw(right | argument_values)
    return {"task": draw(st.sampled_from(["detect", "detect", "segment"])), **values}


def run_arguments(case: dict[str, Any], folder: Path) -> str:
    """Give the arguments to `get_cfg`."""
    wrong = [name for name, value in case.items() if name in ACCEPTED and not ACCEPTED[name](value)]
    if case.get("slice") and case["task"] != "detect":
        wrong.append("slice")
    try:
        found = get_cfg(overrides=case)
    except (TypeError, ValueError) as error:
        assert wrong, f"refused: {error}"
        assert any(f"'{name}=" in str(error) for name in wrong), f"names none of {wrong}: {error!r}"
        return clear(" ".join(str(error).split()))  # as the command writes it: a value may have several lines
    assert not wrong, f"accepted: {wrong}"
    for name, value in case.items():
        assert getattr(found, name) == value
    return RESULT

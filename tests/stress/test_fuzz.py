"""Random inputs end with a result or one clear error; inputs that once did not are listed here."""

import json
import math
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.stress import fuzz
from tests.stress.fuzz.data import COCO
from tests.stress.fuzz.values import ERROR, RESULT

# Enough inputs that most kinds of mistakes come up, in a few seconds. For more:
# FUZZ_EXAMPLES=2000 python -m pytest --timeout=0 tests/stress/test_fuzz.py
EXAMPLES = {
    "models": 40, "labels": 10, "data": 20, "images": 15, "exports": 4, "files": 20, "lists": 12,
    "coco": 15, "voc": 12,
}  # fmt: skip


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_inputs_end_with_a_result_or_a_clear_error(kind: str) -> None:
    ended, examples = set(), int(os.environ.get("FUZZ_EXAMPLES", EXAMPLES[kind]))

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(fuzz.KINDS[kind].inputs)
    def each(case: Any) -> None:
        ended.add(fuzz.run(kind, case))

    each()
    assert ended == {RESULT} if kind in {"images", "exports"} else {RESULT, ERROR}


GOOD = {
    "nc": 2,
    "scales": {"n": [0.5, 1.0, 1024]},
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "DualConv", [16, 2]], [-1, 2, "C3k2DWR", [16]]],
    "head": [
        [-1, 1, "DWR", [16]], [-1, 1, "DualConv", [16, 2]], [[4, 3], 1, "ScreeningFusion", []],
        [[5, 4], 1, "LightDetect", ["nc"]],
    ],
}  # fmt: skip
ROWS = GOOD["backbone"][:2]
MODELS = [
    {"nc": "many"}, {"backbone": None}, {"backbone": [None, *GOOD["backbone"]]}, {"scale": "s"},
    {"scales": {"n": [0.5, 1.0]}}, {"backbone": [*ROWS, [-1, 1, [], [8]]]},
    {"scales": {"n": [0.5, math.inf, 1024]}}, {"backbone": [*ROWS, [-1, 1, "C3k2\nDWR", [16]]]},
    {"backbone": [*ROWS, [-1, 1, "DualConv", [math.nan]]]},
    {"backbone": [*ROWS, [-1, 1, "DualConv", [10**400]]], "scales": None},
]  # fmt: skip
TEXTS = "", " \n", "a: [", "- a\n- b\n", "text", "\x00", "{", "!!python/x y"
BOX, POLYGON = b"0 0.5 0.5 0.2 0.2\n", b"1 0.1 0.1 0.4 0.1 0.4 0.3\n"
LABELS = (
    BOX + POLYGON, POLYGON + BOX, BOX + b"\n" + POLYGON, b"0 .4 1e39 0 0.5", b"0 0.5 -0.5 0.1 0",
    b"0 0.5 0.5 0.1 -0.005",
)  # fmt: skip
CLASSES = "train: images/train\nval: images/val\n"
CHANNELS = "[]", "{a: 1}", "text", "0", "3.0", "true", "null"
NAMES = "a\x85b", "\u2028.png", "../a\nb.png", "a\nb.png"
REGRESSIONS = [  # inputs that end with a clear error
    *(("models", (GOOD | change, False)) for change in MODELS),
    *(("models", (text, False)) for text in TEXTS),
    *(("labels", (lines, None)) for lines in LABELS),
    ("data", ("train: ''\nval: ''\nnames: [a, b]\n", False)),
    *(("data", (f"{CLASSES}nc: {count}\n", False)) for count in (10**9, 1e9, 10**400)),
    *(("data", (f"{CLASSES}names: [a, b]\nchannels: {channels}\n", False)) for channels in CHANNELS),
    *(("coco", (json.dumps(COCO | {"images": [COCO["images"][0] | {"file_name": name}]}), False)) for name in NAMES),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "case"), REGRESSIONS)
def test_an_input_that_once_ended_unhandled(kind: str, case: Any) -> None:
    assert fuzz.run(kind, case) == ERROR

"""Random inputs end with a result or one clear error; inputs that once did not are listed here."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.cfg import check_cfg, entrypoint, get_cfg
from ultralytics.nn.tasks import DetectionModel

from small_object.datasets.labels import check_lines, parse_labels
from small_object.errors import UserError
from small_object.slicing.merge import merge
from small_object.slicing.tiling import tile_grid
from tests.stress.fuzz import __main__ as fuzz
from tests.stress.fuzz.arguments import ArgumentCase
from tests.stress.fuzz.data import COCO
from tests.stress.fuzz.values import ERROR, RESULT, clear

# Enough inputs that most kinds of mistakes come up, in a few seconds; `python -m tests.stress.fuzz` runs more.
EXAMPLES = {
    "models": 50, "arguments": 80, "labels": 12, "data": 30, "images": 25, "coco": 20, "voc": 16,
}  # fmt: skip


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_inputs_end_with_a_result_or_a_clear_error(kind: str) -> None:
    ended = set()

    @settings(max_examples=EXAMPLES[kind], deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(fuzz.KINDS[kind].inputs)
    def each(case: Any) -> None:
        ended.add(fuzz.run(kind, case))

    each()
    assert ended == {RESULT} if kind == "images" else {RESULT, ERROR}


def test_every_end_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(case: int, folder: Path) -> str:
        if case == 3:
            time.sleep(5)
        if case == 2:
            raise KeyError("deep inside")
        return clear("a.txt:1: has no box", "a.txt") if case else RESULT

    monkeypatch.setattr(fuzz, "LIMIT", 0.2)
    monkeypatch.setitem(fuzz.KINDS, "models", fuzz.Kind("numbers", st.integers(0, 3), end))
    assert fuzz.main(["--kinds", "models", "--examples", "50", "--out", str(tmp_path / "table.md")]) == 1
    assert "| models | numbers | 4 | 1 | 1 | 2 | " in (tmp_path / "table.md").read_text()


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
MISTAKES = {
    "classes as text": ({"nc": "many"}, "`nc`"),
    "no backbone": ({"backbone": None}, "`backbone`"),
    "a first row that is none": ({"backbone": [None, *GOOD["backbone"]]}, "row 0 "),
    "scales of two numbers": ({"scales": {"n": [0.5, 1.0]}}, "`scales`"),
    "scales without that of the name": ({"scale": "s"}, "'s'"),
    "an infinite width": ({"scales": {"n": [0.5, math.inf, 1024]}}, "width"),
    "a module with a line break": ({"backbone": [*ROWS, [-1, 1, "C3k2\nDWR", [16]]]}, "row 2 "),
    "a width of NaN": ({"backbone": [*ROWS, [-1, 1, "DualConv", [math.nan]]]}, "row 2 "),
    "a width beyond all memory": ({"backbone": [*ROWS, [-1, 1, "DualConv", [10**400]]], "scales": None}, "row 2 "),
}


def assert_one_error(model: dict[str, Any] | str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        DetectionModel(model, verbose=False)
    clear(caught.value, named)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_model(case: str) -> None:
    changed, named = MISTAKES[case]
    assert_one_error(GOOD | changed, named)


@pytest.mark.parametrize("text", ["", " \n", "a: [", "- a\n- b\n", "text", "\x00", "{", "!!python/x y"])
def test_a_model_file_that_is_not_a_mapping(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    assert_one_error(str(file), "broken.yaml")
    with pytest.raises(SystemExit, match=r"yolo: .*broken\.yaml"):
        entrypoint(f"yolo detect train model={file} data=data.yaml")


def test_a_misspelt_head_is_named_where_the_task_is_guessed_from_it(tmp_path: Path) -> None:
    assert DetectionModel(GOOD | {}, verbose=False).stride.tolist() == [4, 8]
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"head": [*GOOD["head"][:-1], [[5, 4], 1, "Dettect", ["nc"]]]}))
    with pytest.raises(UserError, match=r"broken\.yaml: row 6 .*did you mean 'Detect'"):
        YOLO(file)


@pytest.mark.parametrize("value", [math.nan, -math.inf, [], "", frozenset(), [640], 64.5, "64", b"auto", True])
def test_a_wrong_tile_size(value: object) -> None:
    with pytest.raises(TypeError, match=r"'slice=.*must be a whole number of pixels, 0 or 'auto'"):
        get_cfg(overrides={"slice": value})


@pytest.mark.parametrize("value", [10**400, math.inf])
def test_a_scale_that_no_float_can_hold(value: float) -> None:
    with pytest.raises(ValueError, match=r"'nwd_c=.*finite and greater than 0"):
        check_cfg({"nwd_c": value})


@pytest.mark.parametrize("given", ["slice=[1", "nwd=[0.5", "slice_batch=1]"])
def test_a_bracket_that_is_not_closed(given: str) -> None:
    with pytest.raises(SystemExit, match=f"^yolo: .*{re.escape(given)}"):
        entrypoint(f"yolo detect train model=yolo11n.yaml data=data.yaml {given}")


BOX, POLYGON = "0 0.5 0.5 0.2 0.2\n", "1 0.1 0.1 0.4 0.1 0.4 0.3\n"


@pytest.mark.parametrize("lines", [BOX + POLYGON, POLYGON + BOX, BOX + "\n" + POLYGON])
def test_boxes_among_polygons_are_left_out_of_statistics_and_training(lines: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt:[23]: is a (box|polygon) among"):
        parse_labels(lines, "a.txt")


@pytest.mark.parametrize("line", ["0 .4 1e39 0 0.5", "0 0.5 -0.5 0.1 0", "0 0.5 0.5 0.1 -0.005"])
def test_a_box_without_a_size_costs_the_image_where_training_drops_it(line: str) -> None:
    (read,) = check_lines(line, 2, (96, 72))
    assert [kind for kind, _ in read.faults] == ["no-size"] and "leaves the whole image out" in read.faults[0][1]


CLASSES = "train: images/train\nval: images/val\n"
CHANNELS = "[]", "{a: 1}", "text", "0", "3.0", "true", "null"
NAMES = "a\x85b", "\u2028.png", "../a\nb.png", "a\nb.png"
REGRESSIONS = [  # inputs that end with a clear error
    ("arguments", ArgumentCase({"size_metrics": "a\nb"}, "predict")),
    ("labels", (POLYGON + BOX).encode()),  # compares stats, check, fix and both loaders with upstream
    ("labels", b"0 .4 1e39 0 0.5"),
    ("data", ("train: ''\nval: ''\nnames: [a, b]\n", False)),
    *(("data", (f"{CLASSES}nc: {count}\n", False)) for count in (10**9, 1e9, 10**400)),
    *(("data", (f"{CLASSES}names: [a, b]\nchannels: {channels}\n", False)) for channels in CHANNELS),
    *(
        ("coco", (json.dumps(COCO | {"images": [COCO["images"][0] | {"file_name": name}]}), False)) for name in NAMES
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "case"), REGRESSIONS)
def test_an_input_that_once_ended_unhandled(kind: str, case: Any) -> None:
    assert fuzz.run(kind, case) == ERROR


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", range(5))
def test_boxes_and_scores_must_be_finite(value: float, column: int) -> None:
    rows, one = torch.tensor([[10.0, 10, 20, 20, 0.5]]), torch.zeros(1, dtype=torch.long)
    rows[0, column] = value
    with pytest.raises(ValueError, match="finite"):
        merge(rows[:, :4], rows[:, 4], one, one, tile_grid(64, 64, 64, 0.0), (64, 64))


def test_huge_boxes_take_no_time_and_do_not_affect_others() -> None:
    small = torch.tensor([[10.0, 10, 20, 20], [11, 10, 20, 20], [40, 40, 50, 50]])
    huge = torch.tensor([[0.0, 1e9, 3e38, 1e9], [-3e38, 0, 0, 1]])
    boxes, scores = torch.cat((small, huge)), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    started = time.perf_counter()
    found = merge(boxes, scores, torch.zeros(5), torch.full((5,), -1), tile_grid(64, 64, 64, 0.0), (64, 64))
    assert time.perf_counter() - started < 5
    assert found.index.tolist() == [0, 2, 3, 4]

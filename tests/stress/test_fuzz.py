"""Made-up inputs end with a result or one clear error; those that once did not are named here."""

from __future__ import annotations

import json
import math
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.cfg import check_cfg, entrypoint, get_cfg
from ultralytics.nn.tasks import DetectionModel

from small_object.datasets.archives import extract
from small_object.datasets.labels import check_lines, parse_labels
from small_object.errors import UserError
from small_object.slicing.merge import merge
from small_object.slicing.tiling import tile_grid
from tests.stress import fuzz

ROOT = Path(__file__).resolve().parents[2]

# Inputs of each kind: enough that most kinds of mistakes come up, in a few seconds; `tests/stress/fuzz.py` runs more.
EXAMPLES = {
    "models": 60, "arguments": 80, "labels": 16, "data": 40, "images": 30, "merges": 100, "coco": 25, "voc": 20,
    "archives": 80,
}  # fmt: skip


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_inputs_end_with_a_result_or_a_clear_error(kind: str) -> None:
    if kind in {"coco", "voc"}:
        pytest.importorskip("supervision")
    ended = set()

    @settings(max_examples=EXAMPLES[kind], deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(fuzz.KINDS[kind].inputs)
    def each(case: Any) -> None:
        ended.add(fuzz.run(kind, case))

    each()
    assert ended == {fuzz.RESULT} if kind == "images" else {fuzz.RESULT, fuzz.ERROR}


# What the benchmark counts --------------------------------------------------------------------------------------------


def test_every_end_is_counted_as_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(case: int, folder: Path) -> str:
        assert folder.is_dir() and not list(folder.iterdir())
        if case == 3:
            time.sleep(5)
        if case == 2:
            raise KeyError("deep inside")
        return fuzz.clear("a.txt:1: has no box", "a.txt") if case else fuzz.RESULT

    monkeypatch.setattr(fuzz, "LIMIT", 0.2)
    monkeypatch.setitem(fuzz.KINDS, "models", fuzz.Kind("numbers", st.integers(0, 3), end))
    out = tmp_path / "table.md"
    assert fuzz.main(["--kinds", "models", "--examples", "50", "--out", str(out)]) == 1
    row = next(line for line in out.read_text().splitlines() if line.startswith("| models"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["models", "numbers", "4", "1", "1", "2"]
    counts = fuzz.count("models", 50, 0)
    assert counts.ended == {fuzz.RESULT: 1, fuzz.ERROR: 1, "unhandled": 2}
    assert sorted(case for case, _ in counts.unhandled.values()) == [2, 3]
    assert any("Overtime" in trace for _, trace in counts.unhandled.values())
    assert fuzz.count("models", 50, 0, seconds=-1).ended.total() == 0


@pytest.mark.parametrize("text", ["", " \n", "two\nlines", "b.txt: has no box"])
def test_an_error_of_several_lines_or_without_the_name_is_not_clear(text: str) -> None:
    with pytest.raises(AssertionError):
        fuzz.clear(text, "a.txt")


# Model YAMLs ----------------------------------------------------------------------------------------------------------

GOOD = {
    "nc": 2,
    "scales": {"n": [0.5, 1.0, 1024]},
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "DualConv", [16, 2]], [-1, 2, "C3k2DWR", [16]]],
    "head": [
        [-1, 1, "DWR", [16]],
        [-1, 1, "DualConv", [16, 2]],
        [[4, 3], 1, "ScreeningFusion", []],
        [[5, 4], 1, "LightDetect", ["nc"]],
    ],
}
KEYS = {
    "no classes": ({"nc": None}, "`nc`"),
    "classes as text": ({"nc": "many"}, "`nc`"),
    "fewer than no classes": ({"nc": -2}, "`nc`"),
    "a backbone of nothing": ({"backbone": []}, "`backbone`"),
    "a backbone as text": ({"backbone": "d"}, "`backbone`"),
    "no backbone": ({"backbone": None}, "`backbone`"),
    "a first row that is none": ({"backbone": [None, *GOOD["backbone"]]}, "row 0 "),
    "a first row of three": ({"backbone": [[-1, 1, "Conv"]]}, "row 0 "),
    "scales as a list": ({"scales": [0.5, 1.0, 1024]}, "`scales`"),
    "scales of two numbers": ({"scales": {"n": [0.5, 1.0]}}, "`scales`"),
    "scales of texts": ({"scales": {"n": [0.5, "1.0", 1024]}}, "`scales`"),
    "scales below 0": ({"scales": {"n": [0.5, -1.0, 1024]}}, "`scales`"),
    "scales without that of the name": ({"scale": "s"}, "'s'"),
    "a width without end": ({"scales": {"n": [0.5, math.inf, 1024]}}, "width"),
    "a depth that is built for hours": (
        {"scales": {"n": [1e9, 1.0, 1024]}, "backbone": [*GOOD["backbone"][:2], [-1, 2, "DWR", [16]]]},
        "depth",
    ),
}
ROWS = {  # of the backbone, its last
    "repeats that are built for hours": ([-1, 10**9, "DualConv", [16, 1]], "repeats"),
    "a module with a line break": ([-1, 1, "C3k2\nDWR", [16]], "unknown module"),
    "no arguments": ([-1, 1, "C3k2DWR", []], "has no arguments, but needs at least the first of: c2, c3k"),
    "too many arguments": ([-1, 1, "DualConv", [16, 2, 4, 1]], "has 4 arguments, but DualConv takes at most 3"),
    "a dictionary as width": ([-1, 1, "ScreeningLateral", [{}]], "c2 must be a whole number from 1, not {}"),
    "a width of NaN": ([-1, 1, "ScreeningLateral", [math.nan]], "c2 must be a whole number from 1"),
    "a list as stride": ([-1, 1, "DualConv", [16, []]], "s must be a whole number from 1, not []"),
    "a stride of 0": ([-1, 1, "DualConv", [16, 0]], "s must be a whole number from 1, not 0"),
    "a fraction as groups": ([-1, 1, "DualConv", [16, 1, 2.0]], "g must be a whole number from 1, not 2.0"),
    "True as groups": ([-1, 1, "DualConv", [16, 1, True]], "g must be a whole number from 1, not True"),
    "a share of NaN": ([-1, 1, "C3k2DWR", [16, False, math.nan]], "e must be a number greater than 0"),
    "a number as shortcut": ([-1, 1, "DWR", [16, 7]], "shortcut must be True or False, not 7"),
    "a list as reduction": ([-1, 1, "ScreeningLateral", [16, [4]]], "reduction must be a whole number"),
    "a number as upsampling": ([[1, 0], 1, "ScreeningFusion", [4, 2]], "up must be a text, not 2"),
    "a width without end": ([-1, 1, "DualConv", [10**400, 1]], "row 2 "),
    "a width beyond all memory": ([-1, 1, "DualConv", [10**9, 1]], "row 2 "),
}


def error_of(model: dict[str, Any] | str) -> str:
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        DetectionModel(model, verbose=False)
    assert time.perf_counter() - started < 10
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000
    return message


def test_the_model_without_a_mistake_is_built() -> None:
    assert DetectionModel(GOOD | {}, verbose=False).stride.tolist() == [4, 8]


@pytest.mark.parametrize("case", KEYS)
def test_mistake_in_a_key(case: str) -> None:
    changed, named = KEYS[case]
    assert named in error_of(GOOD | changed)


@pytest.mark.parametrize("case", ROWS)
def test_mistake_in_a_row_of_ours(case: str) -> None:
    row, said = ROWS[case]
    keys = {"scales": None} if "width" in case else {}  # which would limit it
    message = error_of(GOOD | keys | {"backbone": [*GOOD["backbone"][:2], row]})
    assert "row 2 " in message and said in message


def test_a_head_is_not_repeated() -> None:
    assert "repeats must be 1" in error_of(GOOD | {"head": [*GOOD["head"][:-1], [[5, 4], 2, "LightDetect", ["nc"]]]})


@pytest.mark.parametrize(
    "text", ["a: [", "nc: 2\nbackbone: &a\n - *b\n", "- a\n- b\n", "text", "\x00", "{", "!!python/x y"]
)
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    assert "broken.yaml" in error_of(str(file))
    with pytest.raises(SystemExit, match=r"yolo: .*broken\.yaml"):
        entrypoint(f"yolo detect train model={file} data=data.yaml")


def test_a_misspelt_head_is_named_where_the_task_is_guessed_from_it(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"head": [*GOOD["head"][:-1], [[5, 4], 1, "Dettect", ["nc"]]]}))
    with pytest.raises(UserError, match=r"broken\.yaml: row 6 .*did you mean 'Detect'"):
        YOLO(file)


def test_a_module_that_upstream_replaces_is_known(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    head = [*GOOD["head"][:2], [[5, 4], 1, "ScreeningFusion", []], [[6, 5], 1, "LightDetect", ["nc"]]]  # one row down
    file.write_text(yaml.safe_dump(GOOD | {"backbone": [[-1, 1, "Silence", []], *GOOD["backbone"]], "head": head}))
    assert DetectionModel(str(file), verbose=False).stride.tolist() == [4, 8]


# Arguments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [], "", {}, frozenset(), [640], 64.5, "64", (), b"auto", True]
)
def test_what_is_no_side_of_tiles(value: object) -> None:
    with pytest.raises(TypeError, match=r"'slice=.*must be a whole number of pixels, 0 or 'auto'"):
        get_cfg(overrides={"slice": value})


@pytest.mark.parametrize("value", [None, False, 0, 0.0, 64, 640.0, "auto"])
def test_what_is_a_side_of_tiles(value: object) -> None:
    assert get_cfg(overrides={"slice": value}).slice == value


@pytest.mark.parametrize("value", [10**400, math.inf])
def test_a_scale_that_no_float_can_hold(value: float) -> None:
    with pytest.raises(ValueError, match=r"'nwd_c=.*finite and greater than 0"):
        check_cfg({"nwd_c": value})


@pytest.mark.parametrize("given", ["slice=[1", "nwd=[0.5", "slice_batch=1]"])
def test_a_bracket_that_is_not_closed(given: str) -> None:
    with pytest.raises(SystemExit, match=f"^yolo: .*{re.escape(given)}"):
        entrypoint(f"yolo detect train model=yolo11n.yaml data=data.yaml {given}")


def test_a_value_of_two_lines_is_told_in_one(tmp_path: Path) -> None:
    assert fuzz.run("arguments", fuzz.ArgumentCase({"size_metrics": "a\nb"}, "predict")) == fuzz.ERROR


# Labels ---------------------------------------------------------------------------------------------------------------

BOX, POLYGON = "0 0.5 0.5 0.2 0.2\n", "1 0.1 0.1 0.4 0.1 0.4 0.3\n"


@pytest.mark.parametrize("lines", [BOX + POLYGON, POLYGON + BOX, BOX + "\n" + POLYGON])
def test_boxes_among_polygons_are_left_out_of_the_statistics_as_of_training(lines: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt:[23]: is a (box|polygon) among"):
        parse_labels(lines, "a.txt")
    assert fuzz.run("labels", lines.encode()) == fuzz.ERROR  # compares stats, check, fix and both loaders with upstream


@pytest.mark.parametrize("lines", [BOX + BOX, POLYGON + POLYGON])
def test_boxes_alone_and_polygons_alone_are_read(lines: str) -> None:
    assert parse_labels(lines, "a.txt").shape == (2, 5)
    assert fuzz.run("labels", lines.encode()) == fuzz.RESULT


@pytest.mark.parametrize("line", ["0 .4 1e39 0 0.5", "0 0.5 -0.5 0.1 0", "0 0.5 0.5 0.1 -0.005"])
def test_a_box_without_a_size_is_said_to_cost_the_image_where_it_does(line: str) -> None:
    assert fuzz.run("labels", line.encode()) == fuzz.ERROR
    (read,) = check_lines(line, 2, (96, 72))
    assert [kind for kind, _ in read.faults] == ["no-size"] and "leaves the whole image out" in read.faults[0][1]


@pytest.mark.parametrize("channels", ["[]", "{a: 1}", "text", "0", "3.0", "true", "null"])
def test_channels_that_no_image_has(channels: str) -> None:
    text = f"train: images/train\nval: images/val\nnames: [a, b]\nchannels: {channels}\n"
    assert fuzz.run("data", (text, False)) == fuzz.ERROR


@pytest.mark.parametrize("classes", [10**9, 1e9, 10**400])
def test_more_classes_than_can_be_named(classes: float) -> None:
    assert fuzz.run("data", (f"train: images/train\nval: images/val\nnc: {classes}\n", False)) == fuzz.ERROR


def test_a_set_without_images_has_not_passed_the_check() -> None:
    assert fuzz.run("data", ("train: ''\nval: ''\nnames: [a, b]\n", False)) == fuzz.ERROR


@pytest.mark.parametrize("name", ["a\x85b", "\u2028.png", "../a\nb.png", "a\nb.png"])
def test_a_name_of_two_lines_in_a_coco_file(name: str) -> None:
    pytest.importorskip("supervision")
    content = fuzz.COCO | {"images": [fuzz.COCO["images"][0] | {"file_name": name}]}
    assert fuzz.run("coco", (json.dumps(content), False)) == fuzz.ERROR


@pytest.mark.parametrize("inner", [b"PK\5\6" + bytes(18), None])
def test_an_archive_inside_a_cut_one_does_not_pass_for_it(inner: bytes | None, tmp_path: Path) -> None:
    if inner is None:
        with zipfile.ZipFile(tmp_path / "inner.zip", "w") as out:
            out.writestr("other.txt", b"other")
        inner = (tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        out.writestr("a.txt", b"a")
        out.writestr("inner.zip", inner)
    whole = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(whole[: whole.rindex(inner) + len(inner)])
    with pytest.raises(UserError, match=r"set\.zip is damaged or incomplete"):
        extract(tmp_path / "set.zip", tmp_path / "into")
    (tmp_path / "set.zip").write_bytes(whole)
    extract(tmp_path / "set.zip", tmp_path / "into")
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["a.txt", "inner.zip"]


# Merging --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(5))
def test_boxes_and_scores_must_be_finite(value: float, place: int) -> None:
    row = [10.0, 10, 20, 20, 0.5]
    row[place] = value
    rows, one = torch.tensor([row]), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="finite"):
        merge(rows[:, :4], rows[:, 4], one, one, tile_grid(64, 64, 64, 0.0), (64, 64))


def test_boxes_turned_inside_out_are_refused() -> None:
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="x1 <= x2"):
        merge(torch.tensor([[20.0, 10, 10, 20]]), torch.ones(1), one, one, tile_grid(64, 64, 64, 0.0), (64, 64))


def test_absurd_boxes_take_no_time_and_leave_others_as_they_are() -> None:
    small = torch.tensor([[10.0, 10, 20, 20], [11, 10, 20, 20], [40, 40, 50, 50]])
    absurd = torch.tensor([[0.0, 1e9, 3e38, 1e9], [-3e38, 0, 0, 1]])
    boxes, scores = torch.cat((small, absurd)), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    whole = torch.full((5,), -1)
    started = time.perf_counter()
    found = merge(boxes, scores, torch.zeros(5), whole, tile_grid(64, 64, 64, 0.0), (64, 64))
    assert time.perf_counter() - started < 5
    np.testing.assert_array_equal(found.index, [0, 2, 3, 4])

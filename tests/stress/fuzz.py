"""Feeds made-up inputs to what reads users' files and arguments: python tests/stress/fuzz.py --help.

An input ends with a result, which is checked against what is stated here, with a clear error (one line that names the
file, row or argument), or unhandled: any other exception, a wrong result, or more than `LIMIT` seconds. The inputs are
the same ones for the same seed and the same version of Hypothesis. `tests/test_fuzz.py` runs fewer of the same.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import logging
import math
import operator
import re
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from unittest import mock
from xml.sax.saxutils import escape

import cv2
import hypothesis
import numpy as np
import torch
import ultralytics
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from ultralytics import YOLO, cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import verify_image_label
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER, TQDM

from small_object.datasets import stats as dataset_stats
from small_object.datasets.archives import extract
from small_object.datasets.check import check
from small_object.datasets.convert import from_coco, from_voc
from small_object.datasets.fix import fix
from small_object.errors import UserError
from small_object.files import replacing
from small_object.slicing.dataset import SlicedDataset
from small_object.slicing.merge import merge
from small_object.slicing.slicer import Slicer, TileDetections
from small_object.slicing.tiling import tile_grid, tiles_over

RESULT, ERROR = "result", "clear error"
LIMIT = 30  # seconds that an input may take


def clear(error: BaseException | str, *names: str) -> str:
    """Return that an input ended with a clear error, after a look at it: one line of text with some names in it."""
    text = str(error)
    assert text.strip() and len(text.splitlines()) == 1, f"not one line: {text!r}"
    for name in names:
        assert name in text, f"does not name {name}: {text}"
    return ERROR


# Odd values -----------------------------------------------------------------------------------------------------------

# No number between 65 and 10**9: a model of such width takes much memory and time, and does no other harm.
whole = st.one_of(st.integers(-3, 9), st.sampled_from([-(10**9), 16, 24, 64, 10**9, 10**20, 10**400]))
real = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 64.0, 1e308, 5e-324, -1.5])
words = st.one_of(
    st.sampled_from(["", " ", "nc", "d", "ch", "auto", "AUTO", "nearest", "None", "0.5", "1e3", "nan", "true", "a\nb"]),
    st.sampled_from(
        ["\u202e1", "é", "\uff11", "日本", "\x00", "\U0001f600", "x" * 300, "../..", "[1", "{", "'", "%s", "{0}"]
    ),
    st.text(max_size=6),
)
plain = st.one_of(st.none(), st.booleans(), whole, real, words)
odd = st.one_of(
    plain, plain, st.lists(plain, max_size=3), st.lists(st.lists(plain, max_size=2), max_size=2),
    st.dictionaries(words, plain, max_size=2),
)  # fmt: skip


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Give the path, keys and indices, of each part of nested lists and dictionaries."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*at, key)
        yield from places(part, (*at, key))


def spoil(
    draw: Callable[..., Any],
    value: Any,
    most: int,
    may: Callable[[Any, tuple], bool] = lambda *_: True,
    put: st.SearchStrategy = odd,
) -> int:
    """Replace, remove, repeat or add up to some parts of nested lists and dictionaries in place; return how many."""
    done = 0
    for _ in range(draw(st.integers(0, most))):
        choices = [path for path in places(value) if may(value, path)]
        if not choices:
            break
        *at, key = draw(st.sampled_from(choices))
        home, how = functools.reduce(operator.getitem, at, value), draw(st.sampled_from("rrrrdai"))
        if how == "d":
            del home[key]
        elif how == "r" or isinstance(home, dict):
            home[key] = draw(put)
        elif how == "a":
            home.insert(key + 1, deepcopy(home[key]))
        else:
            home.insert(key, draw(put))
        done += 1
    return done


def spoil_text(draw: Callable[..., Any], text: str, most: int = 2) -> str:
    """Remove, or put something odd in the place of, up to some pieces of a text."""
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, max(0, len(text) - 1)))
        end = start + draw(st.sampled_from([0, 1, 2, 5, 40, len(text)]))
        put = draw(
            st.sampled_from(["", ":", "-", "[", "]", "{", "\t", "\n", "&a", "*a", "!x ", "#", "'", "\x00", "é", "<"])
        )
        text = text[:start] + put + text[end:]
    return text


# Model rows -----------------------------------------------------------------------------------------------------------

FORK_BLOCKS = {"DualConv", "DWR", "C3k2DWR", "ScreeningLateral", "ScreeningFusion", "LightDetect"}


@dataclass(frozen=True)
class ModelCase:
    """A model YAML: as a dictionary or as the text of a file; `sound` if nothing in it is wrong."""

    content: dict[str, Any] | str
    sound: bool


@st.composite
def models(draw: Callable[..., Any]) -> ModelCase:
    """Make a small model of all blocks of this fork, with none to three mistakes in their rows or its own keys."""
    width, group = st.sampled_from([8, 16, 24]), st.sampled_from([1, 2, 4])
    pyramid, mid = draw(width), draw(width)
    fusion = draw(st.sampled_from([[], [2], [4, "nearest"], [1, "bilinear"], [4, "transpose"]]))
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

    def ours(value: dict[str, Any], path: tuple) -> bool:
        if path[0] in {"nwd", "nwd_assign", "scales"}:
            return True
        if path[0] not in {"backbone", "head"}:
            return False
        if len(path) == 1 or not isinstance(value[path[0]], list):
            return False
        row = value[path[0]][path[1]]
        return isinstance(row, list) and any(isinstance(part, str) and part in FORK_BLOCKS for part in row)

    wrong = spoil(draw, d, 3, ours)
    for key in draw(st.sets(st.sampled_from(["nwd", "nwd_assign", "scales", "nc", "backbone", "head"]), max_size=1)):
        if draw(st.integers(0, 3)) == 0:
            d[key] = draw(odd)
            wrong += 1
    if draw(st.integers(0, 3)):
        return ModelCase(d, not wrong)
    text = yaml.safe_dump(d, default_flow_style=None, sort_keys=False, allow_unicode=True)
    if not wrong and draw(st.booleans()):
        return ModelCase(text, True)
    return ModelCase(spoil_text(draw, text), False)


def run_model(case: ModelCase, folder: Path) -> str:
    """Build a model and run it."""
    given, name = deepcopy(case.content), "model YAML"
    if isinstance(given, str):
        file = folder / "fuzzed.yaml"
        file.write_bytes(given.encode("utf-8", "surrogatepass"))
        given, name = str(file), file.name
    try:
        model = DetectionModel(given, verbose=False) if isinstance(given, dict) else YOLO(given, task="detect").model
    except UserError as error:
        assert not case.sound, f"refused: {error}"
        return clear(error, name)
    strides = model.stride.tolist()
    assert not case.sound or strides == [4, 8], strides
    if not isinstance(model.model[-1], Detect):
        return RESULT  # upstream does not run a model without a head, and nothing can be done with it
    # 64 pixels are whole cells of the usual strides; upstream's command line rounds sizes likewise
    side = 64 if all(stride in {1, 2, 4, 8, 16, 32, 64} for stride in strides) else 256
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, side, side))
    anchors = sum(round(side / stride) ** 2 for stride in strides)
    assert output[0].shape == (1, 4 + model.model[-1].nc, anchors), output[0].shape
    return RESULT


# Arguments ------------------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Say whether a value is a number to upstream, to which True is 1."""
    return isinstance(value, (int, float)) and not math.isnan(value if isinstance(value, float) else 0)


def is_share(value: Any) -> bool:
    """Say whether a value is a number of 0..1."""
    return is_number(value) and 0 <= value <= 1


def is_slice(value: Any) -> bool:
    """Say whether a value is off, `auto`, or a whole number of at least 64."""
    if isinstance(value, str) or value is None:
        return value in ("auto", None)
    return is_number(value) and (value == 0 or (64 <= value < math.inf and value == int(value)))


# What each argument may be, as README and small_object.yaml tell users.
ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "nwd": lambda v: v is None or is_share(v),
    "nwd_assign": lambda v: v is None or is_share(v),
    "nwd_c": lambda v: v is None or (is_number(v) and 0 < v <= sys.float_info.max),
    "size_metrics": lambda v: isinstance(v, bool),
    "slice": is_slice,
    "slice_overlap": lambda v: is_number(v) and 0 <= v <= 0.9,
    "slice_batch": lambda v: is_number(v) and 1 <= v < math.inf and v == int(v),
    "slice_full": lambda v: isinstance(v, bool),
    "slice_skip": is_share,
    "slice_full_ratio": is_share,
    "slice_keep": is_share,
    "slice_empty": is_share,
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


TINY = """
nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, DualConv, [16, 2]]
  - [-1, 1, DualConv, [16, 2]]
head:
  - [[1, 2], 1, Detect, [nc]]
"""


@functools.cache
def tiny_model() -> Path:
    """Return the YAML of a tiny model."""
    file = Path(tempfile.mkdtemp(prefix="fuzz-model-")) / "tiny.yaml"
    file.write_text(TINY)
    return file


@functools.cache
def tiny_weights() -> Path:
    """Return the weights of a tiny model."""
    file = tiny_model().with_suffix(".pt")
    YOLO(tiny_model(), task="detect").save(file)
    return file


# Label files ----------------------------------------------------------------------------------------------------------

CLASSES = ["a", "b"]
SIZE = 96, 72  # width and height of the images in pixels
OBJECTS = b"0 0.5 0.5 0.25 0.25\n1 0.2 0.2 0.1 0.1\n"

class_words = st.sampled_from(
    [
        "0",
        "1",
        "1",
        "0",
        "00",
        "+1",
        "1.0",
        "2",
        "-1",
        "0.5",
        "nan",
        "inf",
        "1e400",
        "a",
        "\uff11",
        "0_1",
        "0x1",
        "-0",
        "1e10",
    ]
)
good_words = st.sampled_from(["0.5", "0.25", "0.1", ".4", "5e-1", "0.3333333"])
number_words = st.one_of(
    good_words,
    st.sampled_from(
        ["0", "1", "1.005", "1.02", "-0.005", "-0.5", "1e-9", "7", "1e39", "1e400", "-1e400", "nan", "inf"]
    ),
    st.sampled_from(["0,5", "x", "0_0.5", "\uff15", "1e", "--1", "0.5.", "1e-400", "\ufeff0.5", "\x000"]),
)


@st.composite
def label_lines(draw: Callable[..., Any], kinds: str) -> str:
    """Make a line of a label file: a box (g), a polygon (p), with any number of fields (m) or any text (o)."""
    kind = draw(st.sampled_from(kinds))
    if kind == "o":
        return draw(st.one_of(st.text(max_size=12), st.sampled_from(["", "  ", "# no", "0", "\t"])))
    count = {"g": 4, "p": draw(st.sampled_from([6, 8, 7])), "m": draw(st.integers(0, 9))}[kind]
    right = draw(st.integers(0, 4))  # four of five lines
    numbers, classes = (good_words, st.sampled_from("01")) if right else (number_words, class_words)
    fields = [draw(classes), *draw(st.lists(numbers, min_size=count, max_size=count))]
    return draw(st.sampled_from([" "] * 12 + ["  ", "\t", "\u00a0", ",", "\x1c"])).join(fields)


@st.composite
def label_files(draw: Callable[..., Any]) -> bytes:
    """Make the content of a label file."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=40))
    kinds = draw(st.sampled_from(["g", "g", "p", "gp", "ggggpmo"]))
    lines = draw(st.lists(label_lines(kinds), max_size=5))
    lines += draw(st.lists(st.sampled_from(lines), max_size=1)) if lines else []
    text = draw(st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\x0b", "\u2028", "\x85", "\n\n"])).join(lines)
    text += draw(st.sampled_from(["\n", ""]))
    form = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(form, "replace")


@functools.cache
def three_images() -> tuple[bytes, ...]:
    """Return PNG files that look like no other."""
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (9, 12, 3), dtype=np.uint8) for _ in range(3)]
    drawn = [cv2.resize(block, SIZE, interpolation=cv2.INTER_NEAREST) for block in blocks]
    return tuple(cv2.imencode(".png", image)[1].tobytes() for image in drawn)


def write_set(root: Path, labels: bytes = OBJECTS) -> None:
    """Write the images and labels of a set; those of the first training image are given."""
    for i, image in enumerate(three_images()):
        split = "val" if i == 2 else "train"
        for file, data in ((f"images/{split}/{i}.png", image), (f"labels/{split}/{i}.txt", OBJECTS if i else labels)):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(data)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder by its path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def train_on(kind: type[YOLODataset], folder: Path) -> list[tuple[int, int]] | str:
    """Return image number and objects of each sample of a training set, or the error's type."""
    options = {"slice": 64, "slice_full_ratio": 0.5, "mosaic": 0.0, "imgsz": 64}
    try:
        data = kind(
            img_path=str(folder / "images/train"), imgsz=64, batch_size=2, augment=True, rect=False,
            hyp=cfg.get_cfg(overrides=options), data={"names": dict(enumerate(CLASSES)), "channels": 3},
        )  # fmt: skip
    except Exception as error:
        return type(error).__name__
    return [(len(label["cls"]), len(data[i]["cls"])) for i, label in enumerate(data.labels)]


def run_labels(content: bytes, folder: Path) -> str:
    """Check, count, repair and train on a set of three images, of which one has the labels."""
    root = folder / "set"
    write_set(root, content)
    file = root / "set.yaml"
    file.write_text(f"train: images/train\nval: images/val\nnames: {CLASSES}\n")
    before = files_of(root)
    image, label = root / "images/train/0.png", root / "labels/train/0.txt"
    seen = verify_image_label((str(image), str(label), "", False, len(CLASSES), 0, 0, False))  # what training keeps
    refused = seen[0] is None

    report = check(file, 64, folder / "check")
    about = [finding for finding in report.findings if finding.file == "labels/train/0.txt"]
    out = [finding for finding in about if "leaves the whole image out" in finding.message]
    assert bool(out) == refused, f"training {'refuses' if refused else 'takes'} it, the check says {about}: {seen[-1]}"
    assert all(finding.line or finding.kind == "unreadable-labels" for finding in about)
    if not refused:
        solid = sum((row[3:] > 0).all() for row in seen[1])
        assert report.counts["objects"]["train"] == 2 + solid, (report.counts, seen[1])

    draws = len(content) % 16 == 0  # pictures take most of the time
    with contextlib.nullcontext() if draws else mock.patch.object(dataset_stats, "_draw"):
        found = dataset_stats.stats(file, 64, folder / "stats")
    assert (len(found.skipped) == 1) == refused, (found.skipped, seen[-1])
    for name, why in found.skipped.items():
        assert name == str(image)
        clear(why, "0.txt")

    both = [train_on(kind, root) for kind in (YOLODataset, SlicedDataset)]
    assert isinstance(both[0], list) == isinstance(both[1], list) and len(both[0]) == len(both[1]), both
    if isinstance(both[1], list):
        assert [number for number, _ in both[0]] == [number for number, _ in both[1]]
        assert len(both[1]) == 2 - refused
    for cache in root.glob("labels/*.cache*"):
        cache.unlink()

    new, again = folder / "fixed", folder / "again"
    repaired = fix(file, new, 64)
    assert files_of(root) == before, "the old set is not as it was"
    left = (new / "changes.csv").read_text(encoding="utf-8")
    for name in before:
        assert (new / name).is_file() or f"{name}," in left, f"{name} is gone"
    bad = [f for f in repaired.findings if f.level == "error" or f.kind == "near-duplicate-box"]
    assert not bad, bad
    fix(new / "set.yaml", again, 64)
    assert (again / "changes.csv").read_text(encoding="utf-8").count("\n") == 1, "the second repair changes something"
    for name, data in files_of(new).items():
        if name.startswith(("images", "labels")):
            assert (again / name).read_bytes() == data, name
    return ERROR if refused else RESULT


# Data YAMLs -----------------------------------------------------------------------------------------------------------

DATA = {
    "path": None,
    "train": "images/train",
    "val": ["images/val"],
    "test": None,
    "names": CLASSES,
    "nc": 2,
    "channels": 3,
}
tame = odd.filter(lambda value: not set(repr(value)) & set("./\\~*"))  # no path that leads out of the set's folder


@st.composite
def data_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a data set's YAML, and whether nothing is wrong with it."""
    content = {key: value for key, value in deepcopy(DATA).items() if value is not None or draw(st.booleans())}
    if draw(st.booleans()):
        content["names"] = dict(enumerate(CLASSES))
    wrong = spoil(draw, content, 2, put=tame)
    return yaml.safe_dump(content, allow_unicode=True), not wrong


def run_data(case: tuple[str, bool], folder: Path) -> str:
    """Check a set and count its objects."""
    root = folder / "set"
    write_set(root)
    file = root / "fuzzed.yaml"
    file.write_bytes(case[0].encode("utf-8", "surrogatepass"))
    ends = []
    for what in (check, dataset_stats.stats):
        try:
            with mock.patch.object(dataset_stats, "_draw"):
                what(file, 64, folder / what.__name__)
        except UserError as error:
            assert not case[1], f"refused: {error}"
            ends.append(clear(error, str(folder)))
        else:
            ends.append(RESULT)
    assert ends[0] == ends[1], ends
    return ends[0]


# Images ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageCase:
    """An image and the arguments of its prediction."""

    shape: tuple[int, ...]
    dtype: str
    noise: int
    file: bool
    args: dict[str, Any]


@st.composite
def images(draw: Callable[..., Any]) -> ImageCase:
    """Make an image of an odd shape and a way of slicing it."""
    side = st.one_of(st.sampled_from([1, 2, 7, 31, 63, 64, 65, 100, 129]), st.integers(1, 260))
    height, width = draw(side), draw(side)
    if draw(st.integers(0, 7)) == 0:
        height, width = draw(st.sampled_from([(7, 4000), (4000, 7), (1, 3000), (3000, 1), (1, 1), (1200, 1200)]))
    overlap = draw(st.sampled_from([0, 0.0, 0.2, 0.55, 0.9] if max(height, width) < 700 else [0, 0.2]))
    tile = draw(st.sampled_from([64, 64, 65, 96, 100, 127.0, 200, 5000, "auto"]))
    args = {
        "slice": tile, "slice_overlap": overlap, "slice_batch": draw(st.integers(1, 9)),
        "slice_full": draw(st.booleans()), "slice_skip": draw(st.sampled_from([0, 0.0, 0.3, 1.0])),
        "agnostic_nms": draw(st.booleans()), "max_det": draw(st.sampled_from([1, 50, 1000])),
        "imgsz": draw(st.sampled_from([32, 64, [32, 64]])),
    }  # fmt: skip
    channels = draw(st.sampled_from([(3,), (3,), (), (1,), (4,), (2,)]))
    dtype = draw(st.sampled_from(["uint8", "uint8", "uint16", "float32", "float64"]))
    return ImageCase((height, width, *channels), dtype, draw(st.integers(0, 3)), draw(st.booleans()), args)


@functools.cache
def tiny_detector() -> YOLO:
    """Return a model of random weights that finds something nearly everywhere."""
    torch.manual_seed(0)
    model = YOLO(tiny_model(), task="detect")
    for branch in model.model.model[-1].cv3:
        branch[-1].weight.data.mul_(20)
        branch[-1].bias.data.fill_(0.2)
    return model


def run_image(case: ImageCase, folder: Path) -> str:
    """Predict an image by tiles; where stock prediction takes it, slicing must."""
    rng = np.random.default_rng(case.noise)
    image = (rng.integers(0, 256, case.shape) * (case.noise > 0)).astype(case.dtype)
    source: Any = image
    if case.file:
        image = image.astype(np.uint16 if case.dtype == "uint16" else np.uint8)
        image = image[..., :3] if image.ndim > 2 and image.shape[2] == 2 else image
        if image.ndim > 2 and image.shape[2] == 2:
            image = image[..., 0]
        source = folder / "image.png"
        assert cv2.imwrite(str(source), image)
    plain_args = {"conf": 0.4, "device": "cpu", "verbose": False, "save": False, "slice": 0}
    model = tiny_detector()
    try:
        model.predict(source, **plain_args | {k: v for k, v in case.args.items() if not k.startswith("slice")})
    except Exception as error:
        with contextlib.suppress(type(error)):  # upstream's own
            model.predict(source, **plain_args | case.args)
            raise AssertionError(f"sliced, it works; stock: {error!r}") from error
        return ERROR
    (result,) = model.predict(source, **plain_args | case.args)
    height, width = result.orig_shape
    assert (height, width) == case.shape[:2]
    boxes = result.boxes.xyxy
    assert boxes.isfinite().all() and (boxes[:, :2] >= 0).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all(), boxes
    assert len(boxes) <= case.args["max_det"]
    tile, overlap = case.args["slice"], case.args["slice_overlap"]
    tile = max(64, int(np.max(case.args["imgsz"]))) if tile == "auto" else int(tile)
    if max(height, width) <= tile:
        assert result.tiles is None
        return RESULT
    step = tile - math.ceil(round(overlap * tile, 6))
    fewest = math.prod(1 + max(0, math.ceil((length - tile) / step)) for length in (height, width))
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in tile_grid(height, width, tile, overlap):
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert sum(result.tiles) == fewest and (case.args["slice_skip"] or result.tiles[1] == 0), result.tiles
    return RESULT


# Merging --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MergeCase:
    """Rows (x1, y1, x2, y2, score, class, source), the tiles' arguments and those of merging."""

    rows: list[tuple[float, ...]]
    grid: tuple[int, int, int, float]
    options: dict[str, Any]


@st.composite
def merges(draw: Callable[..., Any]) -> MergeCase:
    """Make boxes of every kind, most of them near an image."""
    number = st.one_of(st.integers(-5, 310), st.sampled_from([0.5, 64, 149.999, 300]), st.floats(-400, 400))
    wild = st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 1e9, 1e-30, 1e12])
    coordinate = st.one_of(number, number, number, wild) if draw(st.integers(0, 3)) == 0 else number
    score = st.one_of(*[st.floats(0, 1, width=32)] * 9, st.sampled_from([0.0, 1.0, math.nan, -1.0, math.inf]))
    kind = st.sampled_from([0, 0, 0, 1, 2.5, 79, 1e9])
    grid = draw(st.sampled_from([(300, 300, 150, 0.0), (200, 300, 100, 0.2), (10, 10, 64, 0.0), (90, 300, 64, 0.5)]))
    turned, last = draw(st.integers(0, 7)) == 0, len(tile_grid(*grid)) - 1
    places = st.integers(-3, last + 2) if draw(st.integers(0, 7)) == 0 else st.integers(-1, last)

    @st.composite
    def row(draw: Callable[..., Any]) -> tuple[float, ...]:
        x, y = ([draw(coordinate), draw(coordinate)] for _ in range(2))
        if not turned:
            x, y = sorted(x), sorted(y)
        return x[0], y[0], x[1], y[1], draw(score), draw(kind), draw(places)

    options = {
        "iou": st.sampled_from([0.0, 0.5, 1.0]), "margin": st.sampled_from([2.0, 0.1, 50.0, 0, -1, math.nan]),
        "min_cover": st.sampled_from([0.0, 0.7, 1.0]), "min_score_ratio": st.sampled_from([0.0, 0.25, 1.0]),
    }  # fmt: skip
    chosen = {name: draw(value) for name, value in options.items() if draw(st.integers(0, 7)) == 0}
    return MergeCase(draw(st.lists(row(), max_size=12)), grid, chosen)


def run_merge(case: MergeCase, folder: Path) -> str:
    """Merge boxes, as a function and as a slicer does."""
    height, width, tile, overlap = case.grid
    tiles = tile_grid(height, width, tile, overlap)
    chosen = tiles_over(np.array([row[:4] for row in case.rows]).reshape(-1, 4), height, width, tile, overlap)
    assert len(chosen) <= len(tiles) and (chosen >= 0).all() and (chosen <= (width, height) * 2).all()
    assert ((chosen[:, 2:] - chosen[:, :2]) == (min(tile, width), min(tile, height))).all()
    rows = torch.tensor(case.rows, dtype=torch.float64).reshape(-1, 7)
    boxes, scores, kinds, sources = rows[:, :4].float(), rows[:, 4].float(), rows[:, 5].float(), rows[:, 6].long()
    fits = bool(((sources >= -1) & (sources < len(tiles))).all()) and case.options.get("margin", 1) > 0
    fits &= bool(boxes.isfinite().all() and (boxes[:, :2] <= boxes[:, 2:]).all() and scores.isfinite().all())
    try:
        found = merge(boxes, scores, kinds, sources, tiles, (height, width), **case.options)
    except ValueError as error:
        assert not fits, f"refused: {error}"
        clear(error)
    else:
        assert fits, "accepted"
        order = found.index.tolist()
        assert len(set(order)) == len(order) and set(order) <= set(range(len(rows)))
        assert bool(order) == bool(len(rows))
        assert torch.equal(found.scores, scores[found.index]) and torch.equal(found.classes, kinds[found.index])
        assert (found.scores[:-1] >= found.scores[1:]).all()
        mine = boxes[found.index]
        assert (found.boxes[:, :2] <= mine[:, :2]).all() and (found.boxes[:, 2:] >= mine[:, 2:]).all(), "cuts a box"
        for box, kind in zip(found.boxes, found.classes, strict=True):
            same = boxes[kinds == kind]
            assert (box[:2] >= same[:, :2].min(0).values).all() and (box[2:] <= same[:, 2:].max(0).values).all()
    if not fits:
        return ERROR
    slicer = Slicer(tile, overlap)
    from_tiles = sources >= 0
    inside = torch.cat((boxes, scores[:, None], kinds[:, None]), 1)
    shown = TileDetections(inside[from_tiles], sources[from_tiles], tiles, 0)
    merged = slicer.merge((height, width), shown, inside[~from_tiles], max_det=5)
    assert merged.shape[1] == 6 and len(merged) <= 5 and bool(len(merged)) == bool(len(rows))
    return RESULT


# Annotations of other tools -------------------------------------------------------------------------------------------

COCO = {
    "images": [
        {"id": 1, "file_name": "0.png", "width": SIZE[0], "height": SIZE[1]},
        {"id": 2, "file_name": "1.png", "width": SIZE[0], "height": SIZE[1]},
        {"id": 3, "file_name": "2.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 10, 30, 20], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 3, "segmentation": [[5, 5, 20, 5, 20, 30]], "iscrowd": 0},
        {"id": 3, "image_id": 3, "category_id": 7, "bbox": [0, 0, 96, 72]},
    ],
    "categories": [{"id": 7, "name": "truck"}, {"id": 3, "name": "person"}],
}


@st.composite
def coco_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a COCO file, and whether nothing is wrong with it."""
    content = deepcopy(COCO)
    wrong = spoil(draw, content, 3)
    text = json.dumps(content)
    if draw(st.integers(0, 4)) == 0:
        return spoil_text(draw, text), False
    return text, not wrong


VOC = """<annotation><filename>0.png</filename><size><width>96</width><height>72</height><depth>3</depth></size>
<object><name>truck</name><difficult>0</difficult>
<bndbox><xmin>10</xmin><ymin>12</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
<object><name>person</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>96</xmax><ymax>72</ymax></bndbox></object></annotation>
"""


@st.composite
def voc_files(draw: Callable[..., Any]) -> tuple[str, bool]:
    """Make the text of a VOC annotation, and whether nothing is wrong with it."""
    text, wrong = VOC, draw(st.integers(0, 3))
    for _ in range(wrong):
        old = draw(st.sampled_from(["96<", "72<", "10<", "12<", "40<", "30<", ">1<", ">truck<", ">person<", "3<"]))
        new = escape(str(draw(plain.filter(lambda v: not isinstance(v, int) or abs(v) < 10**300))))
        text = text.replace(old, (">" if old[0] == ">" else "") + new + "<", 1)
    if wrong and draw(st.booleans()):
        text = spoil_text(draw, text)
    return text, not wrong


def imported(folder: Path, make: Callable[[], Path], sound: bool, objects: int) -> str:
    """Import a set; it must be one that the check can read, of so many objects if it is sound, or not be there."""
    try:
        data = make()
    except UserError as error:
        assert not sound, f"refused: {error}"
        left = [path for path in (folder / "out").rglob("*") if path.is_file()]
        assert not left, f"left behind: {left}"
        return clear(error, str(folder))
    report = check(data, 64, folder / "check")
    bad = [f for f in report.findings if f.level == "error" and f.kind not in {"leak", "shared-labels"}]
    assert not bad, bad
    assert not sound or sum(report.counts["objects"].values()) == objects, report.counts
    return RESULT


def run_coco(case: tuple[str, bool], folder: Path) -> str:
    """Import a COCO file."""
    file = folder / "coco/instances.json"
    file.parent.mkdir()
    file.write_bytes(case[0].encode("utf-8", "surrogatepass"))
    for i, image in enumerate(three_images()):
        (file.parent / f"{i}.png").write_bytes(image)
    return imported(folder, lambda: from_coco(file, folder / "out"), case[1], 3)


def run_voc(case: tuple[str, bool], folder: Path) -> str:
    """Import a set with VOC annotations, of which one is fuzzed."""
    root = folder / "voc"
    root.mkdir()
    for i, image in enumerate(three_images()):
        (root / f"{i}.png").write_bytes(image)
        (root / f"{i}.xml").write_text(VOC)
    (root / "0.xml").write_bytes(case[0].encode("utf-8", "surrogatepass"))
    return imported(folder, lambda: from_voc(root, folder / "out"), case[1], 6)


# Archives -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArchiveCase:
    """Members of an archive: name, content, and kind as `file`, `folder` or `link`."""

    form: str
    members: list[tuple[str, bytes, str]]
    cut: int  # bytes that are missing at its end

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        files = {"a.txt", "b/c.txt", "b/d.txt", "é/日本.txt", "A.txt"}
        return (
            len(self.members) > 0
            and not self.cut
            and all(name in files and kind == "file" for name, _, kind in self.members)
        )


parts = st.one_of(
    st.sampled_from(
        ["a", "b", "images", "a.txt", "..", ".", "...", "C:", "c:x", "CON", "~", " ", ". .", "é", "日本", "a:b"]
    ),
    st.sampled_from(
        ["__MACOSX", ".DS_Store", "._a", "\u202e", "\\", "..\\..", "-rf", "x" * 300, "e\u0301", "\U0001f600", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
)


@st.composite
def archives(draw: Callable[..., Any]) -> ArchiveCase:
    """Make an archive with odd names."""
    name = st.builds(
        lambda front, middle, end: front + "/".join(middle) + end,
        st.sampled_from(["", "", "", "/", "//", "./", "../", "C:/", "\\\\host\\"]),
        st.lists(parts, min_size=1, max_size=3),
        st.sampled_from(["", "", "", "/"]),
    )
    plain_name = st.sampled_from(["a.txt", "b/c.txt", "b/d.txt", "é/日本.txt", "b/", "A.txt", "b"])
    names = plain_name if draw(st.booleans()) else st.one_of(plain_name, name)
    kinds = st.sampled_from(["file"] * 8 + ["folder", "link"] * draw(st.integers(0, 1)))
    member = st.tuples(names, st.binary(max_size=4), kinds)
    form = draw(st.sampled_from(["zip", "tar", "tar.gz"]))
    cut = draw(st.sampled_from([0] * 6 + [1, 20, 300, 1200]))
    return ArchiveCase(form, draw(st.lists(member, max_size=4, unique_by=lambda m: m[0].rstrip("/"))), cut)


def run_archive(case: ArchiveCase, folder: Path) -> str:
    """Extract an archive: all of it inside the folder, or nothing."""
    file, into = folder / f"set.{case.form}", folder / "deep/into"
    if case.form == "zip":
        with zipfile.ZipFile(file, "w") as out, contextlib.ExitStack() as quiet:
            quiet.enter_context(mock.patch("warnings.warn"))  # of names that come twice
            for name, data, kind in case.members:
                info = zipfile.ZipInfo("x")
                info.filename = name + "/" * (kind == "folder" and not name.endswith("/"))
                info.external_attr = (0o120777 if kind == "link" else 0o100644) << 16
                out.writestr(info, b"" if info.filename.endswith("/") else data)
    else:
        with tarfile.open(file, "w" if case.form == "tar" else "w:gz") as out:
            for name, data, kind in case.members:
                info = tarfile.TarInfo(name)
                info.type = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[kind]
                info.linkname = "../../outside" if kind == "link" else ""
                info.size = len(data) if kind == "file" else 0
                out.addfile(info, io.BytesIO(data[: info.size]))
    if case.cut:
        file.write_bytes(file.read_bytes()[: -case.cut])
    before = files_of(folder)
    try:
        extract(file, into)
    except UserError as error:
        assert files_of(folder) == before and not into.exists(), "left something behind"
        assert not case.sound, f"refused: {error}"
        return clear(error, file.name)
    after = files_of(folder)
    assert {name: after.get(name) for name in before} == before
    assert all(PurePosixPath(name).is_relative_to("deep/into") for name in after.keys() - before.keys())
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    ends = ("/", "\\") if case.form == "zip" else ()  # of folders' names
    kept = [member for member in case.members if not any(is_junk(part) for part in re.split(r"[/\\]", member[0]))]
    wanted = sorted(data for name, data, kind in kept if kind == "file" and not name.endswith(ends))
    assert sorted(data for name, data in after.items() if name not in before) == wanted
    return RESULT


def is_junk(name: str) -> bool:
    """Say whether a file or folder of this name is left behind by macOS or Windows."""
    return name in {"__MACOSX", ".DS_Store", "Thumbs.db"} or name.startswith("._")


# All kinds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of inputs.

    Attributes:
        what: What is fuzzed, and what takes it.
        inputs: Makes the inputs.
        run: Runs one, with an empty folder to write to; returns `RESULT` or `ERROR`, or raises.
    """

    what: str
    inputs: st.SearchStrategy
    run: Callable[[Any, Path], str]


KINDS = {
    "models": Kind("rows and keys of model YAMLs, as dictionaries and as files", models(), run_model),
    "arguments": Kind(
        "values of this fork's arguments, by `get_cfg` and the `yolo` command", arguments(), run_arguments
    ),
    "labels": Kind(
        "label files, by `--check`, `--stats`, `--fix` and training with and without slices", label_files(), run_labels
    ),
    "data": Kind("data YAMLs, by `--check` and `--stats`", data_files(), run_data),
    "images": Kind("shapes and types of images, sliced in every way, by prediction", images(), run_image),
    "merges": Kind("boxes, scores and sources that are merged", merges(), run_merge),
    "coco": Kind("COCO files, by `--from coco` and `--check`", coco_files(), run_coco),
    "voc": Kind("VOC files, by `--from voc` and `--check`", voc_files(), run_voc),
    "archives": Kind("names and kinds of members, and ends, of zip and tar files", archives(), run_archive),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the library tells users, and its progress bars, off the screen."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL + 1)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        LOGGER.setLevel(level)


class Overtime(BaseException):
    """An input took too long; no `except Exception` of what is tried stands in its way."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Overtime in what takes longer (where there are signals: not on Windows)."""

    def stop(*_: Any) -> None:
        raise Overtime(f"took more than {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def run(kind: str, case: Any) -> str:
    """Run one input of a kind in a folder of its own; return `RESULT` or `ERROR`, or raise what it raised."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, quiet(), limited(LIMIT):
        return KINDS[kind].run(case, Path(folder))


@dataclass
class Counts:
    """How the inputs of a kind ended."""

    ended: Counter[str] = field(default_factory=Counter)
    unhandled: dict[str, tuple[Any, str]] = field(default_factory=dict)  # the first input of each place, its traceback
    slowest: float = 0.0  # seconds


def place_of(error: BaseException) -> str:
    """Return the type of an error, and the last line of this project and of all that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    lines = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (mine[-1], frames[-1]))
    return f"{type(error).__name__} in {', '.join(lines)}: {str(error)[:40]!r}"


def count(name: str, examples: int, start: int, seconds: float = math.inf) -> Counts:
    """Run many inputs of a kind, each counted, none shrunk.

    Args:
        name: The kind.
        examples: Number of inputs.
        start: Seed.
        seconds: Time after which the rest is left out.
    """
    counts, began = Counts(), time.perf_counter()
    bar = TQDM(total=examples, desc=name, leave=False)

    @seed(start)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], print_blob=False,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(KINDS[name].inputs)
    def each(case: Any) -> None:
        started = time.perf_counter()
        if started - began > seconds:
            return
        try:
            end = run(name, case)
        except (Exception, Overtime) as error:
            end = "unhandled"
            counts.unhandled.setdefault(place_of(error), (case, traceback.format_exc()))
        counts.ended[end] += 1
        counts.slowest = max(counts.slowest, time.perf_counter() - started)
        bar.update()

    each()
    bar.close()
    return counts


def table(found: dict[str, Counts], command: str) -> str:
    """Write the counts as a table in Markdown."""
    versions = f"Ultralytics {ultralytics.__version__}, torch {torch.__version__}, Hypothesis {hypothesis.__version__}"
    lines = [
        f"Written by `{command}` with {versions}.", "",
        "| kind | what | inputs | result | clear error | unhandled | slowest |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, counts in found.items():
        ended = counts.ended
        numbers = (ended.total(), ended[RESULT], ended[ERROR], ended["unhandled"])
        cells = [name, KINDS[name].what, *map(str, numbers), f"{counts.slowest:.1f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; return 1 where an input ended unhandled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of inputs, default all")
    parser.add_argument("--examples", type=int, default=2000, help="inputs of each kind, default 2000")
    parser.add_argument("--seconds", type=float, default=math.inf, help="most seconds for a kind, default no limit")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(argv)
    if args.examples < 1:
        parser.error("--examples must be at least 1")
    torch.set_num_threads(1)
    found = {}
    for name in args.kinds:
        found[name] = count(name, args.examples, args.seed, args.seconds)
        LOGGER.info(f"{name}: {dict(found[name].ended)}")
        for place, (case, trace) in found[name].unhandled.items():
            LOGGER.error(f"{name}: {place}\n    {case!r:.2000}\n{trace}")
    text = table(found, " ".join(["python tests/stress/fuzz.py", *(argv if argv is not None else sys.argv[1:])]))
    LOGGER.info(text)
    if args.out:
        with replacing(args.out) as new:
            new.write_text(text, encoding="utf-8")
    return int(any(counts.unhandled for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Makes model YAML rows of this fork's blocks, and names the row in which a model YAML is wrong."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import math
import textwrap
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from ultralytics import __version__
from ultralytics.nn.modules import DWR, C3k2DWR, Conv, Detect, DualConv, LightDetect, ScreeningFusion, ScreeningLateral
from ultralytics.nn.tasks import BaseModel, DetectionModel
from ultralytics.nn.tasks import fuse_deconv_and_bn as stock_fuse_deconv_and_bn
from ultralytics.nn.tasks import parse_model as stock_parse_model
from ultralytics.nn.tasks import yaml_model_load as stock_yaml_model_load
from ultralytics.utils.checks import check_version

from small_object.errors import UserError
from ultralytics_overlay import require, require_parameters

require_parameters(DetectionModel.__init__, "cfg")
require_parameters(stock_yaml_model_load, "path")

CHANNEL_BLOCKS = (DWR, C3k2DWR, DualConv, ScreeningLateral)  # take (c1, c2, ...)
REPEAT_BLOCKS = (C3k2DWR,)  # take their repeat count after (c1, c2)
HEADS = (LightDetect,)  # take what Detect takes
FUSION_BLOCKS = (ScreeningFusion,)  # take the widths of their inputs, all alike, and keep them
ARGUMENTS: dict[str, tuple[Callable[[Any], bool], str]] = {  # of blocks by their annotation: what may stand in a row
    "int": (lambda value: type(value) is int and value >= 1, "a whole number from 1"),
    "float": (lambda value: type(value) in {int, float} and 0 < value < math.inf, "a number greater than 0"),
    "bool": (lambda value: value in (True, False), "True or False"),
    "str": (lambda value: isinstance(value, str), "a text"),
}
MAX_REPEATS = 1000  # of a row, and
MAX_DEPTH = 10  # of a scale: more is a mistake, and would be built for hours

# Runs in parse_model before its first branch: C3k2DWR asks for YOLO11's head as C3k2 does, and fusion blocks get their
# widths.
_STATEMENTS = """
if m is C3k2DWR:
    legacy = False
if m in FUSION_BLOCKS:
    c2 = ch[f[0]]
    args = [[ch[x] for x in f], *args]
"""


def _extend(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return upstream's parse_model with this fork's blocks in its two sets of modules and in its branches.

    The function is extended in its own syntax tree and compiled in this module, so that none of it is copied.

    Raises:
        ImportError: If upstream's function no longer has the sets, the branch or the variables that this relies on.
    """
    where = "ultralytics.nn.tasks.parse_model"
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)  # tracebacks point into upstream's file

    sets = {
        node.targets[0].id: node.value.args[0].elts
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and node.value.args
        and isinstance(node.value.args[0], ast.Set)
    }
    for name, blocks in (("base_modules", CHANNEL_BLOCKS), ("repeat_modules", REPEAT_BLOCKS)):
        require(where, name in sets, f"no longer has the set `{name}`")
        sets[name].extend(ast.Name(block.__name__, ast.Load()) for block in blocks)
    heads = [
        node.elts for node in ast.walk(tree) if isinstance(node, ast.Set) and "Detect" in map(ast.unparse, node.elts)
    ]
    require(where, len(heads) > 0, "no longer has a set of heads with `Detect`")
    for names in heads:
        names.extend(ast.Name(head.__name__, ast.Load()) for head in HEADS)

    branches = [
        (loop, branch)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        for branch in loop.body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "m in base_modules"
    ]
    require(where, len(branches) == 1, "no longer has one branch `if m in base_modules`")
    known = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    for name in ("args", "c2", "ch", "f", "i", "legacy", "m", "n"):
        require(where, name in known, f"no longer has the variable `{name}`")
    loop, branch = branches[0]
    statements = ast.parse(_STATEMENTS).body
    fusion = statements[-1]
    assert isinstance(fusion, ast.If)
    fusion.orelse = [branch]
    at = loop.body.index(branch)
    for statement in statements:
        ast.copy_location(statement, branch)
    loop.body[at : at + 1] = statements

    found: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), inspect.getsourcefile(function) or where, "exec"), globals(), found)
    return found[function.__name__]


@functools.wraps(stock_yaml_model_load)
def yaml_model_load(path: str | Path) -> dict[str, Any]:
    """Load a model YAML, with its rows checked: upstream goes by the last one before it builds any.

    Args:
        path: See upstream's `yaml_model_load`.

    Raises:
        UserError: If the file is not YAML, holds no mapping, or a row or a key is wrong. Names the file and the place.
    """
    try:
        d = stock_yaml_model_load(path)
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise UserError(what if str(path) in what else f"{path}: {what}") from error
    _check_rows(d)
    return d


_parse_rows = _extend(stock_parse_model)


@functools.wraps(stock_parse_model)
def parse_model(d: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model YAML, this fork's blocks included.

    Args:
        d: The model YAML as a dictionary.
        *args: Passed on to upstream's parse_model: input channels, verbosity.
        **kwargs: Likewise.

    Returns:
        The layers, and the indices of those whose output later layers need.

    Raises:
        UserError: If a row or a key is wrong. Names the file, the row and what is wrong with it.
    """
    rows = _check_rows(d)
    _check_nwd(d)
    default_act = Conv.default_act
    try:
        return _parse_rows(d, *args, **kwargs)
    except Exception as error:
        frame = _frame_of(error.__traceback__, _parse_rows.__code__.co_name)
        if frame is None or not isinstance(i := frame.get("i"), int):
            raise
        if isinstance(error, (ImportError, OSError)):  # a missing package or download, which no change of the row mends
            raise
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, TypeError) and isinstance(rows[i][0], int) and "'int' object" in str(error):
            what = "takes a list of rows as `from`, such as [-1, 6]"
        raise _row_error(d, i, rows[i], what) from error
    finally:
        Conv.default_act = default_act  # of the whole process; upstream restores it if all rows are built, or never


def _name_of(d: dict[str, Any]) -> str:
    return str(d.get("yaml_file") or "model YAML")


def _row_error(d: dict[str, Any], index: int, row: Any, what: str) -> UserError:
    text = yaml.safe_dump(row, default_flow_style=True, width=10_000).removesuffix("...\n")
    return UserError(f"{_name_of(d)}: row {index} `{' '.join(text.split())}`: {' '.join(what.split())}")


def _check_keys(d: dict[str, Any]) -> None:
    """Check the keys of a model YAML that upstream reads before it comes to the rows."""
    name = _name_of(d)
    for key in ("backbone", "head"):
        if not isinstance(d.get(key), list):
            raise UserError(f"{name}: `{key}` must be a list of rows [from, repeats, module, arguments]")
    if not d["backbone"]:
        raise UserError(f"{name}: `backbone` must have a row")
    if what := _wrong_shape(d["backbone"][0]):
        raise _row_error(d, 0, d["backbone"][0], what)
    if not (scales := d.get("scales")):
        return
    scale = d.get("scale") or (next(iter(scales)) if isinstance(scales, dict) else None)
    numbers = scales.get(scale) if isinstance(scales, dict) else None
    numbers = numbers if isinstance(numbers, list) and len(numbers) == 3 else [None]
    if not all(type(number) in {int, float} and number > 0 for number in numbers):
        raise UserError(f"{name}: `scales` must have {scale!r}: [depth, width, max_channels], numbers greater than 0")
    if numbers[0] > MAX_DEPTH or not math.isfinite(numbers[1]):
        raise UserError(f"{name}: the depth of scale {scale!r} must be at most {MAX_DEPTH} and its width finite")


def _check_rows(d: dict[str, Any]) -> list[Any]:
    """Return a copy of the rows of a model YAML, checked as far as they can be before anything is built."""
    _check_keys(d)
    rows = deepcopy(d["backbone"] + d["head"])
    for i, row in enumerate(rows):
        if what := _wrong_with(row, i):
            raise _row_error(d, i, row, what)
    return rows


def _wrong_shape(row: Any) -> str:
    right = isinstance(row, list) and len(row) == 4
    return "" if right else "must have 4 entries: [from, repeats, module, arguments]"


def _wrong_with(row: Any, i: int) -> str:
    """Say what is wrong with row `i` of a model YAML, or return an empty string."""
    if what := _wrong_shape(row):
        return what
    sources, repeats, name, arguments = row
    for source in sources if isinstance(sources, list) and sources else [sources]:
        if type(source) is not int:
            return f"`from` must be a row number or a list of them, not {source!r}"
        if source >= i > 0 or source < -max(i, 1) or (i == 0 and source > 0):
            return f"`from` {source} is not an earlier row; use -1 for the row before, or 0 to {max(i - 1, 0)}"
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        return f"repeats must be a whole number from 1 to {MAX_REPEATS}, not {repeats!r}"
    if not isinstance(name, str) or not (_is_module(name) or (i == 0 and name == "Silence")):  # upstream replaces that
        modules = [key for key in globals() if _is_module(key)] + [f"nn.{key}" for key in vars(nn)]
        near = difflib.get_close_matches(str(name), modules, n=1)
        return f"unknown module {str(name)!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if not isinstance(arguments, list):
        return f"arguments must be a list, not {arguments!r}"
    module = globals().get(name)
    if module in HEADS and repeats > 1:
        return f"repeats must be 1 for a head, not {repeats}"
    return _wrong_arguments(module, arguments) if module in {*CHANNEL_BLOCKS, *FUSION_BLOCKS} else ""


def _wrong_arguments(block: type[nn.Module], arguments: list[Any]) -> str:
    """Say what is wrong with the arguments of a row of one of this fork's blocks, or return an empty string.

    Their number and types, which are those of the block's own; what they must be to each other, it says itself. A text
    may stand for a number or a key of the YAML, as upstream reads it.
    """
    given_by_upstream = {"c1", "channels"} | ({"n"} if block in REPEAT_BLOCKS else set())
    parameters = [p for p in inspect.signature(block).parameters.values() if p.name not in given_by_upstream]
    names = ", ".join(p.name for p in parameters)
    if len(arguments) > len(parameters):
        return f"has {len(arguments)} arguments, but {block.__name__} takes at most {len(parameters)}: {names}"
    if len(arguments) < sum(p.default is p.empty for p in parameters):
        return f"has {len(arguments) or 'no'} arguments, but needs at least the first of: {names}"
    for parameter, value in zip(parameters, arguments, strict=False):
        fits, what = ARGUMENTS[parameter.annotation]
        if not (isinstance(value, str) or fits(value)):
            return f"{parameter.name} must be {what}, not {value!r}"
    return ""


def _is_module(name: str) -> bool:
    home, _, attribute = name.rpartition(".")
    if home == "torchvision.ops":
        return callable(getattr(importlib.import_module(home), attribute, None))  # only here: slow to load
    value = {"": globals(), "nn": vars(nn)}.get(home, {}).get(attribute)
    return isinstance(value, type) and issubclass(value, nn.Module)


def _check_nwd(d: dict[str, Any]) -> None:
    """Check the keys `nwd` and `nwd_assign` of a model YAML as the arguments of those names are checked."""
    from ultralytics.cfg import check_cfg  # cfg imports more than a model needs

    for key in ("nwd", "nwd_assign"):
        try:
            check_cfg({key: d.get(key, 0.0)})
        except (TypeError, ValueError) as error:
            raise UserError(f"{_name_of(d)}: key `{key}`: {error}") from error


def _frame_of(traceback: TracebackType | None, function: str) -> dict[str, Any] | None:
    """Return the local variables of the innermost call of `function` in a traceback, or None."""
    found = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == function and "m" in traceback.tb_frame.f_locals:
            found = traceback.tb_frame.f_locals
        traceback = traceback.tb_next
    return found


require("ultralytics.nn.tasks.BaseModel._predict_once", hasattr(BaseModel, "_predict_once"), "is gone")
_stock_init = DetectionModel.__init__


@functools.wraps(_stock_init)
def _init(self: DetectionModel, *args: Any, **kwargs: Any) -> None:
    """Build the model; name the row whose inputs do not fit in the forward pass that finds the strides."""
    given = inspect.signature(_stock_init).bind(self, *args, **kwargs)
    given.apply_defaults()
    d = given.arguments["cfg"]
    if not isinstance(d, dict):
        given.arguments["cfg"] = d = yaml_model_load(d)
    _check_keys(d)
    if type(nc := d.get("nc")) is not int or nc < 1:
        raise UserError(f"{_name_of(d)}: `nc` must be the number of classes, from 1, not {nc!r}")
    try:
        _stock_init(*given.args, **given.kwargs)
    except UserError:
        raise
    except Exception as error:
        frame = _frame_of(error.__traceback__, BaseModel._predict_once.__name__)
        if frame is None:
            raise
        i, d = frame["m"].i, self.yaml
        raise _row_error(d, i, (d["backbone"] + d["head"])[i], f"inputs do not fit: {error}") from error


require("ultralytics.nn.tasks.DetectionModel._predict_augment", hasattr(DetectionModel, "_predict_augment"), "is gone")
_stock_predict_augment = DetectionModel._predict_augment


@functools.wraps(_stock_predict_augment)
def _predict_augment(self: DetectionModel, x: Any) -> Any:
    """Run a model on an image and its scaled and mirrored copies, also with a head that only differs in its layers."""
    head = self.model[-1]
    if type(head) not in HEADS:
        return _stock_predict_augment(self, x)
    kind, head.__class__ = type(head), Detect  # upstream asks for exactly this class; outputs and methods are its
    try:
        return _stock_predict_augment(self, x)
    finally:
        head.__class__ = kind


# In place: the models of the other tasks inherit from upstream's class.
DetectionModel.__init__ = _init
DetectionModel._predict_augment = _predict_augment


require_parameters(stock_fuse_deconv_and_bn, "deconv", "bn")
require(
    "ultralytics.nn.tasks.BaseModel.fuse",
    "fuse_deconv_and_bn" in BaseModel.fuse.__code__.co_names,
    "no longer uses `fuse_deconv_and_bn`",
)


def fuse_deconv_and_bn(deconv: nn.ConvTranspose2d, bn: nn.BatchNorm2d) -> nn.ConvTranspose2d:
    """Fold a BatchNorm into the transposed convolution before it, such as `ScreeningFusion`'s.

    Args:
        deconv: The convolution, changed in place.
        bn: The BatchNorm after it.

    Returns:
        The convolution, which needs no gradients.
    """
    if not check_version(__version__, "<8.4.105"):
        return stock_fuse_deconv_and_bn(deconv, bn)
    # Those versions multiply the weights of an input channel, not of an output channel, by BatchNorm's scale.
    deconv.weight, deconv.bias = fuse_conv_bn_weights(
        deconv.weight, deconv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose=True
    )
    return deconv.requires_grad_(False)

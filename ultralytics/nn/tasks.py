"""Adds this fork's blocks to upstream's `parse_model`, and names the wrong row of a model YAML."""

import ast
import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.nn.modules import DWR, C3k2DWR, Conv, DualConv, LightDetect, ScreeningFusion, ScreeningLateral
from ultralytics.nn.tasks import DetectionModel
from ultralytics.nn.tasks import parse_model as stock_parse_model
from ultralytics.nn.tasks import yaml_model_load as stock_yaml_model_load

from small_object.errors import UserError
from small_object.model_yaml import check_model_yaml, find_misfit, row_error, yaml_error
from small_object.shipped import unique_name
from small_object.transfer import transfer
from ultralytics_overlay import require, require_parameters

require_parameters(DetectionModel.__init__, "cfg", "ch", "nc", "verbose")

COUNTERPARTS = {DWR: "Conv", DualConv: "Conv", ScreeningLateral: "Conv", C3k2DWR: "C3k2", LightDetect: "Detect"}
"""The upstream module whose rows `parse_model` reads like a block's: the block joins each set with that module."""

BLOCKS = {DWR, DualConv, ScreeningLateral, C3k2DWR, ScreeningFusion}

_LOOP_START = """
d["row"] = i
if m == "C3k2DWR":
    legacy = False
"""
_BRANCH = """
if m is ScreeningFusion:
    c2 = ch[f[0]]
    args = [[ch[x] for x in f], *args]
"""


def _extend(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return upstream's `parse_model` with this fork's blocks in its sets of modules and a branch for fusion blocks.

    The syntax tree of the function is extended and compiled in this module, so that nothing is copied.

    Raises:
        ImportError: If upstream's function no longer has the sets, the branch or the variables that this relies on.
    """
    where, code = "ultralytics.nn.tasks.parse_model", function.__code__
    gone = {"args", "c2", "ch", "d", "f", "i", "legacy", "m"} - {*code.co_varnames, *code.co_cellvars}
    require(where, not gone, f"no longer has the variables {sorted(gone)}")
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    ast.increment_lineno(tree, code.co_firstlineno - 1)  # tracebacks point into upstream's file

    num_sets = dict.fromkeys(COUNTERPARTS.values(), 0)
    for names in [node.elts for node in ast.walk(tree) if isinstance(node, ast.Set)]:
        stock = set(map(ast.unparse, names))
        names.extend(ast.Name(block.__name__, ast.Load()) for block, name in COUNTERPARTS.items() if name in stock)
        num_sets = {name: number + (name in stock) for name, number in num_sets.items()}
    require(where, num_sets == {"Conv": 1, "C3k2": 2, "Detect": 2}, "no longer has the expected sets of modules")

    branches = [
        (loop, branch)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        for branch in loop.body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "m in base_modules"
    ]
    require(where, len(branches) == 1, "no longer has one branch `if m in base_modules`")
    loop, branch = branches[0]
    loop.body[:0] = ast.parse(_LOOP_START).body
    (fusion,) = ast.parse(_BRANCH, mode="exec").body
    fusion.orelse, branch.orelse = branch.orelse, [fusion]  # type: ignore[attr-defined]

    namespace: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), code.co_filename, "exec"), globals(), namespace)
    return namespace[function.__name__]


_parse_rows = _extend(stock_parse_model)


@functools.wraps(stock_yaml_model_load)
def yaml_model_load(path: str | Path) -> dict[str, Any]:
    """Load a model YAML, under a name that shows whose it is, and check its rows before upstream guesses the task.

    Raises:
        UserError: If the file is not YAML, holds no mapping, or a row or a key is wrong. Names the file and the place.
    """
    try:
        d = stock_yaml_model_load(path)
    except FileNotFoundError as error:  # upstream names the file without the letter of the scale
        raise FileNotFoundError(f"'{path}' does not exist") from error
    except (ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise UserError(what if str(path) in what else f"{path}: {what}") from error
    d["yaml_file"] = str(unique_name(Path(d["yaml_file"])))  # the log's summary shows it
    _check_rows(d)
    return d


@functools.wraps(stock_parse_model)
def parse_model(d: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model YAML, this fork's blocks included; see upstream.

    Raises:
        UserError: If a row or a key is wrong. Names the file, the row and what is wrong with it.
    """
    rows = _check_rows(d)
    d = {**d, "row": None}  # the extended function notes the row it is at
    default_act = Conv.default_act
    try:
        return _parse_rows(d, *args, **kwargs)
    except (ImportError, OSError):  # a missing package or download is no mistake in the row
        raise
    except Exception as error:
        if (i := d["row"]) is None:
            raise
        what, name = f"{type(error).__name__}: {error}", rows[i][2]
        if isinstance(error, KeyError) and error.args == (name,):
            near = difflib.get_close_matches(str(name), globals(), n=1)
            what = f"unknown module {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        raise row_error(d, i, rows[i], what) from error
    finally:
        Conv.default_act = default_act  # of the whole process; upstream restores it only after a success


_stock_init = DetectionModel.__init__


@functools.wraps(_stock_init)
def _init(
    self: DetectionModel, cfg: Any = "yolo26n.yaml", ch: int = 3, nc: int | None = None, verbose: bool = True
) -> None:
    """Build the model. If the forward pass that finds the strides fails, name the row whose inputs do not fit."""
    d = cfg if isinstance(cfg, dict) else yaml_model_load(cfg)
    rows = _check_rows(d)
    if type(d.get("nc")) is not int or d["nc"] < 1:
        raise yaml_error(d, f"`nc` must be the number of classes, at least 1, not {d.get('nc')!r}")
    try:
        _stock_init(self, d, ch, nc, verbose)
    except Exception as error:
        if (i := find_misfit(error)) is None:
            raise
        raise row_error(d, i, rows[i], f"inputs do not fit: {error}") from error


DetectionModel.__init__ = _init  # in place: the models of the other tasks inherit from upstream's class


_stock_load = DetectionModel.load


@functools.wraps(_stock_load)
def _load(self: DetectionModel, weights: Any, verbose: bool = True) -> None:
    """Load weights. From a model with other rows, each row takes those of the row in the same role."""
    source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
    if not transfer(source, self, verbose):
        _stock_load(self, weights, verbose)


DetectionModel.load = _load


def _check_rows(d: dict[str, Any]) -> list[Any]:
    """Check the rows and keys of a model YAML before anything is built; return a copy of the rows."""
    from ultralytics.cfg import check_cfg  # cfg imports more than a model needs

    for key in ("nwd", "nwd_assign", "head_init", "paste"):  # checked like the arguments of those names
        try:
            check_cfg({key: d.get(key)})
        except UserError as error:
            raise yaml_error(d, f"key `{key}`: {error}") from error
    return check_model_yaml(d)

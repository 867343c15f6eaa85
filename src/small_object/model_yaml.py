"""Checks a model YAML before any of its layers is built, and names the wrong row."""

import math
from collections.abc import Mapping
from copy import deepcopy
from traceback import walk_tb
from typing import Any

import yaml

from small_object.errors import UserError, one_line

MAX_REPEATS, MAX_DEPTH = 1000, 10  # of a row and of a scale; more would take hours to build
LIST_MODULES = {"Concat", "Detect", "LightDetect", "ScreeningFusion"}  # take a list of rows


def check_model_yaml(d: Mapping[str, Any]) -> list[Any]:
    """Check the keys and rows of a model YAML, but not what a module makes of its arguments.

    Returns:
        A copy of the rows.

    Raises:
        UserError: If a key or a row is wrong. Names the file, the row and what is wrong with it.
    """
    for key in ("backbone", "head"):
        if not isinstance(d.get(key), list):
            raise yaml_error(d, f"`{key}` must be a list of rows [from, repeats, module, arguments]")
    if not d["backbone"]:
        raise yaml_error(d, "`backbone` must have a row")
    if (scales := d.get("scales")) and not _is_scale(scales, d.get("scale")):
        what = f"numbers greater than 0, depth at most {MAX_DEPTH}, width finite"
        raise yaml_error(d, f"`scales` must have {d.get('scale') or 'a name'!r}: [depth, width, max_channels], {what}")
    rows: list[Any] = deepcopy(d["backbone"] + d["head"])
    for i, row in enumerate(rows):
        if what := _find_mistake(row, i):
            raise row_error(d, i, row, what)
    return rows


def yaml_error(d: Mapping[str, Any], what: str) -> UserError:
    """Return an error that names the file of a model YAML."""
    return UserError(f"{d.get('yaml_file') or 'model YAML'}: {one_line(what)}")


def row_error(d: Mapping[str, Any], index: int, row: Any, what: str) -> UserError:
    """Return an error that names the file of a model YAML and a row of it."""
    text = yaml.safe_dump(row, default_flow_style=True, width=10_000).removesuffix("...\n")
    return yaml_error(d, f"row {index} `{one_line(text)}`: {what}")


def _is_scale(scales: Any, scale: Any) -> bool:
    try:
        depth, width, max_channels = scales[scale or next(iter(scales))]
        return bool(0 < depth <= MAX_DEPTH and 0 < width < math.inf and max_channels > 0)
    except (KeyError, TypeError, ValueError):
        return False


def _find_mistake(row: Any, i: int) -> str:
    """Return what is wrong with row `i`, or an empty string."""
    if not isinstance(row, list) or len(row) != 4:
        return "must have 4 entries: [from, repeats, module, arguments]"
    sources, repeats, name, arguments = row
    for source in sources if isinstance(sources, list) and sources else [sources]:
        if type(source) is not int:
            return f"`from` must be a row number or a list of them, not {source!r}"
        if source >= i > 0 or source < -max(i, 1) or (i == 0 and source > 0):
            return f"`from` {source} is not an earlier row; use -1 for the row before, or 0 to {max(i - 1, 0)}"
    if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
        return f"repeats must be a whole number from 1 to {MAX_REPEATS}, not {repeats!r}"
    if not isinstance(name, str) or not isinstance(arguments, list):
        return f"must end with the name of a module and a list of its arguments, not {name!r} and {arguments!r}"
    if name in LIST_MODULES and not isinstance(sources, list):
        return f"{name} takes a list of rows as `from`, such as [-1, 6]"
    return ""


def find_misfit(error: BaseException) -> int | None:
    """Return the index of the layer that raised an error in upstream's forward pass, or None if none did."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "_predict_once"]
    return getattr(frames[-1].f_locals.get("m"), "i", None) if frames else None

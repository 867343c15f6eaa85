"""Checks this fork's arguments as upstream checks its own, and puts a relative `project` where the user stands."""

from __future__ import annotations

import copy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.cfg import CFG_BOOL_KEYS, CFG_FLOAT_KEYS, CFG_FRACTION_KEYS, CFG_INT_KEYS
from ultralytics.cfg import check_cfg as stock_check_cfg
from ultralytics.cfg import check_dict_alignment as stock_check_dict_alignment
from ultralytics.cfg import entrypoint as stock_entrypoint
from ultralytics.cfg import get_save_dir as stock_get_save_dir
from ultralytics.cfg import merge_equals_args as stock_merge_equals_args
from ultralytics.utils import LOGGER, SMALL_OBJECT_CFG_PATH, YAML

from small_object.errors import UserError
from small_object.slicing.tiling import MAX_OVERLAP, MIN_TILE
from ultralytics_overlay import require_parameters

require_parameters(stock_check_cfg, "cfg", "hard")
require_parameters(stock_get_save_dir, "args", "name")
require_parameters(stock_entrypoint, "debug")

CFG_FRACTION_KEYS = CFG_FRACTION_KEYS | {"nwd", "nwd_assign", "slice_skip", "slice_full_ratio", "slice_keep"}
CFG_FRACTION_KEYS |= {"slice_overlap", "slice_empty"}
CFG_INT_KEYS = CFG_INT_KEYS | {"slice_batch"}
CFG_FLOAT_KEYS = CFG_FLOAT_KEYS | {"nwd_c"}
CFG_BOOL_KEYS = CFG_BOOL_KEYS | {"size_metrics", "slice_full"}
CFG_POSITIVE_KEYS = frozenset({"nwd_c"})


def check_cfg(cfg: dict[str, Any], hard: bool = True) -> None:
    """Check the types and values of arguments, this fork's included.

    Args:
        cfg: Arguments; values that upstream converts are converted in place.
        hard: See upstream's `check_cfg`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of its range.
    """
    stock_check_cfg(cfg, hard)
    for k in CFG_POSITIVE_KEYS & cfg.keys():
        if cfg[k] is not None and not 0 < cfg[k] <= sys.float_info.max:  # not inf, nor an int that no float can hold
            raise ValueError(f"'{k}={cfg[k]}' is an invalid value. '{k}' must be finite and greater than 0.")
    if (overlap := cfg.get("slice_overlap") or 0) > MAX_OVERLAP:
        raise ValueError(f"'slice_overlap={overlap}' is an invalid value. It must be between 0.0 and {MAX_OVERLAP}.")
    if (batch := cfg.get("slice_batch", 1)) < 1:
        raise ValueError(f"'slice_batch={batch}' is an invalid value. 'slice_batch' must be >= 1.")
    _check_slice(cfg.get("slice"), cfg.get("task"))


def _check_slice(slice: Any, task: str | None) -> None:
    """Check the side of tiles, for the task that it is given for."""
    if slice is None or slice == "auto":
        pass
    elif not isinstance(slice, (int, float)) or slice is True or slice % 1:  # nan % 1 and inf % 1 are nan
        raise TypeError(f"'slice={slice}' is invalid. 'slice' must be a whole number of pixels, 0 or 'auto'.")
    elif slice and slice < MIN_TILE:
        raise ValueError(f"'slice={slice}' is an invalid value. 'slice' must be at least {MIN_TILE} pixels, or 0.")
    if slice and task not in {None, "detect"}:
        raise ValueError(f"'slice={slice}' is invalid for task={task}. Slicing works for task=detect.")


def get_save_dir(args: SimpleNamespace, name: str | None = None) -> Path:
    """Return the folder of a run, with a relative `project` taken from the working folder.

    Args:
        args: Arguments of the run.
        name: See upstream's `get_save_dir`.

    Returns:
        The folder. Without `project` it is upstream's.
    """
    if getattr(args, "project", None) and not getattr(args, "save_dir", None):
        args = copy.copy(args)
        args.project = str(Path(args.project).expanduser().absolute())
    return stock_get_save_dir(args, name)


def entrypoint(debug: str = "") -> None:
    """Run the `yolo` command; a mistake of the user ends it with one line and exit status 1 instead of a traceback.

    Ctrl-C ends it with one line and, as for a program that has no handler of its own, exit status 130.

    Args:
        debug: See upstream's `entrypoint`.
    """
    try:
        stock_entrypoint(debug)
    except Exception as error:
        if message := _users_mistake(error):
            sys.exit(f"yolo: {message}")
        raise
    except KeyboardInterrupt:
        LOGGER.info("yolo: stopped")
        sys.exit(128 + signal.SIGINT)
    if sys.argv[1:] == ["cfg"]:
        YAML.print(SMALL_OBJECT_CFG_PATH)


def _users_mistake(error: BaseException | None) -> str:
    """Return the message of a mistake in the arguments, or of the `UserError` behind `error`, or an empty string."""
    functions = check_cfg, _check_slice, stock_check_cfg, stock_check_dict_alignment, stock_merge_equals_args
    checks = {function.__code__ for function in functions}
    while error is not None:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        if isinstance(error, UserError) or (place is not None and place.tb_frame.f_code in checks):
            # One of a loader process has its traceback there as text, and the message at its end. After an empty line
            # upstream may explain the whole command line.
            said = str(error).rpartition(f"{UserError.__name__}: ")[2].strip()
            return " ".join(said.partition("\n\n")[0].split())
        error = error.__cause__
    return ""

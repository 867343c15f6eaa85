"""Checks this fork's arguments as upstream checks its own; resolves a relative `project` in the current directory."""

import copy
import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.cfg import CFG_BOOL_KEYS, CFG_FLOAT_KEYS, CFG_FRACTION_KEYS, CFG_INT_KEYS
from ultralytics.cfg import check_cfg as stock_check_cfg
from ultralytics.cfg import check_dict_alignment as stock_check_dict_alignment
from ultralytics.cfg import entrypoint as stock_entrypoint
from ultralytics.cfg import get_save_dir as stock_get_save_dir
from ultralytics.cfg import merge_equals_args as stock_merge_equals_args
from ultralytics.utils import LOGGER, YAML

from small_object.arguments import DEFAULTS_PATH, check_arguments
from small_object.errors import UserError, explain

CFG_FRACTION_KEYS = CFG_FRACTION_KEYS | {"nwd", "nwd_assign", "slice_skip", "slice_full_ratio", "slice_keep"}
CFG_FRACTION_KEYS |= {"slice_overlap", "slice_iou", "slice_empty"}
CFG_INT_KEYS = CFG_INT_KEYS | {"slice_batch", "slice_samples", "slice_val", "paste"}
CFG_FLOAT_KEYS = CFG_FLOAT_KEYS | {"nwd_c", "min_box"}
CFG_BOOL_KEYS = CFG_BOOL_KEYS | {"size_metrics", "slice_full", "head_init"}


class WrongTypeError(UserError, TypeError):
    """An argument has the wrong type."""


class WrongSyntaxError(SyntaxError, UserError):
    """The command line can't be parsed, or names an unknown argument."""


def _raises_user_error(check: Callable[..., Any]) -> Callable[..., Any]:
    """Make a check of arguments raise a `UserError` that is also of the type that the check raises."""

    @functools.wraps(check)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return check(*args, **kwargs)
        except TypeError as error:
            raise WrongTypeError(str(error)) from error
        except SyntaxError as error:
            raise WrongSyntaxError(str(error)) from error
        except ValueError as error:
            raise UserError(str(error)) from error

    return checked


check_dict_alignment = _raises_user_error(stock_check_dict_alignment)
merge_equals_args = _raises_user_error(stock_merge_equals_args)


@_raises_user_error
def check_cfg(cfg: dict[str, Any], hard: bool = True) -> None:
    """Check the types and values of arguments, this fork's included; see upstream.

    Raises:
        WrongTypeError: If an argument has the wrong type.
        UserError: If an argument is out of its range.
    """
    stock_check_cfg(cfg, hard)
    check_arguments(cfg)


def get_save_dir(args: SimpleNamespace, name: str | None = None) -> Path:
    """Return the folder of a run; a relative `project` is resolved in the current directory. See upstream."""
    if getattr(args, "project", None) and not getattr(args, "save_dir", None):
        args = copy.copy(args)
        args.project = str(Path(args.project).expanduser().absolute())
    return stock_get_save_dir(args, name)


def entrypoint(debug: str = "") -> None:
    """Run the `yolo` command. A user's mistake ends it with one line and exit status 1 instead of a traceback.

    Ctrl-C ends it with one line and exit status 130. See upstream for `debug`.
    """
    try:
        stock_entrypoint(debug)
    except Exception as error:
        if (message := explain(error)) is None:
            raise
        sys.exit(f"yolo: {message}")
    except KeyboardInterrupt:
        LOGGER.info("yolo: stopped")
        sys.exit(128 + signal.SIGINT)
    if sys.argv[1:] == ["cfg"]:
        YAML.print(DEFAULTS_PATH)

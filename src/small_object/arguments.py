"""The arguments that this project adds to `yolo`: their values and defaults."""

import sys
from pathlib import Path
from typing import Any

import yaml

MIN_TILE = 64  # minimum side of a tile in pixels
MAX_OVERLAP = 0.9  # of the side of a tile
BOX_TASKS = ("detect", "obb", "segment", "pose")  # of models that find boxes
NEEDED_TO_SLICE = "needs a model of boxes that keeps the aspect of its inputs, unlike RT-DETR"
DEFAULTS_PATH = Path(__file__).with_name("default.yaml")
DEFAULTS: dict[str, Any] = yaml.safe_load(DEFAULTS_PATH.read_text(encoding="utf-8"))


def check_arguments(cfg: dict[str, Any]) -> None:
    """Check all or some arguments for what upstream's checks of types and ranges don't cover.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range.
    """
    if (c := cfg.get("nwd_c")) is not None and not 0 < c <= sys.float_info.max:  # not inf or more than a float holds
        raise ValueError(f"'nwd_c={c}' is an invalid value. 'nwd_c' must be finite and greater than 0.")
    if not 0 <= (limit := cfg.get("min_box") or 0) < sys.float_info.max:
        raise ValueError(f"'min_box={limit}' is an invalid value. 'min_box' must be finite and at least 0.")
    if (overlap := cfg.get("slice_overlap") or 0) > MAX_OVERLAP:
        raise ValueError(f"'slice_overlap={overlap}' is an invalid value. It must be between 0.0 and {MAX_OVERLAP}.")
    for name, minimum in {"slice_batch": 0, "slice_samples": 1, "slice_val": 1, "paste": 0}.items():
        if (count := cfg.get(name)) is not None and count < minimum:
            raise ValueError(f"'{name}={count}' is an invalid value. '{name}' must be >= {minimum}.")
    side, task = cfg.get("slice"), cfg.get("task")
    sides = side if isinstance(side, (list, tuple)) else [side, side]
    if side is None or side == "auto":
        pass
    elif len(sides) != 2 or any(not isinstance(x, (int, float)) or x is True or x % 1 for x in sides):
        raise TypeError(  # nan % 1 and inf % 1 are nan
            f"'slice={side}' is invalid. 'slice' must be a whole number of pixels, [height, width], 0 or 'auto'."
        )
    elif side and min(sides) < MIN_TILE:
        raise ValueError(f"'slice={side}' is an invalid value. 'slice' must be at least {MIN_TILE} pixels, or 0.")
    if cfg.get("paste") and task not in {None, *BOX_TASKS}:
        raise ValueError(f"'paste={cfg['paste']}' is invalid for task={task}. It works for {', '.join(BOX_TASKS)}.")
    if side and task not in {None, *BOX_TASKS}:
        raise ValueError(f"'slice={side}' is invalid for task={task}. Slicing works for {', '.join(BOX_TASKS)}.")
    if cfg.get("slice_roi") and not side and side is not None:
        raise ValueError(f"'slice_roi={cfg['slice_roi']}' is invalid without slicing. Set 'slice' too.")


def drop_defaults(args: dict[str, Any]) -> dict[str, Any]:
    """Return arguments without those of this fork that have defaults, so that stock Ultralytics can read the rest."""
    return {key: value for key, value in args.items() if key not in DEFAULTS or value != DEFAULTS[key]}

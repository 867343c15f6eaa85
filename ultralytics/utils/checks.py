"""Finds this fork's model and data files by name, as upstream finds its own, and shows its status in `yolo checks`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER
from ultralytics.utils.checks import check_file as stock_check_file
from ultralytics.utils.checks import collect_system_info as stock_collect_system_info

from small_object.status import status
from ultralytics_overlay import FOLDER, require_parameters

require_parameters(stock_check_file, "file", "hard")


@functools.wraps(stock_check_file)
def check_file(file: str | Path, *args: Any, **kwargs: Any) -> Any:
    """Return the path of a file, searching this fork's files where upstream has none of that name.

    A path that starts with `ultralytics/` is this fork's file first, also where the command does not run from the root:
    there upstream would take its own file of the same path.

    Args:
        file: Path or name of a file.
        *args: See upstream's `check_file`.
        **kwargs: Likewise.
    """
    name = str(file).strip()
    # Path.exists raises where a name is too long or a folder closed
    if name and not os.path.exists(name):  # noqa: PTH110
        overlay = Path(FOLDER)
        if Path(name).parts[:1] == (overlay.name,) and (path := overlay.parent / name).is_file():
            return str(path)
        if Path(name).name == name and not stock_check_file(name, hard=False, download=False):
            found = sorted(overlay.rglob(name))
            if len(found) == 1:
                return str(found[0])
    return stock_check_file(file, *args, **kwargs)


@functools.wraps(stock_collect_system_info)
def collect_system_info() -> dict[str, Any]:
    """Print and return what upstream collects, and the status of the overlay."""
    info = stock_collect_system_info()
    info["Small Object Info"] = status()
    LOGGER.info("\n" + "\n".join(f"{name:<23}{value}" for name, value in info["Small Object Info"].items()))
    return info

"""Finds this fork's model and data files by name, as upstream finds its own, and shows its status in `yolo checks`."""

import functools
import os
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER
from ultralytics.utils.checks import check_file as stock_check_file
from ultralytics.utils.checks import collect_system_info as stock_collect_system_info

from small_object.shipped import find_by_name, find_by_path
from small_object.status import status
from ultralytics_overlay import require_parameters

require_parameters(stock_check_file, "hard")


@functools.wraps(stock_check_file)
def check_file(file: str | Path, *args: Any, **kwargs: Any) -> Any:
    """Return the path of a file; search this fork's files if upstream has none of that name.

    A path that starts with `ultralytics/` or `datasets/` means this fork's file first, in any current directory, since
    upstream would take its own file of that path. A data YAML of an installed wheel is copied to the current directory,
    where its images will be stored.

    Raises:
        UserError: If a data YAML can't be copied to the current directory.
    """
    name = str(file).strip()
    # Path.exists raises an error if a name is too long or a folder can't be searched
    if name and not os.path.exists(name):  # noqa: PTH110
        is_stock = functools.partial(stock_check_file, name, hard=False, download=False)
        found = find_by_path(name) or find_by_name(name, is_stock)
        if found is not None:
            return str(found)
    return stock_check_file(file, *args, **kwargs)


@functools.wraps(stock_collect_system_info)
def collect_system_info() -> dict[str, Any]:
    """Print and return upstream's information and the status of the overlay."""
    info = stock_collect_system_info()
    info["Small Object Info"] = status()
    LOGGER.info("\n" + "\n".join(f"{name:<23}{value}" for name, value in info["Small Object Info"].items()))
    return info

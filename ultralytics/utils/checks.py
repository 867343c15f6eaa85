"""Finds this fork's model and data files by name, as upstream finds its own, and shows its status in `yolo checks`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER
from ultralytics.utils.checks import check_file as stock_check_file
from ultralytics.utils.checks import collect_system_info as stock_collect_system_info

from small_object.errors import UserError
from small_object.files import replacing
from small_object.status import status
from ultralytics_overlay import FOLDER, IS_WHEEL, require_parameters

require_parameters(stock_check_file, "file", "hard")

HOME = Path(FOLDER).parent  # of `ultralytics/` and `datasets/`: the checkout, or a folder in `site-packages`


@functools.wraps(stock_check_file)
def check_file(file: str | Path, *args: Any, **kwargs: Any) -> Any:
    """Return the path of a file, searching this fork's files where upstream has none of that name.

    A path that starts with `ultralytics/` or `datasets/` is this fork's file first, wherever the command runs: upstream
    would take its own file of the same path. A data YAML of an installed wheel is copied into the working folder, where
    its images will be stored.

    Args:
        file: Path or name of a file.
        *args: See upstream's `check_file`.
        **kwargs: Likewise.

    Raises:
        UserError: If a data YAML cannot be copied into the working folder.
    """
    name = str(file).strip()
    # Path.exists raises where a name is too long or a folder closed
    if name and not os.path.exists(name):  # noqa: PTH110
        found = _find_by_path(name) or _find_by_name(name)
        if found is not None:
            return str(found)
    return stock_check_file(file, *args, **kwargs)


def _find_by_path(name: str) -> Path | None:
    """Return this fork's file of a path such as `ultralytics/cfg/models/11/yolo11.yaml`, or None."""
    if Path(name).parts[0] not in {"ultralytics", "datasets"} or not (file := HOME / name).is_file():
        return None
    return _copy_from_wheel(file)


def _find_by_name(name: str) -> Path | None:
    """Return this fork's only file of a bare name such as `yolo11-smallob.yaml` if upstream has none, or None."""
    if Path(name).name != name or stock_check_file(name, hard=False, download=False):
        return None
    files = [*Path(FOLDER).rglob("*.yaml"), *HOME.glob("datasets/*/*.yaml")]
    found = [file for file in files if file.name == name]
    return _copy_from_wheel(found[0]) if len(found) == 1 else None


def _copy_from_wheel(file: Path) -> Path:
    """Return a file, or its copy in the working folder if it is a data YAML that lies in `site-packages`."""
    path = file.relative_to(HOME)
    if not IS_WHEEL or path.parts[0] != "datasets":
        return file
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as new:
                new.write_bytes(file.read_bytes())
    except OSError as error:
        raise UserError(f"{path.absolute()}: cannot be written: {error.strerror}") from error
    return path.absolute()


@functools.wraps(stock_collect_system_info)
def collect_system_info() -> dict[str, Any]:
    """Print and return what upstream collects, and the status of the overlay."""
    info = stock_collect_system_info()
    info["Small Object Info"] = status()
    LOGGER.info("\n" + "\n".join(f"{name:<23}{value}" for name, value in info["Small Object Info"].items()))
    return info

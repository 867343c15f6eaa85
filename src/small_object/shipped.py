"""Finds the model and data files of this project by path or name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_object.errors import UserError
from small_object.files import write_file
from ultralytics_overlay import FOLDER, IS_WHEEL

RECOMMENDED = Path(FOLDER) / "cfg/models/11/yolo11.yaml"
SUFFIX = "-light-smallob"  # of its second name, which no stock file has: `yolo11n-light-smallob.yaml`
HOME = Path(FOLDER).parent  # of `ultralytics/` and `datasets/`: the checkout, or a folder in `site-packages`


def find_by_path(name: str) -> Path | None:
    """Return this fork's file at a path such as `ultralytics/cfg/models/11/yolo11.yaml`, or None."""
    if Path(name).parts[0] not in {"ultralytics", "datasets"} or not (file := HOME / name).is_file():
        return None
    return _copy_from_wheel(file)


def find_by_name(name: str, is_stock: Callable[[], Any]) -> Path | None:
    """Return this fork's only file with a bare name such as `yolo11-smallob.yaml` if upstream has none, or None."""
    if Path(name).name != name or is_stock():
        return None
    if name == f"{RECOMMENDED.stem}{SUFFIX}.yaml":
        return RECOMMENDED
    files = [*Path(FOLDER).rglob("*.yaml"), *HOME.glob("datasets/*/*.yaml")]
    found = [file for file in files if file.name == name]
    return _copy_from_wheel(found[0]) if len(found) == 1 else None


def unique_name(path: Path) -> Path:
    """Return a model YAML's path, with the recommended model's second name if it is that file, at any scale.

    Example:
        >>> unique_name(Path("ultralytics/cfg/models/11/yolo11s.yaml")).name
        'yolo11s-light-smallob.yaml'
    """
    if not re.fullmatch(rf"{RECOMMENDED.stem}[nslmx]?\.yaml", path.name):
        return path
    file = path.with_name(RECOMMENDED.name)
    is_recommended = (file if file.exists() else HOME / file).resolve() == RECOMMENDED.resolve()
    return path.with_name(f"{path.stem}{SUFFIX}.yaml") if is_recommended else path


def _copy_from_wheel(file: Path) -> Path:
    """Return a file, or its copy in the current directory if it is a data YAML in `site-packages`."""
    path = file.relative_to(HOME)
    if not IS_WHEEL or path.parts[0] != "datasets":
        return file
    try:
        if not path.is_file():
            write_file(path, file.read_bytes())
    except OSError as error:
        raise UserError(f"{path.absolute()}: cannot be written: {error.strerror}") from error
    return path.absolute()
